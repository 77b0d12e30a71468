//! The store as requests of the plugin see it: what every request asks for is kept in memory by watches,
//! and goes to the store only while its watch is broken.
//!
//! ```text
//!   engine, ledger ─► Memory ─┬─ settings of the cluster, watched ─► Mirror of each prefix
//!                             └─ everything else, and all commits ─► the store
//! ```
//! A commit that rests on what is out of date here conflicts at the store and is planned again; a
//! refusal is drawn again from the store by whoever plans it. A watch that its back end finds broken
//! (etcd's within 40 s of silence, the API server's within 75 s) makes its mirror useless at once, until
//! a new watch has told everything. A host's own store is asked each time: that costs no call to anybody.

use crate::context::Context;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use datastore::{Age, CommitError, Deadline, Error, Event, Store, Watch};
use model::keys::{self, Key};
use model::store::{Entry, Query, Revision, View, Write};
use prometheus::{IntCounter, IntGauge};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Pause before a watch is begun again, and between two looks at how many there are.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait of a follower. Its thread ends with the process.
const QUIET: Duration = Duration::from_secs(60);

pub struct Memory {
    store: Arc<dyn Store>,
    mirrors: Vec<Mirror>,
    reads: IntCounter,
    commits: IntCounter,
    block_writes: IntCounter,
    unwatched: IntGauge,
}

impl Memory {
    /// In front of a cluster's `store`, for the node of this name.
    pub fn of_cluster(store: Arc<dyn Store>, node: &str, metrics: &Metrics) -> Self {
        let mut whole = vec![
            keys::resources("clusterinformations"),
            keys::pools(),
            keys::ip_reservations(),
            keys::MASQUERADE.to_owned(),
        ];
        // In Kubernetes there are no profiles of networks.
        if store.is_transactional() {
            whole.push(keys::resources("profiles"));
        }
        let single = [keys::node(node), keys::ipam_config(&model::Scope::Cluster)];
        let mirrors = whole.into_iter().map(|prefix| Mirror::new(prefix, false));
        let mirrors = mirrors.chain(single.into_iter().map(|key| Mirror::new(key, true))).collect();
        let memory = Self { mirrors, ..Self::plain(store, metrics) };
        memory.count();
        memory
    }

    /// Remembers nothing.
    pub fn plain(store: Arc<dyn Store>, metrics: &Metrics) -> Self {
        Self {
            store,
            mirrors: Vec::new(),
            reads: metrics
                .counter("percale_store_reads_total", "Reads of the store for requests of the plugin."),
            commits: metrics
                .counter("percale_store_commits_total", "Commits to the store for requests of the plugin."),
            unwatched: metrics.gauge(
                "percale_store_unwatched",
                "Kinds of settings that requests ask the store for, as their watch is broken or not complete yet.",
            ),
            block_writes: metrics
                .counter("percale_ipam_block_writes_total", "Writes of blocks for requests of the plugin."),
        }
    }

    /// Follows the watches until the shutdown is set.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn run(self: &Arc<Self>, shutdown: &Shutdown) -> io::Result<()> {
        for at in 0..self.mirrors.len() {
            let (memory, shutdown) = (self.clone(), shutdown.clone());
            let follow = move || memory.mirrors[at].run(memory.store.as_ref(), &shutdown);
            std::thread::Builder::new().name("memory-watch".into()).spawn(follow)?;
        }
        while !shutdown.wait(PAUSE) {
            self.count();
        }
        Ok(())
    }

    fn count(&self) {
        let unwatched = self.mirrors.iter().filter(|mirror| !mirror.state().synced).count();
        self.unwatched.set(i64::try_from(unwatched).unwrap_or(i64::MAX));
    }

    /// What of the queries memory cannot answer; the others are answered.
    fn left(&self, queries: &[Query], view: &mut View) -> Vec<Query> {
        let is_known = |query: &&Query, view: &mut View| self.mirrors.iter().any(|m| m.answer(query, view));
        queries.iter().filter(|query| !is_known(query, view)).cloned().collect()
    }

    /// Remembers what a commit has shown, ahead of the watches.
    fn learn<'k>(&self, shown: impl Iterator<Item = (&'k str, Option<Entry>)>) {
        for (key, entry) in shown {
            if let Some(mirror) = self.mirrors.iter().find(|mirror| mirror.has(key)) {
                mirror.learn(key, entry);
            }
        }
    }

    fn committed(
        &self,
        writes: &[Write],
        outcome: Result<Vec<Revision>, CommitError>,
    ) -> Result<Vec<Revision>, CommitError> {
        self.commits.inc();
        let blocks = writes.iter().filter(|write| matches!(keys::parse(&write.key), Some(Key::Block { .. })));
        self.block_writes.inc_by(blocks.count() as u64);
        let written = |write: &Write, revision: Revision| {
            write.value.clone().map(|value| Entry { key: write.key.clone(), value, revision })
        };
        match &outcome {
            Ok(revisions) => {
                let each = writes.iter().zip(revisions);
                self.learn(each.map(|(write, revision)| (write.key.as_str(), written(write, *revision))));
            }
            Err(CommitError::Conflict { current, .. }) => {
                self.learn(current.iter().map(|(key, entry)| (key.as_str(), entry.clone())));
            }
            Err(CommitError::Store(_)) => {}
        }
        outcome
    }
}

impl Store for Memory {
    fn identity(&self) -> String {
        self.store.identity()
    }

    fn is_transactional(&self) -> bool {
        self.store.is_transactional()
    }

