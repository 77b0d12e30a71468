//! The store: keys with revisions, commits at once or write by write.

use model::store::{Entry, Expect, Query, View, Write};
use std::collections::BTreeMap;

/// How a commit is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As a whole (embedded store, etcd).
    Transactional,
    /// In order, each write by itself; others may come between (Kubernetes).
    Ordered,
}

#[derive(Clone, Debug, Default)]
pub struct SimStore {
    entries: BTreeMap<String, (u64, Vec<u8>)>,
    revision: u64,
}

impl SimStore {
    pub fn entry(&self, key: &str) -> Option<Entry> {
        let (revision, value) = self.entries.get(key)?;
        Some(Entry { key: key.to_owned(), value: value.clone(), revision: *revision })
    }

    pub fn put(&mut self, key: &str, value: Vec<u8>) {
        self.revision += 1;
        self.entries.insert(key.to_owned(), (self.revision, value));
    }

    pub fn delete(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// Keys and values without revisions.
    pub(super) fn contents(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().map(|(key, (_, value))| (key.as_str(), value.as_slice()))
    }

    /// Keys under a prefix.
    pub fn keys(&self, prefix: &str) -> impl Iterator<Item = &str> {
        let prefix = prefix.to_owned();
        let from = self.entries.range(prefix.clone()..);
        from.map(|(key, _)| key.as_str()).take_while(move |key| key.starts_with(&prefix))
    }

    fn revisions(&self, prefix: &str) -> Vec<(String, u64)> {
        self.entries(prefix).into_iter().map(|entry| (entry.key, entry.revision)).collect()
    }

    fn entries(&self, prefix: &str) -> Vec<Entry> {
        self.keys(prefix).filter_map(|key| self.entry(key)).collect()
    }

    /// Answers queries at one moment.
    pub fn answer(&self, queries: &[Query], view: &mut View) {
        for query in queries {
            match query {
                Query::Get(key) => view.put(key, self.entry(key)),
                Query::List(prefix) => view.put_list(prefix, self.entries(prefix)),
                Query::Keys(prefix) => view.put_keys(prefix, self.revisions(prefix)),
                Query::Room(key) => view.put_room(key, self.entry(key)),
            }
        }
    }

    fn allows(&self, write: &Write) -> bool {
        let found = self.entries.get(&write.key).map(|(revision, _)| *revision);
        match write.expect {
            Expect::Absent => found.is_none(),
            Expect::At(revision) => found == Some(revision),
            Expect::Any => true,
        }
    }

    /// Applies one write, if its condition holds. A deletion without a condition may find nothing.
    pub fn apply(&mut self, write: &Write) -> bool {
        if !self.allows(write) {
            return false;
        }
        match &write.value {
            Some(value) => self.put(&write.key, value.clone()),
            None => self.delete(&write.key),
        }
        true
    }

    /// Applies all writes or none.
    pub fn commit(&mut self, writes: &[Write]) -> bool {
        let allowed = writes.iter().all(|write| self.allows(write));
        if allowed {
            let revision = self.revision + 1;
            for write in writes {
                match &write.value {
                    Some(value) => drop(self.entries.insert(write.key.clone(), (revision, value.clone()))),
                    None => self.delete(&write.key),
                }
            }
            self.revision = revision;
        }
        allowed
    }

    /// A view that knows everything, for checks.
    pub fn whole(&self) -> View {
        let mut view = View::new();
        view.put_list("/", self.entries("/"));
        view
    }
}
