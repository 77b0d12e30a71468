//! What BGP shall do on this node, as a function of what is stored: sessions, policies, routes that start here,
//! and which learnt routes the kernel gets. No socket, file, clock or chance.
//!
//! ```text
//!   stored objects ──► Cluster ──► Wish ──► driver (sockets, kernel)
//!   services ─────────────┘          ├ peers: sessions, import and export policy
//!                                    ├ originate: own blocks, services
//!                                    └ kernel: which learnt routes are programmed, and how
//! ```

mod annotations;
mod cluster;
pub mod control;
mod expand;
mod filter;
mod ignored;
mod kernel;
mod node_status;
mod origin;
mod policy;
mod resolve;
mod services;
mod wish;

#[cfg(test)]
mod tests;

pub use cluster::{Cluster, Identity};
pub use kernel::{Encapsulation, KernelRules, LoopPrevention, Refusal, Way};
pub use node_status::node_status;
pub use origin::HostRule;
pub use resolve::{Foreign, Hop, Resolver};
pub use services::{Service, Slice};
pub use wish::{BfdWish, PeerKey, PeerKind, PeerWish, Secret, Wish};

use bgp::Prefix;
use ipnet::IpNet;

/// A network as the speaker writes it.
pub fn prefix(net: &IpNet) -> Prefix {
    Prefix::new(net.network(), net.prefix_len()).expect("an IpNet's length fits its family")
}

/// A network as the rest of the project writes it.
pub fn net(prefix: &Prefix) -> IpNet {
    IpNet::new(prefix.addr(), prefix.prefix_len()).expect("a Prefix's length fits its family")
}
