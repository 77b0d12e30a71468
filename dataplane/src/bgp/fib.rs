//! Learnt routes in the kernel: wish, compare, write only what differs. What carries our protocol number is ours.

use super::topology::Topology;
use bgp::rib::Rib;
use bgp::wire::NextHop;
use bgp::{Family, Prefix, PrefixMap};
use netlink::{FibHop, FibRoute, Nl, RouteKind};
use peering::{Hop, KernelRules, LoopPrevention, Refusal, Way};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Our mark: a number that nobody else is known to use (iproute2's rt_protos).
pub(super) const PROTOCOL: u8 = 179;
/// Behind whatever the host and the daemon's own routes have for the same network.
const METRIC: u32 = 32;
const MAIN: u32 = 254;
/// The table in which unused service addresses end. Its rule lets the host's own packets pass.
pub(super) const LOOP_TABLE: u32 = 1790;
/// Routes written to the kernel in one go: a table of a million is not copied whole for it.
const AT_ONCE: usize = 4096;

type Hops = Arc<[FibHop]>;

/// What the kernel has of ours, and what it refused.
pub(super) struct Fib {
    nl: Nl,
    rules: KernelRules,
    installed: PrefixMap<Hops>,
    /// Each of the hops of `installed` once: there are few, however many the routes.
    shared: BTreeSet<Hops>,
    /// What the kernel did not take, and why. What our own rules refuse is not listed: they can be asked again.
    failed: BTreeMap<Prefix, String>,
    /// Next hops in use, and the ways to them.
    next_hops: BTreeMap<IpAddr, Vec<Hop>>,
    /// To look at; some of them more than once.
    dirty: Vec<Prefix>,
    /// Peers that are reached through a named gateway.
    statics: BTreeMap<Prefix, IpAddr>,
    /// Nothing is removed before the peers have told everything after a restart.
    may_remove: bool,
}

impl Fib {
    /// With what an earlier daemon left in the kernel.
    pub fn adopt(mut nl: Nl) -> Result<Self, netlink::Error> {
        let ours = netlink::fib_routes(&mut nl, MAIN)?.into_iter().filter(is_ours);
        let ours: Vec<FibRoute> = ours.collect();
        let mut fib = Fib {
            nl,
            rules: KernelRules::default(),
            installed: PrefixMap::default(),
            shared: BTreeSet::new(),
            failed: BTreeMap::new(),
            next_hops: BTreeMap::new(),
            dirty: Vec::new(),
            statics: BTreeMap::new(),
            may_remove: false,
        };
        fib.take_stock(ours);
        Ok(fib)
    }

    fn take_stock(&mut self, ours: Vec<FibRoute>) {
        self.installed = PrefixMap::default();
        for route in ours {
            self.has(peering::prefix(&route.net), route.hops);
        }
    }

    /// Notes what the kernel has.
    fn has(&mut self, prefix: Prefix, hops: Vec<FibHop>) {
        let hops = match self.shared.get(&hops[..]) {
            Some(known) => known.clone(),
            None => self.share(hops),
        };
        self.installed.insert(prefix, hops);
    }

    fn share(&mut self, hops: Vec<FibHop>) -> Hops {
        if self.shared.len() >= AT_ONCE {
            self.shared.retain(|hops| Arc::strong_count(hops) > 1);
        }
        let hops: Hops = hops.into();
        self.shared.insert(hops.clone());
        hops
    }

    pub fn installed(&self) -> usize {
        self.installed.len()
    }

    pub fn mark(&mut self, prefix: Prefix) {
        self.dirty.push(prefix);
    }

    /// Everything is looked at again.
    pub fn mark_all(&mut self, rib: &Rib) {
        self.dirty.extend(rib.prefixes());
        self.dirty.extend(self.installed.keys());
        self.dirty.extend(self.statics.keys().copied());
    }

    /// From now on what nobody wants goes.
    pub fn converged(&mut self, rib: &Rib) {
        self.may_remove = true;
        self.mark_all(rib);
    }

    pub fn set_rules(&mut self, rules: &KernelRules, rib: &Rib) {
        if self.rules != *rules {
            self.rules = rules.clone();
            self.mark_all(rib);
            self.write_loop_table();
        }
    }

    pub fn set_statics(&mut self, statics: BTreeMap<Prefix, IpAddr>) {
        if self.statics != statics {
            self.dirty.extend(self.statics.keys().chain(statics.keys()).copied());
            self.statics = statics;
        }
    }

    /// Next hops whose reachability is not what it was: the answer is for `Rib::set_next_hop`. Prefixes through
    /// those whose way changed are marked.
    pub fn resolve_again(&mut self, topology: &Topology, rib: &Rib) -> Vec<(IpAddr, bool)> {
        let known: Vec<IpAddr> = self.next_hops.keys().copied().collect();
        let mut changed = BTreeSet::new();
        let mut reachable = Vec::new();
        for hop in known {
            let ways = ways(topology, rib, hop);
            let before = self.next_hops.insert(hop, ways.clone()).unwrap_or_default();
            if before.is_empty() != ways.is_empty() {
                reachable.push((hop, !ways.is_empty()));
            }
            if before != ways {
                changed.insert(hop);
            }
        }
        if !changed.is_empty() {
            let through = |p: &Prefix| rib.next_hops(*p).iter().any(|h| changed.contains(&h.addr));
            self.dirty.extend(rib.prefixes().filter(through));
        }
        reachable
    }

    /// Next hops of marked prefixes that were not known, with whether they can be reached.
    pub fn learn_next_hops(&mut self, topology: &Topology, rib: &Rib) -> Vec<(IpAddr, bool)> {
        let mut news = Vec::new();
        for prefix in &self.dirty {
            for hop in rib.next_hops(*prefix) {
                self.next_hops.entry(hop.addr).or_insert_with(|| {
                    let ways = ways(topology, rib, hop.addr);
                    news.push((hop.addr, !ways.is_empty()));
                    ways
                });
            }
        }
        news
    }

    /// True if a learnt route leads to some next hop, so that a change of routes may change ways.
    pub fn is_recursive(&self, changed: &Prefix) -> bool {
        // The first address that may lie in it; all that do follow on it.
        let first = self.next_hops.range(changed.addr()..).next();
        first.is_some_and(|(hop, _)| changed.contains(*hop))
    }

    /// Brings the kernel to what is wanted for all marked prefixes.
    pub fn apply(&mut self, topology: &Topology, rib: &Rib) {
        let mut dirty = std::mem::take(&mut self.dirty);
        // The order of the table, so that the kernel's changes can be read.
        dirty.sort_unstable();
        dirty.dedup();
        dirty.chunks(AT_ONCE).for_each(|some| self.apply_to(some, topology, rib));
    }

    fn apply_to(&mut self, prefixes: &[Prefix], topology: &Topology, rib: &Rib) {
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for prefix in prefixes.iter().copied() {
            let wanted = self.wanted(prefix, topology, rib);
            match self.installed.get(&prefix) {
                Some(have) if wanted[..] == have[..] => {}
                None if wanted.is_empty() => {}
                Some(_) if wanted.is_empty() => {
                    if self.may_remove {
                        gone.push(prefix);
                    }
                }
                _ => put.push((prefix, wanted)),
            }
        }
        self.write(put);
        self.remove(gone);
    }

    fn wanted(&mut self, prefix: Prefix, topology: &Topology, rib: &Rib) -> Vec<FibHop> {
        self.failed.remove(&prefix);
        let mut hops: Vec<FibHop> = match self.statics.get(&prefix) {
            Some(gateway) => topology.resolver.way(*gateway, |_| None).iter().map(fib_hop).collect(),
            None => {
                rib.next_hops(prefix).iter().flat_map(|hop| self.through(&prefix, hop, topology)).collect()
            }
        };
        hops.sort_unstable();
        hops.dedup();
        if !hops.is_empty() && topology.resolver.has(&prefix, METRIC) {
            self.failed.insert(prefix, format!("another program has a route of metric {METRIC}"));
            hops.clear();
        }
        hops
    }

    fn through(&self, prefix: &Prefix, hop: &NextHop, topology: &Topology) -> Vec<FibHop> {
        let ways = self.next_hops.get(&hop.addr).map(Vec::as_slice).unwrap_or_default();
        match self.rules.way(prefix, hop.addr) {
            Way::Plain => ways.iter().map(fib_hop).collect(),
            Way::Tunnel => match topology.tunnel() {
                Some(ifindex) if !ways.is_empty() => {
                    vec![FibHop { gateway: Some(hop.addr), ifindex, onlink: true }]
                }
                _ => Vec::new(),
            },
            Way::Refuse(_) => Vec::new(),
        }
    }

    fn write(&mut self, put: Vec<(Prefix, Vec<FibHop>)>) {
        let routes: Vec<FibRoute> = put.iter().map(|(p, hops)| route(p, hops.clone())).collect();
        match netlink::put_fib_routes(&mut self.nl, &routes) {
            Ok(results) => {
                for ((prefix, hops), result) in put.into_iter().zip(results) {
                    match result {
                        Ok(()) => self.has(prefix, hops),
                        Err(e) => self.refused(prefix, &e),
                    }
                }
            }
            Err(e) => put.into_iter().for_each(|(prefix, _)| self.refused(prefix, &e)),
        }
    }

    fn refused(&mut self, prefix: Prefix, error: &netlink::Error) {
        tracing::warn!(%prefix, %error, "the kernel did not take a route");
        self.failed.insert(prefix, error.to_string());
    }

    fn remove(&mut self, gone: Vec<Prefix>) {
        let routes: Vec<FibRoute> = gone.iter().map(|p| route(p, Vec::new())).collect();
        let results = netlink::remove_fib_routes(&mut self.nl, &routes).unwrap_or_default();
        for (prefix, result) in gone.iter().zip(results) {
            match result {
                Ok(()) => drop(self.installed.remove(prefix)),
                Err(e) => self.refused(*prefix, &e),
            }
        }
    }

    /// A route of ours as an event told it. One that is not as we left it is written again.
    pub fn seen(&mut self, route: &FibRoute, is_there: bool) {
        let prefix = peering::prefix(&route.net);
        let as_left = match self.installed.get(&prefix) {
            Some(hops) => is_there && !route.dead && same(hops, &route.hops),
            None => !is_there,
        };
        if !as_left {
            match is_there {
                true => self.has(prefix, route.hops.clone()),
                false => drop(self.installed.remove(&prefix)),
            }
            self.dirty.push(prefix);
        }
    }

    /// After events were lost: what the kernel has now.
    pub fn resync(&mut self, ours: Vec<FibRoute>, rib: &Rib) {
        self.take_stock(ours);
        self.mark_all(rib);
    }

    /// What the kernel has for a prefix, for reports.
    pub fn report(&self, prefix: &Prefix, hops: &[NextHop]) -> String {
        let refused = hops.iter().find_map(|hop| match self.rules.way(prefix, hop.addr) {
            Way::Refuse(why) => Some(refusal(why).to_owned()),
            Way::Plain | Way::Tunnel => None,
        });
        match (refused.or_else(|| self.failed.get(prefix).cloned()), self.installed.contains_key(prefix)) {
            (Some(why), _) => why,
            (None, true) => "installed".into(),
            (None, false) => "not installed".into(),
        }
    }

    /// Packets that enter the host for a service address and that nothing took would otherwise follow the default
    /// route back to whoever sent them. The table is asked for those only, so that the host's own reach services.
    fn write_loop_table(&mut self) {
        let kind = match self.rules.loop_prevention {
            LoopPrevention::Reject => RouteKind::Prohibit,
            LoopPrevention::Drop | LoopPrevention::Disabled => RouteKind::Blackhole,
        };
        let off = self.rules.loop_prevention == LoopPrevention::Disabled;
        let ranges = if off { &[][..] } else { &self.rules.services[..] };
        let wanted: Vec<FibRoute> = ranges.iter().map(|range| dead_end(range, kind)).collect();
        let have = netlink::fib_routes(&mut self.nl, LOOP_TABLE).unwrap_or_default();
        let stays = |r: &FibRoute| wanted.iter().any(|w| (w.net, w.kind) == (r.net, r.kind));
        let gone: Vec<FibRoute> = have.into_iter().filter(|r| is_ours(r) && !stays(r)).collect();
        let removed = netlink::remove_fib_routes(&mut self.nl, &gone).map(drop);
        let written = netlink::put_fib_routes(&mut self.nl, &wanted).map(drop);
        let ruled = Family::ALL.iter().try_for_each(|family| {
            let used = wanted.iter().any(|w| Family::of(w.net.addr()) == *family);
            netlink::set_forward_rule(&mut self.nl, *family == Family::Ipv4, LOOP_TABLE, PROTOCOL, used)
        });
        if let Err(error) = removed.and(written).and(ruled) {
            tracing::warn!(%error, "packets to unused service addresses may loop");
        }
    }
}

/// IPv6 has no blackhole without a link: the kernel puts `lo` there.
fn same(ours: &[FibHop], seen: &[FibHop]) -> bool {
    let mut seen = seen.to_vec();
    seen.sort_unstable();
    ours == seen
}

fn ways(topology: &Topology, rib: &Rib, hop: IpAddr) -> Vec<Hop> {
    let learnt = |addr: IpAddr| {
        let found = rib.lookup(addr).filter(|f| !f.next_hops.is_empty())?;
        Some((found.prefix, found.next_hops.iter().map(|h| h.addr).collect()))
    };
    topology.resolver.way(hop, learnt)
}

fn fib_hop(hop: &Hop) -> FibHop {
    FibHop { gateway: hop.gateway, ifindex: hop.ifindex, onlink: hop.onlink }
}

fn route(prefix: &Prefix, hops: Vec<FibHop>) -> FibRoute {
    let net = peering::net(prefix);
    FibRoute {
        net,
        kind: RouteKind::Unicast,
        hops,
        protocol: PROTOCOL,
        table: MAIN,
        metric: METRIC,
        dead: false,
    }
}

fn dead_end(range: &Prefix, kind: RouteKind) -> FibRoute {
    FibRoute { kind, table: LOOP_TABLE, ..route(range, Vec::new()) }
}

pub(super) fn is_ours(route: &FibRoute) -> bool {
    route.protocol == PROTOCOL && route.metric == METRIC
}

fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::Service => "refused: in an own service range",
        Refusal::Vxlan => "refused: in a VXLAN pool, which the daemon routes itself",
    }
}
