//! The keys of stored objects: Calico's etcd key texts, and our own beside them.
//!
//! | object | key under the scope's root |
//! |---|---|
//! | block | `ROOT/ipam/v2/assignment/ipv4/block/10.0.0.0-26` |
//! | affinity | `ROOT/ipam/v2/host/NODE/ipv4/block/10.0.0.0-26` |
//! | handle | `ROOT/ipam/v2/handle/ID` |
//! | IPAM configuration | `ROOT/ipam/v2/config` |
//! | release times of a block's addresses (ours) | `SIDE/ipam/cooling/ipv4/10.0.0.0-26` |
//! | last addresses of a sticky name (ours) | `SIDE/ipam/sticky/NAME` |
//!
//! ROOT is `/calico` for the cluster (so that Calico reads the same objects) and
//! `/percale/networks/NAME` for an allocation scoped to one network; SIDE is `/percale` and again
//! `/percale/networks/NAME`. Resources are `/calico/resources/v3/projectcalico.org/KIND/NAME`.

use crate::ip::{Family, parse_net};
use ipnet::IpNet;
use std::fmt::Write as _;

/// Where resources (pools, nodes, ...) live.
pub const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";

/// Where the masquerade record of each network lives.
pub const MASQUERADE: &str = "/percale/masquerade/";

const NETWORKS: &str = "/percale/networks/";

/// Which allocations belong together: within a scope an address has one owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everything that Calico's IPAM manages.
    Cluster,
    /// One network by name (decision 25): equal subnets of two networks do not collide.
    Network(String),
}

impl Scope {
    /// Start of the keys of Calico's kinds in this scope.
    fn root(&self) -> String {
        match self {
            Scope::Cluster => "/calico".to_owned(),
            Scope::Network(name) => format!("{NETWORKS}{}", escape(name)),
        }
    }

    /// Start of the keys of our own kinds in this scope.
    fn side(&self) -> String {
        match self {
            Scope::Cluster => "/percale".to_owned(),
            Scope::Network(_) => self.root(),
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scope::Cluster => f.write_str("the cluster"),
            Scope::Network(name) => write!(f, "network {name}"),
        }
    }
}

/// Who a block is affine to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AffinityKind {
    Host,
    /// A user of addresses that is no node (Calico 3.30 and newer: the load balancer).
    Virtual,
}

impl AffinityKind {
    pub fn as_str(self) -> &'static str {
        match self {
            AffinityKind::Host => "host",
            AffinityKind::Virtual => "virtual",
        }
    }
}

/// A parsed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Block { scope: Scope, cidr: IpNet },
    Affinity { scope: Scope, kind: AffinityKind, name: String, cidr: IpNet },
    Handle { scope: Scope, id: String },
    IpamConfig { scope: Scope },
    Cooling { scope: Scope, cidr: IpNet },
    Sticky { scope: Scope, name: String },
    Masquerade { network: String },
    Resource { kind: String, name: String },
}

pub fn block(scope: &Scope, cidr: &IpNet) -> String {
    format!("{}{}", blocks(scope, Family::of_net(cidr)), cidr_text(cidr))
}

/// Prefix of all blocks of a family.
pub fn blocks(scope: &Scope, family: Family) -> String {
    format!("{}/ipam/v2/assignment/ipv{}/block/", scope.root(), family.version())
}

pub fn affinity(scope: &Scope, host: &str, cidr: &IpNet) -> String {
    format!("{}{}", affinities(scope, host, Family::of_net(cidr)), cidr_text(cidr))
}

/// Prefix of a host's affinities of a family.
pub fn affinities(scope: &Scope, host: &str, family: Family) -> String {
    format!("{}{host}/ipv{}/block/", all_affinities(scope), family.version())
}

/// Prefix of the affinities of all hosts.
pub fn all_affinities(scope: &Scope) -> String {
    format!("{}/ipam/v2/host/", scope.root())
}

pub fn handle(scope: &Scope, id: &str) -> String {
    format!("{}{id}", handles(scope))
}

/// Prefix of all handles.
pub fn handles(scope: &Scope) -> String {
    format!("{}/ipam/v2/handle/", scope.root())
}

pub fn ipam_config(scope: &Scope) -> String {
    format!("{}/ipam/v2/config", scope.root())
}

pub fn cooling(scope: &Scope, cidr: &IpNet) -> String {
    format!("{}/ipam/cooling/ipv{}/{}", scope.side(), Family::of_net(cidr).version(), cidr_text(cidr))
}

