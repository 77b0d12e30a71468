//! What counts as wrong.

use super::objects::{Claim, Found, Objects};
use super::witness::Owner;
use super::{HostFacts, Item, Report, Seen};
use crate::block::{idle, is_windows_reserved, lost};
use crate::held::held;
use crate::request::Held;
use ipnet::IpNet;
use model::affinity::{handle_key, is_object_name};
use model::block::Owner as Affine;
use model::keys::{self, AffinityKind};
use model::{Attribute, Block};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Nanoseconds that an ADD may take between its first and its last write, generously.
const LONGEST_ADD_NS: u64 = 300_000_000_000;

pub(super) fn judge(objects: &Objects, facts: &HostFacts) -> Report {
    let (orphan_handles, handle_counts) = handles(objects);
    let (leaked, suspected) = leaks(objects, facts).into_iter().partition(|item| item.repairable);
    Report {
        allocations: objects.allocated().count(),
        blocks: objects.blocks.len(),
        leaked,
        suspected,
        duplicated: duplicates(objects),
        orphan_handles,
        orphan_affinities: objects.claims.iter().filter_map(|claim| orphan(objects, claim)).collect(),
        handle_counts,
        lost: lost_ordinals(objects).chain(unclaimed(objects)).collect(),
        damaged: objects.broken.iter().map(|broken| broken.item(objects)).chain(unknown(objects)).collect(),
    }
}

/// Blocks that are sound for who wrote them, and that this build only reads.
fn unknown(objects: &Objects) -> impl Iterator<Item = Item> + '_ {
    objects.blocks.values().filter_map(|found| {
        let field = found.value.unknown_state()?;
        let reason = format!(
            "its member {field} is not known to this version, which does not write it; upgrade Percale"
        );
        Some(of_block(found, reason))
    })
}

fn of_held(held: Held, reason: String, repairable: bool) -> Item {
    Item {
        ip: Some(held.ip),
        handle: held.handle.clone(),
        node: held.attrs.get("node").cloned(),
        block: Some(held.block),
        reason,
        repairable,
        seen: Seen::Held(held),
    }
}

fn leaks(objects: &Objects, facts: &HostFacts) -> Vec<Item> {
    let verdict = |(block, ordinal, entry): (&Block, u32, &Attribute)| {
        let held = judged(block, ordinal, entry)?;
        let (reason, repairable) = dead(objects, facts, &held)?;
        Some(of_held(held, reason, repairable))
    };
    objects.allocated().filter_map(verdict).collect()
}

/// The allocations that belong to pods and containers of hosts: no tunnels, services, reservations,
/// addresses in Calico's cooldown, or virtual machines on the move.
fn judged(block: &Block, ordinal: u32, entry: &Attribute) -> Option<Held> {
    let handle = entry.handle()?;
    let pod = entry.get("type").is_none() && entry.get("node").is_some() && entry.plain();
    let virtual_block = matches!(block.owner(), Affine::Of(AffinityKind::Virtual, _));
    let never = virtual_block || is_windows_reserved(handle) || is_services_or_machines(handle);
    (pod && !never).then(|| held(block, ordinal, entry))
}

/// Handles that outlive pods: load balancers' (`lb-HASH`) and virtual machines'
/// (`NETWORK.vmi.NAMESPACE.NAME`; modern data model 1.8, 1.9).
fn is_services_or_machines(handle: &str) -> bool {
    handle.starts_with("lb-") || handle.contains(".vmi.")
}

/// Why an allocation's owner seems dead, and whether there are two proofs of it, as freeing it needs.
/// `None`: it lives, or nobody looked.
fn dead(objects: &Objects, facts: &HostFacts, held: &Held) -> Option<(String, bool)> {
    let node = held.attrs.get("node")?;
    match objects.owners.of(held) {
        Owner::Lives => None,
        owner if node == &facts.host => dead_here(facts, held, owner),
        owner => dead_elsewhere(objects.nodes.contains(node), node, owner),
    }
}

/// On another node, of which only the store tells.
fn dead_elsewhere(node_exists: bool, node: &str, owner: Owner) -> Option<(String, bool)> {
    match (node_exists, owner) {
        (false, Owner::Gone(why)) => Some((format!("node {node} does not exist, and {why}"), true)),
        (false, _) => Some((format!("node {node} does not exist"), false)),
        (true, Owner::Gone(why)) => Some((why, false)),
        (true, _) => None,
    }
}

/// On this host, whose links, routes and namespaces were looked at.
fn dead_here(facts: &HostFacts, held: &Held, owner: Owner) -> Option<(String, bool)> {
    if link_lives(facts, held) {
        return None;
    }
    let attr = |name: &str| held.attrs.get(name).map(String::as_str);
    match (attr("boot_id"), attr("netns"), owner) {
        (Some(boot), _, _) if boot != facts.boot_id => {
            Some(("it was given before the host's last start, and no link or route is its".to_owned(), true))
        }
        (_, Some(netns), _) => match facts.netns.get(netns) {
            Some(false) => Some((format!("neither its namespace {netns} nor a host link exists"), true)),
            _ => None,
        },
        (_, None, Owner::Gone(why)) => {
            let settled = is_settled(facts, held);
            Some((format!("{why}, and no link or route of this host is its"), settled))
        }
        (_, None, _) => {
            Some(("no namespace is recorded, and no link or route of this host is its".to_owned(), false))
        }
    }
}

