use super::*;
use crate::{CommitError, Watch};
use model::store::{Entry, Expect, Write};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A store in memory that counts how it is asked.
#[derive(Default)]
struct Fake {
    entries: Mutex<BTreeMap<String, Entry>>,
    lists: AtomicUsize,
    rooms: AtomicUsize,
}

impl Fake {
    fn put(&self, key: &str, value: &str, revision: Revision) {
        let entry = Entry { key: key.to_owned(), value: value.as_bytes().to_vec(), revision };
        self.entries.lock().unwrap().insert(key.to_owned(), entry);
    }

    fn take_lists(&self) -> usize {
        self.lists.swap(0, Ordering::SeqCst)
    }
}

impl Store for Fake {
    fn identity(&self) -> String {
        "fake:1".to_owned()
    }
    fn get(&self, keys: &[&str], _: Deadline) -> Result<Vec<Option<Entry>>, Error> {
        let entries = self.entries.lock().unwrap();
        self.rooms.fetch_add(keys.iter().filter(|key| key.starts_with("/f/")).count(), Ordering::SeqCst);
        Ok(keys.iter().map(|key| entries.get(*key).cloned()).collect())
    }
    fn list(&self, prefix: &str, _: Deadline) -> Result<Vec<Entry>, Error> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        let entries = self.entries.lock().unwrap();
        Ok(entries.values().filter(|entry| entry.key.starts_with(prefix)).cloned().collect())
    }
    fn keys(&self, prefix: &str, deadline: Deadline) -> Result<Vec<String>, Error> {
        Ok(self.list(prefix, deadline)?.into_iter().map(|entry| entry.key).collect())
    }
    fn revisions(&self, prefix: &str, deadline: Deadline) -> Result<Vec<(String, Revision)>, Error> {
        Ok(self.list(prefix, deadline)?.into_iter().map(|entry| (entry.key, entry.revision)).collect())
    }
    fn commit(&self, writes: &[Write], _: Deadline) -> Result<Revision, CommitError> {
        for write in writes {
            self.put(&write.key, "x", 99);
        }
        Ok(99)
    }
    fn barrier(&self, _: Deadline) -> Result<(), Error> {
        Ok(())
    }
    fn watch(&self, _: &str) -> Result<Box<dyn Watch>, Error> {
        Err(Error::new("watch", "fake", crate::ErrorKind::Invalid, "nothing here watches"))
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

/// Writes down how many pools it saw; refuses when there is none.
fn count(view: &View) -> Result<Plan<usize>, Stop<()>> {
    let pools = view.list("/p/")?.count();
    let write = Write { key: "/out".into(), expect: Expect::Any, value: Some(Vec::new()) };
    if pools == 0 { Err(Stop::Fail(())) } else { Ok(Plan::Commit(vec![write], pools)) }
}

fn seen(store: &Fake, dir: &Path, now_ms: u64, boot: &str) -> usize {
    let hints = Hints::new(dir, &store.identity(), boot, now_ms);
    crate::drive_hinted(store, &mut View::new(), soon(), &hints, |_| true, count).unwrap().0
}

#[test]
fn a_list_is_read_key_by_key_until_it_is_old_or_of_another_boot() {
    let (store, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    store.put("/p/1", "{}", 1);
    assert_eq!((seen(&store, dir.path(), 1000, "b"), store.take_lists()), (1, 1));
    store.put("/p/2", "{}", 2);
    assert_eq!((seen(&store, dir.path(), 30_999, "b"), store.take_lists()), (1, 0), "believed");
    store.entries.lock().unwrap().remove("/p/1");
    assert_eq!((seen(&store, dir.path(), 30_999, "b"), store.take_lists()), (1, 1), "the only one is gone");
    assert_eq!((seen(&store, dir.path(), 61_000, "b"), store.take_lists()), (1, 1), "too old");
    assert_eq!((seen(&store, dir.path(), 61_001, "c"), store.take_lists()), (1, 1), "another boot");
    assert_eq!((seen(&store, dir.path(), 60_000, "c"), store.take_lists()), (1, 1), "of the future");
}

#[test]
fn what_may_not_rest_on_advice_is_planned_anew() {
    let (store, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    store.put("/p/1", "{}", 1);
    assert_eq!(seen(&store, dir.path(), 1000, "b"), 1);
    store.put("/p/2", "{}", 2);
    let hints = Hints::new(dir.path(), "fake:1", "b", 1001);
    let fresh = crate::drive_hinted(&store, &mut View::new(), soon(), &hints, |_| false, count).unwrap().0;
    assert_eq!(fresh, 2);
}

/// Refuses once every block was seen full.
fn search(view: &View) -> Result<Plan<()>, Stop<()>> {
    let keys: Vec<String> = view.keys("/f/")?.into_iter().map(str::to_owned).collect();
    view.require(keys.into_iter().map(Query::Room))?;
    Err(Stop::Fail(()))
}

fn rooms_of_a_search(store: &Fake, dir: &Path) -> usize {
    let hints = Hints::new(dir, &store.identity(), "b", 1);
    let refused = crate::drive_hinted(store, &mut View::new(), soon(), &hints, |_| false, search);
    assert!(matches!(refused, Err(DriveError::Plan(()))));
    store.rooms.swap(0, Ordering::SeqCst)
}

#[test]
fn full_blocks_are_read_once_and_damage_of_the_file_costs_only_that() {
    let (store, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    for n in 0..300 {
        store.put(&format!("/f/{n}"), r#"{"unallocated":[]}"#, n + 1);
    }
    assert_eq!(rooms_of_a_search(&store, dir.path()), 300);
    assert_eq!(rooms_of_a_search(&store, dir.path()), 0);
    store.put("/f/7", r#"{"unallocated":[]}"#, 400);
    assert_eq!(rooms_of_a_search(&store, dir.path()), 1);
    store.entries.lock().unwrap().remove("/f/8");
    store.put("/f/7", r#"{"unallocated":[]}"#, 401);
    assert_eq!(rooms_of_a_search(&store, dir.path()), 1);
    let path = dir.path().join("full");
    let whole = fs::read(&path).unwrap();
    assert_eq!(decode_index(&whole).unwrap().full.len(), 299);
    for damaged in [&whole[..whole.len() / 2], b"", &[whole.as_slice(), b" "].concat()] {
        assert_eq!(decode_index(damaged), None);
        fs::write(&path, damaged).unwrap();
        assert_eq!(rooms_of_a_search(&store, dir.path()), 299);
        assert_eq!(rooms_of_a_search(&store, dir.path()), 0);
    }
    let other = Hints::new(dir.path(), "fake:2", "b", 1);
    assert!(other.full().is_empty(), "another store's");
}
