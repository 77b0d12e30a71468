//! The choice between paths: RFC 4271 section 9.1.2.2 with the additions of RFC 4456 section 9 and RFC 9494.
//!
//! [`ORDER`] is the whole rule. Each step keeps the paths that are best by it and passes them to the next.
//! What is left after [`Step::NextHopCost`] is equally good and used together (ECMP) where that is allowed;
//! the steps behind only name the one that is told to peers.

use std::net::{IpAddr, Ipv4Addr};

use crate::wire::{Attributes, Origin};

use super::neighbor::{Neighbor, Neighbors};
use super::path::{Freshness, Node, Path, PeerId};
use super::{NextHops, RibOptions};

/// One criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Not kept beyond the restart time of its peer.
    NotLongLived,
    /// Starts here.
    Local,
    /// The higher LOCAL_PREF; 100 where none is given.
    LocalPref,
    AsPathLength,
    /// IGP before EGP before incomplete.
    Origin,
    /// The lower MED, among paths from the same neighbouring AS only; none counts as 0.
    Med,
    /// From an external peer before an internal one.
    External,
    /// The lower cost to the next hop.
    NextHopCost,
    /// The lower router id; ORIGINATOR_ID where there is one.
    RouterId,
    /// The shorter CLUSTER_LIST.
    ClusterList,
    /// The lower address of the peer.
    PeerAddress,
    /// The lower path identifier.
    PathId,
}

/// The steps in order.
pub const ORDER: [Step; 12] = [
    Step::NotLongLived,
    Step::Local,
    Step::LocalPref,
    Step::AsPathLength,
    Step::Origin,
    Step::Med,
    Step::External,
    Step::NextHopCost,
    Step::RouterId,
    Step::ClusterList,
    Step::PeerAddress,
    Step::PathId,
];

/// How many of [`ORDER`] decide what is equally good.
const EQUAL_COST: usize = 8;

const DEFAULT_LOCAL_PREF: u32 = 100;

pub(crate) struct Context<'a> {
    pub neighbors: &'a Neighbors,
    pub next_hops: &'a NextHops,
    pub options: &'a RibOptions,
}

/// A path that may be chosen, with what the steps ask for.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub path: &'a Path,
    pub attributes: &'a Attributes,
    neighbor: Option<&'a Neighbor>,
    cost: u32,
}

impl Context<'_> {
    /// `None` if policy refused the path or its next hop cannot be reached.
    pub fn candidate<'a>(&'a self, path: &'a Path) -> Option<Candidate<'a>> {
        let attributes = path.accepted.as_deref()?;
        let neighbor = self.neighbors.get(path.peer);
        let cost =
            if path.peer == PeerId::LOCAL { 0 } else { self.next_hops.cost(attributes.next_hop.addr)? };
        Some(Candidate { path, attributes, neighbor, cost })
    }
}

impl Step {
    /// The lower rank is the better. For [`Step::Med`] ranks compare within one neighbouring AS only.
    fn rank(self, c: &Candidate<'_>) -> u128 {
        let a = c.attributes;
        match self {
            Step::NotLongLived => u128::from(c.path.freshness == Freshness::LongLived),
            Step::Local => u128::from(c.path.peer != PeerId::LOCAL),
            Step::LocalPref => u128::from(u32::MAX - a.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)),
            Step::AsPathLength => a.as_path.length() as u128,
            Step::Origin => match a.origin {
                Origin::Igp => 0,
                Origin::Egp => 1,
                Origin::Incomplete => 2,
            },
            Step::Med => u128::from(a.med.unwrap_or(0)),
            Step::External => u128::from(c.neighbor.is_some_and(|n| n.internal)),
            Step::NextHopCost => u128::from(c.cost),
            Step::RouterId => u128::from(u32::from(router_id(c))),
            Step::ClusterList => a.cluster_list.len() as u128,
            Step::PeerAddress => c.neighbor.map_or(0, |n| address_rank(n.addr)),
            Step::PathId => u128::from(c.path.path_id),
        }
    }

    /// The candidates that this step keeps.
    fn keep<'c, 'a>(self, list: &'c [Candidate<'a>]) -> impl Fn(&Candidate<'a>) -> bool + use<'c, 'a> {
        let best = list.iter().map(|c| self.rank(c)).min();
        move |c| match self {
            Step::Med => {
                !list.iter().any(|other| same_neighbor_as(other, c) && self.rank(other) < self.rank(c))
            }
            _ => Some(self.rank(c)) == best,
        }
    }
}

fn same_neighbor_as(a: &Candidate<'_>, b: &Candidate<'_>) -> bool {
    a.attributes.as_path.first() == b.attributes.as_path.first()
}

fn router_id(c: &Candidate<'_>) -> Ipv4Addr {
    let own = c.neighbor.map_or(Ipv4Addr::UNSPECIFIED, |n| n.router_id);
    c.attributes.originator_id.unwrap_or(own)
}

fn address_rank(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

/// Runs steps until one is left, telling `lost` what each threw out.
pub(crate) fn eliminate<'a>(
    steps: &[Step],
    mut list: Vec<Candidate<'a>>,
    mut lost: impl FnMut(Step, &Candidate<'a>),
) -> Vec<Candidate<'a>> {
    for step in steps {
        if list.len() < 2 {
            break;
        }
        let (kept, out): (Vec<_>, Vec<_>) = list.iter().partition(|c| step.keep(&list)(c));
        out.iter().for_each(|c| lost(*step, c));
        list = kept;
    }
    list
}

/// The steps that decide what is equally good, and those that only break the tie.
pub(crate) fn phases() -> (&'static [Step], &'static [Step]) {
    ORDER.split_at(EQUAL_COST)
}

/// Puts the best path of a node first, the equally good ones behind it, and marks those in use.
pub(crate) fn select(node: &mut Node, ctx: &Context<'_>) {
    if let [only] = &mut *node.paths {
        only.used = ctx.candidate(only).is_some();
        return;
    }
    let (equal, tie) = phases();
    let list: Vec<Candidate<'_>> = node.paths.iter().filter_map(|p| ctx.candidate(p)).collect();
    let mut winners = eliminate(equal, list, |_, _| {});
    winners.sort_by_key(|c| [0, 1, 2, 3].map(|i: usize| tie[i].rank(c)));
    winners.truncate(ctx.options.max_paths.max(1).into());
    let keys: Vec<(PeerId, u32)> = winners.iter().map(|c| (c.path.peer, c.path.path_id)).collect();
    let place = |p: &Path| keys.iter().position(|k| *k == (p.peer, p.path_id)).unwrap_or(keys.len());
    node.paths.sort_by_key(place);
    node.paths.iter_mut().enumerate().for_each(|(n, path)| path.used = n < keys.len());
}
