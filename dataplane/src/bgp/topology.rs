//! The host's links and the routes that others made: what next hops are resolved over, and the routes to pods.

use super::fib::is_ours;
use bgp::Prefix;
use netlink::{FibEvent, FibMonitor, FibRoute, Link, Nl, RouteKind};
use peering::{Foreign, Hop, Resolver};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

const MAIN: u32 = 254;
/// The kernel's IPIP device, under the name that Calico uses.
const TUNNEL: &str = "tunl0";

pub(super) struct Topology {
    nl: Nl,
    monitor: FibMonitor,
    /// Beginning of the names of links to pods.
    workload_prefix: String,
    links: BTreeMap<u32, Link>,
    pub resolver: Resolver,
    /// Routes to pods of this host, and the links that they lead to.
    pods: BTreeMap<Prefix, u32>,
    links_changed: bool,
}

/// What a look at the events found.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Ways to next hops may have changed.
    pub ways: bool,
    pub pods: bool,
    /// Routes of ours that were added or removed, by us or by others.
    pub ours: Vec<(FibRoute, bool)>,
    /// All of ours, after events were lost.
    pub all_ours: Option<Vec<FibRoute>>,
}

impl Topology {
    /// In the calling thread's namespace.
    pub fn new(nl: Nl, workload_prefix: String) -> Result<Self, netlink::Error> {
        let monitor = FibMonitor::here()?;
        let mut topology = Topology {
            nl,
            monitor,
            workload_prefix,
            links: BTreeMap::new(),
            resolver: Resolver::default(),
            pods: BTreeMap::new(),
            links_changed: false,
        };
        topology.look()?;
        Ok(topology)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.monitor.fd()
    }

    pub fn pods(&self) -> impl Iterator<Item = &Prefix> {
        self.pods.keys()
    }

    pub fn tunnel(&self) -> Option<u32> {
        self.links.values().find(|l| l.name == TUNNEL && l.up).map(|l| l.index)
    }

    /// Everything anew; the answer is what is ours.
    fn look(&mut self) -> Result<Vec<FibRoute>, netlink::Error> {
        self.look_at_links()?;
        self.resolver.clear();
        self.pods.clear();
        let (ours, others): (Vec<_>, Vec<_>) =
            netlink::fib_routes(&mut self.nl, MAIN)?.into_iter().partition(is_ours);
        for route in &others {
            self.insert(route);
        }
        Ok(ours)
    }

    /// True if a link other than a pod's came up or went down: then the kernel dropped routes without a word.
    fn look_at_links(&mut self) -> Result<bool, netlink::Error> {
        self.links_changed = false;
        let links = netlink::links(&mut self.nl, "")?;
        let state = |links: &BTreeMap<u32, Link>, prefix: &str| -> Vec<(u32, bool, bool)> {
            let others = links.values().filter(|l| !l.name.starts_with(prefix));
            others.map(|l| (l.index, l.up, l.lower_up)).collect()
        };
        let before = state(&self.links, &self.workload_prefix);
        self.links = links.into_iter().map(|l| (l.index, l)).collect();
        Ok(before != state(&self.links, &self.workload_prefix))
    }

    /// The kernel drops a link's IPv4 routes without a word, too, when the link goes or is set down.
    fn forget_pods(&mut self) -> bool {
        let before = self.pods.len();
        self.pods.retain(|_, ifindex| self.links.get(ifindex).is_some_and(|link| link.up));
        self.pods.len() != before
    }

    /// Reads the events that are there.
    pub fn read(&mut self) -> Result<Changes, netlink::Error> {
        let mut changes = Changes::default();
        for event in self.monitor.read() {
            match event {
                FibEvent::Added(route) | FibEvent::Removed(route) if route.table != MAIN => {}
                FibEvent::Added(route) if is_ours(&route) => changes.ours.push((route, true)),
                FibEvent::Removed(route) if is_ours(&route) => changes.ours.push((route, false)),
                FibEvent::Added(route) => self.other(&route, true, &mut changes)?,
                FibEvent::Removed(route) => self.other(&route, false, &mut changes)?,
                FibEvent::Links => self.links_changed = true,
                FibEvent::Lost => changes.all_ours = Some(Vec::new()),
            }
        }
        let dropped = self.links_changed && self.look_at_links()?;
        changes.pods |= self.forget_pods();
        if dropped || changes.all_ours.is_some() {
            changes = Changes { ways: true, pods: true, ours: Vec::new(), all_ours: Some(self.look()?) };
        }
        Ok(changes)
    }

    fn other(
        &mut self,
        route: &FibRoute,
        is_there: bool,
        changes: &mut Changes,
    ) -> Result<(), netlink::Error> {
        if route.hops.iter().any(|hop| !self.links.contains_key(&hop.ifindex)) {
            self.look_at_links()?;
        }
        let prefix = peering::prefix(&route.net);
        if let Some(ifindex) = self.pod_link(route) {
            let before = if is_there { self.pods.insert(prefix, ifindex) } else { self.pods.remove(&prefix) };
            changes.pods |= before.is_some() != is_there;
        } else {
            changes.ways = true;
            match is_there {
                true => self.insert(route),
                false => self.resolver.remove(&prefix, route.metric),
            }
        }
        Ok(())
    }

    fn insert(&mut self, route: &FibRoute) {
        let prefix = peering::prefix(&route.net);
        if let Some(ifindex) = self.pod_link(route) {
            self.pods.insert(prefix, ifindex);
            return;
        }
        let hop = |h: &netlink::FibHop| Hop { gateway: h.gateway, ifindex: h.ifindex, onlink: h.onlink };
        let usable = route.kind == RouteKind::Unicast && !route.dead;
        let hops = if usable { route.hops.iter().map(hop).collect() } else { Vec::new() };
        self.resolver.insert(prefix, Foreign { metric: route.metric, hops });
    }

    fn pod_link(&self, route: &FibRoute) -> Option<u32> {
        let to_pod = |hop: &netlink::FibHop| {
            let link = self.links.get(&hop.ifindex);
            hop.gateway.is_none() && link.is_some_and(|l| l.name.starts_with(&self.workload_prefix))
        };
        let is_link_local = |net: &ipnet::IpNet| match net {
            ipnet::IpNet::V4(_) => false,
            ipnet::IpNet::V6(net) => net.addr().is_unicast_link_local() || net.addr().is_multicast(),
        };
        let is_one = route.kind == RouteKind::Unicast && !is_link_local(&route.net);
        match &route.hops[..] {
            [hop] if is_one && to_pod(hop) => Some(hop.ifindex),
            _ => None,
        }
    }
}
