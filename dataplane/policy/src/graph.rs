//! Changes in, the wish out. A change touches only what it concerns:
//!
//! ```text
//!  Block ────────► its routes, its workloads
//!  Node ─────────► routes of its blocks, its VTEP, rules      own node ► everything
//!  Pool ─────────► routes of the blocks inside, links, rules
//!  Felix, host ──► everything
//! ```

use crate::config::{Config, Problem, Sources};
use crate::routes::{Around, BlockFacts, Mode};
use crate::wish::{Ipip, Peer, Rules, Via, Vtep, Vxlan, Wireguard, Wish, Workload};
use ipnet::IpNet;
use model::node::{NodeNet, vtep_mac};
use model::{Block, Change, Family, IpPool};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Which parts of the wish changed since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub routes: BTreeSet<IpNet>,
    pub vteps: BTreeSet<(Family, String)>,
    pub workloads: BTreeSet<IpAddr>,
    /// A link of ours appears, goes or is another: VXLAN, IPIP, WireGuard.
    pub links: bool,
    pub wireguard: bool,
    pub rules: bool,
    /// What pools, settings or links ask of the MTU.
    pub mtu: bool,
}

impl Delta {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything known about the cluster, and the wish that follows from it.
#[derive(Debug)]
pub struct Graph {
    me: String,
    bgp: bool,
    sources: Sources,
    config: Config,
    problems: Vec<Problem>,
    pools: BTreeMap<String, IpPool>,
    nodes: BTreeMap<String, NodeNet>,
    blocks: BTreeMap<IpNet, BlockFacts>,
    blocks_of: BTreeMap<String, BTreeSet<IpNet>>,
    /// Which block asks for which route.
    asked: BTreeMap<(IpNet, IpNet), Via>,
    masquerade: BTreeMap<String, Vec<IpNet>>,
    wish: Wish,
    delta: Delta,
    stale: BTreeSet<IpNet>,
    all_stale: bool,
    around_stale: bool,
}

impl Graph {
    /// Nothing known yet. `bgp`: another part makes the routes that need no VXLAN.
    pub fn new(me: &str, bgp: bool, sources: Sources) -> Self {
        let (config, problems) = sources.config(me);
        Self {
            me: me.to_owned(),
            bgp,
            sources,
            config,
            problems,
            pools: BTreeMap::new(),
            nodes: BTreeMap::new(),
            blocks: BTreeMap::new(),
            blocks_of: BTreeMap::new(),
            asked: BTreeMap::new(),
            masquerade: BTreeMap::new(),
            wish: Wish::default(),
            delta: Delta { mtu: true, ..Delta::default() },
            stale: BTreeSet::new(),
            all_stale: true,
            around_stale: true,
        }
    }

    pub fn wish(&self) -> &Wish {
        &self.wish
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is wrong with the settings.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    pub fn pools(&self) -> impl Iterator<Item = &IpPool> {
        self.pools.values()
    }

    /// This node, as its object tells.
    pub fn own_node(&self) -> Option<&NodeNet> {
        self.nodes.get(&self.me)
    }

    pub fn nodes(&self) -> &BTreeMap<String, NodeNet> {
        &self.nodes
    }

    /// Takes note of a change; its consequences come with [`Graph::flush`].
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Pool { name, pool } => self.pool(name, pool.map(|pool| *pool)),
            Change::Block { cidr, block } => self.block(cidr, block.as_deref()),
            Change::Node { name, node } => self.node(&name, node.as_deref().map(NodeNet::of)),
            Change::Felix { name, config } => {
                if self.sources.set_stored(&name, config.map(|c| c.spec.settings)) {
                    self.reconfigure();
                }
            }
            Change::Masquerade { network, nets } => {
                put(&mut self.masquerade, network, nets);
                self.around_stale = true;
            }
        }
    }

    fn reconfigure(&mut self) {
        let (config, problems) = self.sources.config(&self.me);
        self.problems = problems;
        if config != self.config {
            self.config = config;
            self.stale_everything();
        }
    }

    fn stale_everything(&mut self) {
        self.all_stale = true;
        self.around_stale = true;
        self.delta.mtu = true;
    }

