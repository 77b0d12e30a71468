//! Building networks, and asking what they came to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::rib::{NeighborOptions, PeerId, RibOptions};
use crate::session::SessionConfig;
use crate::speaker::{PeerConfig, Speaker};
use crate::wire::NextHop;
use crate::{PerFamily, Prefix, Time};

use super::{Chance, Link, Net, Node, address, peer};

/// A node to be.
#[derive(Clone, Copy, Debug)]
pub struct NodeOptions {
    pub asn: u32,
    /// Makes it a route reflector: peers of its AS are clients unless they have the same one.
    pub cluster_id: Option<std::net::Ipv4Addr>,
    pub max_paths: u16,
}

impl NodeOptions {
    pub fn new(asn: u32) -> Self {
        NodeOptions { asn, cluster_id: None, max_paths: 1 }
    }
}

/// A link to be.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions {
    pub latency: Duration,
    /// Segments in a thousand that come late.
    pub loss: u64,
}

impl Default for LinkOptions {
    fn default() -> Self {
        LinkOptions { latency: Duration::from_millis(5), loss: 0 }
    }
}

impl Net {
    /// Nodes without links.
    pub fn new(nodes: &[NodeOptions], seed: u64) -> Net {
        let node = |(i, o): (usize, &NodeOptions)| {
            let options = RibOptions {
                local_as: o.asn,
                router_id: address(i),
                cluster_id: o.cluster_id,
                max_paths: o.max_paths,
            };
            Node {
                options,
                speaker: Speaker::new(options, seed ^ i as u64),
                kernel: BTreeMap::new(),
                changes: 0,
                peers: BTreeMap::new(),
                originated: Vec::new(),
                downs: Vec::new(),
                malformed: Vec::new(),
            }
        };
        Net {
            now: Time::ZERO,
            chance: Chance::new(seed),
            nodes: nodes.iter().enumerate().map(node).collect(),
            links: BTreeMap::new(),
            conns: BTreeMap::new(),
            events: BTreeMap::new(),
            order: 0,
            next_conn: 0,
        }
    }

    /// Joins two nodes by a link and a session. `edit` may change each side's configuration before it starts.
    pub fn join(&mut self, a: usize, b: usize, link: LinkOptions, edit: impl Fn(usize, &mut PeerConfig)) {
        let LinkOptions { latency, loss } = link;
        self.links.insert((a.min(b), a.max(b)), Link { latency, loss, up: true });
        for (us, them) in [(a, b), (b, a)] {
            let mut config = self.config(us, them);
            edit(us, &mut config);
            self.nodes[us].peers.insert(peer(them), config.clone());
            let now = self.now;
            self.nodes[us].speaker.set_peer(peer(them), config, now);
            self.collect(us);
        }
    }

    /// Sessions of IPv4 between addresses of IPv4; internal ones take the border's address as next hop.
    fn config(&self, us: usize, them: usize) -> PeerConfig {
        let (ours, theirs) = (self.nodes[us].options, self.nodes[them].options);
        let mut session = SessionConfig::new(ours.local_as, address(us), theirs.local_as);
        session.families = PerFamily { v4: true, v6: false };
        let own: NextHop = IpAddr::V4(address(us)).into();
        let mut options = NeighborOptions::new(PerFamily { v4: Some(own), v6: None });
        let internal = ours.local_as == theirs.local_as;
        options.client = internal && ours.cluster_id.is_some() && ours.cluster_id != theirs.cluster_id;
        options.next_hop_self = internal && ours.cluster_id.is_none();
        PeerConfig { addr: IpAddr::V4(address(them)), session, options }
    }

    /// The configuration of a node's peer, changed by `edit` and put into force.
    pub fn configure(&mut self, node: usize, other: usize, edit: impl Fn(&mut PeerConfig)) {
        self.configure_quietly(node, other, edit);
        let Some(config) = self.nodes[node].peers.get(&peer(other)).cloned() else { return };
        let now = self.now;
        self.nodes[node].speaker.set_peer(peer(other), config, now);
        self.collect(node);
    }

    /// The same, in force after the next restart.
    pub fn configure_quietly(&mut self, node: usize, other: usize, edit: impl Fn(&mut PeerConfig)) {
        if let Some(config) = self.nodes[node].peers.get_mut(&peer(other)) {
            edit(config);
        }
    }

    /// Follows a packet for a prefix from a node, always by the first next hop: the nodes it passes, ours first. The
    /// last has no route to anyone else. `None` for a loop.
    pub fn trace(&self, from: usize, prefix: Prefix) -> Option<Vec<usize>> {
        let mut path = vec![from];
        while let Some(hops) = self.nodes[path[path.len() - 1]].kernel.get(&prefix) {
            let next =
                self.nodes.iter().enumerate().position(|(i, _)| IpAddr::V4(address(i)) == hops[0].addr)?;
            if path.contains(&next) {
                return None;
            }
            path.push(next);
        }
        Some(path)
    }

    /// Each session's two ends: what one tells and what the other has of it, where these differ.
    pub fn disagreements(&mut self) -> Vec<(usize, usize)> {
        let whole: Vec<(usize, usize)> =
            self.links.iter().filter(|(_, l)| l.up).map(|(ends, _)| *ends).collect();
        let both = whole.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]);
        both.filter(|(from, to)| !self.agrees(*from, *to)).collect()
    }

    fn agrees(&mut self, from: usize, to: usize) -> bool {
        let told = self.nodes[from].speaker.rib_mut().advertised(PeerId(to as u32));
        let mut told: Vec<_> = told.into_iter().map(|(p, id, a)| (p, id, (*a).clone())).collect();
        let mut held = self.nodes[to].speaker.rib().received_from(PeerId(from as u32));
        told.sort_by_key(|t| (t.0, t.1));
        held.sort_by_key(|t| (t.0, t.1));
        told.len() == held.len()
            && told.iter().zip(&held).all(|(t, h)| (t.0, t.1) == (h.0, h.1) && t.2 == *h.2)
    }
}
