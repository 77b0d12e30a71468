//! A host keeps no empty block of a pool that does not select it any more (reference 3.8,
//! "ensure-consistent-affinity").

use crate::affinities;
use crate::block::idle;
use crate::draft::{Draft, Step};
use crate::env::lenient;
use crate::source::all_pools;
use ipnet::IpNet;
use model::block::Owner;
use model::keys::AffinityKind;
use model::selector::Selector;
use model::store::Query;
use model::{Node, Scope, keys};

/// Gives up the claim to a block that became empty, if its pool selects other nodes now. A node or
/// pool that is gone proves nothing.
pub(crate) fn ensure(draft: &mut Draft, cidr: &IpNet) -> Step<()> {
    if *draft.scope != Scope::Cluster {
        return Ok(());
    }
    let Some(block) = draft.block(cidr)?.filter(|block| idle(block)) else { return Ok(()) };
    let Owner::Of(AffinityKind::Host, host) = block.owner() else { return Ok(()) };
    if !is_selected(draft, host, cidr)? {
        affinities::release(draft, host, cidr, true)?;
    }
    Ok(())
}

fn is_selected(draft: &mut Draft, host: &str, cidr: &IpNet) -> Step<bool> {
    let node = keys::node(host);
    draft.view.require([Query::Get(node.clone()), Query::List(keys::pools())])?;
    let mut notes = Vec::new();
    let Some(node) = lenient::<Node>(draft.view.get(&node)?, &mut notes) else { return Ok(true) };
    let pools = all_pools(draft, &mut notes)?;
    let holds = |net: IpNet| net.contains(cidr);
    let pool = pools.iter().find(|pool| !pool.spec.disabled && pool.spec.net().is_some_and(holds));
    let selector = pool.and_then(|pool| Selector::parse(&pool.spec.node_selector).ok());
    Ok(selector.is_none_or(|selector| selector.matches(&node.metadata.labels)))
}
