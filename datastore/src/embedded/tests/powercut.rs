//! Power cuts, kills and failing calls at every write and sync, against a model.
// REQ: A-16

use super::sim::{Fault, Rng, Sim};
use crate::embedded::disk::File;
use crate::embedded::frame;
use crate::embedded::header::{Format, Header, LOG_AT, SECTOR};
use crate::embedded::slots::Slots;
use model::store::{Expect, Write};
use std::collections::BTreeMap;

/// What a store holds: keys with value and revision, and the store's revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    entries: BTreeMap<String, (Vec<u8>, u64)>,
    revision: u64,
}

impl Content {
    fn of(slots: &mut Slots) -> Self {
        slots.refresh().unwrap();
        let revision = slots.loaded().unwrap().revision;
        let entries = slots.list("").unwrap();
        Self { revision, entries: entries.into_iter().map(|e| (e.key, (e.value, e.revision))).collect() }
    }

    fn after(&self, writes: &[Write]) -> Self {
        let mut next = self.clone();
        next.revision += 1;
        for write in writes {
            match &write.value {
                Some(value) => drop(next.entries.insert(write.key.clone(), (value.clone(), next.revision))),
                None => drop(next.entries.remove(&write.key)),
            }
        }
        next
    }
}

fn random_writes(rng: &mut Rng) -> Vec<Write> {
    (0..1 + rng.below(4))
        .map(|_| {
            let len = if rng.one_in(20) { 3000 } else { rng.below(300) };
            let value = (!rng.one_in(3)).then(|| vec![rng.next() as u8; len as usize]);
            Write { key: format!("/key/{:02}", rng.below(25)), expect: Expect::Any, value }
        })
        .collect()
}

struct Run {
    rng: Rng,
    sim: Sim,
    slots: Slots,
    /// What must survive a power cut.
    acknowledged: Content,
    /// What was last read.
    visible: Content,
    /// What became visible since then, in order: a cut may go back to any of it.
    soon: Vec<Content>,
    /// Commits that failed since the last sync: a cut may bring them up.
    failed: Vec<Content>,
    cuts: u32,
}

impl Run {
    fn new(seed: u64) -> Self {
        let sim = Sim::formatted();
        Self {
            rng: Rng(seed),
            slots: sim.slots(),
            sim,
            acknowledged: Content::default(),
            visible: Content::default(),
            soon: Vec::new(),
            failed: Vec::new(),
            cuts: 0,
        }
    }

    fn step(&mut self) {
        // An append is two writes and perhaps a sync, a checkpoint up to twenty.
        let after = if self.rng.one_in(4) { self.rng.below(20) } else { self.rng.below(4) };
        match self.rng.below(4) {
            0 => {}
            1 => self.sim.arm(after, Fault::Fail),
            _ => self.sim.arm(after, Fault::Kill),
        }
        // Several commits in flight: each of these openers is another process.
        for _ in 0..self.rng.below(4) {
            self.commit_soon();
        }
        if !self.sim.is_dead() && self.rng.one_in(2) {
            self.settle();
        }
        self.aftermath();
    }

    fn commit_soon(&mut self) {
        if self.sim.is_dead() {
            return;
        }
        if self.rng.one_in(2) {
            self.slots = self.sim.slots();
        }
        let writes = random_writes(&mut self.rng);
        let next = self.visible.after(&writes);
        match self.slots.commit_soon(&writes) {
            Ok(revision) => {
                assert_eq!(revision, next.revision);
                self.visible = next.clone();
                self.soon.push(next);
            }
            Err(_) => self.failed.push(next),
        }
    }

    /// As whoever answers: what he has seen is durable once it returns.
    fn settle(&mut self) {
        self.slots.refresh().unwrap();
        if self.slots.settle().is_ok() {
            self.acknowledged = self.visible.clone();
            self.soon.clear();
            self.failed.clear();
        }
    }

    fn aftermath(&mut self) {
        if self.sim.is_dead() {
            self.slots = self.sim.slots();
        }
        if self.rng.one_in(3) {
            self.cut();
        } else if self.sim.is_dead() {
            self.after_kill();
        } else {
            self.sim.restart();
            self.still_running();
        }
    }

    fn cut(&mut self) {
        self.cuts += 1;
        self.sim.cut(&mut self.rng);
        self.slots = self.sim.slots();
        let found = Content::of(&mut self.slots);
        let known = found == self.acknowledged || self.soon.contains(&found) || self.failed.contains(&found);
        assert!(known, "neither what was acknowledged nor that with what was in flight:\n{found:?}");
        self.agree_on(found);
    }

    fn agree_on(&mut self, found: Content) {
        (self.acknowledged, self.visible) = (found.clone(), found);
        self.soon.clear();
        self.failed.clear();
    }

