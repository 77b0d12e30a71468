//! Which routes start here (reference 4.6).

use bgp::Prefix;

/// Which of the host's routes to its pods are told to peers one by one: those of addresses that no own block
/// stands for, because they were borrowed or are a service's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRule {
    /// Only routes inside of these.
    pub pools: Vec<Prefix>,
    /// Confirmed blocks, which are told as a whole.
    pub own_blocks: Vec<Prefix>,
}

impl HostRule {
    pub fn admits(&self, route: &Prefix) -> bool {
        self.pools.iter().any(|pool| pool.covers(route)) && !self.own_blocks.iter().any(|b| b.covers(route))
    }
}
