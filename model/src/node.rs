//! The network side of a node object (Calico's `spec.bgp`, tunnel addresses, WireGuard keys).

use crate::Node;
use crate::ip::{self, Family};
use ipnet::IpNet;
use serde_json::{Map, Value};
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// What a node object says about one address family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyNet {
    /// The node's address with the prefix of its subnet.
    pub address: Option<IpNet>,
    /// Its address inside the VXLAN.
    pub vxlan: Option<IpAddr>,
    /// The MAC of its VTEP, where it is not the derived one.
    pub vxlan_mac: Option<[u8; 6]>,
    pub wireguard: Option<IpAddr>,
    /// Its WireGuard public key, base64.
    pub wireguard_key: Option<String>,
}

/// What a node object says about the node's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNet {
    pub v4: FamilyNet,
    pub v6: FamilyNet,
    pub ipip: Option<Ipv4Addr>,
    /// Every address of the node that the object names, tunnel addresses excluded.
    pub addresses: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
}

/// A place in a node object: the path below the resource, without `metadata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeField {
    Address(Family),
    Vxlan(Family),
    VxlanMac(Family),
    Ipip,
    Wireguard(Family),
    WireguardKey(Family),
}

impl NodeField {
    pub const ALL: [Self; 11] = [
        Self::Address(Family::V4),
        Self::Address(Family::V6),
        Self::Vxlan(Family::V4),
        Self::Vxlan(Family::V6),
        Self::VxlanMac(Family::V4),
        Self::VxlanMac(Family::V6),
        Self::Ipip,
        Self::Wireguard(Family::V4),
        Self::Wireguard(Family::V6),
        Self::WireguardKey(Family::V4),
        Self::WireguardKey(Family::V6),
    ];

    /// Members below the resource (Calico's NodeSpec and NodeStatus).
    pub fn path(self) -> &'static [&'static str] {
        use Family::{V4, V6};
        match self {
            Self::Address(V4) => &["spec", "bgp", "ipv4Address"],
            Self::Address(V6) => &["spec", "bgp", "ipv6Address"],
            Self::Vxlan(V4) => &["spec", "ipv4VXLANTunnelAddr"],
            Self::Vxlan(V6) => &["spec", "ipv6VXLANTunnelAddr"],
            Self::VxlanMac(V4) => &["spec", "vxlanTunnelMACAddr"],
            Self::VxlanMac(V6) => &["spec", "vxlanTunnelMACAddrV6"],
            Self::Ipip => &["spec", "bgp", "ipv4IPIPTunnelAddr"],
            Self::Wireguard(V4) => &["spec", "wireguard", "interfaceIPv4Address"],
            Self::Wireguard(V6) => &["spec", "wireguard", "interfaceIPv6Address"],
            Self::WireguardKey(V4) => &["status", "wireguardPublicKey"],
            Self::WireguardKey(V6) => &["status", "wireguardPublicKeyV6"],
        }
    }

    /// The text that stands there.
    pub fn get(self, node: &Node) -> Option<&str> {
        let (first, rest) = self.path().split_first()?;
        let map = if *first == "spec" { &node.spec.other } else { node.other.get(*first)?.as_object()? };
        let (last, between) = rest.split_last()?;
        let map = between.iter().try_fold(map, |map, part| map.get(*part)?.as_object())?;
        map.get(*last)?.as_str().filter(|text| !text.is_empty())
    }

    /// Writes or removes it; true when that changed the object.
    pub fn set(self, node: &mut Node, value: Option<&str>) -> bool {
        if self.get(node) == value {
            return false;
        }
        let path = self.path();
        let map = if path[0] == "spec" { &mut node.spec.other } else { child(&mut node.other, path[0]) };
        let (last, between) = path[1..].split_last().expect("every path has two parts or more");
        let map = between.iter().fold(map, |map, part| child(map, part));
        match value {
            Some(text) => map.insert((*last).to_owned(), Value::from(text)),
            None => map.remove(*last),
        };
        true
    }
}

fn child<'m>(map: &'m mut Map<String, Value>, name: &str) -> &'m mut Map<String, Value> {
    let value = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made an object a line above")
}

impl NodeNet {
    /// What a node object says. Texts that cannot be read count as absent.
    pub fn of(node: &Node) -> Self {
        Self {
            v4: FamilyNet::of(node, Family::V4),
            v6: FamilyNet::of(node, Family::V6),
            ipip: ip_of(NodeField::Ipip.get(node)).and_then(|ip| match ip {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            }),
            addresses: addresses(node),
            labels: node.metadata.labels.clone(),
        }
    }