    fn after_kill(&mut self) {
        self.sim.restart();
        let found = Content::of(&mut self.slots);
        let in_flight = self.failed.last();
        assert!(found == self.visible || Some(&found) == in_flight, "{found:?}");
        self.visible = found.clone();
        self.soon.push(found);
        if self.rng.one_in(3) {
            self.settle();
        }
    }

    fn still_running(&mut self) {
        assert_eq!(Content::of(&mut self.slots), self.visible, "a failed commit must not be seen");
        assert_eq!(Content::of(&mut self.sim.slots()), self.visible);
    }
}

fn wanted_cuts() -> u32 {
    if std::env::var_os("PERCALE_FULL").is_some() { 1000 } else { 150 }
}

#[test]
fn no_power_cut_loses_or_tears_a_commit() {
    let mut cuts = 0;
    for seed in 0.. {
        let mut run = Run::new(seed);
        for step in 0..40 {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.step()));
            assert!(result.is_ok(), "seed {seed}, step {step}");
        }
        cuts += run.cuts;
        if cuts >= wanted_cuts() {
            break;
        }
    }
}

#[test]
fn a_cut_while_creating_leaves_no_store_or_an_empty_one() {
    for after in 0..14 {
        for seed in 0..10 {
            let sim = Sim::new();
            sim.arm(after, Fault::Kill);
            drop(sim.slots().format(1));
            sim.cut(&mut Rng(seed));
            let mut slots = sim.slots();
            if slots.is_empty().unwrap() {
                slots.format(2).unwrap();
            }
            assert_eq!(Content::of(&mut slots), Content::default());
        }
    }
}

#[test]
fn a_cut_while_replacing_leaves_all_of_the_old_or_all_of_the_new() {
    for after in 0..8 {
        for seed in 0..20 {
            let sim = Sim::formatted();
            let mut slots = sim.slots();
            let old: Vec<Write> = random_writes(&mut Rng(seed));
            slots.commit(&old).unwrap();
            let before = Content::of(&mut slots);
            let new = [model::store::Entry { key: "/new".into(), value: b"1".to_vec(), revision: 7 }];
            sim.arm(after, Fault::Kill);
            let result = slots.replace(&new);
            sim.cut(&mut Rng(seed));
            let found = Content::of(&mut sim.slots());
            let is_new = found.entries.keys().eq(["/new"]);
            assert!(is_new && found.revision == 8 || found == before && result.is_err(), "{found:?}");
        }
    }
}

#[test]
fn a_commit_on_top_of_one_whose_author_died_survives_with_it() {
    for seed in 0..2000 {
        let mut rng = Rng(seed);
        let sim = Sim::formatted();
        sim.slots().commit(&[write("/zero", None)]).unwrap();
        let before = Content::of(&mut sim.slots());
        // The first dies before its sync, the second at any point.
        sim.slots().commit_soon(&[write("/one", Some(vec![1; 500]))]).unwrap();
        let dead = Content::of(&mut sim.slots());
        assert_eq!(dead.revision, 2);
        let writes = [write("/two", Some(vec![2; 300]))];
        sim.arm(rng.below(6), Fault::Kill);
        let result = sim.slots().commit(&writes);
        sim.cut(&mut rng);
        let found = Content::of(&mut sim.slots());
        let both = dead.after(&writes);
        assert!(if result.is_ok() {
            found == both
        } else {
            found == before || found == dead || found == both
        });
    }
}

#[test]
fn what_was_read_survives_once_the_barrier_returned() {
    for seed in 0..100 {
        let mut rng = Rng(seed);
        let sim = Sim::formatted();
        sim.slots().commit(&[write("/zero", None)]).unwrap();
        sim.slots().commit_soon(&[write("/one", Some(vec![1; 900]))]).unwrap();
        let mut reader = sim.slots();
        let seen = Content::of(&mut reader);
        reader.settle().unwrap();
        sim.cut(&mut rng);
        assert_eq!(Content::of(&mut sim.slots()), seen);
    }
}

/// Of commits that were in flight together a cut may keep a later one and not an earlier: that is no damage,
/// and what stays of it never comes back.
#[test]
fn what_a_cut_left_behind_a_torn_commit_never_comes_back() {
    let mut torn = 0;
    for seed in 0..3000 {
        let mut rng = Rng(seed);
        let sim = Sim::formatted();
        sim.slots().commit(&[write("/zero", None)]).unwrap();
        let mut states = vec![Content::of(&mut sim.slots())];
        for i in 0..3 {
            // All of one length, so that each begins where one before the cut did.
            sim.slots().commit_soon(&[write("/key", Some(vec![i; 450]))]).unwrap();
            states.push(Content::of(&mut sim.slots()));
        }
        sim.cut(&mut rng);
        let mut found = Content::of(&mut sim.slots());
        assert!(states.contains(&found), "seed {seed}: {found:?}");
        torn += u32::from(found != states[0] && found != states[3]);
        for i in 10..12 {
            let writes = [write("/key", Some(vec![i; 450]))];
            let next = found.after(&writes);
            sim.slots().commit(&writes).unwrap();
            sim.cut(&mut rng);
            found = Content::of(&mut sim.slots());
            assert_eq!(found, next, "seed {seed}");
        }
    }
    assert!(torn > 100, "{torn}");
}

