//! What a datastore holds and what can be asked of it, as plain data.
//!
//! Keys are Calico's etcd key texts (`model::keys`), values the JSON bytes stored under them.
//! Pure code reads a [`View`] and answers with a [`Plan`]; an edge (`datastore::drive`) fetches
//! what the view lacks, commits, and asks again after a conflict. Planning is therefore a
//! function of what was read, and can be replayed in any interleaving by a test.

use std::collections::{BTreeMap, BTreeSet};

/// Version of one key: grows with every write to it, unique within a store. Zero is never used.
pub type Revision = u64;

/// A key as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    /// Revision of the last write to this key (etcd's ModRevision).
    pub revision: Revision,
}

/// The condition under which a [`Write`] applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key's last write had this revision.
    At(Revision),
    /// No condition.
    Any,
}

/// One conditional write. `value: None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    pub expect: Expect,
    pub value: Option<Vec<u8>>,
}

/// Something a planner must know before it can go on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    Get(String),
    /// All entries whose key starts with this prefix, in key order.
    List(String),
    /// As `List`, but the keys alone.
    Keys(String),
    /// Whether the block under this key has a free address: only that is kept of it.
    Room(String),
}

/// A planner's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan<T> {
    /// These writes, all or none, in this order; every prefix of them is a legal state.
    Commit(Vec<Write>, T),
    /// These writes first, then plan again: the operation takes more than one commit, or fails
    /// once what its earlier rounds left is taken back.
    Step(Vec<Write>),
    /// Nothing to write.
    Done(T),
}

/// Why planning stopped without a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop<E> {
    /// The view lacks these; fetch them and plan again.
    Need(Vec<Query>),
    Fail(E),
}

impl<E> From<Missing> for Stop<E> {
    fn from(missing: Missing) -> Self {
        Stop::Need(missing.0)
    }
}

/// Queries that a [`View`] could not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub Vec<Query>);

/// What has been read so far: known entries, keys known to be absent, prefixes known in full.
#[derive(Clone, Debug, Default)]
pub struct View {
    known: BTreeMap<String, Option<Entry>>,
    lists: BTreeSet<String>,
    /// With the revision of each key, or 0 where that is not known.
    key_lists: BTreeMap<String, BTreeMap<String, Revision>>,
    /// Blocks that were seen full, and at which revision.
    full: BTreeMap<String, Revision>,
    applied: Vec<Applied>,
}

/// A write that took effect though the plan it belongs to did not: in a store without transactions
/// a commit is applied up to the first write whose condition does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub key: String,
    pub before: Option<Entry>,
    pub after: Option<Entry>,
}

impl View {
    pub fn new() -> Self {
        Self::default()
    }

    /// An operation begins: what earlier ones had applied is theirs.
    pub fn begin(&mut self) {
        self.applied.clear();
    }

    /// What earlier rounds of the operation in progress wrote, in order.
    pub fn applied(&self) -> &[Applied] {
        &self.applied
    }

    /// Records a commit that is not the operation's last: what each written key is now, and that the
    /// first `applied` of the writes took effect.
    pub fn record(&mut self, applied: usize, current: Vec<(String, Option<Entry>)>) {
        let start = self.applied.len();
        for (key, after) in current.iter().take(applied) {
            // A commit may write a key twice.
            let earlier = self.applied[start..].iter().rev().find(|applied| applied.key == *key);
            let before = match earlier {
                Some(earlier) => earlier.after.clone(),
                None => self.known.get(key).cloned().flatten(),
            };
            self.applied.push(Applied { key: key.clone(), before, after: after.clone() });
        }
        current.into_iter().for_each(|(key, entry)| self.put(&key, entry));
    }

    /// The entry of `key`, `None` if it is known not to exist.
    pub fn get(&self, key: &str) -> Result<Option<&Entry>, Missing> {
        match self.known.get(key) {
            Some(entry) => Ok(entry.as_ref()),
            None if self.covered(key) => Ok(None),
            None => Err(Missing(vec![Query::Get(key.to_owned())])),
        }
    }

