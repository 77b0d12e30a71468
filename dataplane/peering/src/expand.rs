//! From the mesh and the BGPPeer resources to sessions (reference 4.2 to 4.4).

use crate::annotations::{self, Annotation, RANGE};
use crate::cluster::{Cluster, NodeFacts};
use crate::filter::{self, Side};
use crate::policy::Export;
use crate::wish::{PeerKey, PeerKind, PeerWish, Secret};
use bgp::policy::{Policy, Rule, Verdict};
use bgp::rib::{NeighborOptions, RibOptions};
use bgp::session::{AddPath, RestartConfig, SessionConfig};
use bgp::{Family, PerFamily, Prefix};
use model::bgp::{BgpPeer, BgpPeerSpec, Password, go_duration};
use model::selector::Selector;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// RFC 4724 section 3: twelve bits.
const MOST_RESTART: u64 = 4095;

/// The other side of one session.
struct Remote {
    key: PeerKey,
    /// None: any.
    asn: Option<u32>,
    cluster_id: Option<Ipv4Addr>,
}

struct Expansion<'a> {
    cluster: &'a Cluster,
    me: &'a NodeFacts,
    rib: &'a RibOptions,
    export: &'a Export,
    problems: &'a mut BTreeMap<String, String>,
    peers: BTreeMap<PeerKey, PeerWish>,
}

/// All sessions of this node. Global peers come first, then the node's own, then those that answer another
/// node's, then the mesh; the first for an address and port counts.
pub(crate) fn peers(
    cluster: &Cluster,
    me: &NodeFacts,
    rib: &RibOptions,
    export: &Export,
    problems: &mut BTreeMap<String, String>,
) -> BTreeMap<PeerKey, PeerWish> {
    let mut e = Expansion { cluster, me, rib, export, problems, peers: BTreeMap::new() };
    let is_global = |p: &&BgpPeer| p.spec.node.is_empty() && p.spec.node_selector.is_empty();
    let (global, own): (Vec<&BgpPeer>, Vec<&BgpPeer>) = cluster.peers.values().partition(is_global);
    for (kind, list) in [(PeerKind::Global, &global), (PeerKind::Node, &own)] {
        list.iter().for_each(|peer| e.add(kind, peer));
    }
    for peer in global.iter().chain(&own) {
        e.answer(peer);
    }
    e.mesh();
    e.peers
}

