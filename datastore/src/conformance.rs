//! What every back end must do, as checks that panic with what they saw: for the tests of the back
//! ends, over a store that is otherwise in use or not.
//!
//! The objects are handles, which every back end can hold; a number in them tells versions apart.
//! Each check works under names of its own and expects none of them to exist.

#![allow(clippy::unwrap_used, reason = "a failing check fails its test")]

use crate::{CommitError, Deadline, ErrorKind, Event, Store, Watch};
use model::Scope;
use model::keys;
use model::store::{Entry, Expect, Revision, Write};
use std::collections::BTreeMap;
use std::time::Duration;

/// A check of a store; the flag says whether it has transactions.
pub type Check = fn(&dyn Store, bool);

/// All checks, by name.
pub const CHECKS: [(&str, Check); 13] = [
    ("identity", identity),
    ("read what was written", read_what_was_written),
    ("conditions", conditions),
    ("deletes", deletes),
    ("conflicts tell what is there", conflicts_tell_what_is_there),
    ("commits are whole", commits_are_whole),
    ("writes to one key", writes_to_one_key),
    ("a hundred writes", a_hundred_writes),
    ("lists are ordered and exact", lists_are_ordered_and_exact),
    ("limits", limits),
    ("counting from threads", counting_from_threads),
    ("watch", watch_tells_everything),
    ("watch beside writers", watch_beside_writers),
];