    fn pool(&mut self, name: String, pool: Option<IpPool>) {
        if self.pools.get(&name) == pool.as_ref() {
            return;
        }
        let nets: Vec<IpNet> =
            self.pools.get(&name).into_iter().chain(&pool).filter_map(|p| p.spec.net()).collect();
        let inside = |cidr: &&IpNet| nets.iter().any(|net| net.contains(*cidr));
        let touched: Vec<IpNet> = self.blocks.keys().filter(inside).copied().collect();
        self.stale.extend(touched);
        put(&mut self.pools, name, pool);
        self.around_stale = true;
        self.delta.mtu = true;
    }

    fn block(&mut self, cidr: IpNet, block: Option<&Block>) {
        self.workloads(cidr, block);
        let facts = block.map(BlockFacts::of);
        if self.blocks.get(&cidr) == facts.as_ref() {
            return;
        }
        for node in self.blocks.get(&cidr).iter().flat_map(|facts| facts.nodes()) {
            if let Some(blocks) = self.blocks_of.get_mut(node) {
                blocks.remove(&cidr);
            }
        }
        for node in facts.iter().flat_map(BlockFacts::nodes) {
            self.blocks_of.entry(node.clone()).or_default().insert(cidr);
        }
        put(&mut self.blocks, cidr, facts);
        self.stale.insert(cidr);
    }

    /// The addresses of a block that workloads of this node hold.
    fn workloads(&mut self, cidr: IpNet, block: Option<&Block>) {
        let held = block.into_iter().flat_map(Block::allocated);
        let own = held.filter(|(_, entry)| entry.get("node") == Some(&self.me) && !entry.released());
        let new: BTreeMap<IpAddr, Workload> =
            own.filter_map(|(ordinal, entry)| Some((block?.ip(ordinal), workload(entry)?))).collect();
        let old: Vec<IpAddr> =
            self.wish.workloads.range(cidr.network()..=cidr.broadcast()).map(|(ip, _)| *ip).collect();
        for ip in old.into_iter().filter(|ip| !new.contains_key(ip)) {
            self.wish.workloads.remove(&ip);
            self.delta.workloads.insert(ip);
        }
        for (ip, workload) in new {
            if self.wish.workloads.get(&ip) != Some(&workload) {
                self.wish.workloads.insert(ip, workload);
                self.delta.workloads.insert(ip);
            }
        }
    }

    fn node(&mut self, name: &str, net: Option<NodeNet>) {
        if self.nodes.get(name) == net.as_ref() {
            return;
        }
        put(&mut self.nodes, name.to_owned(), net);
        self.around_stale = true;
        match name == self.me {
            // Its links hang on its addresses.
            true => (self.all_stale, self.delta.links) = (true, true),
            false => self.stale.extend(self.blocks_of.get(name).into_iter().flatten()),
        }
    }

    /// Brings the wish up to date and tells what of it changed.
    pub fn flush(&mut self) -> Delta {
        let around_stale = std::mem::take(&mut self.around_stale);
        if around_stale {
            self.renew_links();
            self.renew_vteps();
            self.renew_rules();
        }
        let mut stale = std::mem::take(&mut self.stale);
        if std::mem::take(&mut self.all_stale) {
            stale.extend(self.blocks.keys());
        }
        for cidr in &stale {
            self.renew_block(*cidr);
        }
        if !stale.is_empty() || around_stale {
            self.renew_wireguard();
        }
        std::mem::take(&mut self.delta)
    }

    fn renew_block(&mut self, cidr: IpNet) {
        let new =
            self.blocks.get(&cidr).map(|facts| self.around(|around| around.routes(facts, self.mode(&cidr))));
        let new = new.unwrap_or_default();
        let inside = (cidr, cidr)..=(IpNet::from(cidr.broadcast()), IpNet::from(cidr.broadcast()));
        let old: Vec<(IpNet, IpNet)> =
            self.asked.range(inside).map(|(key, _)| *key).filter(|(_, block)| *block == cidr).collect();
        let mut touched: BTreeSet<IpNet> = new.keys().copied().collect();
        for key in old {
            self.asked.remove(&key);
            touched.insert(key.0);
        }
        self.asked.extend(new.into_iter().map(|(dst, via)| ((dst, cidr), via)));
        for dst in touched {
            self.renew_route(dst);
        }
    }

    /// Of two blocks that ask for one route the larger wins: the other is a leftover.
    fn renew_route(&mut self, dst: IpNet) {
        let wanted = self
            .asked
            .range((dst, IpNet::V4(ipnet::Ipv4Net::default()))..)
            .take_while(|((d, _), _)| *d == dst)
            .next();
        let wanted = wanted.map(|(_, via)| *via);
        if self.wish.routes.get(&dst).copied() != wanted {
            put(&mut self.wish.routes, dst, wanted);
            self.delta.routes.insert(dst);
        }
    }