impl Expansion<'_> {
    fn problem(&mut self, peer: &BgpPeer, what: impl Into<String>) {
        self.problems.insert(format!("bgppeers/{}", peer.name()), what.into());
    }

    /// Whether text selects a node; a selector that cannot be read selects none.
    fn selects(&mut self, peer: &BgpPeer, text: &str, node: &NodeFacts) -> bool {
        match Selector::parse(text) {
            Ok(selector) => selector.matches(&node.labels),
            Err(e) => {
                self.problem(peer, format!("selector {text:?}: {e}"));
                false
            }
        }
    }

    /// Whether a node is on the side that the resource was made for.
    fn is_local(&mut self, peer: &BgpPeer, name: &str, node: &NodeFacts) -> bool {
        let spec = &peer.spec;
        if !spec.node.is_empty() {
            return spec.node == name;
        }
        spec.node_selector.is_empty() || self.selects(peer, &spec.node_selector, node)
    }

    fn add(&mut self, kind: PeerKind, peer: &BgpPeer) {
        if !self.is_local(peer, &self.cluster.me.node.clone(), self.me) {
            return;
        }
        if !peer.spec.local_workload_selector.is_empty() {
            return self.problem(peer, "localWorkloadSelector is not supported");
        }
        if let Some(what) = crate::ignored::peer(peer) {
            self.problem(peer, what);
        }
        for remote in self.remotes(peer) {
            self.insert(kind, peer, remote);
        }
    }

    /// The speakers that the resource points to.
    fn remotes(&mut self, peer: &BgpPeer) -> Vec<Remote> {
        let spec = &peer.spec;
        if !spec.peer_selector.is_empty() {
            let cluster = self.cluster;
            let others = cluster.nodes.iter().filter(|(name, _)| **name != cluster.me.node);
            let found: Vec<_> = others.filter(|(_, n)| self.selects(peer, &spec.peer_selector, n)).collect();
            return found.into_iter().flat_map(|(name, node)| self.addresses_of(name, node)).collect();
        }
        if let Some(range) = peer.metadata.annotations.get(RANGE) {
            return self.range(peer, range).into_iter().collect();
        }
        let Some((addr, port)) = spec.peer() else {
            self.problem(peer, format!("neither peerIP nor peerSelector nor annotation {RANGE}"));
            return Vec::new();
        };
        let asn = spec.as_number.map_or(self.cluster.global_as(), |asn| asn.0);
        let node = self.node_at(addr, asn);
        let port = port.or_else(|| node.map(|(name, _)| self.cluster.port_of(name))).unwrap_or(179);
        let is_me = node.is_some_and(|(name, _)| *name == self.cluster.me.node);
        let cluster_id = node.and_then(|(_, n)| n.bgp.cluster_id);
        let remote = Remote { key: PeerKey::At(addr, port), asn: Some(asn), cluster_id };
        (!is_me).then_some(remote).into_iter().collect()
    }

    fn range(&mut self, peer: &BgpPeer, text: &str) -> Option<Remote> {
        let range: Option<Prefix> = crate::cluster::network(text);
        if range.is_none() {
            self.problem(peer, format!("annotation {RANGE}: {text:?} is no network"));
        }
        let asn = peer.spec.as_number.map(|asn| asn.0).filter(|asn| *asn != 0);
        Some(Remote { key: PeerKey::Range(range?), asn, cluster_id: None })
    }

    fn addresses_of(&self, name: &str, node: &NodeFacts) -> Vec<Remote> {
        let addresses = [node.bgp.v4, node.bgp.v6].into_iter().flatten().map(|net| net.addr());
        let port = self.cluster.port_of(name);
        let (asn, cluster_id) = (Some(self.cluster.as_of(node)), node.bgp.cluster_id);
        addresses.map(|addr| Remote { key: PeerKey::At(addr, port), asn, cluster_id }).collect()
    }

    fn node_at(&self, addr: IpAddr, asn: u32) -> Option<(&String, &NodeFacts)> {
        let cluster = self.cluster;
        cluster.nodes.iter().find(|(_, n)| {
            [n.bgp.v4, n.bgp.v6].into_iter().flatten().any(|net| net.addr() == addr)
                && cluster.as_of(n) == asn
        })
    }

    /// The resource points to this node: it peers with the other side.
    fn answer(&mut self, peer: &BgpPeer) {
        let spec = &peer.spec;
        let points_here = if !spec.peer_selector.is_empty() {
            self.selects(peer, &spec.peer_selector, self.me)
        } else {
            self.is_mine(spec)
        };
        if !points_here {
            return;
        }
        let cluster = self.cluster;
        for (name, node) in cluster.nodes.iter().filter(|(name, _)| **name != cluster.me.node) {
            if self.is_local(peer, name, node) {
                for remote in self.addresses_of(name, node) {
                    self.insert(PeerKind::Node, peer, remote);
                }
            }
        }
    }

    fn is_mine(&self, spec: &BgpPeerSpec) -> bool {
        let Some((addr, port)) = spec.peer() else { return false };
        let mine = [self.me.bgp.v4, self.me.bgp.v6].into_iter().flatten().any(|net| net.addr() == addr);
        let asn = spec.as_number.map_or(0, |asn| asn.0);
        let wanted = if asn == 0 { self.cluster.global_as() } else { asn };
        let my_port = self.cluster.port_of(&self.cluster.me.node);
        mine && port.unwrap_or(my_port) == my_port && wanted == self.cluster.as_of(self.me)
    }

    /// Every other node; those that reflect routes are left out on both sides.
    fn mesh(&mut self) {
        let cluster = self.cluster;
        let config = cluster.config().cloned().unwrap_or_default();
        if config.node_to_node_mesh_enabled == Some(false) || self.me.bgp.cluster_id.is_some() {
            return;
        }
        let spec = BgpPeerSpec {
            password: config.node_mesh_password,
            max_restart_time: config.node_mesh_max_restart_time,
            ..BgpPeerSpec::default()
        };
        let peer = BgpPeer::new("node-mesh", spec);
        for (name, node) in cluster.nodes.iter().filter(|(name, _)| **name != cluster.me.node) {
            if node.bgp.cluster_id.is_none() {
                for remote in self.addresses_of(name, node) {
                    self.insert(PeerKind::Mesh, &peer, remote);
                }
            }
        }
    }

    fn insert(&mut self, kind: PeerKind, peer: &BgpPeer, remote: Remote) {
        let family = match remote.key {
            PeerKey::At(addr, _) => Family::of(addr),
            PeerKey::Range(range) => range.family(),
        };
        let own = PerFamily { v4: self.me.bgp.v4, v6: self.me.bgp.v6 };
        let Some(own_addr) = own[family].map(|net| net.addr()) else { return };
        let is_own = |addr| [own.v4, own.v6].into_iter().flatten().any(|net| net.addr() == addr);
        if self.peers.contains_key(&remote.key) || matches!(remote.key, PeerKey::At(addr, _) if is_own(addr))
        {
            return;
        }
        let source = (peer.spec.source_address != "None").then_some(own_addr);
        let wish = PeerWish {
            kind,
            session: self.session(kind, peer, &remote, family, own_addr),
            options: self.options(kind, peer, &remote, family),
            source,
            password: self.password(peer),
            ttl_security: peer.spec.ttl_security,
            reachable_by: peer.spec.reachable_by.parse().ok(),
            bfd: self.annotation(peer, &annotations::BFD),
        };
        self.peers.insert(remote.key, wish);
    }

    fn session(
        &mut self,
        kind: PeerKind,
        peer: &BgpPeer,
        remote: &Remote,
        family: Family,
        own: IpAddr,
    ) -> SessionConfig {
        let local_as = peer.spec.local_as_number.map_or(self.rib.local_as, |asn| asn.0);
        let longest = peer.spec.max_restart_time.as_deref().and_then(go_duration);
        let time = longest.unwrap_or(Duration::from_secs(120)).as_secs().min(MOST_RESTART) as u16;
        let mut session = SessionConfig::new(local_as, self.rib.router_id, 0);
        session.peer_as = remote.asn;
        session.families = PerFamily::from_fn(|f| f == family);
        let long = self.annotation(peer, &annotations::LONG_LIVED).unwrap_or(0);
        let long_lived = PerFamily { v4: long, v6: long };
        session.restart = Some(RestartConfig { time, forwarding: PerFamily::BOTH, long_lived });
        session.add_path = PerFamily::from_fn(|f| AddPath { send: f == family, receive: f == family });
        // The node whose address is greater as text connects, as in Calico's mesh.
        session.passive = match remote.key {
            PeerKey::At(addr, _) => kind == PeerKind::Mesh && addr.to_string() > own.to_string(),
            PeerKey::Range(_) => true,
        };
        session
    }

    fn options(
        &mut self,
        kind: PeerKind,
        peer: &BgpPeer,
        remote: &Remote,
        family: Family,
    ) -> NeighborOptions {
        let own = PerFamily { v4: self.me.bgp.v4, v6: self.me.bgp.v6 };
        let local_as = peer.spec.local_as_number.map_or(self.rib.local_as, |asn| asn.0);
        let internal = remote.asn == Some(local_as);
        let mode = peer.spec.next_hop_mode.as_deref().filter(|mode| !mode.is_empty());
        // Calico copies the flag only where the peer is named by its address.
        let flag = peer.spec.keep_original_next_hop && peer.spec.peer_selector.is_empty();
        let mut options = NeighborOptions::new(PerFamily::from_fn(|f| own[f].map(|net| net.addr().into())));
        options.keep_next_hop = kind != PeerKind::Mesh && (mode == Some("Keep") || (mode.is_none() && flag));
        options.next_hop_self = mode == Some("Self");
        options.client = internal && self.rib.cluster_id.is_some_and(|id| remote.cluster_id != Some(id));
        let most = self.annotation(peer, &annotations::MAX_PREFIXES);
        options.max_prefixes = PerFamily { v4: most, v6: most };
        options.allowed_own_as = peer.spec.num_allowed_local_as_numbers.unwrap_or(0);
        let (import, export) = self.filters(peer, Side { export: false, family, internal });
        options.import = Policy { rules: import, otherwise: Verdict::Accept };
        options.export = self.export.for_peer(export);
        options
    }

    /// Import and export rules of the filters that the peer names. One that is missing or cannot be carried out
    /// lets nothing through: routes that should have been refused are worse than none.
    fn filters(&mut self, peer: &BgpPeer, side: Side) -> (Vec<Rule>, Vec<Rule>) {
        let (mut import, mut export) = (Vec::new(), Vec::new());
        for name in &peer.spec.filters {
            let found = self.cluster.filters.get(name).ok_or_else(|| "does not exist".to_owned());
            let both = found.and_then(|f| {
                Ok((
                    filter::rules(f, Side { export: false, ..side })?,
                    filter::rules(f, Side { export: true, ..side })?,
                ))
            });
            match both {
                Ok((more_import, more_export)) => {
                    import.extend(more_import);
                    export.extend(more_export);
                }
                Err(why) => {
                    self.problem(peer, format!("filter {name:?}: {why}; nothing is exchanged"));
                    let nothing = crate::policy::decide(Vec::new(), Verdict::Reject);
                    return (vec![nothing.clone()], vec![nothing]);
                }
            }
        }
        (import, export)
    }

    /// As Calico, a session whose password cannot be read goes on without; the other side refuses it.
    fn password(&mut self, peer: &BgpPeer) -> Option<Secret> {
        let Password { secret_key_ref: Some(key) } = peer.spec.password.as_ref()? else { return None };
        match self.cluster.secret(key) {
            Ok(secret) => Some(secret),
            Err(why) => {
                self.problem(peer, format!("password: {why}"));
                None
            }
        }
    }

    fn annotation<T>(&mut self, peer: &BgpPeer, wanted: &Annotation<T>) -> Option<T> {
        let text = peer.metadata.annotations.get(wanted.name)?;
        let value = (wanted.parse)(text);
        if value.is_none() {
            let Annotation { name, form, .. } = wanted;
            self.problem(peer, format!("annotation {name}: {text:?} is not {form}"));
        }
        value
    }
}
