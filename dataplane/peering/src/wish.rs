//! What the driver is asked to bring about.

use crate::kernel::KernelRules;
use crate::origin::HostRule;
use bgp::Prefix;
use bgp::rib::{NeighborOptions, RibOptions};
use bgp::session::SessionConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// A password; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Names a peer for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKey {
    /// A speaker at an address and port.
    At(IpAddr, u16),
    /// Whoever connects from a range; each address becomes a peer of its own.
    Range(Prefix),
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerKey::At(addr, _) => write!(f, "{addr}"),
            PeerKey::Range(range) => write!(f, "{range}"),
        }
    }
}

/// By which rule the peer is one; as Calico's status names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    Mesh,
    Node,
    Global,
}

impl PeerKind {
    /// As in a CalicoNodeStatus.
    pub fn as_str(self) -> &'static str {
        match self {
            PeerKind::Mesh => "NodeMesh",
            PeerKind::Node => "NodePeer",
            PeerKind::Global => "GlobalPeer",
        }
    }
}

/// Bidirectional forwarding detection with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdWish {
    /// Both directions.
    pub interval: Duration,
    pub multiplier: u8,
    /// None: the peer is on the link (RFC 5881); else at most that many hops away (RFC 5883).
    pub hops: Option<u8>,
    /// The TTL or hop limit that a peer several hops away sends with: 255, but BIRD's is 64.
    pub ttl: u8,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerWish {
    pub kind: PeerKind,
    pub session: SessionConfig,
    /// `next_hop` holds the node's addresses; without `source` the driver puts the connection's in their place.
    pub options: NeighborOptions,
    /// The address that connections are made from; None: as the kernel chooses.
    pub source: Option<IpAddr>,
    pub password: Option<Secret>,
    /// Generalised TTL security (RFC 5082): the peer is at most that many hops away.
    pub ttl_security: Option<u8>,
    /// The gateway on the link through which the peer is reached.
    pub reachable_by: Option<IpAddr>,
    pub bfd: Option<BfdWish>,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// A change of these concerns every session.
    pub rib: RibOptions,
    /// TCP port for incoming connections.
    pub port: u16,
    /// Where to listen; empty: everywhere.
    pub listen_on: Vec<IpAddr>,
    pub peers: BTreeMap<PeerKey, PeerWish>,
    /// Routes that start here whatever the kernel has.
    pub originate: BTreeSet<Prefix>,
    /// Which of the host's routes to pods start here as well.
    pub host_routes: HostRule,
    pub kernel: KernelRules,
    /// Calico's name of a level; `None`: the daemon's own.
    pub log_level: Option<String>,
    /// What is wrong with the resources, for the log and the status; by the object's kind and name.
    pub problems: BTreeMap<String, String>,
}