/// Runs all checks.
pub fn run(store: &dyn Store, transactional: bool) {
    for (name, check) in CHECKS {
        println!("conformance: {name}");
        check(store, transactional);
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// The count that `PERCALE_FULL=1` asks for, else the small one.
fn count(full: usize, small: usize) -> usize {
    if std::env::var_os("PERCALE_FULL").is_some() { full } else { small }
}

fn prefix(check: &str) -> String {
    format!("{}conformance-{check}-", keys::handles(&Scope::Cluster))
}

fn key(check: &str, n: usize) -> String {
    format!("{}{n:04}", prefix(check))
}

fn value(number: u64) -> Vec<u8> {
    format!(r#"{{"block":{{"10.0.0.0/26":{number}}},"deleted":false}}"#).into_bytes()
}

fn number(entry: &Entry) -> u64 {
    let value: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
    value["block"]["10.0.0.0/26"].as_u64().unwrap()
}

fn put(key: &str, expect: Expect, number: u64) -> Write {
    Write { key: key.to_owned(), expect, value: Some(value(number)) }
}

fn delete(key: &str, expect: Expect) -> Write {
    Write { key: key.to_owned(), expect, value: None }
}

fn get(store: &dyn Store, key: &str) -> Option<Entry> {
    store.get(&[key], soon()).unwrap().remove(0)
}

fn commit(store: &dyn Store, writes: &[Write]) -> Revision {
    store.commit(writes, soon()).unwrap()
}

/// The conflict that `writes` meet: how many were applied, and what is there.
fn conflict(store: &dyn Store, writes: &[Write]) -> (usize, Vec<(String, Option<Entry>)>) {
    match store.commit(writes, soon()) {
        Err(CommitError::Conflict { applied, current }) => (applied, current),
        other => panic!("a conflict was expected: {other:?}"),
    }
}

fn identity(store: &dyn Store, _: bool) {
    let identity = store.identity();
    assert!(!identity.is_empty() && !identity.contains(char::is_whitespace), "{identity:?}");
    assert_eq!(store.identity(), identity);
    store.barrier(soon()).unwrap();
}

fn read_what_was_written(store: &dyn Store, _: bool) {
    let (a, b, none) = (key("read", 1), key("read", 2), key("read", 3));
    let first = commit(store, &[put(&a, Expect::Absent, 1)]);
    let second = commit(store, &[put(&b, Expect::Any, 2)]);
    assert!(second > first && first > 0);
    let found = store.get(&[&b, &none, &a, &b], soon()).unwrap();
    let seen: Vec<_> =
        found.iter().map(|e| e.as_ref().map(|e| (e.key.as_str(), number(e), e.revision))).collect();
    let there = Some((b.as_str(), 2, second));
    assert_eq!(seen, [there, None, Some((a.as_str(), 1, first)), there]);
    assert!(store.get(&[], soon()).unwrap().is_empty());
}

fn conditions(store: &dyn Store, _: bool) {
    let key = key("conditions", 1);
    let first = commit(store, &[put(&key, Expect::Absent, 1)]);
    conflict(store, &[put(&key, Expect::Absent, 2)]);
    let second = commit(store, &[put(&key, Expect::At(first), 2)]);
    conflict(store, &[put(&key, Expect::At(first), 3)]);
    conflict(store, &[put(&key, Expect::At(second + 1000), 3)]);
    let third = commit(store, &[put(&key, Expect::Any, 3)]);
    let found = get(store, &key).unwrap();
    assert_eq!((number(&found), found.revision), (3, third));
    assert!(first < second && second < third);
}

fn deletes(store: &dyn Store, _: bool) {
    let (here, never) = (key("deletes", 1), key("deletes", 2));
    let first = commit(store, &[put(&here, Expect::Absent, 1)]);
    let second = commit(store, &[put(&here, Expect::Any, 2)]);
    conflict(store, &[delete(&here, Expect::At(first))]);
    assert!(get(store, &here).is_some());
    commit(store, &[delete(&here, Expect::At(second))]);
    assert_eq!(get(store, &here), None);
    let (_, current) = conflict(store, &[delete(&here, Expect::At(second))]);
    assert_eq!(current, [(here.clone(), None)]);
    commit(store, &[delete(&never, Expect::Any)]);
    // A key that comes back has a newer revision than any before.
    assert!(commit(store, &[put(&here, Expect::Absent, 3)]) > second);
}

fn conflicts_tell_what_is_there(store: &dyn Store, transactional: bool) {
    let (new, old, stale) = (key("tell", 1), key("tell", 2), key("tell", 3));
    let revision = commit(store, &[put(&old, Expect::Absent, 7)]);
    let writes =
        [put(&new, Expect::Absent, 1), put(&old, Expect::Absent, 1), put(&stale, Expect::At(revision), 1)];
    let (applied, current) = conflict(store, &writes);
    assert_eq!(applied, usize::from(!transactional));
    let names: Vec<&str> = current.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, [&new, &old, &stale]);
    let there = current[1].1.as_ref().unwrap();
    assert_eq!((number(there), there.revision), (7, revision));
    assert_eq!(current[2].1, None);
    assert_eq!(get(store, &new).is_some(), !transactional);
    // What was told is enough to try again.
    let again = current[1].1.as_ref().map_or(Expect::Absent, |e| Expect::At(e.revision));
    commit(store, &[put(&old, again, 8)]);
}

fn commits_are_whole(store: &dyn Store, transactional: bool) {
    let keys: Vec<String> = (0..5).map(|n| key("whole", n)).collect();
    let writes: Vec<Write> = keys.iter().map(|key| put(key, Expect::Absent, 1)).collect();
    let revision = commit(store, &writes);
    let found = store.list(&prefix("whole"), soon()).unwrap();
    assert_eq!(found.len(), 5);
    if transactional {
        assert!(found.iter().all(|e| e.revision == revision));
    }
    let mixed =
        [put(&keys[0], Expect::At(found[0].revision), 2), delete(&keys[1], Expect::At(found[1].revision))];
    commit(store, &mixed);
    assert_eq!(store.keys(&prefix("whole"), soon()).unwrap().len(), 4);
}

fn writes_to_one_key(store: &dyn Store, transactional: bool) {
    if !transactional {
        return;
    }
    let key = key("one", 1);
    let writes = [
        put(&key, Expect::Absent, 1),
        put(&key, Expect::Any, 2),
        delete(&key, Expect::Any),
        put(&key, Expect::Absent, 3),
    ];
    let revision = commit(store, &writes);
    let found = get(store, &key).unwrap();
    assert_eq!((number(&found), found.revision), (3, revision));
    let (_, current) = conflict(store, &[put(&key, Expect::Any, 4), put(&key, Expect::Absent, 5)]);
    assert!(current.iter().all(|(_, entry)| entry.as_ref().map(number) == Some(3)));
    commit(store, &[put(&key, Expect::At(revision), 6), delete(&key, Expect::Any)]);
    assert_eq!(get(store, &key), None);
}

fn a_hundred_writes(store: &dyn Store, _: bool) {
    let writes: Vec<Write> = (0..100).map(|n| put(&key("hundred", n), Expect::Absent, n as u64)).collect();
    commit(store, &writes);
    let keys: Vec<String> = (0..100).map(|n| key("hundred", n)).collect();
    let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    let found = store.get(&asked, soon()).unwrap();
    assert!(found.iter().enumerate().all(|(n, e)| e.as_ref().map(number) == Some(n as u64)));
}

fn lists_are_ordered_and_exact(store: &dyn Store, _: bool) {
    // More than a page of any back end, written from the last to the first.
    let count = count(5000, 1100);
    let numbers: Vec<usize> = (0..count).rev().collect();
    for part in numbers.chunks(100) {
        let writes: Vec<Write> =
            part.iter().map(|n| put(&key("list", *n), Expect::Absent, *n as u64)).collect();
        commit(store, &writes);
    }
    commit(store, &[put(&format!("{}x", prefix("lis")), Expect::Absent, 0)]);
    let expected: Vec<String> = (0..count).map(|n| key("list", n)).collect();
    let entries = store.list(&prefix("list"), soon()).unwrap();
    assert!(entries.iter().map(|e| &e.key).eq(expected.iter()));
    assert!(entries.iter().enumerate().all(|(n, e)| number(e) == n as u64));
    assert_eq!(store.keys(&prefix("list"), soon()).unwrap(), expected);
    let tens = format!("{}001", prefix("list"));
    assert_eq!(store.keys(&tens, soon()).unwrap(), expected[10..20]);
    assert!(store.list(&prefix("nothing"), soon()).unwrap().is_empty());
}

fn limits(store: &dyn Store, _: bool) {
    match store.commit(&[put("", Expect::Any, 1)], soon()) {
        Err(CommitError::Store(error)) => assert_eq!(error.kind, ErrorKind::Invalid, "{error}"),
        other => panic!("an empty key: {other:?}"),
    }
}

fn counting_from_threads(store: &dyn Store, _: bool) {
    let key = key("count", 1);
    let (threads, each) = (4, count(500, 25) as u64);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..each).for_each(|_| increment(store, &key)));
        }
    });
    assert_eq!(number(&get(store, &key).unwrap()), threads * each);
}

