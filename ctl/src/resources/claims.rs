//! What goes with a deleted pool or node: its empty blocks and the claims to its blocks.

use super::{Refusal, Step};
use ipnet::IpNet;
use model::keys::{self, AffinityKind, Key};
use model::store::{Expect, Query, Stop, View, Write};
use model::{Block, Family, Scope, Stored, ip};

/// The blocks of the cluster's scope, as far as they can be read.
pub fn blocks(view: &View) -> Step<Vec<(Block, u64)>> {
    let mut blocks = Vec::new();
    for family in Family::BOTH {
        for entry in view.list(&keys::blocks(&Scope::Cluster, family))? {
            blocks.extend(Block::decode(&entry.key, &entry.value).ok().map(|block| (block, entry.revision)));
        }
    }
    Ok(blocks)
}

/// What must be known for [`release`].
pub fn queries() -> Vec<Query> {
    let blocks = Family::BOTH.map(|f| Query::List(keys::blocks(&Scope::Cluster, f)));
    let mut wanted = Vec::from(blocks);
    wanted.push(Query::List(keys::all_affinities(&Scope::Cluster)));
    wanted
}

/// Which blocks lose their claim.
pub enum Whose<'a> {
    /// Those inside a pool's network.
    Pool(IpNet),
    Node(&'a str),
}

/// Deletes empty blocks and takes the claim off those in use, as Calico does when a pool or node
/// goes (reference 3.8, ReleaseAffinity): the addresses in use stay until their pods go.
pub fn release(view: &View, whose: &Whose<'_>) -> Step<Vec<Write>> {
    let mut writes = Vec::new();
    for (block, revision) in blocks(view)? {
        if matches(whose, &block) {
            writes.push(give_up(block, revision)?);
        }
    }
    for entry in view.list(&keys::all_affinities(&Scope::Cluster))? {
        let gone = match (keys::parse(&entry.key), whose) {
            (Some(Key::Affinity { kind: AffinityKind::Host, cidr, .. }), Whose::Pool(net)) => {
                ip::overlap(&cidr, net)
            }
            (Some(Key::Affinity { kind: AffinityKind::Host, name, .. }), Whose::Node(node)) => name == **node,
            _ => false,
        };
        if gone {
            writes.push(Write { key: entry.key.clone(), expect: Expect::At(entry.revision), value: None });
        }
    }
    Ok(writes)
}

fn matches(whose: &Whose<'_>, block: &Block) -> bool {
    match whose {
        Whose::Pool(net) => {
            let ours = block.affinity.as_deref().is_none_or(|a| a.starts_with("host:"));
            ours && ip::overlap(&block.cidr, net)
        }
        Whose::Node(node) => block.is_of_host(node),
    }
}

fn give_up(mut block: Block, revision: u64) -> Result<Write, Stop<Refusal>> {
    if let Some(field) = block.unknown_state() {
        let text = format!("block {} has the member {field}, which this version does not know", block.cidr);
        return Err(Refusal::one(text));
    }
    let key = keys::block(&Scope::Cluster, &block.cidr);
    let value = if block.is_empty() {
        None
    } else {
        block.affinity = None;
        block.sequence_number = block.sequence_number.saturating_add(1);
        Some(block.encode())
    };
    Ok(Write { key, expect: Expect::At(revision), value })
}