/// The kernel drops what it failed to write, and the next sync succeeds without it.
#[test]
fn a_sync_that_failed_is_not_made_good_by_one_that_had_nothing_to_do() {
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let sim = Sim::formatted();
        sim.slots().commit(&[write("/zero", None)]).unwrap();
        let mut first = sim.slots();
        first.commit_soon(&[write("/one", Some(vec![1; 700]))]).unwrap();
        sim.arm(0, Fault::Fail);
        first.settle().unwrap_err();
        let mut second = sim.slots();
        second.commit(&[write("/two", Some(vec![2; 300]))]).unwrap();
        let seen = Content::of(&mut second);
        sim.cut(&mut rng);
        assert_eq!(Content::of(&mut sim.slots()), seen, "seed {seed}");
    }
}

/// A store of the format before this one: its commits are read, and the next one begins a new slot.
#[test]
fn a_store_of_format_version_1_is_read_and_carried_on() {
    let sim = Sim::formatted();
    let first = Header { format: Format::First, ..header_of(&sim) };
    let seed = first.seed();
    let mut a = sim.bytes(File::A);
    a[..SECTOR].copy_from_slice(&first.encode());
    let mut at = LOG_AT as usize;
    for revision in 1..=3u64 {
        let mut bytes = Vec::new();
        frame::begin(&mut bytes);
        for number in [revision, 60] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&4u16.to_le_bytes());
        bytes.extend_from_slice(&3u32.to_le_bytes());
        bytes.extend_from_slice(format!("/k/{revision}old").as_bytes());
        frame::finish(&mut bytes, 0, frame::Kind::Log, seed, at as u64);
        a[at..at + bytes.len()].copy_from_slice(&bytes);
        at += bytes.len();
    }
    sim.set_bytes(File::A, a.clone());
    sim.set_bytes(File::Mark, Vec::new());
    let before = Content::of(&mut sim.slots());
    assert_eq!(before.entries.len(), 3);
    let writes = [write("/new", Some(vec![1; 20]))];
    sim.slots().commit(&writes).unwrap();
    assert_eq!(Content::of(&mut sim.slots()), before.after(&writes));
    assert_eq!(header_of(&sim).format, Format::Chained);
    // In that format a sound commit behind a damaged one is always damage.
    let damaged = Sim::formatted();
    a[LOG_AT as usize + 20] ^= 1;
    damaged.set_bytes(File::A, a);
    damaged.set_bytes(File::Mark, Vec::new());
    assert_eq!(damaged.slots().refresh().unwrap_err().kind, crate::ErrorKind::Corrupt);
}

fn header_of(sim: &Sim) -> Header {
    let mut slots = sim.slots();
    slots.refresh().unwrap();
    slots.loaded().unwrap().header.clone()
}

fn write(key: &str, value: Option<Vec<u8>>) -> Write {
    Write { key: key.into(), expect: Expect::Any, value }
}

/// Fills a store on a disk with `spare` bytes left, then changes and deletes everything.
fn full_disk(spare: u64, key_len: usize, value_len: usize) {
    let sim = Sim::formatted();
    let mut slots = sim.slots();
    let key = |i: u64| format!("{i:0key_len$}");
    sim.limit(sim.total() + spare);
    let stored =
        (0..).take_while(|i| slots.commit(&[write(&key(*i), Some(vec![1; value_len]))]).is_ok()).count();
    sim.limit(0);
    for round in 0..40 {
        let i = round * 7 % stored as u64;
        slots.commit(&[write(&key(i), Some(vec![round as u8; value_len]))]).unwrap();
    }
    for i in 0..stored as u64 {
        slots.commit(&[write(&key(i), None)]).unwrap();
    }
    assert!(slots.keys("").unwrap().is_empty());
}

#[test]
fn what_does_not_grow_the_store_succeeds_on_a_full_disk() {
    for spare in (4000..40_000).step_by(1300) {
        full_disk(spare, 8, 100);
        full_disk(spare, 8, 700);
    }
    for spare in [400_000, 900_000] {
        full_disk(spare, 1000, 16 << 10);
    }
}
