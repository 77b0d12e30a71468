//! Full and read-only file systems, and damaged stores with their cure.
// REQ: A-16

#![allow(clippy::unwrap_used, reason = "a failing call fails the test that made it")]

mod support;

use datastore::embedded::{Embedded, Mode};
use datastore::journal::{Journal, Release};
use datastore::{CommitError, ErrorKind, Store};
use model::store::{Entry, Expect, Write};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::fs;
use std::path::Path;
use support::*;

/// Runs `f` in a mount namespace of its own, with a tmpfs of `kib` KiB on a fresh directory.
/// Namespace and tmpfs end with the thread.
fn on_tmpfs(kib: u32, f: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: only the file system context of this thread is unshared, no memory or files.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("must run as root");
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
            let size = std::ffi::CString::new(format!("size={kib}k,mode=0755")).unwrap();
            mount("percale-test", dir.path(), "tmpfs", MountFlags::empty(), size.as_c_str()).unwrap();
            f(dir.path());
        });
    });
}

/// Writes to a file until not a byte more fits.
fn fill(dir: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(dir.join("filler")).unwrap();
    for size in [65536, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

fn lease(i: usize) -> [Write; 2] {
    let key = format!("/calico/ipam/v2/handle/net.{i:064}");
    [put(&key, Expect::Absent, "x".repeat(80)), put("/count", Expect::Any, format!("{i:05}"))]
}

/// ADDs until the disk is full; returns how many succeeded.
fn add_until_full(store: &Embedded) -> usize {
    for i in 0.. {
        match store.commit(&lease(i), soon()) {
            Ok(_) => {}
            Err(CommitError::Store(error)) => {
                assert_eq!(error.kind, ErrorKind::Full, "{error}");
                return i;
            }
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("the disk is finite")
}

#[test]
fn every_key_can_be_deleted_on_a_disk_that_is_full_to_the_last_byte() {
    on_tmpfs(8 << 10, |dir| {
        let mut store = open(&dir.join("store"));
        let before_full = 3000;
        for i in 0..before_full {
            store.commit(&lease(i), soon()).unwrap();
        }
        fill(dir);
        let more = add_until_full_from(&store, before_full);
        assert_eq!(store.list("/calico/", soon()).unwrap().len(), more, "a refused commit left something");
        for i in 0..more {
            let [handle, _] = lease(i);
            // A release also rewrites a key that it does not delete, a few bytes longer.
            let writes = [delete(&handle.key, Expect::Any), put("/count", Expect::Any, format!("{i:07}"))];
            store.commit(&writes, soon()).unwrap();
            if i % 50 == 0 {
                store = open(&dir.join("store"));
            }
        }
        assert_eq!(store.keys("", soon()).unwrap(), ["/count"]);
        store.commit(&lease(0), soon()).unwrap();
    });
}

fn add_until_full_from(store: &Embedded, from: usize) -> usize {
    (from..).find(|i| store.commit(&lease(*i), soon()).is_err()).unwrap()
}

#[test]
fn a_store_that_does_not_fit_is_refused_and_leaves_the_disk_as_it_was() {
    on_tmpfs(600, |dir| {
        assert_eq!(kind(Embedded::open(&dir.join("store"), Mode::Create)), ErrorKind::Full);
        fs::remove_dir_all(dir.join("store")).unwrap();
        assert_eq!(kind(Embedded::open(&dir.join("store"), Mode::Existing)), ErrorKind::Missing);
    });
}

#[test]
fn a_store_whose_creation_failed_on_a_full_disk_is_created_once_there_is_room() {
    on_tmpfs(4 << 10, |dir| {
        fill(dir);
        assert_eq!(kind(Embedded::open(&dir.join("store"), Mode::Create)), ErrorKind::Full);
        fs::remove_file(dir.join("filler")).unwrap();
        let store = open(&dir.join("store"));
        assert_eq!(add_until_full(&store).min(100), 100);
    });
}

#[test]
fn the_journal_takes_a_hundred_releases_on_a_full_disk() {
    on_tmpfs(2 << 10, |dir| {
        let journal = Journal::open(dir).unwrap();
        fill(dir);
        let release = |i: usize| Release {
            store: "kubernetes:abc".into(),
            network: "net".into(),
            container: format!("{i:064}"),
            ifname: "eth0".into(),
            addresses: vec![held("10.0.0.1", i), held("fd00::1", i)],
        };
        let ids: Vec<_> = (0..100).map(|i| journal.append(&release(i)).unwrap()).collect();
        assert_eq!(Journal::open(dir).unwrap().pending().unwrap().len(), 100);
        ids.into_iter().for_each(|id| journal.done(id).unwrap());
        assert!(journal.pending().unwrap().is_empty());
    });
}

fn held(ip: &str, i: usize) -> datastore::journal::Held {
    let attrs = ["namespace", "node", "pod", "network", "ifname", "poduid", "netns", "boot_id"];
    let attrs = attrs.map(|k| (k.to_owned(), format!("{k}-0123456789-0123456789-0123456789")));
    let handle = format!("net.{i:064}");
    datastore::journal::Held { ip: ip.parse().unwrap(), handle, attrs: attrs.into(), sequence: 1 << 60 }
}

#[test]
fn a_read_only_file_system_is_read_and_commits_are_denied() {
    on_tmpfs(8 << 10, |dir| {
        let path = dir.join("store");
        open(&path).commit(&[put("/a", Expect::Any, "1")], soon()).unwrap();
        mount_remount(dir, MountFlags::RDONLY, c"").unwrap();
        for mode in [Mode::Create, Mode::Existing, Mode::ReadOnly] {
            let store = Embedded::open(&path, mode).unwrap();
            assert_eq!(get(&store, "/a").unwrap().value, b"1");
            assert_eq!(store.keys("/", soon()).unwrap(), ["/a"]);
            store.barrier(soon()).unwrap();
            assert_eq!(commit_kind(store.commit(&[put("/a", Expect::Any, "2")], soon())), ErrorKind::Denied);
        }
        assert_eq!(Embedded::dump(&path, soon()).unwrap().entries.len(), 1);
        assert_eq!(kind(Embedded::load(&path, Vec::new(), soon())), ErrorKind::Denied);
        assert_eq!(kind(Embedded::open(&dir.join("other"), Mode::Create)), ErrorKind::Denied);
    });
}

/// A store with two commits in the log and an older generation.
fn store_with_history(dir: &Path) -> Vec<Entry> {
    let store = open(dir);
    for i in 0..40 {
        store.commit(&[put(&format!("/k/{i:02}"), Expect::Any, vec![b'x'; 30_000])], soon()).unwrap();
    }
    store.list("", soon()).unwrap()
}

fn newest_slot(dir: &Path) -> std::path::PathBuf {
    // The generation follows magic, version and phase.
    let generation =
        |p: &std::path::PathBuf| fs::read(p).unwrap()[16..24].try_into().map(u64::from_le_bytes).unwrap();
    ["a", "b"].map(|f| dir.join(f)).into_iter().max_by_key(generation).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_store_is_refused_dumped_and_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let all = store_with_history(dir.path());
    let long_lived = open(dir.path());
    let last = long_lived.commit(&[], soon()).unwrap();
    let slot = newest_slot(dir.path());
    // In the middle of the snapshot, behind the log of 512 KiB.
    flip(&slot, 4096 + (512 << 10) + 100_000);
    let error = open(dir.path()).list("", soon()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.to_string().contains("percalectl store load"), "{error}");

    let dump = Embedded::dump(dir.path(), soon()).unwrap();
    assert_eq!(dump.entries, all, "the superseded slot has what the damaged page held");
    assert!(dump.problems.iter().any(|p| p.contains("damaged")), "{:?}", dump.problems);

    let revision = Embedded::load(dir.path(), dump.entries, soon()).unwrap();
    assert!(revision > last);
    let name = slot.file_name().unwrap().to_str().unwrap();
    assert!(dir.path().join(format!("{name}.damaged-1")).exists());
    for store in [&long_lived, &open(dir.path())] {
        let found = store.list("", soon()).unwrap();
        assert!(
            found
                .iter()
                .zip(&all)
                .all(|(f, a)| f.key == a.key && f.value == a.value && f.revision == revision)
        );
        assert_eq!(found.len(), all.len());
    }
    let next = long_lived.commit(&[delete("/k/00", Expect::At(revision))], soon()).unwrap();
    assert_eq!(next, revision + 1);
}

#[test]
fn a_lost_or_garbled_slot_is_refused_and_the_rest_can_be_dumped() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 4] = [
        ("removed", |slot| fs::remove_file(slot).unwrap()),
        ("emptied", |slot| fs::write(slot, b"").unwrap()),
        ("garbled", |slot| fs::write(slot, b"garbage".repeat(100_000)).unwrap()),
        ("header", |slot| flip(slot, 20)),
    ];
    for (name, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        let all = store_with_history(dir.path());
        damage(&newest_slot(dir.path()));
        let store = Embedded::open(dir.path(), Mode::Existing).unwrap();
        assert_eq!(kind(store.list("", soon())), ErrorKind::Corrupt, "{name}");
        assert_eq!(commit_kind(store.commit(&[put("/a", Expect::Any, "1")], soon())), ErrorKind::Corrupt);
        let dump = Embedded::dump(dir.path(), soon()).unwrap();
        assert!(!dump.problems.is_empty() && dump.entries.len() > 10, "{name}");
        if name == "header" {
            assert_eq!(dump.entries, all, "the header's copy leads to everything");
        }
        Embedded::load(dir.path(), dump.entries.clone(), soon()).unwrap();
        assert_eq!(open(dir.path()).list("", soon()).unwrap().len(), dump.entries.len(), "{name}");
    }
}

#[test]
fn a_store_of_a_newer_version_is_refused_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).commit(&[put("/a", Expect::Any, "1")], soon()).unwrap();
    let mut bytes = fs::read(dir.path().join("a")).unwrap();
    bytes[8..12].copy_from_slice(&3u32.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..508]);
    bytes[508..512].copy_from_slice(&crc.to_le_bytes());
    fs::write(dir.path().join("a"), bytes).unwrap();
    let error = open(dir.path()).list("", soon()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.to_string().contains("version 3"), "{error}");
}

