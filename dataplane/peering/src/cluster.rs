//! What is known of the cluster, and the wish that follows from it.

use crate::kernel::{Encapsulation, KernelRules, LoopPrevention};
use crate::origin::HostRule;
use crate::services::{Ranges, Service, Services, Slice};
use crate::wish::{Secret, Wish};
use crate::{expand, ignored, policy, prefix};
use bgp::rib::RibOptions;
use bgp::{PerFamily, Prefix};
use ipnet::IpNet;
use model::bgp::{BgpConfiguration, BgpConfigurationSpec, BgpFilter, BgpPeer, NodeBgp, Range, SecretKey};
use model::keys::{self, Key};
use model::resource::IpPoolSpec;
use model::{Affinity, AffinityState, IpPool, Node, Stored, ip};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Calico's default AS.
const DEFAULT_AS: u32 = 64512;
const BGP_PORT: u16 = 179;
/// Equally good paths that are used together.
const MAX_PATHS: u16 = 64;
/// Nodes with this label (and the value `true`) tell no service addresses.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Kubernetes' own objects, `NAMESPACE/NAME` behind it.
const SERVICES: &str = "/kubernetes/services/";
const SLICES: &str = "/kubernetes/endpointslices/";

/// Who this node is.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Name of the node object.
    pub node: String,
    /// Name by which Kubernetes' endpoints know the node.
    pub kubernetes_node: String,
    /// CALICO_ROUTER_ID: `hash`, an address, or nothing.
    pub router_id: String,
    /// CALICO_ADVERTISE_CLUSTER_IPS: networks in place of the configuration's `serviceClusterIPs`.
    pub cluster_ranges: Option<String>,
}

/// A node, as far as BGP is concerned.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeFacts {
    pub labels: BTreeMap<String, String>,
    pub bgp: NodeBgp,
}

/// All that was read. Objects that cannot be decoded count as absent and are named in the wish's problems.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub(crate) me: Identity,
    pub(crate) configs: BTreeMap<String, BgpConfigurationSpec>,
    pub(crate) nodes: BTreeMap<String, NodeFacts>,
    pub(crate) peers: BTreeMap<String, BgpPeer>,
    pub(crate) filters: BTreeMap<String, BgpFilter>,
    pub(crate) pools: BTreeMap<String, IpPoolSpec>,
    blocks: BTreeMap<IpNet, AffinityState>,
    services: Services,
    secrets: BTreeMap<SecretKey, Result<Secret, String>>,
    loop_prevention: LoopPrevention,
    /// Its routes are withdrawn.
    drained: bool,
    undecodable: BTreeMap<String, String>,
}

impl Cluster {
    pub fn new(me: Identity) -> Self {
        Cluster { me, ..Cluster::default() }
    }

    /// Beginnings of the keys that it wants to hear of.
    pub fn watched(&self) -> Vec<String> {
        let kinds =
            ["bgpconfigurations", "bgppeers", "bgpfilters", "nodes", "ippools", "felixconfigurations"];
        let mut all: Vec<String> = kinds.iter().map(|kind| keys::resources(kind)).collect();
        let scope = model::Scope::Cluster;
        let families = model::Family::BOTH.map(|f| keys::affinities(&scope, &self.me.node, f));
        all.extend(families);
        all
    }

    /// As [`Cluster::watched`], of a store that shows Kubernetes' own objects.
    pub fn watched_of_kubernetes() -> [String; 2] {
        [SERVICES.to_owned(), SLICES.to_owned()]
    }

    /// Takes a stored object in.
    pub fn put(&mut self, key: &str, value: &[u8]) {
        match self.take(key, value) {
            Ok(()) => drop(self.undecodable.remove(short(key))),
            Err(problem) => {
                self.delete(key);
                self.undecodable.insert(short(key).into(), problem);
            }
        }
    }

