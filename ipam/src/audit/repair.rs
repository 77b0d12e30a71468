//! Putting right what an audit found, under the conditions it was found by.

use super::judge::judge;
use super::objects::Objects;
use super::{HostFacts, Item, Repaired, Report, Seen};
use crate::affinities;
use crate::block::requeue_lost;
use crate::commit::{MAX_WRITES, writes};
use crate::draft::{Draft, Step};
use crate::env::ready;
use crate::release::release;
use crate::request::{Context, Held, Release};
use model::store::{Plan, View, Write};
use model::{Affinity, AffinityState, Handle};

/// Writes that one item needs at most.
const WRITES_OF_AN_ITEM: usize = 6;

pub(super) fn plan(view: &View, cx: &Context, facts: &HostFacts, report: &Report) -> Step<Plan<Repaired>> {
    ready(view)?;
    let objects = Objects::load(view, cx, facts)?;
    let still = judge(&objects, facts);
    let mut repair = Repair { draft: Draft::new(view, cx), cx, objects: &objects, done: Repaired::default() };
    repair.leaks(&both(&report.leaked, &still.leaked))?;
    // Counts are judged anew once the leaks are gone.
    if repair.done.released.is_empty() {
        repair.each(&both(&report.orphan_handles, &still.orphan_handles), Repair::handle)?;
        repair.each(&both(&report.handle_counts, &still.handle_counts), Repair::handle)?;
        repair.each(&both(&report.orphan_affinities, &still.orphan_affinities), Repair::claim)?;
        repair.each(&both(&report.lost, &still.lost), Repair::block)?;
    } else {
        repair.done.more |= report.items().any(|item| item.repairable && !report.leaked.contains(item));
    }
    let mut writes = writes(&repair.draft, cx);
    if repair.done.released.is_empty() {
        let room = MAX_WRITES.saturating_sub(writes.len());
        let cures = cures(&objects, report, cx).filter(|cure| writes.iter().all(|w| w.key != cure.key));
        let cures: Vec<Write> = cures.take(room).collect();
        // What was in the way of other judgements is judged next.
        repair.done.more |= !cures.is_empty();
        writes.extend(cures);
    }
    let mut done = repair.done;
    done.writes = writes.len();
    Ok(if writes.is_empty() { Plan::Done(done) } else { Plan::Commit(writes, done) })
}

/// The cures of broken objects that are still as they were reported.
fn cures<'o>(objects: &'o Objects, report: &'o Report, cx: &'o Context) -> impl Iterator<Item = Write> + 'o {
    let reported = |item: &Item| item.repairable && report.damaged.contains(item);
    let broken = objects.broken.iter().filter(move |broken| reported(&broken.item(objects)));
    broken.filter_map(|broken| broken.cure(objects, cx.now.wall_ns))
}

/// What was found and is still so.
fn both<'i>(found: &[Item], still: &'i [Item]) -> Vec<&'i Item> {
    still.iter().filter(|item| item.repairable && found.contains(item)).collect()
}

struct Repair<'r> {
    draft: Draft<'r>,
    cx: &'r Context<'r>,
    objects: &'r Objects,
    done: Repaired,
}

impl Repair<'_> {
    /// Whether another item may not fit any more.
    fn full(&mut self) -> bool {
        let full = writes(&self.draft, self.cx).len() + WRITES_OF_AN_ITEM > MAX_WRITES;
        self.done.more |= full;
        full
    }

    fn leaks(&mut self, items: &[&Item]) -> Step<()> {
        for item in items {
            if self.full() {
                break;
            }
            let (Seen::Held(held), Some(handle)) = (&item.seen, &item.handle) else { continue };
            self.free(held, handle)?;
        }
        Ok(())
    }

    fn free(&mut self, held: &Held, handle: &str) -> Step<()> {
        let request =
            Release { handle: handle.to_owned(), only: Some(vec![held.clone()]), ..Release::default() };
        let released = release(&mut self.draft, self.cx, &request)?;
        if released.freed.contains(&held.ip) {
            self.done.released.push(held.clone());
        }
        Ok(())
    }

    fn each(&mut self, items: &[&Item], mut fix: impl FnMut(&mut Self, &Item) -> Step<()>) -> Step<()> {
        for item in items {
            if self.full() {
                break;
            }
            fix(self, item)?;
        }
        Ok(())
    }

    /// Makes a handle count what the blocks hold; one that holds nothing goes.
    fn handle(&mut self, item: &Item) -> Step<()> {
        let Some(id) = &item.handle else { return Ok(()) };
        let blocks = self.objects.actual().get(id).cloned();
        let stored = self.draft.handle(id)?;
        let handle = blocks.map(|blocks| {
            let stored = stored.map_or_else(Handle::default, |stored| Handle::clone(&stored));
            Handle { blocks, ..stored }
        });
        self.draft.set_handle(id, handle);
        Ok(())
    }

    fn claim(&mut self, item: &Item) -> Step<()> {
        let (Some(host), Some(cidr)) = (&item.node, &item.block) else { return Ok(()) };
        affinities::release(&mut self.draft, host, cidr, true).map(|_| ())
    }

    /// Finds lost addresses again, and gives an unclaimed block's host its affinity.
    fn block(&mut self, item: &Item) -> Step<()> {
        let Some(cidr) = &item.block else { return Ok(()) };
        let Some(block) = self.draft.block(cidr)? else { return Ok(()) };
        if let Some(host) = &item.node {
            self.draft.affinity(host, cidr)?;
            self.draft.set_affinity(host, cidr, Some(Affinity::new(AffinityState::Confirmed)));
            return Ok(());
        }
        let mut block = (*block).clone();
        requeue_lost(&mut block);
        self.draft.set_block(block);
        Ok(())
    }
}
