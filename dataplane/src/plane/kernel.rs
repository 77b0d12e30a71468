//! The kernel's side: one comparison of everything, and the differences of a change.

use super::tunnels::Tunnels;
use super::{mtu, rules, tunnels, wireguard, workloads};
use crate::context::Context;
use anyhow::{Context as _, Result};
use ipnet::IpNet;
use model::Family;
use netlink::{Link, MAIN_TABLE, NODE_METRIC, NODE_PROTOCOL, Nl, NodeRoute, Seen, Table};
use policy::mtu::Mtus;
use policy::{Delta, Graph, Via, Wish};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Bound on one wait for the kernel, and on one run of `nft`.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What a round did.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub changed: usize,
    /// Routes that are wished.
    pub routes: usize,
    /// What failed, each in one line.
    pub problems: Vec<String>,
}

impl Done {
    /// Takes a step's outcome; a failure does not stop the steps after it.
    pub fn step<E: std::fmt::Display>(&mut self, outcome: Result<usize, E>) {
        match outcome {
            Ok(changed) => self.changed += changed,
            Err(error) => self.problems.push(error.to_string()),
        }
    }
}

/// What reports of the kernel ask for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Touched {
    pub full: bool,
    pub pods: bool,
    pub rules: bool,
}

pub(super) struct Kernel {
    pub nl: Nl,
    pub state_dir: PathBuf,
    pub tunnels: Tunnels,
    tables: rules::Tables,
    /// Links that are no pod's, as they were seen last: MTU and whether they are up.
    host_links: BTreeMap<u32, (String, u32, bool)>,
    mtus: Option<Mtus>,
    /// Whether the kernel does IPv6.
    has_v6: bool,
}

impl Kernel {
    pub fn new(context: &Context) -> Result<Self> {
        Ok(Self {
            nl: Nl::here(PATIENCE).context("opening netlink")?,
            state_dir: context.state_dir.clone(),
            tunnels: Tunnels::default(),
            tables: rules::Tables::default(),
            host_links: BTreeMap::new(),
            mtus: None,
            has_v6: std::path::Path::new("/proc/sys/net/ipv6").exists(),
        })
    }

    /// The WireGuard links that exist, by name.
    pub fn wireguard_links(&self, graph: &Graph) -> Vec<(Family, String)> {
        let there = self.tunnels.wireguard.keys();
        there.filter_map(|family| Some((*family, graph.wish().wireguard.get(family)?.name.clone()))).collect()
    }

    /// Makes everything as wished.
    pub fn sync(&mut self, graph: &Graph) -> Done {
        let mut done = Done { routes: graph.wish().routes.len(), ..Done::default() };
        if let Err(error) = self.look(graph) {
            done.problems.push(error.to_string());
            return done;
        }
        let outcome = self.sync_mtu(graph);
        done.step(outcome);
        self.tunnels.ensure(&mut self.nl, graph, self.mtus, &mut done);
        let wish = graph.wish();
        done.step(tunnels::sync_vteps(&mut self.nl, &self.tunnels, wish));
        self.sync_routes(wish, &mut done);
        wireguard::sync_routes(&mut self.nl, &self.tunnels, wish, &mut done);
        tunnels::remove_unwished(&mut self.nl, graph, &mut done);
        let pods = self.sync_workloads(graph);
        let rules = self.sync_rules(graph);
        for part in [pods, rules] {
            done.changed += part.changed;
            done.problems.extend(part.problems);
        }
        done
    }

    /// The links and addresses of the host.
    fn look(&mut self, graph: &Graph) -> Result<(), netlink::Error> {
        let prefix = &graph.config().interface_prefix;
        let links = netlink::links(&mut self.nl, "")?;
        let of_host = links.iter().filter(|link| !link.name.starts_with(prefix.as_str()));
        self.host_links = of_host.map(|link| (link.index, facts(link))).collect();
        let addresses = netlink::addresses(&mut self.nl)?;
        self.tunnels.find_parents(graph, &addresses);
        Ok(())
    }

    fn sync_mtu(&mut self, graph: &Graph) -> Result<usize> {
        let links = self
            .host_links
            .values()
            .map(|(name, mtu, _)| policy::mtu::HostLink { name: name.clone(), mtu: *mtu });
        let mtus = policy::mtu::mtus(&links.collect::<Vec<_>>(), graph);
        let before = self.mtus.replace(mtus);
        if before.is_none_or(|before| before.host != mtus.host) && mtus.guessed {
            let pattern = &graph.config().mtu_pattern;
            tracing::warn!(
                pattern,
                mtu = mtus.host,
                "no interface matches mtuIfacePattern; its MTU is assumed"
            );
        }
        mtu::publish(&self.state_dir, mtus.pod, &mut self.nl, graph)
    }

    fn sync_routes(&mut self, wish: &Wish, done: &mut Done) {
        let routes = wish
            .routes
            .iter()
            .filter_map(|(dst, via)| Some((*dst, self.tunnels.route(dst, *via)?)))
            .collect();
        self.report_unroutable(wish, &routes, done);
        match netlink::sync_routes(&mut self.nl, Table::of_node(MAIN_TABLE), &routes) {
            Ok(synced) => note(synced, done),
            Err(error) => done.problems.push(error.to_string()),
        }
    }