    /// All entries under `prefix`, in key order.
    pub fn list<'a>(&'a self, prefix: &str) -> Result<impl Iterator<Item = &'a Entry> + use<'a>, Missing> {
        if !self.covered(prefix) {
            return Err(Missing(vec![Query::List(prefix.to_owned())]));
        }
        Ok(self.range(prefix).filter_map(|(_, e)| e.as_ref()))
    }

    /// All keys under `prefix`, in order.
    pub fn keys<'a>(&'a self, prefix: &str) -> Result<Vec<&'a str>, Missing> {
        if self.covered(prefix) {
            return Ok(self.range(prefix).filter(|(_, e)| e.is_some()).map(|(k, _)| k).collect());
        }
        match self.key_lists.get(prefix) {
            Some(keys) => Ok(keys.keys().map(String::as_str).collect()),
            None => Err(Missing(vec![Query::Keys(prefix.to_owned())])),
        }
    }

    /// Fails with every query of `wanted` that is not answered yet, so that they are fetched at once.
    pub fn require(&self, wanted: impl IntoIterator<Item = Query>) -> Result<(), Missing> {
        let missing: Vec<_> = wanted.into_iter().filter(|q| !self.answers(q)).collect();
        if missing.is_empty() { Ok(()) } else { Err(Missing(missing)) }
    }

    /// Records the answer to a `Get`, or the value a conflict reported.
    pub fn put(&mut self, key: &str, entry: Option<Entry>) {
        for (prefix, keys) in &mut self.key_lists {
            if key.starts_with(prefix.as_str()) {
                match &entry {
                    Some(entry) => keys.insert(key.to_owned(), entry.revision),
                    None => keys.remove(key),
                };
            }
        }
        self.known.insert(key.to_owned(), entry);
    }

    /// Records the answer to a `List`: what is not in `entries` does not exist.
    pub fn put_list(&mut self, prefix: &str, entries: Vec<Entry>) {
        self.forget_under(prefix);
        for entry in entries {
            self.known.insert(entry.key.clone(), Some(entry));
        }
        self.lists.insert(prefix.to_owned());
    }

    /// Records the answer to a `Keys`: each key with its revision, 0 where that is not known.
    pub fn put_keys(&mut self, prefix: &str, keys: impl IntoIterator<Item = (String, Revision)>) {
        let keys: BTreeMap<String, Revision> = keys.into_iter().collect();
        // So that the index never grows beyond what exists.
        self.full.retain(|key, _| !key.starts_with(prefix) || keys.contains_key(key));
        self.key_lists.insert(prefix.to_owned(), keys);
    }

    /// Whether the block under a key is full, of those that a listing of keys has. What was seen
    /// of it at another revision does not count.
    pub fn is_full(&self, key: &str) -> Result<bool, Missing> {
        if let Some(entry) = self.known.get(key) {
            return Ok(entry.as_ref().is_none_or(|entry| crate::block::has_no_queue(&entry.value)));
        }
        if self.covered(key) {
            return Ok(true);
        }
        let listed = self.key_lists.iter().find(|(prefix, _)| key.starts_with(prefix.as_str()));
        let now = listed.and_then(|(_, keys)| keys.get(key)).filter(|revision| **revision > 0);
        match (now, self.full.get(key)) {
            (Some(now), Some(seen)) if now == seen => Ok(true),
            _ => Err(Missing(vec![Query::Room(key.to_owned())])),
        }
    }

    /// Records the answer to a `Room`: of a full block its revision, the others as they are.
    pub fn put_room(&mut self, key: &str, entry: Option<Entry>) {
        match entry {
            Some(entry) if crate::block::has_no_queue(&entry.value) => {
                let lists = self.key_lists.iter_mut().filter(|(prefix, _)| key.starts_with(prefix.as_str()));
                lists.for_each(|(_, keys)| {
                    keys.insert(key.to_owned(), entry.revision);
                });
                self.full.insert(key.to_owned(), entry.revision);
            }
            entry => self.put(key, entry),
        }
    }

    /// Blocks that were seen full: the index that spares a later search their contents.
    pub fn full(&self) -> &BTreeMap<String, Revision> {
        &self.full
    }

    /// Takes over such an index. What is out of date in it is looked at again.
    pub fn put_full(&mut self, full: BTreeMap<String, Revision>) {
        self.full = full;
        let lists = &self.key_lists;
        let is_gone =
            |key: &str| lists.iter().any(|(p, keys)| key.starts_with(p.as_str()) && !keys.contains_key(key));
        self.full.retain(|key, _| !is_gone(key));
    }

    /// Drops what is known of the keys under a prefix.
    pub fn forget(&mut self, prefix: &str) {
        self.forget_under(prefix);
        self.lists.retain(|list| !list.starts_with(prefix) && !prefix.starts_with(list.as_str()));
    }

    /// Drops the lists of keys alone.
    pub fn forget_key_lists(&mut self) {
        self.key_lists.clear();
    }

    /// Takes a key that is not known for one that does not exist; that it does costs a conflict.
    pub fn assume_absent(&mut self, key: &str) {
        if !self.covered(key) {
            self.known.entry(key.to_owned()).or_insert(None);
        }
    }

    /// Every prefix that is known in full, with the keys under it.
    pub fn lists(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        let keys = |prefix: &str| self.range(prefix).filter(|(_, e)| e.is_some()).map(|(k, _)| k).collect();
        self.lists.iter().map(move |prefix| (prefix.as_str(), keys(prefix)))
    }

    /// Drops what a store must be asked for anew, for a caller that can no longer tell what is fresh. Which
    /// blocks were seen full stays, for it is compared with their revisions, and so does what the operation
    /// in progress wrote.
    pub fn refresh(&mut self) {
        let (full, applied) = (std::mem::take(&mut self.full), std::mem::take(&mut self.applied));
        *self = Self { full, applied, ..Self::default() };
    }

    fn answers(&self, query: &Query) -> bool {
        match query {
            Query::Get(key) => self.known.contains_key(key) || self.covered(key),
            Query::List(prefix) => self.covered(prefix),
            Query::Keys(prefix) => self.covered(prefix) || self.key_lists.contains_key(prefix),
            Query::Room(key) => self.is_full(key).is_ok(),
        }
    }

    fn covered(&self, text: &str) -> bool {
        self.lists.iter().any(|p| text.starts_with(p.as_str()))
    }

    fn range<'a>(&'a self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a Option<Entry>)> + use<'a> {
        let prefix = prefix.to_owned();
        self.known
            .range(prefix.clone()..)
            .take_while(move |(k, _)| k.starts_with(prefix.as_str()))
            .map(|(k, e)| (k.as_str(), e))
    }

    fn forget_under(&mut self, prefix: &str) {
        self.known.retain(|k, _| !k.starts_with(prefix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str) -> Entry {
        Entry { key: key.into(), value: b"{}".to_vec(), revision: 1 }
    }

    #[test]
    fn unread_is_missing_and_read_absence_is_none() {
        let mut view = View::new();
        assert_eq!(view.get("/a"), Err(Missing(vec![Query::Get("/a".into())])));
        view.put("/a", None);
        assert_eq!(view.get("/a"), Ok(None));
    }

    #[test]
    fn a_list_answers_gets_and_keys_below_it() {
        let mut view = View::new();
        view.put_list("/b/", vec![entry("/b/1"), entry("/b/2")]);
        assert_eq!(view.get("/b/3"), Ok(None));
        assert_eq!(view.keys("/b/").unwrap(), ["/b/1", "/b/2"]);
        view.put("/b/1", None);
        assert_eq!(view.list("/b/").unwrap().count(), 1);
    }

    #[test]
    fn require_names_everything_that_is_missing() {
        let mut view = View::new();
        view.put("/a", None);
        let wanted = [Query::Get("/a".into()), Query::List("/p/".into()), Query::Keys("/k/".into())];
        assert_eq!(view.require(wanted.clone()), Err(Missing(wanted[1..].to_vec())));
    }

    #[test]
    fn what_was_forgotten_is_missing_again() {
        let mut view = View::new();
        view.put_list("/b/", vec![entry("/b/1")]);
        view.put("/c", Some(entry("/c")));
        view.forget("/b/");
        assert!(view.get("/b/1").is_err() && view.keys("/b/").is_err());
        assert_eq!(view.get("/c").unwrap(), Some(&entry("/c")));
        view.assume_absent("/c");
        view.assume_absent("/d");
        assert_eq!((view.get("/c").unwrap().is_some(), view.get("/d").unwrap()), (true, None));
    }

    #[test]
    fn what_was_seen_full_outlives_a_refresh_and_not_its_block() {
        let mut view = View::new();
        view.put_list("/b/", vec![entry("/b/1")]);
        view.put_full([("/f/1".to_owned(), 1), ("/f/2".to_owned(), 1)].into());
        view.refresh();
        assert_eq!((view.lists().count(), view.full().len()), (0, 2));
        view.put_keys("/f/", [("/f/2".to_owned(), 1), ("/f/3".to_owned(), 1)]);
        assert_eq!(view.full().keys().collect::<Vec<_>>(), ["/f/2"]);
        assert_eq!(view.is_full("/f/2"), Ok(true));
        assert_eq!(view.is_full("/f/3"), Err(Missing(vec![Query::Room("/f/3".into())])));
    }

    #[test]
    fn a_key_list_follows_later_puts() {
        let mut view = View::new();
        view.put_keys("/k/", [("/k/1".to_owned(), 1)]);
        view.put("/k/2", Some(entry("/k/2")));
        view.put("/k/1", None);
        assert_eq!(view.keys("/k/").unwrap(), ["/k/2"]);
    }
}
