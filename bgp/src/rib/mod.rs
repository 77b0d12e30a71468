//! Routes: what peers told us (Adj-RIB-In), what we use (Loc-RIB), what each peer has to be told (Adj-RIB-Out).
//!
//! One table holds Adj-RIB-In and Loc-RIB: prefix -> paths, the used ones first. Every change goes through
//! [`Rib::change`], which selects anew, and notes the prefix for the kernel and for each peer whose view of it
//! may have changed. Nothing is done per table when one prefix changes.

mod adj_out;
mod chunk;
mod explain;
mod export;
mod group;
mod import;
mod intern;
mod neighbor;
mod outbound;
mod path;
mod select;
mod stale;

#[cfg(test)]
mod export_tests;
#[cfg(test)]
mod select_tests;
#[cfg(test)]
mod stale_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

pub use explain::{Explanation, Fate, PathReport};
pub use export::Withheld;
pub use import::Refusal;
pub use neighbor::{Neighbor, NeighborOptions};
pub use path::{Freshness, Path, PeerId};
pub use select::{ORDER, Step};

use crate::wire::{Attributes, NextHop, Nlri, Reach, Update};
use crate::{Family, PerFamily, Prefix, PrefixMap};

use adj_out::Out;
use chunk::Walks;
use group::Group;
use import::Importer;
use intern::Interner;
use neighbor::Neighbors;
use path::{Node, Paths};
use select::{Context, select};

/// What is the same for all peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RibOptions {
    pub local_as: u32,
    pub router_id: Ipv4Addr,
    /// Of a route reflector; without it the router id is used.
    pub cluster_id: Option<Ipv4Addr>,
    /// The most equally good paths to use together; 1 for no ECMP.
    pub max_paths: u16,
}

/// What is known of the way to next hops. An address that was never set is reachable at cost 0.
#[derive(Debug, Default)]
pub(crate) struct NextHops(BTreeMap<IpAddr, Option<u32>>);

impl NextHops {
    fn cost(&self, addr: IpAddr) -> Option<u32> {
        self.0.get(&addr).copied().unwrap_or(Some(0))
    }
}

/// What the kernel shall do with a prefix: nothing of ours if `next_hops` is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibChange {
    pub prefix: Prefix,
    /// Several for ECMP, in order, without repeats.
    pub next_hops: Vec<NextHop>,
}

/// A peer told more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} prefixes of {family:?}")]
pub struct TooMany {
    pub family: Family,
    pub limit: u32,
}

/// The routing information base.
#[derive(Debug)]
pub struct Rib {
    options: RibOptions,
    table: PrefixMap<Node>,
    /// What came in, and what import made of it.
    interner: Interner,
    /// What peers are told. It is not kept longer than it takes to tell, so it is looked through apart.
    exports: Interner,
    /// Peers that are up, or whose routes are kept while they are away.
    neighbors: Neighbors,
    /// Peers that are up.
    outs: BTreeMap<PeerId, Out>,
    /// Those of them that are in no group.
    solo: BTreeSet<PeerId>,
    /// Peers that have been told everything, with those that are told the same.
    groups: BTreeMap<u32, Group>,
    walks: Walks,
    /// Paths held by peer.
    counts: BTreeMap<PeerId, PerFamily<u32>>,
    next_hops: NextHops,
    /// Prefixes whose next hops changed since the kernel was told.
    dirty: BTreeSet<Prefix>,
    /// Some peer has add-path: all usable paths matter to others, not only the best.
    tells_all: bool,
    /// After a restart: nobody is told anything until [`Rib::end_deferral`].
    deferred: bool,
}

/// What others see of a prefix. Of the usual single path nothing is allocated.
struct Seen {
    /// The paths that packets take, best first.
    used: Paths,
    /// All usable paths, where a peer has add-path.
    usable: Vec<Path>,
}

