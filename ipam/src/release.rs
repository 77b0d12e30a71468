//! Giving addresses back, by attachment or one by one.

use crate::block;
use crate::draft::{Draft, Step};
use crate::earlier;
use crate::error::IpamError;
use crate::held::{self, belongs};
use crate::request::{Context, Held, Release, ReleaseIp, Released};
use crate::selected;
use ipnet::IpNet;
use model::affinity::handle_key;
use model::block::{Owner, clean_handle};
use model::store::{Query, Stop};
use model::{Block, Family, keys};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Frees what the handle's attachment holds.
pub(crate) fn release(draft: &mut Draft, cx: &Context, request: &Release) -> Step<Released> {
    let blocks = blocks(draft, cx, request)?;
    draft.require_blocks(&blocks, !request.reuse_delay.is_zero())?;
    let mut freed = earlier::freed(draft, |block| victims(block, request));
    let mut remaining = 0;
    for cidr in &blocks {
        let Some(found) = draft.block(cidr)? else { continue };
        let victims = victims(&found, request);
        remaining += held::count(&found, &request.handle) - victims.len() as u32;
        freed.extend(victims.iter().map(|&ordinal| found.ip(ordinal)));
        free(draft, cx, &found, &victims, request.reuse_delay)?;
        uncount(draft, &request.handle, cidr, victims.len() as u32)?;
    }
    if remaining == 0 {
        earlier::take_back(draft, cx)?;
        forget(draft, cx, &request.handle)?;
    }
    let kept = kept(request, &freed);
    Ok(Released { freed, kept })
}

/// Where the handle may have addresses. Without transactions its object may have been lost to
/// another writer's race; then its host's blocks are looked into.
fn blocks(draft: &mut Draft, cx: &Context, request: &Release) -> Step<BTreeSet<IpNet>> {
    let mut blocks: BTreeSet<IpNet> = held::blocks_of(draft, cx.host, &request.handle)?.into_iter().collect();
    blocks.extend(request.only.iter().flatten().map(|held| held.block));
    if blocks.is_empty() && !cx.transactional {
        blocks.extend(held::own_blocks(draft, cx.host)?);
    }
    Ok(blocks)
}

/// The ordinals that the request means. Addresses with a second owner are a migrating virtual
/// machine's and stay.
fn victims(block: &Block, request: &Release) -> Vec<u32> {
    let meant = |ip: IpAddr, found: &Held| match &request.only {
        None => true,
        Some(only) => only.iter().any(|held| held.ip == ip && unchanged(held, found)),
    };
    block
        .allocated()
        .filter(|(_, entry)| entry.plain() && belongs(entry, &request.handle, &request.matches))
        .filter(|(ordinal, entry)| meant(block.ip(*ordinal), &held::held(block, *ordinal, entry)))
        .map(|(ordinal, _)| ordinal)
        .collect()
}

fn unchanged(seen: &Held, found: &Held) -> bool {
    seen.attrs == found.attrs && seen.sequence == found.sequence
}

fn kept(request: &Release, freed: &[IpAddr]) -> Vec<IpAddr> {
    let asked = request.only.iter().flatten().map(|held| held.ip);
    asked.filter(|ip| !freed.contains(ip)).collect()
}

/// Frees ordinals of a block; a block that nobody has a claim to goes with its last address.
fn free(draft: &mut Draft, cx: &Context, found: &Block, ordinals: &[u32], delay: Duration) -> Step<()> {
    if ordinals.is_empty() {
        return Ok(());
    }
    if let Some(field) = found.unknown_state() {
        let field = field.to_owned();
        return Err(Stop::Fail(IpamError::ReadOnlyBlock { block: found.cidr, field }));
    }
    let mut block = found.clone();
    block::release(&mut block, ordinals);
    if block.is_empty() && block.owner() == Owner::Nobody {
        draft.delete_block(&block.cidr);
    } else {
        draft.set_block(block);
        selected::ensure(draft, &found.cidr)?;
    }
    cool(draft, cx, &found.cidr, ordinals, delay)
}

fn cool(draft: &mut Draft, cx: &Context, cidr: &IpNet, ordinals: &[u32], delay: Duration) -> Step<()> {
    if delay.is_zero() {
        return Ok(());
    }
    let key = keys::cooling(draft.scope, cidr);
    let stored = draft.cooling.get(draft.view, &key)?;
    let mut cooling = stored.map(|cooling| (*cooling).clone()).unwrap_or_default();
    cooling.record(ordinals, cx, delay);
    draft.cooling.set(&key, Some(cooling));
    Ok(())
}

/// Takes freed addresses off the handle's counts; the handle goes with the last one.
fn uncount(draft: &mut Draft, id: &str, cidr: &IpNet, count: u32) -> Step<()> {
    let Some(stored) = draft.handle(id)? else { return Ok(()) };
    if count == 0 {
        return Ok(());
    }
    let mut handle = (*stored).clone();
    handle.decrement(cidr, count);
    let empty = handle.blocks.is_empty();
    draft.set_handle(id, (!empty).then_some(handle));
    Ok(())
}

