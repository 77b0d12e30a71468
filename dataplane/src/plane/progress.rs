//! What other parts may know of the plane.

use ipnet::IpNet;
use model::Family;
use model::node::NodeNet;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared; clones are the same.
#[derive(Clone, Default)]
pub struct Progress(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// This node as the plane knew it when the kernel was as wished; `None`: it is not.
    synced: Option<NodeNet>,
    /// Names of the WireGuard links that exist.
    wireguard: Vec<(Family, String)>,
    /// Blocks of others that this node has addresses of.
    borrowed: BTreeSet<IpNet>,
}

impl Progress {
    /// Whether the kernel is as wished, for a node with these addresses and tunnel addresses.
    pub fn is_synced_as(&self, own: &NodeNet) -> bool {
        let same = |seen: &NodeNet| (&seen.v4, &seen.v6, seen.ipip) == (&own.v4, &own.v6, own.ipip);
        self.with(|state| state.synced.as_ref().is_some_and(same))
    }

    /// Whether the kernel is as wished for this node, with whatever addresses it had then.
    pub(crate) fn is_synced(&self) -> bool {
        self.with(|state| state.synced.is_some())
    }

    /// Blocks of others that this node has addresses of, as far as the store was read.
    pub(crate) fn borrowed(&self) -> BTreeSet<IpNet> {
        self.with(|state| state.borrowed.clone())
    }

    pub(super) fn set_borrowed(&self, blocks: BTreeSet<IpNet>) {
        self.with(|state| state.borrowed = blocks);
    }

    /// The WireGuard links that exist, whose keys the node's object tells.
    pub(crate) fn wireguard(&self) -> Vec<(Family, String)> {
        self.with(|state| state.wireguard.clone())
    }

    pub(super) fn set_wireguard(&self, links: Vec<(Family, String)>) {
        self.with(|state| state.wireguard = links);
    }

    pub(super) fn set_synced(&self, own: Option<NodeNet>) {
        self.with(|state| state.synced = own);
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
