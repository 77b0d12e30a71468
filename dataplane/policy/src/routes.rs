//! The routes that one block asks for.

use crate::config::Config;
use crate::wish::Via;
use ipnet::IpNet;
use model::block::{Block, Owner};
use model::keys::AffinityKind;
use model::node::NodeNet;
use model::{Family, IpPool};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What of a block matters for routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockFacts {
    pub cidr: IpNet,
    pub owner: Option<String>,
    /// Addresses that nodes other than the owner use.
    pub borrowed: BTreeMap<IpAddr, String>,
}

impl BlockFacts {
    pub fn of(block: &Block) -> Self {
        let owner = match block.owner() {
            Owner::Of(AffinityKind::Host, name) => Some(name.to_owned()),
            _ => None,
        };
        let held = block.allocated().filter_map(|(ordinal, entry)| {
            let node = entry.get("node").filter(|node| Some(*node) != owner.as_deref())?;
            (!entry.released()).then(|| (block.ip(ordinal), node.to_owned()))
        });
        Self { cidr: block.cidr, borrowed: held.collect(), owner }
    }

    /// Every node that it has to do with.
    pub fn nodes(&self) -> BTreeSet<&String> {
        self.owner.iter().chain(self.borrowed.values()).collect()
    }
}

/// How packets between nodes of a pool travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Plain,
    Vxlan(Reach),
    Ipip(Reach),
}

/// Between which nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Always,
    CrossSubnet,
}

impl Mode {
    /// A pool's mode. What is neither of Calico's words is `Never`.
    pub fn of(pool: &IpPool, config: &Config) -> Self {
        let reach = |text: &str| match text {
            "Always" => Some(Reach::Always),
            "CrossSubnet" => Some(Reach::CrossSubnet),
            _ => None,
        };
        let is_v4 = pool.spec.net().is_some_and(|net| Family::of_net(&net) == Family::V4);
        match (reach(&pool.spec.vxlan_mode), reach(&pool.spec.ipip_mode)) {
            (Some(reach), _) if config.vxlan_enabled != Some(false) => Mode::Vxlan(reach),
            (_, Some(reach)) if config.ipip_enabled != Some(false) && is_v4 => Mode::Ipip(reach),
            _ => Mode::Plain,
        }
    }
}

/// What routes are made of, beside the block.
pub(crate) struct Around<'a> {
    pub me: &'a str,
    pub nodes: &'a BTreeMap<String, NodeNet>,
    /// Whether routes that need no VXLAN come from BGP.
    pub bgp: bool,
    /// The families that have a VXLAN link here.
    pub vxlan: &'a dyn Fn(Family) -> bool,
    pub ipip: bool,
}

impl Around<'_> {
    /// Every route of a block that lies in a pool of this mode.
    pub fn routes(&self, block: &BlockFacts, mode: Mode) -> BTreeMap<IpNet, Via> {
        let mut routes = BTreeMap::new();
        let single = block.cidr.prefix_len() == block.cidr.max_prefix_len();
        match block.owner.as_deref() {
            Some(owner) if owner == self.me && single => {}
            Some(owner) if owner == self.me => drop(routes.insert(block.cidr, Via::Blackhole)),
            Some(owner) => routes.extend(self.to_node(owner, block, mode).map(|via| (block.cidr, via))),
            None => {}
        }
        for (ip, node) in block.borrowed.iter().filter(|(_, node)| *node != self.me) {
            routes.extend(self.to_node(node, block, mode).map(|via| (IpNet::from(*ip), via)));
        }
        routes
    }

    fn to_node(&self, node: &str, block: &BlockFacts, mode: Mode) -> Option<Via> {
        let family = Family::of_net(&block.cidr);
        let net = self.nodes.get(node)?;
        let theirs = net.family(family).address?.addr();
        let ours = self.nodes.get(self.me).and_then(|me| me.family(family).address);
        let near = ours.is_some_and(|ours| ours.contains(&theirs));
        match mode {
            Mode::Vxlan(Reach::CrossSubnet) if near => Some(Via::Direct(theirs)),
            Mode::Vxlan(_) if (self.vxlan)(family) => net.family(family).vxlan.map(Via::Vxlan),
            Mode::Vxlan(_) => None,
            _ if self.bgp => None,
            Mode::Ipip(Reach::CrossSubnet) | Mode::Plain if near => Some(Via::Direct(theirs)),
            Mode::Ipip(_) if self.ipip => Some(Via::Ipip(theirs)),
            Mode::Ipip(_) | Mode::Plain => None,
        }
    }
}