impl Seen {
    fn of(node: &Node, context: &Context<'_>, all: bool) -> Seen {
        let usable = if all { usable(node, context) } else { Vec::new() };
        Seen { used: Paths::of(node.multipath()), usable }
    }

    /// The paths that some peer may be told, best first.
    fn tellable(&self, all: bool) -> &[Path] {
        if all { &self.usable } else { &self.used[..self.used.len().min(1)] }
    }
}

fn usable(node: &Node, context: &Context<'_>) -> Vec<Path> {
    node.paths.iter().filter(|p| context.candidate(p).is_some()).cloned().collect()
}

impl Rib {
    /// An empty RIB. `seed` keys its hash table.
    pub fn new(options: RibOptions, seed: u64) -> Self {
        Rib {
            options,
            table: PrefixMap::default(),
            interner: Interner::new(seed),
            exports: Interner::new(seed),
            neighbors: Neighbors::default(),
            outs: BTreeMap::new(),
            solo: BTreeSet::new(),
            groups: BTreeMap::new(),
            walks: Walks::default(),
            counts: BTreeMap::new(),
            next_hops: NextHops::default(),
            dirty: BTreeSet::new(),
            tells_all: false,
            deferred: false,
        }
    }

    /// A peer's session is up. Routes kept from its last one become stale until they are told again; if it
    /// is not the same router any more they go at once.
    pub fn peer_up(&mut self, id: PeerId, neighbor: Neighbor) {
        let who = |n: &Neighbor| (n.router_id, n.peer_as, n.internal, n.addr);
        if self.neighbors.get(id).is_some_and(|old| who(old) != who(&neighbor)) {
            self.forget(id);
        }
        // Options may have changed while its routes were only kept: what others were told depends on them.
        self.reconfigure(id, neighbor.options.clone());
        let mut out = Out::new();
        if !self.deferred {
            out.begin(neighbor.families);
        }
        self.remove_out(id);
        self.walks.changed();
        self.neighbors.insert(id, neighbor);
        self.outs.insert(id, out);
        self.solo.insert(id);
        self.tells_all = self.neighbors.any(|n| n.encode.add_path.any());
    }

    /// Takes in an UPDATE. All of it is taken even if it is too much; then the session has to end.
    pub fn update(&mut self, id: PeerId, update: Update) -> Result<(), TooMany> {
        for nlri in update.withdrawn {
            self.withdraw(id, nlri);
        }
        for reach in update.reach {
            self.reach(id, reach);
        }
        self.check_limit(id)
    }

    fn check_limit(&self, id: PeerId) -> Result<(), TooMany> {
        let Some(n) = self.neighbors.get(id) else { return Ok(()) };
        let over = |f: &Family| n.options.max_prefixes[*f].is_some_and(|limit| self.count(id)[*f] > limit);
        match Family::ALL.into_iter().find(over) {
            Some(family) => Err(TooMany { family, limit: n.options.max_prefixes[family].unwrap_or(0) }),
            None => Ok(()),
        }
    }

    fn reach(&mut self, id: PeerId, reach: Reach) {
        let Some(neighbor) = self.neighbors.share(id) else { return };
        let options = self.options;
        let received = self.interner.intern(reach.attributes);
        let mut importer = Importer::new(&neighbor, &options, received.clone());
        for nlri in reach.nlri {
            let accepted = importer.import(nlri.prefix, &mut self.interner);
            self.insert(nlri, id, received.clone(), accepted);
        }
    }

    fn insert(
        &mut self,
        nlri: Nlri,
        peer: PeerId,
        received: Arc<Attributes>,
        accepted: Option<Arc<Attributes>>,
    ) {
        let path_id = nlri.path_id;
        let (local_id, freshness, used) = (0, Freshness::Fresh, false);
        let path = Path { peer, path_id, local_id, received, accepted, freshness, used };
        if self.change(nlri.prefix, |node| node.insert(path)) {
            self.counts.entry(peer).or_default()[nlri.prefix.family()] += 1;
        }
    }

