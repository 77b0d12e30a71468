//! What earlier rounds of the very operation that is planned have written already (decision 26).
//!
//! Without transactions a commit is applied up to the first write whose condition does not hold,
//! and the operation is planned anew. The new plan may go elsewhere: then the handle counts an
//! address that was never written, and a claim was announced in vain. Both are taken back, each
//! only as far as this operation wrote it. What earlier rounds freed or gave belongs into the answer.

use crate::draft::{Draft, Step};
use crate::error::IpamError;
use crate::held;
use crate::request::Context;
use ipnet::IpNet;
use model::keys::{self, AffinityKind, Key};
use model::store::{Applied, Entry, Stop};
use model::{Affinity, AffinityState, Block, Handle, Stored};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Counts by handle and block.
type Counts = BTreeMap<(String, IpNet), i64>;

/// Takes back what the draft has no use for.
pub(crate) fn take_back(draft: &mut Draft, cx: &Context) -> Step<()> {
    if draft.view.applied().is_empty() {
        return Ok(());
    }
    for ((handle, cidr), extra) in imbalance(draft).into_iter().filter(|(_, extra)| *extra > 0) {
        uncount(draft, &handle, &cidr, extra)?;
    }
    for (cidr, after) in claims(draft, cx) {
        settle_claim(draft, cx.host, &cidr, &after)?;
    }
    for cidr in created(draft) {
        claim_again(draft, cx.host, &cidr)?;
    }
    Ok(())
}

/// Blocks that this operation made.
fn created(draft: &Draft) -> Vec<IpNet> {
    let made = blocks(draft).filter(|(before, _)| before.is_none());
    made.filter_map(|(_, after)| Some(after?.cidr)).collect()
}

/// Another process of this host may have given up the claim while the block was made, or be about to.
fn claim_again(draft: &mut Draft, host: &str, cidr: &IpNet) -> Step<()> {
    let ours = draft.block(cidr)?.is_some_and(|block| block.is_of_host(host));
    let claim = draft.affinity(host, cidr)?;
    if ours && claim.as_ref().is_none_or(|claim| claim.state() != AffinityState::Confirmed) {
        let mut claim =
            claim.map_or_else(|| Affinity::new(AffinityState::Confirmed), |claim| Affinity::clone(&claim));
        claim.set_state(AffinityState::Confirmed);
        draft.set_affinity(host, cidr, Some(claim));
    }
    Ok(())
}

/// How many addresses this operation counted in handles beyond those that it wrote into blocks.
fn imbalance(draft: &Draft) -> Counts {
    let mut counts = Counts::new();
    for applied in draft.view.applied() {
        match keys::parse(&applied.key) {
            Some(Key::Handle { scope, id }) if scope == *draft.scope => {
                add_handle(&mut counts, &id, applied, &applied.after, 1);
                add_handle(&mut counts, &id, applied, &applied.before, -1);
            }
            Some(Key::Block { scope, .. }) if scope == *draft.scope => {
                add_block(&mut counts, applied, &applied.after, -1);
                add_block(&mut counts, applied, &applied.before, 1);
            }
            _ => {}
        }
    }
    counts
}

fn add_handle(counts: &mut Counts, id: &str, applied: &Applied, entry: &Option<Entry>, sign: i64) {
    let handle: Option<Handle> = decode(applied, entry);
    for (cidr, count) in handle.into_iter().flat_map(|handle| handle.blocks) {
        *counts.entry((id.to_owned(), cidr)).or_default() += sign * i64::from(count);
    }
}

fn add_block(counts: &mut Counts, applied: &Applied, entry: &Option<Entry>, sign: i64) {
    let Some(block) = decode::<Block>(applied, entry) else { return };
    for handle in block.allocated().filter_map(|(_, entry)| entry.handle()) {
        *counts.entry((handle.to_owned(), block.cidr)).or_default() += sign;
    }
}

/// What this operation wrote, which it could read before.
fn decode<T: Stored>(applied: &Applied, entry: &Option<Entry>) -> Option<T> {
    T::decode(&applied.key, &entry.as_ref()?.value).ok()
}

