//! Which learnt routes the kernel gets, and through what (reference 4.7, decision 34).

use bgp::{PerFamily, Prefix};
use std::net::IpAddr;

/// How packets of a pool travel between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    None,
    /// Within another packet; `cross_subnet`: only to nodes outside of our own subnet.
    Ipip {
        cross_subnet: bool,
    },
    /// The daemon's own routes, not BGP's.
    Vxlan,
}

/// Why the kernel does not get a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It lies in an own service range: traffic to services is answered here.
    Service,
    /// VXLAN pools are routed by the daemon itself.
    Vxlan,
}

/// What to do with a learnt route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Plain,
    /// Through the IPIP device, the next hop being the tunnel's other end.
    Tunnel,
    Refuse(Refusal),
}

/// What becomes of packets to service addresses that nothing took (Calico's serviceLoopPrevention).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoopPrevention {
    #[default]
    Drop,
    Reject,
    Disabled,
}

/// The rules for one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelRules {
    /// Cluster, external and load-balancer ranges.
    pub services: Vec<Prefix>,
    pub loop_prevention: LoopPrevention,
    pub pools: Vec<(Prefix, Encapsulation)>,
    /// The node's own network.
    pub own: PerFamily<Option<Prefix>>,
}

impl KernelRules {
    /// What to do with a route to `prefix` whose next hop is `next_hop`.
    pub fn way(&self, prefix: &Prefix, next_hop: IpAddr) -> Way {
        if self.services.iter().any(|range| range.covers(prefix)) {
            return Way::Refuse(Refusal::Service);
        }
        let pool = self.pools.iter().find(|(pool, _)| pool.covers(prefix));
        match pool.map_or(Encapsulation::None, |(_, encapsulation)| *encapsulation) {
            Encapsulation::None => Way::Plain,
            Encapsulation::Vxlan => Way::Refuse(Refusal::Vxlan),
            Encapsulation::Ipip { cross_subnet } if cross_subnet && self.is_near(next_hop) => Way::Plain,
            Encapsulation::Ipip { .. } => Way::Tunnel,
        }
    }

    fn is_near(&self, next_hop: IpAddr) -> bool {
        self.own[bgp::Family::of(next_hop)].is_some_and(|own| own.contains(next_hop))
    }
}