pub fn sticky(scope: &Scope, name: &str) -> String {
    format!("{}/ipam/sticky/{}", scope.side(), escape(name))
}

pub fn masquerade(network: &str) -> String {
    format!("{MASQUERADE}{}", escape(network))
}

pub fn resource(kind: &str, name: &str) -> String {
    format!("{}{name}", resources(kind))
}

/// Prefix of all resources of a kind, such as `ippools`.
pub fn resources(kind: &str) -> String {
    format!("{RESOURCES}{kind}/")
}

pub fn pool(name: &str) -> String {
    resource("ippools", name)
}

pub fn pools() -> String {
    resources("ippools")
}

pub fn node(name: &str) -> String {
    resource("nodes", name)
}

pub fn nodes() -> String {
    resources("nodes")
}

pub fn cluster_information() -> String {
    resource("clusterinformations", "default")
}

pub fn ip_reservations() -> String {
    resources("ipreservations")
}

/// Prefix of everything of all network scopes.
pub fn networks() -> &'static str {
    NETWORKS
}

/// The network scope that a key below [`networks`] belongs to.
pub fn network_of(key: &str) -> Option<String> {
    let (name, _) = key.strip_prefix(NETWORKS)?.split_once('/')?;
    unescape(name)
}

/// `10.0.0.0/26` as it stands in keys: `10.0.0.0-26`.
pub fn cidr_text(cidr: &IpNet) -> String {
    format!("{}-{}", cidr.network(), cidr.prefix_len())
}

/// A resource name made from a CIDR: `10.91.0.0/16` is `10-91-0-0-16`.
pub fn cidr_name(cidr: &IpNet) -> String {
    format!("{}/{}", cidr.network(), cidr.prefix_len()).replace(['.', ':', '/'], "-")
}

/// Parses the text after `block/` in a key.
pub fn parse_cidr(text: &str) -> Option<IpNet> {
    let (ip, length) = text.rsplit_once('-')?;
    let cidr = parse_net(&format!("{ip}/{length}")).ok()?;
    (cidr_text(&cidr) == text).then_some(cidr)
}

/// Parses any key that this module builds; `None` for others.
pub fn parse(key: &str) -> Option<Key> {
    if let Some(rest) = key.strip_prefix(RESOURCES) {
        let (kind, name) = rest.split_once('/')?;
        return Some(Key::Resource { kind: kind.to_owned(), name: name.to_owned() });
    }
    if let Some(network) = key.strip_prefix(MASQUERADE) {
        return Some(Key::Masquerade { network: unescape(network)? });
    }
    let (scope, rest) = split_scope(key)?;
    match rest.strip_prefix("v2/") {
        Some(rest) => parse_calico(scope, rest),
        None => parse_side(scope, rest),
    }
}

/// The scope and what follows `ipam/`.
fn split_scope(key: &str) -> Option<(Scope, &str)> {
    if let Some(rest) = key.strip_prefix(NETWORKS) {
        let (name, rest) = rest.split_once('/')?;
        return Some((Scope::Network(unescape(name)?), rest.strip_prefix("ipam/")?));
    }
    let rest = key.strip_prefix("/calico/ipam/").filter(|r| r.starts_with("v2/"));
    Some((Scope::Cluster, rest.or_else(|| key.strip_prefix("/percale/ipam/"))?))
}

fn parse_calico(scope: Scope, rest: &str) -> Option<Key> {
    if rest == "config" {
        return Some(Key::IpamConfig { scope });
    }
    let (word, rest) = rest.split_once('/')?;
    match word {
        "assignment" => Some(Key::Block { scope, cidr: parse_family_cidr(rest, "block/")? }),
        "handle" => Some(Key::Handle { scope, id: rest.to_owned() }),
        "host" => parse_affinity(scope, AffinityKind::Host, rest),
        "virtual" => parse_affinity(scope, AffinityKind::Virtual, rest),
        _ => None,
    }
}

fn parse_affinity(scope: Scope, kind: AffinityKind, rest: &str) -> Option<Key> {
    let (name, rest) = rest.split_once('/')?;
    Some(Key::Affinity { scope, kind, name: name.to_owned(), cidr: parse_family_cidr(rest, "block/")? })
}

