//! Watching a store: what is there, what others change, through checkpoints and loads.

#![allow(clippy::unwrap_used, reason = "a failing call fails the test that made it")]

mod support;

use datastore::embedded::Embedded;
use datastore::{Deadline, Event, Store, Watch};
use model::store::{Entry, Expect};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::*;

fn next(watch: &mut dyn Watch) -> Event {
    watch.next(soon()).unwrap().expect("an event before the deadline")
}

fn nothing(watch: &mut dyn Watch) {
    assert_eq!(watch.next(Deadline::after(Duration::from_millis(50))).unwrap(), None);
}

fn entry(key: &str, value: &str, revision: u64) -> Event {
    Event::Put(Entry { key: key.into(), value: value.into(), revision })
}

#[test]
fn existing_entries_then_synced_then_changes_under_the_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = store.commit(&[put("/w/a", Expect::Any, "1"), put("/x", Expect::Any, "1")], soon()).unwrap();
    let mut watch = store.watch("/w/").unwrap();
    assert_eq!(next(&mut *watch), entry("/w/a", "1", first));
    assert_eq!(next(&mut *watch), Event::Synced);
    nothing(&mut *watch);
    store.commit(&[put("/x", Expect::Any, "2")], soon()).unwrap();
    nothing(&mut *watch);
    let second = store.commit(&[put("/w/b", Expect::Any, "2"), delete("/w/a", Expect::Any)], soon()).unwrap();
    assert_eq!(next(&mut *watch), entry("/w/b", "2", second));
    assert_eq!(next(&mut *watch), Event::Delete { key: "/w/a".into() });
    nothing(&mut *watch);
}

#[test]
fn a_waiting_watch_is_woken_by_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch("/").unwrap();
    assert_eq!(next(&mut *watch), Event::Synced);
    let start = Instant::now();
    let other = child(&[], "committer", dir.path(), "/late");
    assert!(matches!(next(&mut *watch), Event::Put(e) if e.key == "/late"));
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(other.wait_with_output().unwrap().status.success());
}

#[test]
fn committer() {
    let Some((dir, key)) = as_child() else { return };
    std::thread::sleep(Duration::from_millis(100));
    open(&dir).commit(&[put(&key, Expect::Any, "1")], soon()).unwrap();
}

/// Applies events until the watch has nothing more to tell.
fn follow(watch: &mut dyn Watch, known: &mut BTreeMap<String, u64>) {
    while let Some(event) = watch.next(Deadline::after(Duration::from_millis(100))).unwrap() {
        match event {
            Event::Put(e) => assert_ne!(known.insert(e.key, e.revision), Some(e.revision), "told twice"),
            Event::Delete { key } => assert!(known.remove(&key).is_some(), "{key} was never told"),
            Event::Synced => {}
            Event::Reset => known.clear(),
        }
    }
}

#[test]
fn checkpoints_and_loads_that_pass_a_watch_by_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch("/w/").unwrap();
    let mut known = BTreeMap::new();
    for round in 0..6 {
        for i in 0..60 {
            let key = format!("/w/{:02}", (i * 7 + round) % 40);
            let write = if i % 4 == 0 {
                delete(&key, Expect::Any)
            } else {
                put(&key, Expect::Any, vec![b'x'; 9000 * round])
            };
            store.commit(&[write], soon()).unwrap();
        }
        if round == 4 {
            let entries = store.list("", soon()).unwrap();
            Embedded::load(dir.path(), entries[5..].to_vec(), soon()).unwrap();
        }
        follow(&mut *watch, &mut known);
        let there: BTreeMap<_, _> =
            store.list("/w/", soon()).unwrap().into_iter().map(|e| (e.key, e.revision)).collect();
        assert_eq!(known, there, "round {round}");
    }
}

#[test]
fn watches_of_one_store_all_hear_and_learn_that_its_directory_went() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    let store = open(&place);
    let mut watches: Vec<_> = (0..8).map(|i| store.watch(&format!("/w/{i}/")).unwrap()).collect();
    watches.iter_mut().for_each(|watch| assert_eq!(next(watch.as_mut()), Event::Synced));
    let writes: Vec<_> = (0..8).map(|i| put(&format!("/w/{i}/key"), Expect::Any, "1")).collect();
    let revision = store.commit(&writes, soon()).unwrap();
    for (i, watch) in watches.iter_mut().enumerate() {
        assert_eq!(next(watch.as_mut()), entry(&format!("/w/{i}/key"), "1", revision));
        nothing(watch.as_mut());
    }
    std::fs::remove_dir_all(&place).unwrap();
    let anew = open(&place);
    anew.commit(&[put("/w/0/other", Expect::Any, "2")], soon()).unwrap();
    for watch in &mut watches {
        let gone = watch.next(soon()).unwrap_err();
        assert!(gone.to_string().contains("watch store"), "{gone}");
    }
    // The handle from before finds the new directory, and so do its watches.
    let mut watch = store.watch("/w/").unwrap();
    assert!(matches!(next(watch.as_mut()), Event::Put(e) if e.key == "/w/0/other"));
    assert_eq!(next(watch.as_mut()), Event::Synced);
    anew.commit(&[put("/w/0/last", Expect::Any, "3")], soon()).unwrap();
    assert!(matches!(next(watch.as_mut()), Event::Put(e) if e.key == "/w/0/last"));
}