#[test]
fn load_refuses_what_the_store_cannot_hold_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).commit(&[put("/a", Expect::Any, "1")], soon()).unwrap();
    let entry = |key: &str| Entry { key: key.into(), value: Vec::new(), revision: 1 };
    for entries in [vec![entry("")], vec![entry("/b"), entry("/b")], vec![entry(&"k".repeat(1025))]] {
        assert_eq!(kind(Embedded::load(dir.path(), entries, soon())), ErrorKind::Invalid);
    }
    assert_eq!(open(dir.path()).keys("", soon()).unwrap(), ["/a"]);
}

#[test]
fn load_creates_a_missing_store_and_a_lost_lock_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let entry = Entry { key: "/a".into(), value: b"1".to_vec(), revision: 41 };
    assert_eq!(Embedded::load(&path, vec![entry], soon()).unwrap(), 42);
    fs::remove_file(path.join("lock")).unwrap();
    let store = Embedded::open(&path, Mode::Existing).unwrap();
    assert_eq!(store.commit(&[put("/a", Expect::At(42), "2")], soon()).unwrap(), 43);
    assert_eq!(get(&open(&path), "/a").unwrap().value, b"2");
}

#[test]
fn any_bytes_in_the_slots_are_an_error_or_a_store_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    store_with_history(dir.path());
    let [a, b] = ["a", "b"].map(|f| fs::read(dir.path().join(f)).unwrap());
    datastore::embedded::fuzz_open(&a, &b);
    datastore::embedded::fuzz_open(&b, &a);
    datastore::embedded::fuzz_open(&a, &[]);
    let mut x = 88_172_645_463_325_252_u64;
    for _ in 0..count(5000, 100) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let mut bad = a[..(x >> 20) as usize % 40_000].to_vec();
        let len = bad.len().max(1);
        bad.resize(len, 0);
        bad[x as usize % len] = (x >> 8) as u8;
        datastore::embedded::fuzz_open(&bad, &b[..(x >> 40) as usize % 20_000]);
        datastore::embedded::fuzz_records(&bad[x as usize % len..]);
    }
}