/// Removes a handle whose blocks hold nothing of it, though its counts say so: an ADD was killed
/// between the two. The blocks are written again, so that this fails if one of them is no longer
/// as it was read. A block that does not exist cannot vouch for that: where commits are whole, its
/// count is left to the audit; elsewhere the host's IPAM lock keeps the ADDs and DELs of a handle
/// apart (decision 5).
fn forget(draft: &mut Draft, cx: &Context, id: &str) -> Step<()> {
    let Some(stored) = draft.handle(id)? else { return Ok(()) };
    let mut handle = (*stored).clone();
    for cidr in stored.blocks.keys() {
        match draft.block(cidr)? {
            Some(block) if block.unknown_state().is_some() => {}
            Some(block) => {
                draft.set_block((*block).clone());
                handle.blocks.remove(cidr);
            }
            None if cx.transactional => {}
            None => drop(handle.blocks.remove(cidr)),
        }
    }
    if handle != *stored || handle.blocks.is_empty() {
        let empty = handle.blocks.is_empty();
        draft.set_handle(id, (!empty).then_some(handle));
    }
    Ok(())
}

/// Frees addresses whoever holds them (modern data model 1.3, rule 4).
pub(crate) fn release_ips(
    draft: &mut Draft,
    cx: &Context,
    asked: &[ReleaseIp],
    delay: Duration,
) -> Step<Released> {
    let earlier = earlier::freed(draft, |block| asked.iter().filter_map(|a| block.ordinal(a.ip)).collect());
    let asked: Vec<&ReleaseIp> = asked.iter().filter(|asked| !earlier.contains(&asked.ip)).collect();
    let by_block = by_block(draft, &asked)?;
    let blocks: Vec<IpNet> = by_block.keys().flatten().copied().collect();
    draft.require_blocks(&blocks, !delay.is_zero())?;
    require_handles(draft, &by_block)?;
    let mut released = Released { freed: earlier, kept: Vec::new() };
    for (cidr, asked) in by_block {
        let block = match cidr {
            Some(cidr) => draft.block(&cidr)?,
            None => None,
        };
        let Some(block) = block else {
            released.kept.extend(asked.iter().map(|asked| asked.ip));
            continue;
        };
        release_of_block(draft, cx, &block, &asked, delay, &mut released)?;
    }
    Ok(released)
}

/// Sorts the addresses by the block that exists around them, whatever its pool; `None`: no block.
fn by_block<'r>(
    draft: &mut Draft,
    asked: &[&'r ReleaseIp],
) -> Step<BTreeMap<Option<IpNet>, Vec<&'r ReleaseIp>>> {
    let mut sorted: BTreeMap<Option<IpNet>, Vec<&ReleaseIp>> = BTreeMap::new();
    for family in Family::BOTH {
        let mut asked = asked.iter().copied().filter(|asked| Family::of(asked.ip) == family).peekable();
        if asked.peek().is_none() {
            continue;
        }
        let blocks = draft.block_cidrs(family)?;
        for asked in asked {
            let block = blocks.iter().find(|cidr| cidr.contains(&asked.ip)).copied();
            let of_block = sorted.entry(block).or_default();
            if of_block.iter().all(|known| known.ip != asked.ip) {
                of_block.push(asked);
            }
        }
    }
    Ok(sorted)
}

/// Asks for the handles of all the addresses at once.
fn require_handles(draft: &mut Draft, by_block: &BTreeMap<Option<IpNet>, Vec<&ReleaseIp>>) -> Step<()> {
    let mut wanted = BTreeSet::new();
    for (cidr, asked) in by_block.iter().filter_map(|(cidr, asked)| Some((cidr.as_ref()?, asked))) {
        let Some(block) = draft.block(cidr)? else { continue };
        let entries = asked.iter().filter_map(|asked| block.attribute(block.ordinal(asked.ip)?));
        let handles = entries.filter_map(|entry| entry.handle());
        wanted.extend(handles.map(|handle| Query::Get(handle_key(draft.scope, handle))));
    }
    Ok(draft.view.require(wanted)?)
}

fn release_of_block(
    draft: &mut Draft,
    cx: &Context,
    block: &Block,
    asked: &[&ReleaseIp],
    delay: Duration,
    released: &mut Released,
) -> Step<()> {
    let mut ordinals = Vec::new();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for asked in asked {
        match releasable(block, asked).map_err(Stop::Fail)? {
            None => released.kept.push(asked.ip),
            Some((ordinal, handle)) => {
                ordinals.push(ordinal);
                released.freed.push(asked.ip);
                *counts.entry(handle.to_owned()).or_default() += 1;
            }
        }
    }
    free(draft, cx, block, &ordinals, delay)?;
    for (handle, count) in counts.into_iter().filter(|(handle, _)| !handle.is_empty()) {
        uncount(draft, &handle, &block.cidr, count)?;
    }
    Ok(())
}

/// The ordinal and its handle, if the checks allow to free it; `None` where it is free already or
/// not to be freed by us (second owner, Calico's own cooldown).
fn releasable<'b>(block: &'b Block, asked: &ReleaseIp) -> Result<Option<(u32, &'b str)>, IpamError> {
    let ip = asked.ip;
    let ordinal = block.ordinal(ip).expect("sorted by block");
    let found = block.sequence_of(ordinal);
    if let Some(wanted) = asked.sequence.filter(|wanted| found.unwrap_or(0) != *wanted) {
        return Err(IpamError::Sequence { ip, wanted, found });
    }
    let Some(entry) = block.attribute(ordinal) else { return Ok(None) };
    let handle = entry.handle();
    if let Some(wanted) = asked.handle.as_deref().filter(|wanted| handle != Some(clean_handle(wanted))) {
        let found = handle.map(str::to_owned);
        return Err(IpamError::Handle { ip, wanted: wanted.to_owned(), found });
    }
    Ok(entry.plain().then(|| (ordinal, handle.unwrap_or_default())))
}