    fn take(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        let text = |e: model::DecodeError| e.problem.to_string();
        if key.starts_with(SERVICES) || key.starts_with(SLICES) {
            self.take_kubernetes(key, &serde_json::from_slice(value).map_err(|e| e.to_string())?);
            return Ok(());
        }
        match keys::parse(key) {
            Some(Key::Resource { kind, name }) => match kind.as_str() {
                "bgpconfigurations" => {
                    drop(self.configs.insert(name, BgpConfiguration::decode(key, value).map_err(text)?.spec))
                }
                "bgppeers" => drop(self.peers.insert(name, BgpPeer::decode(key, value).map_err(text)?)),
                "bgpfilters" => drop(self.filters.insert(name, BgpFilter::decode(key, value).map_err(text)?)),
                "ippools" => drop(self.pools.insert(name, IpPool::decode(key, value).map_err(text)?.spec)),
                "nodes" => self.take_node(name, &Node::decode(key, value).map_err(text)?),
                "felixconfigurations" if name == "default" => self.take_felix(value),
                _ => {}
            },
            Some(Key::Affinity { cidr, .. }) => {
                let state = Affinity::decode(key, value).map_err(text)?.state();
                self.blocks.insert(cidr, state);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_node(&mut self, name: String, node: &Node) {
        let facts = NodeFacts { labels: node.metadata.labels.clone(), bgp: NodeBgp::of(node) };
        self.nodes.insert(name, facts);
    }

    fn take_felix(&mut self, value: &[u8]) {
        let object: Value = serde_json::from_slice(value).unwrap_or_default();
        self.loop_prevention = match object["spec"]["serviceLoopPrevention"].as_str() {
            Some("Reject") => LoopPrevention::Reject,
            Some("Disabled") => LoopPrevention::Disabled,
            _ => LoopPrevention::Drop,
        };
    }

    /// A stored object is gone.
    pub fn delete(&mut self, key: &str) {
        self.undecodable.remove(short(key));
        self.forget_kubernetes(key);
        match keys::parse(key) {
            Some(Key::Resource { kind, name }) => match kind.as_str() {
                "bgpconfigurations" => drop(self.configs.remove(&name)),
                "bgppeers" => drop(self.peers.remove(&name)),
                "bgpfilters" => drop(self.filters.remove(&name)),
                "ippools" => drop(self.pools.remove(&name)),
                "nodes" => drop(self.nodes.remove(&name)),
                "felixconfigurations" if name == "default" => self.loop_prevention = LoopPrevention::Drop,
                _ => {}
            },
            Some(Key::Affinity { cidr, .. }) => {
                self.blocks.remove(&cidr);
            }
            _ => {}
        }
    }

    /// Everything under a prefix was told anew: what was not named is gone.
    pub fn forget(&mut self, prefix: &str, still_there: &BTreeSet<String>) {
        let names = |kind: &str, list: Vec<String>| -> Vec<String> {
            list.into_iter().map(|name| keys::resource(kind, &name)).collect()
        };
        let mut all = names("bgpconfigurations", self.configs.keys().cloned().collect());
        all.extend(names("bgppeers", self.peers.keys().cloned().collect()));
        all.extend(names("bgpfilters", self.filters.keys().cloned().collect()));
        all.extend(names("ippools", self.pools.keys().cloned().collect()));
        all.extend(names("nodes", self.nodes.keys().cloned().collect()));
        let scope = model::Scope::Cluster;
        all.extend(self.services.services.keys().map(|name| format!("{SERVICES}{name}")));
        all.extend(self.services.slices.keys().map(|name| format!("{SLICES}{name}")));
        all.extend(self.blocks.keys().map(|cidr| keys::affinity(&scope, &self.me.node, cidr)));
        for key in all.iter().filter(|key| key.starts_with(prefix) && !still_there.contains(*key)) {
            self.delete(key);
        }
    }

    fn take_kubernetes(&mut self, key: &str, object: &Value) {
        self.forget_kubernetes(key);
        if let Some(name) = key.strip_prefix(SERVICES) {
            self.services.services.extend(Service::parse(object).map(|s| (name.to_owned(), s)));
        }
        if let Some(name) = key.strip_prefix(SLICES) {
            let slice = Slice::parse(object, &self.me.kubernetes_node);
            self.services.slices.extend(slice.map(|s| (name.to_owned(), s)));
        }
    }

    fn forget_kubernetes(&mut self, key: &str) {
        if let Some(name) = key.strip_prefix(SERVICES) {
            self.services.services.remove(name);
        }
        if let Some(name) = key.strip_prefix(SLICES) {
            self.services.slices.remove(name);
        }
    }

    /// Passwords that sessions need.
    pub fn secrets_wanted(&self) -> BTreeSet<SecretKey> {
        let peers = self.peers.values().filter_map(|p| p.spec.password.as_ref());
        let mesh = self.config().and_then(|c| c.node_mesh_password.as_ref());
        peers.chain(mesh).filter_map(|p| p.secret_key_ref.clone()).collect()
    }

    /// A password, or why there is none.
    pub fn set_secret(&mut self, key: SecretKey, value: Result<Secret, String>) {
        self.secrets.insert(key, value);
    }

    /// Withdraws all routes, or tells them again.
    pub fn set_drained(&mut self, drained: bool) {
        self.drained = drained;
    }

    pub(crate) fn secret(&self, key: &SecretKey) -> Result<Secret, String> {
        let unread = || Err(format!("secret {}/{} is not read yet", key.name, key.key));
        self.secrets.get(key).cloned().unwrap_or_else(unread)
    }

    pub(crate) fn config(&self) -> Option<&BgpConfigurationSpec> {
        self.configs.get("default")
    }

    pub(crate) fn node_config(&self, node: &str) -> Option<&BgpConfigurationSpec> {
        self.configs.get(&format!("node.{node}"))
    }

    pub(crate) fn my_facts(&self) -> Option<&NodeFacts> {
        self.nodes.get(&self.me.node)
    }

    pub(crate) fn global_as(&self) -> u32 {
        self.config().and_then(|c| c.as_number).map_or(DEFAULT_AS, |asn| asn.0)
    }

    pub(crate) fn as_of(&self, node: &NodeFacts) -> u32 {
        node.bgp.as_number.map_or(self.global_as(), |asn| asn.0)
    }

    pub(crate) fn port_of(&self, node: &str) -> u16 {
        let own = self.node_config(node).and_then(|c| c.listen_port);
        own.or_else(|| self.config().and_then(|c| c.listen_port)).unwrap_or(BGP_PORT)
    }

    pub(crate) fn is_excluded(&self) -> bool {
        self.my_facts().is_some_and(|me| me.labels.get(EXCLUDED).is_some_and(|value| value == "true"))
    }

    /// RFC 6286: any four octets that no other speaker of the AS has, and not zero.
    pub(crate) fn router_id(&self, me: &NodeFacts) -> Ipv4Addr {
        if let Ok(literal) = self.me.router_id.parse() {
            return literal;
        }
        match me.bgp.v4 {
            Some(IpNet::V4(net)) if self.me.router_id != "hash" => net.addr(),
            _ => {
                let hash = Sha256::digest(self.me.node.as_bytes());
                Ipv4Addr::new(hash[0], hash[1], hash[2], hash[3])
            }
        }
    }

    /// What the node shall do; `None` as long as the node is not known, or has no BGP address.
    pub fn wish(&self) -> Option<Wish> {
        let me = self.my_facts().filter(|me| me.bgp.v4.is_some() || me.bgp.v6.is_some())?;
        let mut problems = self.undecodable.clone();
        let ranges = self.ranges(&mut problems);
        let local_as = self.as_of(me);
        let rib = RibOptions {
            local_as,
            router_id: self.router_id(me),
            cluster_id: me.bgp.cluster_id,
            max_paths: MAX_PATHS,
        };
        let export = policy::Export::new(self, &ranges, self.drained);
        let peers = expand::peers(self, me, &rib, &export, &mut problems);
        ignored::configurations(self, &mut problems);
        let addresses = || [me.bgp.v4, me.bgp.v6].into_iter().flatten().map(|net| net.addr());
        let bind = self.config().and_then(|c| c.bind_mode.as_deref()) == Some("NodeIP");
        Some(Wish {
            rib,
            port: self.port_of(&self.me.node),
            listen_on: if bind { addresses().collect() } else { Vec::new() },
            peers,
            originate: self.originate(&ranges),
            host_routes: self.host_rule(),
            kernel: self.kernel_rules(me, &ranges),
            log_level: self.log_level(),
            problems,
        })
    }

    /// The node's own word, then the cluster's.
    fn log_level(&self) -> Option<String> {
        let said = |c: &BgpConfigurationSpec| c.log_severity_screen.clone().filter(|level| !level.is_empty());
        self.node_config(&self.me.node).and_then(said).or_else(|| self.config().and_then(said))
    }

    fn ranges(&self, problems: &mut BTreeMap<String, String>) -> Ranges {
        let config = self.config().cloned().unwrap_or_default();
        let of = |ranges: &[Range]| ranges.iter().filter_map(|r| network(&r.cidr)).collect::<Vec<_>>();
        let cluster = match &self.me.cluster_ranges {
            Some(text) => text
                .split(',')
                .filter_map(|part| match network(part.trim()) {
                    Some(net) => Some(net),
                    None => {
                        problems
                            .insert("CALICO_ADVERTISE_CLUSTER_IPS".into(), format!("{part:?} is no network"));
                        None
                    }
                })
                .collect(),
            None => of(&config.service_cluster_ips),
        };
        Ranges {
            cluster,
            external: of(&config.service_external_ips),
            load_balancer: of(&config.service_load_balancer_ips),
            aggregate: config.service_load_balancer_aggregation.as_deref() != Some("Disabled"),
        }
    }

    /// Own blocks in any state (reference 4.6), and services unless the node is excluded.
    fn originate(&self, ranges: &Ranges) -> BTreeSet<Prefix> {
        let mut all: BTreeSet<Prefix> = self.blocks.keys().map(prefix).collect();
        if !self.is_excluded() {
            all.extend(ranges.whole());
            all.extend(self.services.hosts(ranges));
        }
        all
    }

    fn host_rule(&self) -> HostRule {
        let confirmed = self.blocks.iter().filter(|(_, state)| **state == AffinityState::Confirmed);
        HostRule {
            pools: self.pools.values().filter_map(|p| p.net()).map(|net| prefix(&net)).collect(),
            own_blocks: confirmed.map(|(cidr, _)| prefix(cidr)).collect(),
        }
    }

    fn kernel_rules(&self, me: &NodeFacts, ranges: &Ranges) -> KernelRules {
        let pools = self.pools.values();
        let own = |net: Option<IpNet>| net.map(|net| prefix(&net));
        KernelRules {
            services: ranges.all().collect(),
            loop_prevention: self.loop_prevention,
            pools: pools.filter_map(|p| Some((prefix(&p.net()?), encapsulation(p)))).collect(),
            own: PerFamily { v4: own(me.bgp.v4), v6: own(me.bgp.v6) },
        }
    }
}

fn encapsulation(pool: &IpPoolSpec) -> Encapsulation {
    let is_on = |mode: &str| !mode.is_empty() && mode != "Never";
    // Calico has no IPIP for IPv6.
    let v4 = pool.net().is_some_and(|net| net.addr().is_ipv4());
    match (is_on(&pool.vxlan_mode), is_on(&pool.ipip_mode) && v4) {
        (true, _) => Encapsulation::Vxlan,
        (_, true) => Encapsulation::Ipip { cross_subnet: pool.ipip_mode == "CrossSubnet" },
        _ => Encapsulation::None,
    }
}

pub(crate) fn network(text: &str) -> Option<Prefix> {
    ip::parse_net_or_ip(text).ok().map(|net| prefix(&net))
}

/// `bgppeers/NAME` instead of the whole key.
fn short(key: &str) -> &str {
    key.strip_prefix("/calico/resources/v3/projectcalico.org/").unwrap_or(key)
}