/// Older than any ADD that may still be at work: what a Calico commits first and completes later.
fn is_settled(facts: &HostFacts, held: &Held) -> bool {
    let given = held.attrs.get("timestamp").and_then(|text| model::time::parse_go_string(text));
    given.is_none_or(|given| facts.now_ns.saturating_sub(given) > LONGEST_ADD_NS)
}

fn link_lives(facts: &HostFacts, held: &Held) -> bool {
    let owner =
        (held.handle.clone().unwrap_or_default(), held.attrs.get("ifname").cloned().unwrap_or_default());
    facts.links.contains(&owner) || facts.routed.contains(&held.ip)
}

/// Addresses in two blocks, which can happen where blocks of two sizes overlap.
fn duplicates(objects: &Objects) -> Vec<Item> {
    let mut by_ip: BTreeMap<IpAddr, Vec<Held>> = BTreeMap::new();
    for (block, ordinal, entry) in objects.allocated() {
        by_ip.entry(block.ip(ordinal)).or_default().push(held(block, ordinal, entry));
    }
    let twice = by_ip.into_values().filter(|held| held.len() > 1).flatten();
    twice
        .map(|held| {
            of_held(held, "it is allocated in two blocks; delete one of its owners".to_owned(), false)
        })
        .collect()
}

/// Handles that hold nothing, and handles that count wrong.
fn handles(objects: &Objects) -> (Vec<Item>, Vec<Item>) {
    let actual = objects.actual();
    let (mut orphans, mut wrong) = (Vec::new(), Vec::new());
    for (id, handle) in &objects.handles {
        if handle.value.blocks.keys().any(|cidr| objects.unreadable.contains(cidr)) {
            continue;
        }
        let item = |reason| Item {
            handle: Some(id.clone()),
            reason,
            repairable: true,
            seen: handle.seen(),
            ..Item::default()
        };
        match actual.get(id) {
            None => orphans.push(item("no address is allocated to it".to_owned())),
            Some(blocks) if *blocks != handle.value.blocks => wrong.push(item(format!(
                "it counts {} addresses in {} blocks, but holds {} in {}",
                handle.value.total(),
                handle.value.blocks.len(),
                blocks.values().sum::<u32>(),
                blocks.len(),
            ))),
            Some(_) => {}
        }
    }
    let could_be = |id: &&String| {
        (!objects.named || is_object_name(id)) && !objects.is_broken(&handle_key(&objects.scope, id))
    };
    let missing = actual.keys().filter(|id| !objects.handles.contains_key(*id)).filter(could_be);
    wrong.extend(missing.map(|id| Item {
        handle: Some(id.clone()),
        reason: "it holds addresses, but has no object".to_owned(),
        repairable: true,
        seen: Seen::Key(handle_key(&objects.scope, id), 0),
        ..Item::default()
    }));
    (orphans, wrong)
}

fn orphan(objects: &Objects, claim: &Found<Claim>) -> Option<Item> {
    let Claim { host, cidr } = &claim.value;
    if objects.unreadable.contains(cidr) {
        return None;
    }
    let block = objects.blocks.get(cidr).map(|found| &found.value);
    let (reason, repairable) = match block {
        None => ("its block does not exist".to_owned(), true),
        Some(block) if !block.is_of_host(host) => {
            (format!("its block belongs to {}", block.affinity.as_deref().unwrap_or("nobody")), true)
        }
        Some(block) if !objects.nodes.contains(host) => (format!("node {host} does not exist"), idle(block)),
        Some(_) => return None,
    };
    Some(Item {
        node: Some(host.clone()),
        block: Some(*cidr),
        reason,
        repairable,
        seen: claim.seen(),
        ..Item::default()
    })
}

fn lost_ordinals(objects: &Objects) -> impl Iterator<Item = Item> + '_ {
    objects.blocks.values().filter_map(|found| {
        let lost = lost(&found.value);
        let first = found.value.ip(*lost.first()?);
        let reason =
            format!("{} addresses of the block from {first} on are neither taken nor free", lost.len());
        Some(of_block(found, reason))
    })
}

fn of_block(found: &Found<Block>, reason: String) -> Item {
    let repairable = found.value.unknown_state().is_none();
    Item { block: Some(found.value.cidr), reason, repairable, seen: found.seen(), ..Item::default() }
}

/// Blocks of hosts that have no claim to them: their host does not find them.
fn unclaimed(objects: &Objects) -> impl Iterator<Item = Item> + '_ {
    let claimed = |host: &str, cidr: &IpNet| {
        objects.claims.iter().any(|claim| claim.value.host == host && claim.value.cidr == *cidr)
            || objects.is_broken(&keys::affinity(&objects.scope, host, cidr))
    };
    objects.blocks.values().filter_map(move |found| match found.value.owner() {
        Affine::Of(AffinityKind::Host, host) if !claimed(host, &found.value.cidr) => {
            let item = of_block(found, format!("the block belongs to {host}, which has no affinity to it"));
            Some(Item { node: Some(host.to_owned()), ..item })
        }
        _ => None,
    })
}