fn parse_side(scope: Scope, rest: &str) -> Option<Key> {
    let (word, rest) = rest.split_once('/')?;
    match word {
        "cooling" => Some(Key::Cooling { scope, cidr: parse_family_cidr(rest, "")? }),
        "sticky" => Some(Key::Sticky { scope, name: unescape(rest)? }),
        _ => None,
    }
}

/// Parses `ipv4/<middle>10.0.0.0-26` and checks that the family fits.
fn parse_family_cidr(text: &str, middle: &str) -> Option<IpNet> {
    let (version, rest) = text.strip_prefix("ipv")?.split_once('/')?;
    let cidr = parse_cidr(rest.strip_prefix(middle)?)?;
    (version == Family::of_net(&cidr).version().to_string()).then_some(cidr)
}

/// Makes any text a single key segment: bytes other than `[A-Za-z0-9_.-]` become `%XX`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    out
}

/// The inverse of [`escape`]; `None` for text that it does not produce.
pub fn unescape(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let hex = [bytes.next()?, bytes.next()?];
                out.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
            }
            b'/' => return None,
            _ => out.push(byte),
        }
    }
    let plain = String::from_utf8(out).ok()?;
    (escape(&plain) == text).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn cluster_keys_are_calicos() {
        let scope = Scope::Cluster;
        let cases = [
            (block(&scope, &net("192.168.0.0/26")), "/calico/ipam/v2/assignment/ipv4/block/192.168.0.0-26"),
            (
                block(&scope, &net("fd80:24e2:f998:72d6::/122")),
                "/calico/ipam/v2/assignment/ipv6/block/fd80:24e2:f998:72d6::-122",
            ),
            (
                affinity(&scope, "node1", &net("192.168.0.0/26")),
                "/calico/ipam/v2/host/node1/ipv4/block/192.168.0.0-26",
            ),
            (handle(&scope, "net.c1"), "/calico/ipam/v2/handle/net.c1"),
            (ipam_config(&scope), "/calico/ipam/v2/config"),
            (pool("p"), "/calico/resources/v3/projectcalico.org/ippools/p"),
        ];
        for (built, wanted) in cases {
            assert_eq!(built, wanted);
        }
    }

    #[test]
    fn a_network_has_keys_of_its_own() {
        let scope = Scope::Network("my/net".into());
        let key = block(&scope, &net("10.0.0.0/26"));
        assert_eq!(key, "/percale/networks/my%2Fnet/ipam/v2/assignment/ipv4/block/10.0.0.0-26");
        assert_eq!(network_of(&key).as_deref(), Some("my/net"));
    }

    #[test]
    fn every_key_parses_back() {
        for scope in [Scope::Cluster, Scope::Network("a b".into())] {
            let cidr = net("fd00::40/122");
            let s = || scope.clone();
            let pairs = [
                (block(&scope, &cidr), Key::Block { scope: s(), cidr }),
                (
                    affinity(&scope, "n.1", &cidr),
                    Key::Affinity { scope: s(), kind: AffinityKind::Host, name: "n.1".into(), cidr },
                ),
                (handle(&scope, "h.1"), Key::Handle { scope: s(), id: "h.1".into() }),
                (ipam_config(&scope), Key::IpamConfig { scope: s() }),
                (cooling(&scope, &cidr), Key::Cooling { scope: s(), cidr }),
                (sticky(&scope, "ns/pod"), Key::Sticky { scope: s(), name: "ns/pod".into() }),
            ];
            for (text, key) in pairs {
                assert_eq!(parse(&text), Some(key), "{text}");
            }
        }
        assert_eq!(parse(&masquerade("n")), Some(Key::Masquerade { network: "n".into() }));
        assert_eq!(parse(&node("n")), Some(Key::Resource { kind: "nodes".into(), name: "n".into() }));
    }

    #[test]
    fn other_texts_are_no_keys() {
        let bad = [
            "",
            "/calico",
            "/calico/ipam/v2/assignment/ipv4/block/fd00::-122",
            "/calico/ipam/v2/assignment/ipv4/block/10.0.0.1-26",
            "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-33",
            "/calico/ipam/cooling/ipv4/10.0.0.0-26",
            "/percale/networks/%zz/ipam/v2/config",
            "/percale/networks/n",
        ];
        for text in bad {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn pool_names_come_from_their_cidr() {
        assert_eq!(cidr_name(&net("10.91.0.0/16")), "10-91-0-0-16");
        assert_eq!(cidr_name(&net("fd80:24e2:f998:72d6::/122")), "fd80-24e2-f998-72d6---122");
    }
}