    fn withdraw(&mut self, peer: PeerId, nlri: Nlri) {
        if self.table.contains_key(&nlri.prefix) {
            self.remove(nlri.prefix, |p| p.peer == peer && p.path_id == nlri.path_id);
        }
    }

    /// Removes the paths of a prefix that `gone` picks.
    fn remove(&mut self, prefix: Prefix, gone: impl Fn(&Path) -> bool) {
        let mut removed = Vec::new();
        self.change(prefix, |node| {
            node.paths.retain(|p| {
                let goes = gone(p);
                removed.extend(goes.then_some(p.peer));
                !goes
            });
        });
        for peer in removed {
            let count = &mut self.counts.entry(peer).or_default()[prefix.family()];
            *count = count.saturating_sub(1);
        }
    }

    /// A route that starts here. Its next hop is replaced by our address of each session.
    pub fn originate(&mut self, prefix: Prefix, mut attributes: Attributes) {
        attributes.sort_lists();
        let attributes = self.interner.intern(attributes);
        self.insert(prefix.into(), PeerId::LOCAL, attributes.clone(), Some(attributes));
    }

    /// The end of a route that starts here.
    pub fn retract(&mut self, prefix: Prefix) {
        self.withdraw(PeerId::LOCAL, prefix.into());
    }

    /// The way to a next hop: its cost, or `None` for unreachable. Routes through it are selected anew.
    pub fn set_next_hop(&mut self, addr: IpAddr, cost: Option<u32>) {
        if self.next_hops.cost(addr) == cost {
            return;
        }
        let uses = |p: &Path| p.accepted.as_ref().is_some_and(|a| a.next_hop.addr == addr);
        let affected = self.prefixes_with(uses);
        // All of the old state must be noted before the cost changes, so prefix by prefix will not do.
        let context = self.context();
        let seen = |p: Prefix| self.table.get(&p).map(|n| (p, Seen::of(n, &context, self.tells_all)));
        let before: Vec<(Prefix, Seen)> = affected.into_iter().filter_map(seen).collect();
        self.next_hops.0.insert(addr, cost);
        for (prefix, before) in before {
            self.reselect(prefix, &before);
        }
    }

    fn prefixes_with(&self, wanted: impl Fn(&Path) -> bool) -> Vec<Prefix> {
        self.table.iter().filter(|(_, n)| n.paths.iter().any(&wanted)).map(|(p, _)| p).collect()
    }

    /// The one place where the table changes: edits a prefix, selects anew, notes what that changes for others.
    fn change<T>(&mut self, prefix: Prefix, edit: impl FnOnce(&mut Node) -> T) -> T {
        let Rib { table, neighbors, next_hops, options, .. } = self;
        let context = Context { neighbors, next_hops, options };
        let node = table.get_or_insert(prefix, || Node::EMPTY);
        let before = Seen::of(node, &context, self.tells_all);
        let result = edit(node);
        select(node, &context);
        let now = Seen::of(node, &context, self.tells_all);
        if node.paths.is_empty() {
            table.remove(&prefix);
        }
        self.changed(prefix, &before, &now);
        result
    }

    /// Selects anew after something changed beside the table.
    fn reselect(&mut self, prefix: Prefix, before: &Seen) {
        let Rib { table, neighbors, next_hops, options, .. } = self;
        let context = Context { neighbors, next_hops, options };
        let Some(node) = table.get_mut(&prefix) else { return };
        select(node, &context);
        let now = Seen::of(node, &context, self.tells_all);
        self.changed(prefix, before, &now);
    }

    fn changed(&mut self, prefix: Prefix, before: &Seen, now: &Seen) {
        if self.deferred {
            return;
        }
        if !same_paths(&before.used, &now.used) && !same_hops(&before.used, &now.used) {
            self.dirty.insert(prefix);
        }
        let (before, now) = (before.tellable(self.tells_all), now.tellable(self.tells_all));
        if !same_paths(before, now) {
            self.note(prefix, before, now);
        }
    }

