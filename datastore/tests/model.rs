//! Random commits, reopenings and loads against a plain map.

#![allow(clippy::unwrap_used, reason = "a failing call fails the test that made it")]

mod support;

use datastore::embedded::Embedded;
use datastore::{CommitError, Store};
use model::store::{Entry, Expect, Write};
use proptest::prelude::*;
use std::collections::BTreeMap;
use support::{open, soon};

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u8, Condition, Option<usize>)>),
    Reopen,
    /// Dump, and load the dump.
    Reload,
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    Any,
    Absent,
    /// The revision that is there.
    Current,
    Stale,
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        4 => Just(Condition::Any),
        2 => Just(Condition::Absent),
        4 => Just(Condition::Current),
        1 => Just(Condition::Stale),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![8 => 0usize..300, 2 => 20_000usize..60_000];
    let write = (0u8..30, condition(), proptest::option::weighted(0.7, len));
    prop_oneof![
        20 => proptest::collection::vec(write, 1..5).prop_map(Step::Commit),
        2 => Just(Step::Reopen),
        1 => Just(Step::Reload),
    ]
}

type Model = BTreeMap<String, Entry>;

fn to_writes(model: &Model, plan: &[(u8, Condition, Option<usize>)]) -> Vec<Write> {
    let write = |(key, condition, len): &(u8, Condition, Option<usize>)| {
        let key = format!("/k/{key:02}");
        let current = model.get(&key).map_or(1 << 40, |e| e.revision);
        let expect = match condition {
            Condition::Any => Expect::Any,
            Condition::Absent => Expect::Absent,
            Condition::Current => Expect::At(current),
            Condition::Stale => Expect::At(current + 1),
        };
        Write { key, expect, value: len.map(|len| vec![b'v'; len]) }
    };
    let mut writes: Vec<Write> = plan.iter().map(write).collect();
    // What two writes to one key mean is another test's concern.
    let mut seen = std::collections::BTreeSet::new();
    writes.retain(|w| seen.insert(w.key.clone()));
    writes
}

fn holds(model: &Model, write: &Write) -> bool {
    let revision = model.get(&write.key).map(|e| e.revision);
    match write.expect {
        Expect::Any => true,
        Expect::Absent => revision.is_none(),
        Expect::At(wanted) => revision == Some(wanted),
    }
}

fn apply(model: &mut Model, writes: Vec<Write>, revision: u64) {
    for Write { key, value, .. } in writes {
        match value {
            Some(value) => drop(model.insert(key.clone(), Entry { key, value, revision })),
            None => drop(model.remove(&key)),
        }
    }
}

fn commit(store: &Embedded, model: &mut Model, newest: &mut u64, writes: Vec<Write>) {
    match store.commit(&writes, soon()) {
        Ok(revision) => {
            assert!(writes.iter().all(|w| holds(model, w)) && revision > *newest);
            *newest = revision;
            apply(model, writes, revision);
        }
        Err(CommitError::Conflict { applied: 0, current }) => {
            assert!(!writes.iter().all(|w| holds(model, w)));
            let expected: Vec<_> =
                writes.iter().map(|w| (w.key.clone(), model.get(&w.key).cloned())).collect();
            assert_eq!(current, expected);
        }
        Err(error) => panic!("{error}"),
    }
}

fn reload(dir: &std::path::Path, model: &mut Model, newest: &mut u64) {
    let dump = Embedded::dump(dir, soon()).unwrap();
    assert_eq!((dump.revision, dump.problems.len()), (*newest, 0));
    let revision = Embedded::load(dir, dump.entries, soon()).unwrap();
    assert!(revision > *newest);
    *newest = revision;
    model.values_mut().for_each(|e| e.revision = revision);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::count(500, 25) as u32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_a_map(steps in proptest::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, other) = (open(dir.path()), open(dir.path()));
        let (mut model, mut newest) = (Model::new(), 0);
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                Step::Commit(plan) => {
                    let by = if i % 3 == 0 { &other } else { &store };
                    let writes = to_writes(&model, &plan);
                    commit(by, &mut model, &mut newest, writes);
                }
                Step::Reopen => store = open(dir.path()),
                Step::Reload => reload(dir.path(), &mut model, &mut newest),
            }
            let expected: Vec<Entry> = model.values().cloned().collect();
            prop_assert_eq!(store.list("/k/", soon()).unwrap(), expected);
        }
        prop_assert_eq!(other.keys("/k/1", soon()).unwrap(), model.keys().filter(|k| k.starts_with("/k/1")).cloned().collect::<Vec<_>>());
        for key in (0..30).map(|i| format!("/k/{i:02}")) {
            prop_assert_eq!(support::get(&other, &key), model.get(&key).cloned());
        }
    }
}