    fn around<T>(&self, f: impl FnOnce(&Around) -> T) -> T {
        let has_vxlan = |family| self.wish.vxlan.contains_key(&family);
        f(&Around {
            me: &self.me,
            nodes: &self.nodes,
            bgp: self.bgp,
            vxlan: &has_vxlan,
            ipip: self.wish.ipip.is_some(),
        })
    }

    fn mode(&self, block: &IpNet) -> Mode {
        let pool = self.pools.values().find(|pool| pool.spec.net().is_some_and(|net| net.contains(block)));
        pool.map_or(Mode::Plain, |pool| Mode::of(pool, &self.config))
    }

    /// Whether any pool of the family is in this mode.
    fn uses(&self, family: Family, is_mode: fn(Mode) -> bool) -> bool {
        let of_family = |pool: &&IpPool| pool.spec.net().is_some_and(|net| Family::of_net(&net) == family);
        self.pools.values().filter(of_family).any(|pool| is_mode(Mode::of(pool, &self.config)))
    }

    /// Whether VXLAN is in use for a family, on whatever node.
    pub fn uses_vxlan(&self, family: Family) -> bool {
        self.uses(family, |mode| matches!(mode, Mode::Vxlan(_)))
    }

    pub fn uses_ipip(&self) -> bool {
        self.uses(Family::V4, |mode| matches!(mode, Mode::Ipip(_)))
    }

