//! File locks between threads and processes.
// REQ: C-03

#![allow(clippy::unwrap_used, reason = "a failing call fails the test that made it")]

mod support;

use datastore::lock::{AttachmentLock, Kind, Lock, prune_attachment_locks};
use datastore::{Deadline, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{as_child, child, kind, soon};

fn short() -> Deadline {
    Deadline::after(Duration::from_millis(40))
}

#[test]
fn a_lock_excludes_shared_ones_and_these_do_not_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/dirs/lock");
    let exclusive = Lock::acquire(&path, Kind::Exclusive, soon()).unwrap();
    assert!(Lock::try_acquire(&path, Kind::Shared).unwrap().is_none());
    assert_eq!(kind(Lock::acquire(&path, Kind::Shared, short())), ErrorKind::Timeout);
    drop(exclusive);
    let _one = Lock::acquire(&path, Kind::Shared, soon()).unwrap();
    let _two = Lock::try_acquire(&path, Kind::Shared).unwrap().expect("shared with the first");
    assert!(Lock::try_acquire(&path, Kind::Exclusive).unwrap().is_none());
}

#[test]
fn a_waiter_that_gave_up_does_not_keep_the_lock_it_gets_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let held = Lock::acquire(&path, Kind::Exclusive, soon()).unwrap();
    for _ in 0..20 {
        assert_eq!(
            kind(Lock::acquire(&path, Kind::Exclusive, Deadline::after(Duration::from_millis(2)))),
            ErrorKind::Timeout
        );
    }
    drop(held);
    drop(Lock::acquire(&path, Kind::Exclusive, soon()).unwrap());
}

#[test]
fn two_hundred_waiters_all_get_it_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                let _lock = Lock::acquire(&path, Kind::Exclusive, soon()).unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                std::thread::sleep(Duration::from_micros(200));
                inside.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
}

#[test]
fn holder() {
    let Some((dir, _)) = as_child() else { return };
    let _lock = Lock::acquire(&dir.join("lock"), Kind::Exclusive, soon()).unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_holder_releases_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let mut holder = child(&[], "holder", dir.path(), "");
    let start = Instant::now();
    while !path.exists() || Lock::try_acquire(&path, Kind::Exclusive).unwrap().is_some() {
        assert!(start.elapsed() < Duration::from_secs(20), "the child never took the lock");
        std::thread::yield_now();
    }
    let waiter = std::thread::spawn(move || Lock::acquire(&path, Kind::Exclusive, soon()).map(drop));
    holder.kill().unwrap();
    holder.wait().unwrap();
    waiter.join().unwrap().unwrap();
}

#[test]
fn a_removed_attachment_lock_still_excludes() {
    let dir = tempfile::tempdir().unwrap();
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for i in 0..40 {
            let (dir, inside) = (dir.path(), &inside);
            scope.spawn(move || {
                let lock = AttachmentLock::acquire(dir, "net-pod-eth0", soon()).unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                std::thread::sleep(Duration::from_micros(100));
                inside.fetch_sub(1, Ordering::SeqCst);
                if i % 2 == 0 {
                    lock.remove_and_release().unwrap();
                }
            });
        }
    });
    AttachmentLock::acquire(dir.path(), "net-pod-eth0", soon()).unwrap().remove_and_release().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn attachment_locks_are_per_name_and_names_cannot_escape() {
    let dir = tempfile::tempdir().unwrap();
    let one = AttachmentLock::try_acquire(dir.path(), "one").unwrap().expect("free");
    assert!(AttachmentLock::try_acquire(dir.path(), "one").unwrap().is_none());
    assert!(AttachmentLock::try_acquire(dir.path(), "two").unwrap().is_some());
    drop(one);
    for bad in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
        assert_eq!(kind(AttachmentLock::acquire(dir.path(), bad, soon())), ErrorKind::Invalid);
    }
}

#[test]
fn lock_files_that_rested_and_are_not_held_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3600);
    for name in ["forgotten", "held", "young"] {
        drop(AttachmentLock::acquire(dir.path(), name, soon()).unwrap());
    }
    std::fs::write(dir.path().join("foreign"), "text").unwrap();
    for name in ["forgotten", "held", "foreign"] {
        let file = std::fs::File::options().write(true).open(dir.path().join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - 2 * hour).unwrap();
    }
    let _held = AttachmentLock::acquire(dir.path(), "held", soon()).unwrap();
    assert_eq!(prune_attachment_locks(dir.path(), hour), 1);
    let mut left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["foreign", "held", "young"]);
    assert_eq!(prune_attachment_locks(&dir.path().join("none"), hour), 0);
}
