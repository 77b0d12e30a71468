//! What the RIB must know of a peer whose session is, or was, up.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::policy::{Origination, Policy};
use crate::wire::{EncodeParams, NextHop};
use crate::{Family, PerFamily};

use super::path::PeerId;

/// A peer in the RIB's eyes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    pub addr: IpAddr,
    pub router_id: Ipv4Addr,
    pub peer_as: u32,
    /// Ours on this session; may differ from the RIB's (a peer that knows us by another).
    pub local_as: u32,
    pub internal: bool,
    /// Families of the session.
    pub families: PerFamily<bool>,
    /// How to write for it; with add-path it is sent all usable paths (RFC 7911).
    pub encode: EncodeParams,
    /// It wants to be told where a refresh begins and ends (RFC 7313).
    pub enhanced_refresh: bool,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// It understands long-lived stale routes (RFC 9494).
    pub long_lived: PerFamily<bool>,
    pub options: NeighborOptions,
}

/// The configured part; may change while the session is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborOptions {
    /// Our address on this session by family; a route whose next hop would have to be ours and has none is not sent.
    pub next_hop: PerFamily<Option<NextHop>>,
    /// Towards an external peer: leave next hops as they are (Calico's keepOriginalNextHop).
    pub keep_next_hop: bool,
    /// Towards an internal peer: put ourselves as next hop of routes learnt from others too.
    pub next_hop_self: bool,
    /// A client of this route reflector (RFC 4456).
    pub client: bool,
    /// How often our AS may stand in the path of a route from this peer.
    pub allowed_own_as: u8,
    pub import: Policy,
    pub export: Policy,
    /// More paths than that end the session.
    pub max_prefixes: PerFamily<Option<u32>>,
}

impl NeighborOptions {
    /// No policy, no limit, next hops by the rules of RFC 4271.
    pub fn new(next_hop: PerFamily<Option<NextHop>>) -> Self {
        NeighborOptions {
            next_hop,
            keep_next_hop: false,
            next_hop_self: false,
            client: false,
            allowed_own_as: 0,
            import: Policy::ACCEPT,
            export: Policy::ACCEPT,
            max_prefixes: PerFamily { v4: None, v6: None },
        }
    }
}

impl Neighbor {
    pub(crate) fn origination(&self) -> Origination {
        if self.internal { Origination::Internal } else { Origination::External }
    }

    pub(crate) fn is_own_address(&self, addr: IpAddr) -> bool {
        Family::ALL.iter().any(|f| self.options.next_hop[*f].is_some_and(|h| h.addr == addr))
    }
}

/// Peers by id, shared so that a route can be judged while the table changes.
#[derive(Debug, Default)]
pub(crate) struct Neighbors(BTreeMap<PeerId, Arc<Neighbor>>);

impl Neighbors {
    pub fn get(&self, id: PeerId) -> Option<&Neighbor> {
        self.0.get(&id).map(Arc::as_ref)
    }

    pub fn share(&self, id: PeerId) -> Option<Arc<Neighbor>> {
        self.0.get(&id).cloned()
    }

    pub fn insert(&mut self, id: PeerId, neighbor: Neighbor) {
        self.0.insert(id, Arc::new(neighbor));
    }

    pub fn remove(&mut self, id: PeerId) {
        self.0.remove(&id);
    }

    pub fn any(&self, wanted: impl Fn(&Neighbor) -> bool) -> bool {
        self.0.values().any(|n| wanted(n))
    }
}