    pub fn uses_wireguard(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.config.wireguard_enabled,
            Family::V6 => self.config.wireguard_enabled_v6,
        }
    }

    fn renew_links(&mut self) {
        let vxlan: BTreeMap<Family, Vxlan> =
            Family::BOTH.into_iter().filter_map(|family| Some((family, self.vxlan(family)?))).collect();
        let ipip = self.own_node().and_then(|me| me.ipip).filter(|_| self.uses_ipip());
        let ipip = ipip.map(|inner| Ipip { inner });
        if vxlan != self.wish.vxlan || ipip != self.wish.ipip {
            self.wish.vxlan = vxlan;
            self.wish.ipip = ipip;
            self.delta.links = true;
            self.all_stale = true;
        }
    }

    fn vxlan(&self, family: Family) -> Option<Vxlan> {
        let own = self.own_node()?.family(family);
        let (inner, outer) = (own.vxlan?, own.address?.addr());
        self.uses_vxlan(family).then(|| Vxlan {
            vni: self.config.vxlan_vni,
            port: self.config.vxlan_port,
            inner,
            mac: own.vxlan_mac.unwrap_or_else(|| vtep_mac(&self.me, family)),
            outer,
        })
    }

    fn renew_vteps(&mut self) {
        let mut vteps = BTreeMap::new();
        for family in self.wish.vxlan.keys().copied() {
            for (name, node) in self.nodes.iter().filter(|(name, _)| **name != self.me) {
                let net = node.family(family);
                let (Some(inner), Some(outer)) = (net.vxlan, net.address) else { continue };
                let mac = net.vxlan_mac.unwrap_or_else(|| vtep_mac(name, family));
                vteps.insert((family, name.clone()), Vtep { inner, mac, outer: outer.addr() });
            }
        }
        let keys: BTreeSet<_> = vteps.keys().chain(self.wish.vteps.keys()).cloned().collect();
        let changed = keys.into_iter().filter(|key| vteps.get(key) != self.wish.vteps.get(key));
        self.delta.vteps.extend(changed);
        self.wish.vteps = vteps;
    }

    fn renew_rules(&mut self) {
        let mut rules = Rules {
            prefix: self.config.interface_prefix.clone(),
            no_vxlan_from_pods: (!self.config.allow_vxlan_from_workloads).then_some(self.config.vxlan_port),
            no_ipip_from_pods: !self.config.allow_ipip_from_workloads,
            nodes: self.config.external_nodes.iter().copied().collect(),
            vxlan: (!self.wish.vxlan.is_empty()).then_some(self.config.vxlan_port),
            ipip: self.wish.ipip.is_some(),
            ..Rules::default()
        };
        rules.nodes.extend(self.nodes.values().flat_map(|node| &node.addresses).map(|ip| IpNet::from(*ip)));
        for (net, pool) in self.pools.values().filter_map(|pool| Some((pool.spec.net()?, pool))) {
            rules.not_to.insert(net);
            if pool.spec.nat_outgoing {
                rules.masquerade.insert(net);
            }
        }
        let recorded = self.masquerade.values().flatten();
        rules.masquerade.extend(recorded.clone());
        rules.not_to.extend(recorded);
        if rules != self.wish.rules {
            self.wish.rules = rules;
            self.delta.rules = true;
        }
    }

    fn renew_wireguard(&mut self) {
        let wanted: BTreeMap<Family, Wireguard> =
            Family::BOTH.into_iter().filter_map(|family| Some((family, self.wireguard(family)?))).collect();
        if wanted != self.wish.wireguard {
            self.wish.wireguard = wanted;
            self.delta.wireguard = true;
        }
    }

    fn wireguard(&self, family: Family) -> Option<Wireguard> {
        if !self.uses_wireguard(family) {
            return None;
        }
        let v6 = family == Family::V6;
        let name = if v6 { &self.config.wireguard_name_v6 } else { &self.config.wireguard_name };
        let port = if v6 { self.config.wireguard_port_v6 } else { self.config.wireguard_port };
        let own = self.own_node()?.family(family);
        let mut wish = Wireguard {
            name: name.clone(),
            port,
            inner: own.wireguard,
            priority: self.config.wireguard_priority,
            table: self.config.route_table_min + u32::from(v6),
            peers: BTreeMap::new(),
            throw: BTreeSet::new(),
        };
        let keys = self.key_holders(family);
        for (node, net) in self.nodes.iter().map(|(node, net)| (node, net.family(family))) {
            let key = net.wireguard_key.as_ref().filter(|key| *node != self.me && keys.get(*key) == Some(&1));
            let (Some(key), Some(address)) = (key, net.address) else { continue };
            let mut allowed = self.routed_to(node, family);
            allowed.extend(net.wireguard.map(IpNet::from));
            wish.peers.insert(key.clone(), Peer { endpoint: address.addr(), port, allowed });
        }
        let taken: BTreeSet<&IpNet> = wish.peers.values().flat_map(|peer| &peer.allowed).collect();
        let all = self.blocks_of.keys().flat_map(|node| self.routed_to(node, family));
        wish.throw = all.filter(|net| !taken.contains(net)).collect();
        Some(wish)
    }

    /// How many nodes claim a public key: one that two claim is used by none.
    fn key_holders(&self, family: Family) -> BTreeMap<&String, usize> {
        let mut holders = BTreeMap::new();
        for key in self.nodes.values().filter_map(|node| node.family(family).wireguard_key.as_ref()) {
            *holders.entry(key).or_default() += 1;
        }
        holders
    }

    /// Blocks of others, or of nobody, that this node has addresses of.
    pub fn borrowed_from(&self) -> BTreeSet<IpNet> {
        let blocks = self.blocks_of.get(&self.me).into_iter().flatten();
        let is_own =
            |cidr: &&IpNet| self.blocks.get(cidr).is_some_and(|b| b.owner.as_ref() == Some(&self.me));
        blocks.filter(|cidr| !is_own(cidr)).copied().collect()
    }

    /// The networks of a node: its blocks and what it borrowed.
    fn routed_to(&self, node: &str, family: Family) -> BTreeSet<IpNet> {
        let mut nets = BTreeSet::new();
        let blocks = self.blocks_of.get(node).into_iter().flatten();
        let of_family = blocks.filter(|cidr| Family::of_net(cidr) == family);
        for facts in of_family.filter_map(|cidr| self.blocks.get(cidr)) {
            if facts.owner.as_deref() == Some(node) {
                nets.insert(facts.cidr);
            }
            let borrowed = facts.borrowed.iter().filter(|(_, by)| *by == node);
            nets.extend(borrowed.map(|(ip, _)| IpNet::from(*ip)));
        }
        nets
    }
}

fn workload(entry: &model::Attribute) -> Option<Workload> {
    if entry.get("type").is_some() {
        return None;
    }
    let text = |name: &str| entry.get(name).map(str::to_owned);
    Some(Workload {
        handle: entry.handle()?.to_owned(),
        network: text("network"),
        ifname: text("ifname"),
        pod: text("namespace").zip(text("pod")),
        netns: text("netns"),
    })
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
