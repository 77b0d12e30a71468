//! What other parts may know of the plane.

use ipnet::IpNet;
use model::Family;
use policy::config::Problem;
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Shared; clones are the same.
#[derive(Clone, Default)]
pub struct Progress(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    /// The kernel was once as wished.
    synced: bool,
    problems: Vec<Problem>,
    /// Names of the WireGuard links that exist.
    wireguard: Vec<(Family, String)>,
    /// Blocks of others that this node has addresses of.
    borrowed: BTreeSet<IpNet>,
}

impl Progress {
    /// Waits until the kernel was brought to the wish for the first time, the MTU file is written and
    /// this node has its address, at most `limit`. Whether it is so.
    pub fn wait_synced(&self, limit: Duration) -> bool {
        let (state, changed) = &*self.0;
        let guard = state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(guard, limit, |state| !state.synced);
        waited.unwrap_or_else(PoisonError::into_inner).0.synced
    }

    /// Blocks of others that this node has addresses of, as far as the store was read.
    pub(crate) fn borrowed(&self) -> BTreeSet<IpNet> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).borrowed.clone()
    }

    pub(super) fn set_borrowed(&self, blocks: BTreeSet<IpNet>) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).borrowed = blocks;
    }

    /// What is wrong with the settings.
    pub fn problems(&self) -> Vec<Problem> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).problems.clone()
    }

    /// The WireGuard links that exist, whose keys the node's object tells.
    pub(crate) fn wireguard(&self) -> Vec<(Family, String)> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).wireguard.clone()
    }

    pub(super) fn set_wireguard(&self, links: Vec<(Family, String)>) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).wireguard = links;
    }

    pub(super) fn set_synced(&self) {
        let (state, changed) = &*self.0;
        state.lock().unwrap_or_else(PoisonError::into_inner).synced = true;
        changed.notify_all();
    }

    /// True when these are others than before.
    pub(super) fn set_problems(&self, problems: &[Problem]) -> bool {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = state.problems != problems;
        state.problems = problems.to_vec();
        changed
    }
}