/// Never below what the block holds.
fn uncount(draft: &mut Draft, id: &str, cidr: &IpNet, extra: i64) -> Step<()> {
    let Some(stored) = draft.handle(id)? else { return Ok(()) };
    let counted = stored.blocks.get(cidr).copied().unwrap_or(0);
    let held = match draft.block(cidr) {
        Ok(block) => block.map_or(0, |block| held::count(&block, id)),
        Err(Stop::Fail(IpamError::Damaged(_))) => return Ok(()),
        Err(stop) => return Err(stop),
    };
    let extra = u32::try_from(extra).unwrap_or(u32::MAX);
    let surplus = counted.saturating_sub(counted.saturating_sub(extra).max(held));
    if surplus > 0 {
        let mut handle = Handle::clone(&stored);
        handle.decrement(cidr, surplus);
        draft.set_handle(id, (!handle.blocks.is_empty()).then_some(handle));
    }
    Ok(())
}

/// This host's claims as this operation left them, where nobody has touched them since.
fn claims(draft: &Draft, cx: &Context) -> Vec<(IpNet, Affinity)> {
    let claim = |applied: &Applied| match keys::parse(&applied.key)? {
        Key::Affinity { scope, kind: AffinityKind::Host, name, cidr }
            if scope == *draft.scope && name == cx.host =>
        {
            let untouched = draft.view.get(&applied.key).ok()? == applied.after.as_ref();
            let after = decode(applied, &applied.after)?;
            (untouched && !draft.affinities.is_changed(&applied.key)).then_some((cidr, after))
        }
        _ => None,
    };
    draft.view.applied().iter().filter_map(claim).collect()
}

/// A claim that was announced stands if its block became ours, and goes if it did not.
fn settle_claim(draft: &mut Draft, host: &str, cidr: &IpNet, after: &Affinity) -> Step<()> {
    if after.state() == AffinityState::Confirmed {
        return Ok(());
    }
    let ours = match draft.block(cidr) {
        Ok(block) => block.map(|block| block.is_of_host(host)),
        Err(Stop::Fail(IpamError::Damaged(_))) => return Ok(()),
        Err(stop) => return Err(stop),
    };
    draft.affinity(host, cidr)?;
    if ours.is_none() {
        draft.drop_claim(host, cidr);
        return Ok(());
    }
    let mut confirmed = after.clone();
    confirmed.set_state(AffinityState::Confirmed);
    draft.set_affinity(host, cidr, ours.unwrap_or_default().then_some(confirmed));
    Ok(())
}

/// Addresses that `meant` picks out of blocks as they were, and that this operation has freed.
pub(crate) fn freed(draft: &Draft, meant: impl Fn(&Block) -> Vec<u32>) -> Vec<IpAddr> {
    let mut freed = Vec::new();
    for (before, after) in blocks(draft) {
        let Some(before) = before else { continue };
        let gone = |ordinal: &u32| {
            after.as_ref().is_none_or(|after| after.attribute(*ordinal) != before.attribute(*ordinal))
        };
        freed.extend(meant(&before).into_iter().filter(gone).map(|ordinal| before.ip(ordinal)));
    }
    freed
}

/// Whether this operation itself has given any of these addresses.
pub(crate) fn gave(draft: &Draft, ips: &[IpAddr]) -> bool {
    let taken = |block: &Option<Block>, ip: IpAddr| {
        block.as_ref().is_some_and(|block| block.ordinal(ip).is_some_and(|o| block.attribute(o).is_some()))
    };
    blocks(draft).any(|(before, after)| ips.iter().any(|ip| taken(&after, *ip) && !taken(&before, *ip)))
}

/// The blocks of this scope that this operation wrote, before and after.
fn blocks(draft: &Draft) -> impl Iterator<Item = (Option<Block>, Option<Block>)> {
    let ours = |applied: &&Applied| matches!(keys::parse(&applied.key), Some(Key::Block { scope, .. }) if scope == *draft.scope);
    let written = draft.view.applied().iter().filter(ours);
    written.map(|applied| (decode(applied, &applied.before), decode(applied, &applied.after)))
}