    fn context(&self) -> Context<'_> {
        Context { neighbors: &self.neighbors, next_hops: &self.next_hops, options: &self.options }
    }

    /// The next prefix whose next hops changed, for the kernel.
    pub fn poll_fib(&mut self) -> Option<FibChange> {
        let prefix = self.poll_changed()?;
        Some(FibChange { prefix, next_hops: self.next_hops(prefix) })
    }

    /// As [`Rib::poll_fib`], for who asks for the next hops later.
    pub fn poll_changed(&mut self) -> Option<Prefix> {
        self.dirty.pop_first()
    }

    /// Paths held from a peer.
    pub fn count(&self, id: PeerId) -> PerFamily<u32> {
        self.counts.get(&id).copied().unwrap_or_default()
    }

    /// All that a peer told us, before import policy: its Adj-RIB-In.
    pub fn received_from(&self, id: PeerId) -> Vec<(Prefix, u32, Arc<Attributes>)> {
        let of = |(prefix, node): (Prefix, &Node)| {
            let from = node.paths.iter().filter(|p| p.peer == id);
            from.map(|p| (prefix, p.path_id, p.received.clone())).collect::<Vec<_>>()
        };
        self.table.iter().flat_map(of).collect()
    }

    /// Where packets for exactly this prefix go; empty for none of ours.
    pub fn next_hops(&self, prefix: Prefix) -> Vec<NextHop> {
        self.table.get(&prefix).map(|n| hops(n.multipath())).unwrap_or_default()
    }

    /// The prefixes in the table, in order.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        self.table.keys()
    }

    /// Prefixes in the table.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Distinct attribute sets in memory.
    pub fn attribute_sets(&self) -> usize {
        self.interner.len()
    }

    /// The most specific usable route to an address: its prefix and the next hops that packets take.
    pub fn lookup(&self, addr: IpAddr) -> Option<FibChange> {
        let host = Prefix::host(addr);
        let usable = |len| {
            let prefix = host.truncate(len)?;
            self.table
                .get(&prefix)
                .filter(|n| n.best().is_some())
                .map(|n| FibChange { prefix, next_hops: hops(n.multipath()) })
        };
        (0..=host.prefix_len()).rev().find_map(usable)
    }
}

/// The next hops of the paths in use. Routes that start here have none: the kernel has them from elsewhere.
fn hops(used: &[Path]) -> Vec<NextHop> {
    let learnt = used.iter().filter(|p| p.peer != PeerId::LOCAL);
    let mut hops: Vec<NextHop> = learnt.filter_map(|p| p.accepted.as_ref().map(|a| a.next_hop)).collect();
    hops.sort_unstable();
    hops.dedup();
    hops
}

/// True if packets go the same ways. Of the usual single path nothing is allocated.
fn same_hops(a: &[Path], b: &[Path]) -> bool {
    let hop = |p: &Path| p.accepted.as_ref().filter(|_| p.peer != PeerId::LOCAL).map(|a| a.next_hop);
    match (a, b) {
        ([], []) => true,
        ([], [one]) | ([one], []) => hop(one).is_none(),
        ([x], [y]) => hop(x) == hop(y),
        _ => hops(a) == hops(b),
    }
}

/// True if no peer can be told anything else by `b` than by `a`.
fn same_paths(a: &[Path], b: &[Path]) -> bool {
    let same = |(x, y): (&Path, &Path)| {
        let same_attributes = match (&x.accepted, &y.accepted) {
            (Some(x), Some(y)) => Arc::ptr_eq(x, y),
            (x, y) => x.is_none() && y.is_none(),
        };
        let long_lived = |p: &Path| p.freshness == Freshness::LongLived;
        x.peer == y.peer && x.local_id == y.local_id && long_lived(x) == long_lived(y) && same_attributes
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}