    fn report_unroutable(&self, wish: &Wish, routes: &BTreeMap<IpNet, NodeRoute>, done: &mut Done) {
        let lost: Vec<&IpNet> = wish.routes.keys().filter(|dst| !routes.contains_key(*dst)).collect();
        if let Some(first) = lost.first() {
            done.problems
                .push(format!("{} networks, such as {first}, have no link to be routed by", lost.len()));
        }
    }

    /// What changed since the last time: routes and other nodes' tunnels.
    pub fn change(&mut self, graph: &Graph, delta: &Delta) -> Done {
        let wish = graph.wish();
        let mut done = Done { routes: wish.routes.len(), ..Done::default() };
        if !delta.vteps.is_empty() {
            done.step(tunnels::sync_vteps(&mut self.nl, &self.tunnels, wish));
        }
        let mut changes = Vec::new();
        for dst in &delta.routes {
            let wanted = wish.routes.get(dst);
            let route = wanted.and_then(|via| self.tunnels.route(dst, *via));
            if route.is_none() && wanted.is_some() {
                done.problems.push(format!("{dst} has no link to be routed by"));
            }
            changes.push((*dst, route));
        }
        match netlink::change_routes(&mut self.nl, Table::of_node(MAIN_TABLE), &changes) {
            Ok(synced) => note(synced, &mut done),
            Err(error) => done.problems.push(error.to_string()),
        }
        done
    }

    /// Pods' routes, and the settings that they need.
    pub fn sync_workloads(&mut self, graph: &Graph) -> Done {
        let mut done = Done::default();
        let families: BTreeSet<Family> = graph.wish().workloads.keys().map(|ip| Family::of(*ip)).collect();
        let needs = |family| {
            families.contains(&family) || graph.wish().routes.keys().any(|net| Family::of_net(net) == family)
        };
        let v6 = needs(Family::V6) && self.has_v6;
        done.step(netlink::ensure_forwarding(needs(Family::V4), v6).map(|()| 0));
        workloads::sync(&mut self.nl, graph, &mut done);
        done
    }

    pub fn sync_rules(&mut self, graph: &Graph) -> Done {
        let mut done = Done::default();
        done.step(rules::sync(&mut self.tables, &graph.wish().rules, &self.state_dir));
        done
    }

    /// Whether reports tell of something of ours that is not as wished.
    pub fn concerns(&self, seen: &[Seen], wish: &Wish) -> Touched {
        let mut all = Touched::default();
        for seen in seen {
            let touched = self.concern(seen, wish);
            all.full |= touched.full;
            all.pods |= touched.pods;
            all.rules |= touched.rules;
        }
        all
    }

    fn concern(&self, seen: &Seen, wish: &Wish) -> Touched {
        let full = |full| Touched { full, ..Touched::default() };
        match seen {
            Seen::Lost => Touched { full: true, pods: true, rules: true },
            Seen::Ruleset => Touched { rules: true, ..Touched::default() },
            Seen::Setting => Touched { pods: true, ..Touched::default() },
            Seen::Link(link) if link.name.starts_with(&wish.rules.prefix) => Touched::default(),
            Seen::Link(link) => full(self.host_links.get(&link.index) != Some(&facts(link))),
            Seen::LinkGone { ifindex, .. } => full(self.host_links.contains_key(ifindex)),
            Seen::Address { ifindex, .. } => full(self.host_links.contains_key(ifindex)),
            Seen::Neighbour { ifindex, .. } => full(self.tunnels.is_vxlan(*ifindex)),
            Seen::Rule => full(!wish.wireguard.is_empty()),
            Seen::Route { route, gone } => self.concerning_route(route, *gone, wish),
        }
    }

    fn concerning_route(&self, route: &netlink::PodRouteSeen, gone: bool, wish: &Wish) -> Touched {
        if route.protocol == NODE_PROTOCOL && route.metric == NODE_METRIC {
            let wanted = wish.routes.get(&route.dst).and_then(|via| self.tunnels.route(&route.dst, *via));
            let as_wished = match (wanted, route.table == MAIN_TABLE) {
                (Some(wanted), true) => !gone && wanted.is(route),
                (None, true) => gone,
                (_, false) => wish.wireguard.is_empty(),
            };
            return Touched { full: !as_wished, ..Touched::default() };
        }
        let alone = route.dst.prefix_len() == route.dst.max_prefix_len();
        let pods = gone && alone && wish.workloads.contains_key(&route.dst.addr());
        Touched { pods, ..Touched::default() }
    }
}

fn facts(link: &Link) -> (String, u32, bool) {
    (link.name.clone(), link.mtu, link.up)
}

pub(super) fn note(synced: netlink::Synced, done: &mut Done) {
    done.changed += synced.changed;
    let more = synced.refused.len().saturating_sub(1);
    if let Some((net, error)) = synced.refused.into_iter().next() {
        done.problems.push(format!("route to {net}: {error} ({more} more)"));
    }
}

/// The gateway that a way of routing names.
pub(super) fn gateway(via: Via) -> Option<IpAddr> {
    match via {
        Via::Blackhole => None,
        Via::Direct(ip) | Via::Vxlan(ip) | Via::Ipip(ip) => Some(ip),
    }
}