fn increment(store: &dyn Store, key: &str) {
    let mut found = get(store, key);
    loop {
        let expect = found.as_ref().map_or(Expect::Absent, |e| Expect::At(e.revision));
        let next = found.as_ref().map_or(0, number) + 1;
        match store.commit(&[put(key, expect, next)], soon()) {
            Ok(_) => return,
            Err(CommitError::Conflict { mut current, .. }) => found = current.remove(0).1,
            Err(CommitError::Store(error)) => panic!("{error}"),
        }
    }
}

fn next(watch: &mut dyn Watch) -> Event {
    watch.next(soon()).unwrap().expect("an event before the deadline")
}

fn nothing(watch: &mut dyn Watch) {
    assert_eq!(watch.next(Deadline::after(Duration::from_millis(200))).unwrap(), None);
}

#[track_caller]
fn is_put(event: &Event, key: &str, n: u64, revision: Revision) {
    match event {
        Event::Put(e) => assert_eq!((e.key.as_str(), number(e), e.revision), (key, n, revision)),
        other => panic!("{other:?} in place of a put of {key}"),
    }
}

fn watch_tells_everything(store: &dyn Store, _: bool) {
    let (a, b, outside) = (key("watch", 1), key("watch", 2), key("watc", 1));
    let first = commit(store, &[put(&a, Expect::Absent, 1)]);
    let mut watch = store.watch(&prefix("watch")).unwrap();
    is_put(&next(&mut *watch), &a, 1, first);
    assert_eq!(next(&mut *watch), Event::Synced);
    nothing(&mut *watch);
    commit(store, &[put(&outside, Expect::Absent, 1)]);
    let second = commit(store, &[put(&b, Expect::Absent, 2)]);
    is_put(&next(&mut *watch), &b, 2, second);
    let third = commit(store, &[put(&a, Expect::Any, 3)]);
    is_put(&next(&mut *watch), &a, 3, third);
    commit(store, &[delete(&b, Expect::Any)]);
    assert_eq!(next(&mut *watch), Event::Delete { key: b });
    nothing(&mut *watch);
    let mut empty = store.watch(&prefix("watch-nothing")).unwrap();
    assert_eq!(next(&mut *empty), Event::Synced);
}

fn watch_beside_writers(store: &dyn Store, _: bool) {
    let mut watch = store.watch(&prefix("beside")).unwrap();
    let last = key("beside", 9999);
    let mut known = BTreeMap::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            write_about(store);
            commit(store, &[put(&last, Expect::Absent, 1)]);
        });
        while !known.contains_key(&last) {
            follow(&mut known, next(&mut *watch));
        }
    });
    let entries = store.list(&prefix("beside"), soon()).unwrap();
    let there: BTreeMap<String, Revision> = entries.into_iter().map(|e| (e.key, e.revision)).collect();
    assert_eq!(known, there);
}

fn write_about(store: &dyn Store) {
    for i in 0..count(5000, 120) {
        let key = key("beside", i * 7 % 20);
        let write = if i % 5 == 0 { delete(&key, Expect::Any) } else { put(&key, Expect::Any, i as u64) };
        commit(store, &[write]);
    }
}

fn follow(known: &mut BTreeMap<String, Revision>, event: Event) {
    match event {
        Event::Put(e) => drop(known.insert(e.key, e.revision)),
        Event::Delete { key } => drop(known.remove(&key)),
        Event::Synced => {}
        Event::Reset => known.clear(),
    }
}
