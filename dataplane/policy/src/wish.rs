//! The wish: everything that this node's kernel should hold, as plain data.

use ipnet::IpNet;
use model::Family;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Where packets to a network go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A block of this node: what no pod has ends here, and does not circle between nodes.
    Blackhole,
    /// To the other node itself, which is in our subnet.
    Direct(IpAddr),
    /// Through the VXLAN link of the family, to the other node's VTEP.
    Vxlan(IpAddr),
    /// Through the IPIP link, to the other node.
    Ipip(IpAddr),
}

/// Another node's end of the VXLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vtep {
    /// Its address inside the tunnel.
    pub inner: IpAddr,
    pub mac: [u8; 6],
    /// The node's address, where the encapsulated packets go.
    pub outer: IpAddr,
}

/// Our VXLAN link of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    pub vni: u32,
    pub port: u16,
    /// Our address inside, single.
    pub inner: IpAddr,
    pub mac: [u8; 6],
    /// Our node address, the source of encapsulated packets.
    pub outer: IpAddr,
}

/// Our IPIP link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipip {
    pub inner: Ipv4Addr,
}

/// Our WireGuard link of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wireguard {
    pub name: String,
    pub port: u16,
    pub inner: Option<IpAddr>,
    pub priority: u32,
    /// The first table of the configured range, and a second one for IPv6.
    pub table: u32,
    /// By public key (base64).
    pub peers: BTreeMap<String, Peer>,
    /// Networks that have no peer: they take the usual way.
    pub throw: BTreeSet<IpNet>,
}

/// A node that speaks WireGuard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub endpoint: IpAddr,
    pub port: u16,
    pub allowed: BTreeSet<IpNet>,
}

/// An address of this node that a workload holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `NETWORK.CONTAINER`.
    pub handle: String,
    pub network: Option<String>,
    pub ifname: Option<String>,
    /// Namespace and name of its pod.
    pub pod: Option<(String, String)>,
    /// Path and inode of its namespace, as the lease has them.
    pub netns: Option<String>,
}

/// What our nftables tables should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How the names of workloads' host ends begin.
    pub prefix: String,
    pub masquerade: BTreeSet<IpNet>,
    pub not_to: BTreeSet<IpNet>,
    /// The UDP port that workloads must not send VXLAN packets to.
    pub no_vxlan_from_pods: Option<u16>,
    pub no_ipip_from_pods: bool,
    /// Encapsulated packets to this host are taken from these alone.
    pub nodes: BTreeSet<IpNet>,
    /// The UDP port of VXLAN packets, where this node uses VXLAN.
    pub vxlan: Option<u16>,
    pub ipip: bool,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    pub routes: BTreeMap<IpNet, Via>,
    pub vxlan: BTreeMap<Family, Vxlan>,
    pub vteps: BTreeMap<(Family, String), Vtep>,
    pub ipip: Option<Ipip>,
    pub wireguard: BTreeMap<Family, Wireguard>,
    pub workloads: BTreeMap<IpAddr, Workload>,
    pub rules: Rules,
}