    fn get(&self, keys: &[&str], deadline: Deadline) -> Result<Vec<Option<Entry>>, Error> {
        self.reads.inc();
        self.store.get(keys, deadline)
    }

    fn list(&self, prefix: &str, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        self.reads.inc();
        self.store.list(prefix, deadline)
    }

    fn keys(&self, prefix: &str, deadline: Deadline) -> Result<Vec<String>, Error> {
        self.reads.inc();
        self.store.keys(prefix, deadline)
    }

    fn revisions(&self, prefix: &str, deadline: Deadline) -> Result<Vec<(String, Revision)>, Error> {
        self.reads.inc();
        self.store.revisions(prefix, deadline)
    }

    fn fetch(&self, queries: &[Query], age: Age, view: &mut View, deadline: Deadline) -> Result<(), Error> {
        let left = if age == Age::Now { queries.to_vec() } else { self.left(queries, view) };
        if left.is_empty() {
            return Ok(());
        }
        self.reads.inc();
        self.store.fetch(&left, age, view, deadline)
    }

    fn commit(&self, writes: &[Write], deadline: Deadline) -> Result<Revision, CommitError> {
        Ok(self.commit_each(writes, deadline)?.into_iter().max().unwrap_or(1))
    }

    fn commit_each(&self, writes: &[Write], deadline: Deadline) -> Result<Vec<Revision>, CommitError> {
        self.committed(writes, self.store.commit_each(writes, deadline))
    }

    fn commit_soon(&self, writes: &[Write], deadline: Deadline) -> Result<Vec<Revision>, CommitError> {
        self.committed(writes, self.store.commit_soon(writes, deadline))
    }

    fn settle(&self, deadline: Deadline) -> Result<(), Error> {
        self.store.settle(deadline)
    }

    fn barrier(&self, deadline: Deadline) -> Result<(), Error> {
        self.store.barrier(deadline)
    }

    fn set_network_available(&self, node: &str, deadline: Deadline) -> Result<(), Error> {
        self.store.set_network_available(node, deadline)
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, Error> {
        self.store.watch(prefix)
    }

    fn watch_key(&self, key: &str) -> Result<Box<dyn Watch>, Error> {
        self.store.watch_key(key)
    }
}

/// The part of the daemon: the watches.
pub(crate) fn run(context: &Arc<Context>) -> anyhow::Result<()> {
    Ok(context.memory.run(&context.shutdown)?)
}

/// All that a watch has told of one prefix, or of one key.
struct Mirror {
    prefix: String,
    is_key: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    /// Everything was told.
    synced: bool,
}

impl Mirror {
    fn new(prefix: String, is_key: bool) -> Self {
        Self { prefix, is_key, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, key: &str) -> bool {
        if self.is_key { key == self.prefix } else { key.starts_with(&self.prefix) }
    }

    /// Whether the answer is known; then the view has it.
    fn answer(&self, query: &Query, view: &mut View) -> bool {
        let (Query::Get(text) | Query::List(text) | Query::Keys(text) | Query::Room(text)) = query;
        if !self.has(text) {
            return false;
        }
        let state = self.state();
        let under = || state.entries.range(text.clone()..).take_while(|(key, _)| key.starts_with(text));
        match query {
            _ if !state.synced => return false,
            Query::Get(key) => view.put(key, state.entries.get(key).cloned()),
            Query::List(prefix) if !self.is_key => {
                view.put_list(prefix, under().map(|(_, entry)| entry.clone()).collect());
            }
            Query::Keys(prefix) if !self.is_key => {
                view.put_keys(prefix, under().map(|(key, entry)| (key.clone(), entry.revision)));
            }
            _ => return false,
        }
        true
    }

    /// Events of the watch may come later than what is learnt here, and tell older states again: what
    /// that makes wrong lasts until the watch has caught up.
    fn learn(&self, key: &str, entry: Option<Entry>) {
        let mut state = self.state();
        match entry {
            Some(entry) => state.put(entry),
            None => drop(state.entries.remove(key)),
        }
    }

    fn run(&self, store: &dyn Store, shutdown: &Shutdown) {
        let mut told = false;
        while !shutdown.is_set() {
            let started = match self.is_key {
                true => store.watch_key(&self.prefix),
                false => store.watch(&self.prefix),
            };
            let Err(error) = started.and_then(|watch| self.follow(watch, shutdown)) else { return };
            // Only one that had told everything is news.
            let was_good = std::mem::take(&mut *self.state()).synced;
            if was_good || !std::mem::replace(&mut told, true) {
                tracing::warn!(prefix = self.prefix, "requests ask the store itself: {error}");
            }
            shutdown.wait(PAUSE);
        }
    }

    /// Until the shutdown is set, or the watch is broken.
    fn follow(&self, mut watch: Box<dyn Watch>, shutdown: &Shutdown) -> Result<(), Error> {
        while !shutdown.is_set() {
            if let Some(event) = watch.next(Deadline::after(QUIET))? {
                self.take(event);
            }
        }
        Ok(())
    }

    fn take(&self, event: Event) {
        let mut state = self.state();
        match event {
            Event::Put(entry) => state.put(entry),
            Event::Delete { key } => drop(state.entries.remove(&key)),
            Event::Synced => state.synced = true,
            Event::Reset => *state = State::default(),
        }
    }
}

impl State {
    fn put(&mut self, entry: Entry) {
        let is_older = self.entries.get(&entry.key).is_some_and(|known| known.revision > entry.revision);
        if !is_older {
            self.entries.insert(entry.key.clone(), entry);
        }
    }
}

#[cfg(test)]
mod tests;
