//! The journal of releases as its users see it.

#![allow(clippy::unwrap_used, reason = "a failing call fails the test that made it")]

mod support;

use datastore::ErrorKind;
use datastore::journal::{Held, Journal, Release};
use support::kind;

fn release(container: &str) -> Release {
    let held = |ip: &str| Held {
        ip: ip.parse().unwrap(),
        handle: format!("net.{container}"),
        attrs: [("network".to_owned(), "net".to_owned())].into(),
        sequence: 7,
    };
    Release {
        store: "kubernetes:abc".into(),
        network: "net".into(),
        container: container.into(),
        ifname: "eth0".into(),
        addresses: vec![held("10.0.0.1"), held("fd00::1")],
    }
}

#[test]
fn entries_are_kept_until_they_are_done() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!Journal::is_unused(dir.path()));
    let journal = Journal::open(dir.path()).unwrap();
    assert!(Journal::is_unused(dir.path()));
    let first = journal.append(&release("one")).unwrap();
    assert!(!Journal::is_unused(dir.path()));
    let second = journal.append(&release("two")).unwrap();
    let again = Journal::open(dir.path()).unwrap();
    assert_eq!(again.pending().unwrap(), [(first, release("one")), (second, release("two"))]);
    again.done(first).unwrap();
    again.done(first).unwrap();
    assert_eq!(journal.pending().unwrap(), [(second, release("two"))]);
}

#[test]
fn an_equal_entry_is_not_written_twice_and_no_id_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let first = journal.append(&release("one")).unwrap();
    assert_eq!(journal.append(&release("one")).unwrap(), first);
    journal.done(first).unwrap();
    let second = journal.append(&release("one")).unwrap();
    assert!(second > first);
}

#[test]
fn nothing_is_created_by_looking() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(kind(Journal::open_existing(dir.path())), ErrorKind::Missing);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn concurrent_appends_get_ids_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let dir = dir.path();
            scope.spawn(move || {
                let journal = Journal::open(dir).unwrap();
                for i in 0..10 {
                    journal.append(&release(&format!("{thread}-{i}"))).unwrap();
                }
            });
        }
    });
    let pending = Journal::open(dir.path()).unwrap().pending().unwrap();
    assert_eq!(pending.len(), 80);
    assert!(pending.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

#[test]
fn finished_entries_take_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let size = || std::fs::metadata(dir.path().join("journal/a")).unwrap().len();
    let before = size();
    for i in 0..600 {
        let id = journal.append(&release(&i.to_string())).unwrap();
        journal.done(id).unwrap();
    }
    assert_eq!(size(), before);
}