    pub fn family(&self, family: Family) -> &FamilyNet {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl FamilyNet {
    fn of(node: &Node, family: Family) -> Self {
        let ip = |field: NodeField| ip_of(field.get(node)).filter(|ip| Family::of(*ip) == family);
        let address = NodeField::Address(family).get(node).and_then(interface);
        Self {
            address: address.filter(|net| Family::of_net(net) == family),
            vxlan: ip(NodeField::Vxlan(family)),
            vxlan_mac: NodeField::VxlanMac(family).get(node).and_then(mac),
            wireguard: ip(NodeField::Wireguard(family)),
            wireguard_key: NodeField::WireguardKey(family).get(node).map(str::to_owned),
        }
    }
}

/// `address/length`, or an address alone, which has a subnet of its own.
fn interface(text: &str) -> Option<IpNet> {
    if text.contains('/') { ip::parse_interface(text).ok() } else { ip::parse_ip(text).ok().map(IpNet::from) }
}

fn ip_of(text: Option<&str>) -> Option<IpAddr> {
    text.and_then(|text| ip::parse_ip(text).ok())
}

/// `spec.addresses`, and the addresses of `spec.bgp`.
fn addresses(node: &Node) -> Vec<IpAddr> {
    let listed = node.spec.other.get("addresses").and_then(Value::as_array);
    let listed = listed.into_iter().flatten().filter_map(|entry| entry.get("address")?.as_str());
    let own = Family::BOTH.into_iter().filter_map(|family| NodeField::Address(family).get(node));
    let mut all: Vec<IpAddr> =
        own.chain(listed).filter_map(|text| interface(text).map(|net| net.addr())).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Six bytes in hexadecimal with colons.
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// The MAC of a node's VTEP where its object names none: `f` and the first five bytes of the SHA-1 of
/// the node's name, for IPv6 of the name with `-v6` (as Felix derives it).
pub fn vtep_mac(node: &str, family: Family) -> [u8; 6] {
    let mut sha = Sha1::new();
    sha.update(node);
    if family == Family::V6 {
        sha.update("-v6");
    }
    let hash = sha.finalize();
    [b'f', hash[0], hash[1], hash[2], hash[3], hash[4]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::NodeSpec;

    #[test]
    fn what_is_set_is_read_back_and_removed_again() {
        let mut node = Node::new("n", NodeSpec::default());
        for field in NodeField::ALL {
            assert!(field.set(&mut node, Some("10.0.0.1")));
            assert!(!field.set(&mut node, Some("10.0.0.1")));
            assert_eq!(field.get(&node), Some("10.0.0.1"));
            assert!(field.set(&mut node, None));
            assert_eq!(field.get(&node), None);
        }
    }

    #[test]
    fn a_node_of_calico_is_understood() {
        let json = br#"{"kind":"Node","metadata":{"name":"n"},"spec":{"bgp":{"ipv4Address":"192.0.2.7/24",
            "ipv4IPIPTunnelAddr":"10.0.0.9"},"ipv4VXLANTunnelAddr":"10.0.0.1","vxlanTunnelMACAddr":"66:00:01:02:03:ff",
            "addresses":[{"address":"192.0.2.7/24"},{"address":"198.51.100.3"}]}}"#;
        let node = <Node as crate::Stored>::decode(&crate::keys::node("n"), json).unwrap();
        let net = NodeNet::of(&node);
        assert_eq!(net.v4.address, Some("192.0.2.7/24".parse().unwrap()));
        assert_eq!(net.v4.vxlan, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(net.v4.vxlan_mac, Some([0x66, 0, 1, 2, 3, 0xff]));
        assert_eq!(net.ipip, Some("10.0.0.9".parse().unwrap()));
        assert_eq!(net.addresses.len(), 2);
    }

    #[test]
    fn the_derived_mac_is_the_same_on_every_node_and_differs_by_family() {
        // As `printf node1 | sha1sum` and `printf node1-v6 | sha1sum` print it.
        assert_eq!(vtep_mac("node1", Family::V4), [0x66, 0xf9, 0x37, 0xc3, 0x7e, 0x94]);
        assert_eq!(vtep_mac("node1", Family::V6), [0x66, 0x0f, 0x35, 0xf2, 0x60, 0xdf]);
        assert_ne!(vtep_mac("node1", Family::V4), vtep_mac("node2", Family::V4));
    }
}
