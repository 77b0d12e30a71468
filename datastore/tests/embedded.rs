//! The embedded store as its users see it: one process, sound medium.

#![allow(clippy::unwrap_used, reason = "a failing call fails the test that made it")]

mod support;

use datastore::embedded::{Embedded, Mode};
use datastore::{CommitError, Deadline, ErrorKind, Store};
use model::store::{Entry, Expect};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use support::{commit_kind, delete, get, kind, open, put, soon};

#[test]
fn what_was_committed_is_read_by_others_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (open(dir.path()), open(dir.path()));
    let first = one.commit(&[put("/a", Expect::Absent, "1"), put("/b", Expect::Any, "2")], soon()).unwrap();
    assert_eq!(get(&two, "/a"), Some(Entry { key: "/a".into(), value: b"1".to_vec(), revision: first }));
    let second = two.commit(&[delete("/a", Expect::At(first))], soon()).unwrap();
    assert!(second > first);
    let three = open(dir.path());
    assert_eq!(get(&three, "/a"), None);
    assert_eq!(three.keys("/", soon()).unwrap(), ["/b"]);
}

#[test]
fn a_conflict_changes_nothing_and_tells_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let revision = store.commit(&[put("/a", Expect::Absent, "1")], soon()).unwrap();
    let writes = [put("/b", Expect::Absent, "2"), put("/a", Expect::Absent, "3")];
    match store.commit(&writes, soon()).unwrap_err() {
        CommitError::Conflict { applied: 0, current } => {
            let there = Entry { key: "/a".into(), value: b"1".to_vec(), revision };
            assert_eq!(current, [("/b".to_owned(), None), ("/a".to_owned(), Some(there))]);
        }
        other => panic!("{other}"),
    }
    assert_eq!(store.keys("", soon()).unwrap(), ["/a"]);
    let stale = [put("/a", Expect::At(revision + 1), "3")];
    assert!(matches!(store.commit(&stale, soon()), Err(CommitError::Conflict { .. })));
}

#[test]
fn later_writes_of_a_commit_see_the_earlier_ones() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let writes = [
        put("/a", Expect::Absent, "1"),
        put("/a", Expect::Any, "2"),
        delete("/a", Expect::Any),
        put("/a", Expect::Absent, "3"),
    ];
    store.commit(&writes, soon()).unwrap();
    assert_eq!(get(&store, "/a").unwrap().value, b"3");
}

#[test]
fn prefixes_are_listed_in_key_order_through_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let value = "x".repeat(9000);
    for i in (0..300).rev() {
        store.commit(&[put(&format!("/k/{i:03}"), Expect::Absent, value.as_str())], soon()).unwrap();
    }
    for i in (0..300).step_by(3) {
        store.commit(&[delete(&format!("/k/{i:03}"), Expect::Any)], soon()).unwrap();
    }
    let expected: Vec<String> = (0..300)
        .filter(|i| i % 3 != 0)
        .map(|i| format!("/k/{i:03}"))
        .filter(|k| k.starts_with("/k/1"))
        .collect();
    for store in [&store, &open(dir.path())] {
        assert_eq!(store.keys("/k/1", soon()).unwrap(), expected);
        let entries = store.list("/k/1", soon()).unwrap();
        assert!(entries.iter().zip(&expected).all(|(e, k)| e.key == *k && e.value == value.as_bytes()));
        assert_eq!(get(store, "/k/000"), None);
        assert_eq!(get(store, "/k/299").unwrap().value, value.as_bytes());
    }
}

#[test]
fn a_commit_larger_than_the_log_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let big = "y".repeat(3 << 20);
    let revision = store
        .commit(&[put("/big", Expect::Absent, big.as_str()), put("/s", Expect::Any, "1")], soon())
        .unwrap();
    let found = get(&open(dir.path()), "/big").unwrap();
    assert_eq!((found.value, found.revision), (big.into_bytes(), revision));
}

#[test]
fn only_create_creates() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state/store");
    for mode in [Mode::Existing, Mode::ReadOnly] {
        assert_eq!(kind(Embedded::open(&dir, mode)), ErrorKind::Missing);
    }
    assert!(!dir.exists());
    open(&dir);
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(["a", "b", "lock"].map(|f| mode(&dir.join(f))), [0o600; 3]);
    Embedded::open(&dir, Mode::Existing).unwrap();
}

#[test]
fn read_only_reads_and_refuses_commits() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).commit(&[put("/a", Expect::Any, "1")], soon()).unwrap();
    let store = Embedded::open(dir.path(), Mode::ReadOnly).unwrap();
    assert_eq!(get(&store, "/a").unwrap().value, b"1");
    store.barrier(soon()).unwrap();
    assert_eq!(commit_kind(store.commit(&[put("/a", Expect::Any, "2")], soon())), ErrorKind::Denied);
}

#[test]
fn what_is_outside_the_limits_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let long = "k".repeat(datastore::embedded::MAX_KEY + 1);
    for key in ["", &long] {
        assert_eq!(commit_kind(store.commit(&[put(key, Expect::Any, "1")], soon())), ErrorKind::Invalid);
    }
}

#[test]
fn a_busy_store_answers_at_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let lock = dir.path().join("lock");
    let _held = datastore::lock::Lock::acquire(&lock, datastore::lock::Kind::Exclusive, soon()).unwrap();
    let short = || Deadline::after(Duration::from_millis(30));
    assert_eq!(kind(store.get(&["/a"], short())), ErrorKind::Timeout);
    assert!(matches!(store.commit(&[], short()), Err(CommitError::Store(e)) if e.kind == ErrorKind::Timeout));
}

#[test]
fn a_handle_follows_when_the_store_is_removed_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let long_lived = open(&path);
    long_lived.commit(&[put("/old", Expect::Any, "1")], soon()).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    assert_eq!(kind(long_lived.get(&["/old"], soon())), ErrorKind::Missing);
    open(&path).commit(&[put("/new", Expect::Any, "1")], soon()).unwrap();
    assert_eq!(long_lived.keys("", soon()).unwrap(), ["/new"]);
    long_lived.commit(&[put("/newer", Expect::Any, "1")], soon()).unwrap();
    assert_eq!(open(&path).keys("", soon()).unwrap(), ["/new", "/newer"]);
}
