//! Many processes on one store: killed at random instants, in PID namespaces of their own.
// REQ: A-16

#![allow(clippy::unwrap_used, reason = "a failing call fails the test that made it")]

mod support;

use datastore::Store;
use model::store::{Expect, Write};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;
use std::time::Duration;
use support::*;

const WORKERS: usize = 4;

/// Counts up its own key, a copy of it, and a sum shared with all others, and tells each result.
#[test]
fn worker() {
    let Some((dir, name)) = as_child() else { return };
    let store = open(&dir);
    let (own, copy) = (format!("/own/{name}"), format!("/copy/{name}"));
    loop {
        let counts = increment(&store, &[&own, &copy, "/sum"]);
        // Something large, so that the log fills and checkpoints happen.
        store.commit(&[put(&format!("/large/{name}"), Expect::Any, vec![b'x'; 20_000])], soon()).unwrap();
        eprintln!("acknowledged {}", counts[0]);
    }
}

/// Ends a child and returns the last count that it told.
fn kill(mut child: Child) -> Option<u64> {
    child.kill().unwrap();
    let told = BufReader::new(child.stderr.take().unwrap());
    let lines: Vec<String> = told.lines().map_while(Result::ok).collect();
    child.wait().unwrap();
    assert!(!lines.iter().any(|l| l.contains("panicked")), "{lines:#?}");
    lines.iter().rev().find_map(|l| l.strip_prefix("acknowledged ")?.parse().ok())
}

fn check(dir: &Path, acknowledged: &mut [u64; WORKERS]) {
    let store = open(dir);
    let read = |key: &str| get(&store, key).map_or(0, |e| number(&e));
    let mut sum = 0;
    for (i, acknowledged) in acknowledged.iter_mut().enumerate() {
        let own = read(&format!("/own/{i}"));
        assert!(own >= *acknowledged, "worker {i} was told {acknowledged}, the store says {own}");
        assert_eq!(own, read(&format!("/copy/{i}")), "half a commit");
        *acknowledged = own;
        sum += own;
    }
    assert_eq!(sum, read("/sum"), "a lost update");
}

#[test]
fn processes_killed_at_random_instants_lose_and_tear_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = [0; WORKERS];
    for round in 0..count(250, 15) as u64 {
        let children: Vec<_> =
            (0..WORKERS).map(|i| child(&[], "worker", dir.path(), &i.to_string())).collect();
        std::thread::sleep(Duration::from_millis(20 + round * 7919 % 61));
        for (i, child) in children.into_iter().enumerate() {
            // Each a little later than the one before, while the others go on.
            std::thread::sleep(Duration::from_micros(round * 104_729 % 3000));
            acknowledged[i] = kill(child).unwrap_or(0).max(acknowledged[i]);
        }
        check(dir.path(), &mut acknowledged);
    }
    assert!(acknowledged.iter().sum::<u64>() > 0);
}

#[test]
fn finite_worker() {
    let Some((dir, _)) = as_child() else { return };
    let store = open(&dir);
    assert_eq!(std::process::id(), 1);
    for _ in 0..150 {
        increment(&store, &["/sum"]);
    }
}

#[test]
fn equal_process_ids_of_two_pid_namespaces_do_not_collide() {
    let dir = tempfile::tempdir().unwrap();
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let children: Vec<_> = (0..2).map(|_| child(&unshare, "finite_worker", dir.path(), "")).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(number(&get(&open(dir.path()), "/sum").unwrap()), 300);
}

#[test]
fn threads_that_share_one_handle_lose_no_update() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..25).for_each(|_| drop(increment(&store, &["/sum"]))));
        }
    });
    assert_eq!(number(&get(&store, "/sum").unwrap()), 200);
}

#[test]
fn readers_see_whole_commits_while_checkpoints_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open(dir.path());
    let state = |n: u32| -> Vec<Write> {
        // The same number under many keys, with padding that makes every tenth commit a checkpoint.
        (0..20).map(|i| put(&format!("/k/{i:02}"), Expect::Any, format!("{n:<3000}"))).collect()
    };
    writer.commit(&state(0), soon()).unwrap();
    let commits = count(600, 60) as u32;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| watch_one_number(dir.path(), u64::from(commits)));
        }
        for n in 1..=commits {
            writer.commit(&state(n), soon()).unwrap();
        }
    });
}

/// Reads until the last number is there; it never mixes two commits and never goes back.
fn watch_one_number(dir: &Path, last: u64) {
    let mut store = open(dir);
    let mut seen = 0;
    while seen < last {
        let numbers: Vec<u64> = store.list("/k/", soon()).unwrap().iter().map(number).collect();
        assert_eq!(numbers.len(), 20);
        assert!(numbers.iter().all(|n| *n == numbers[0]) && numbers[0] >= seen, "{seen} {numbers:?}");
        seen = numbers[0];
        if seen.is_multiple_of(5) {
            store = open(dir);
        }
    }
}
