//! From a draft to the writes of one commit, in an order of which every prefix is legal:
//!
//! ```text
//! pools, side keys      nothing depends on them yet
//! handles that grew     count before the block does
//! affinities            "pending" or "pendingDeletion", where their block follows
//! blocks                the allocation itself
//! affinities            "confirmed", or gone
//! handles that shrank   count after the block does
//! ```
//! A store with transactions gets one write for each key.

use crate::block::bump;
use crate::draft::{Draft, Slot, Table};
use crate::request::Context;
use model::keys::{self, Key};
use model::store::{Expect, Write};
use model::{Affinity, AffinityState, Block, Handle, Stored};
use std::collections::BTreeSet;

/// Most writes of one commit (etcd refuses the 129th operation of a transaction).
pub(crate) const MAX_WRITES: usize = 100;

/// Most bytes of values in one commit, if it is of more than one operation.
pub(crate) const MAX_BYTES: usize = 1 << 20;

pub(crate) fn writes(draft: &Draft, cx: &Context) -> Vec<Write> {
    let mut writes = Vec::new();
    plain(&draft.pools, &mut writes);
    plain(&draft.sticky, &mut writes);
    plain(&draft.cooling, &mut writes);
    let (shrunk, grown): (Vec<_>, Vec<_>) = draft.handles.changes().partition(|(_, slot)| only_shrank(slot));
    let mut last = Vec::new();
    for (key, slot) in grown {
        growing_handle(key, slot, cx, &mut writes, &mut last);
    }
    let mut blocks: Vec<Write> = draft.blocks.changes().map(|(key, slot)| block(key, slot, cx)).collect();
    let absent = draft.absent.iter().filter(|key| !draft.blocks.is_changed(key));
    blocks.extend(absent.map(|key| Write { key: key.clone(), expect: Expect::Absent, value: None }));
    let written: BTreeSet<&str> = blocks.iter().map(|write| write.key.as_str()).collect();
    for (key, slot) in draft.affinities.changes() {
        let with_block = block_key(key).is_some_and(|block| written.contains(block.as_str()));
        affinity(key, slot, with_block && !cx.transactional, &mut writes, &mut last);
    }
    writes.extend(blocks);
    writes.append(&mut last);
    writes.extend(shrunk.into_iter().map(|(key, slot)| write(key, slot)));
    writes
}

fn plain<T: Stored>(table: &Table<T>, writes: &mut Vec<Write>) {
    writes.extend(table.changes().map(|(key, slot)| write(key, slot)));
}

fn write<T: Stored>(key: &str, slot: &Slot<T>) -> Write {
    let value = slot.now.as_ref().map(|now| now.encode());
    Write { key: key.to_owned(), expect: slot.expect(), value }
}

/// Whether a handle's counts only went down. One that was merely written again stands for
/// addresses that are about to be written.
fn only_shrank(slot: &Slot<Handle>) -> bool {
    let Some(now) = &slot.now else { return true };
    let Some(before) = &slot.before else { return false };
    let count = |handle: &Handle, cidr| handle.blocks.get(cidr).copied().unwrap_or(0);
    let grew = now.blocks.keys().any(|cidr| count(now, cidr) > count(before, cidr));
    !grew && now.blocks != before.blocks
}

/// Where the writes come one by one, counts that shrink in a handle that also grows stay high until
/// the blocks are written.
fn growing_handle(
    key: &str,
    slot: &Slot<Handle>,
    cx: &Context,
    first: &mut Vec<Write>,
    last: &mut Vec<Write>,
) {
    let (Some(now), Some(before), false) = (&slot.now, &slot.before, cx.transactional) else {
        return first.push(write(key, slot));
    };
    let mut high = (**now).clone();
    for (cidr, count) in &before.blocks {
        let counted = high.blocks.entry(*cidr).or_default();
        *counted = (*counted).max(*count);
    }
    if high.blocks != now.blocks {
        last.push(Write { expect: Expect::Any, ..write(key, slot) });
    }
    first.push(Write { key: key.to_owned(), expect: slot.expect(), value: Some(high.encode()) });
}

/// Every update counts; so does the creation of a block that addresses were taken from, as
/// Calico's creation and first assignment do together.
fn block(key: &str, slot: &Slot<Block>, cx: &Context) -> Write {
    let value = slot.now.as_ref().map(|now| {
        let mut block = (**now).clone();
        if slot.before.is_some() || !block.is_empty() {
            bump(&mut block, cx.now.wall_ns);
        }
        block.encode()
    });
    Write { key: key.to_owned(), expect: slot.expect(), value }
}

/// The key of the block that an affinity is for.
fn block_key(affinity: &str) -> Option<String> {
    match keys::parse(affinity)? {
        keys::Key::Affinity { scope, cidr, .. } => Some(keys::block(&scope, &cidr)),
        _ => None,
    }
}

/// An affinity's change: at once, or announced before the block and completed after it.
fn affinity(
    key: &str,
    slot: &Slot<Affinity>,
    announced: bool,
    first: &mut Vec<Write>,
    last: &mut Vec<Write>,
) {
    if !announced {
        return last.push(write(key, slot));
    }
    let (state, from) = match &slot.now {
        Some(now) => (AffinityState::Pending, Some(now)),
        None => (AffinityState::PendingDeletion, slot.before.as_ref()),
    };
    let mut announced = from.map_or_else(|| Affinity::new(state), |affinity| (**affinity).clone());
    announced.set_state(state);
    first.push(Write { key: key.to_owned(), expect: slot.expect(), value: Some(announced.encode()) });
    last.push(Write { expect: Expect::Any, ..write(key, slot) });
}

/// Whether a commit takes addresses from blocks that exist, or gives them back, and the handle's own object was
/// read: nothing of it could be wrong because a list of pools, reservations or claims was not the newest, but for
/// a pool or reservation that is new. What claims, borrows from nobody's block, refuses or finds done is not so.
pub fn is_within_kept_blocks(writes: &[Write]) -> bool {
    let is_kept = |write: &Write| match keys::parse(&write.key) {
        Some(Key::Block { .. }) => matches!(write.expect, Expect::At(_)) && write.value.is_some(),
        Some(Key::Handle { .. } | Key::Cooling { .. } | Key::Sticky { .. }) => true,
        _ => false,
    };
    let is_handle = |write: &Write| matches!(keys::parse(&write.key), Some(Key::Handle { .. }));
    writes.iter().all(is_kept) && writes.iter().any(is_handle)
}
