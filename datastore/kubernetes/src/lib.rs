//! The store in a Kubernetes cluster: Calico's custom resources under Calico's keys.
//!
//! ```text
//!   Kubernetes (Store) ── Runtime: one thread that drives the connections
//!      │
//!      └─ Cluster ── link: HTTP over TLS, token, retries within the deadline ── config: kubeconfig, account
//!           │
//!           ├ read:  get, list, keys      object ── key and JSON of etcd's model <-> custom resource
//!           ├ generation: are these still the resources that count
//!           ├ write: commit, in order        └ place ── key <-> resource and name ── name: hashes, name rules
//!           └ watch: list, then follow, again and again
//! ```
//!
//! There are no transactions: the writes of a commit are applied in order, each under its own
//! condition, up to the first that fails. A revision is the `resourceVersion` of the object.

pub mod account;
mod blocks;
mod cluster;
mod config;
mod endpoint;
mod error;
mod generation;
mod link;
mod name;
mod node;
mod object;
mod place;
mod read;
mod runtime;
mod token;
mod watch;
mod write;

pub use config::Config;
pub use link::Calls;

use cluster::Cluster;
use datastore::{CommitError, Deadline, Error, Store, Watch};
use error::Failure;
use model::store::{Entry, Revision, Write};
use runtime::Runtime;
use std::sync::Arc;

/// Most writes of one commit.
pub const MAX_WRITES: usize = 100;
/// Most bytes of one value (the server refuses requests above 3 MiB, its etcd above 1.5 MiB).
pub const MAX_VALUE: usize = 1 << 20;

/// From so many blocks on a list of all is cheaper than a request for each.
const MANY_BLOCKS: usize = 64;

const OPEN: &str = "open";

/// A store in a Kubernetes cluster.
pub struct Kubernetes {
    runtime: Arc<Runtime>,
    cluster: Arc<Cluster>,
    id: String,
}

impl Kubernetes {
    /// Connects, and asks for the cluster's identity.
    ///
    /// # Errors
    /// `Invalid`: the configuration itself. `Unreachable`, `Timeout`: no answer. `Denied`: the
    /// credentials or rights do not suffice.
    pub fn open(config: &Config, deadline: Deadline) -> Result<Self, Error> {
        let failed = |failure: Failure| failure.into_error(OPEN, &config.subject());
        let runtime = Arc::new(Runtime::start().map_err(|e| failed(Failure::os(&e)))?);
        let cluster = runtime.run(deadline, Cluster::new(config)).map_err(failed)?;
        let mut store = Self { runtime, cluster: Arc::new(cluster), id: String::new() };
        store.id = store.run(OPEN, deadline, store.cluster.id())?;
        Ok(store)
    }

    /// How many requests were sent so far, repetitions included.
    pub fn calls(&self) -> Calls {
        self.cluster.calls()
    }

    /// What the plugin's engine needs and this account may not do, as `verb resource.group`.
    ///
    /// # Errors
    /// As for any call.
    pub fn lacking_rights(&self, deadline: Deadline) -> Result<Vec<String>, Error> {
        self.run("ask for the rights of the account in", deadline, account::lacking(&self.cluster))
    }

    /// When the account's token ends, in seconds since 1970; `None` for one that does not say, or none.
    pub fn token_end(&self) -> Option<u64> {
        self.cluster.link.token().as_deref().and_then(account::token_end)
    }

    fn run<T>(
        &self,
        op: &'static str,
        deadline: Deadline,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Error> {
        let answer = self.runtime.wait(deadline, call).unwrap_or_else(|| Err(self.late()));
        answer.map_err(|failure| failure.into_error(op, self.cluster.subject()))
    }

    fn watcher(&self, started: Result<watch::Watcher, Failure>) -> Result<Box<dyn Watch>, Error> {
        match started {
            Ok(watcher) => Ok(Box::new(watcher)),
            Err(failure) => Err(failure.into_error("watch", self.cluster.subject())),
        }
    }

    fn late(&self) -> Failure {
        let late = Failure::late();
        match self.cluster.link.trouble() {
            Some(trouble) => Failure { detail: format!("{}; the last try: {trouble}", late.detail), ..late },
            None => late,
        }
    }
}

impl Store for Kubernetes {
    /// The UID of the namespace `kube-system`, which lives as long as the cluster.
    fn identity(&self) -> String {
        format!("kubernetes:{}", self.id)
    }

    fn is_transactional(&self) -> bool {
        false
    }

    fn get(&self, keys: &[&str], deadline: Deadline) -> Result<Vec<Option<Entry>>, Error> {
        self.run("read from", deadline, read::get(&self.cluster, keys))
    }

    fn list(&self, prefix: &str, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        self.run("list", deadline, read::list(&self.cluster, prefix))
    }

    fn keys(&self, prefix: &str, deadline: Deadline) -> Result<Vec<String>, Error> {
        Ok(self.revisions(prefix, deadline)?.into_iter().map(|(key, _)| key).collect())
    }

    fn revisions(&self, prefix: &str, deadline: Deadline) -> Result<Vec<(String, Revision)>, Error> {
        self.run("list", deadline, read::revisions(&self.cluster, prefix))
    }

    /// Many blocks are told by the server's cache, with those beside them; what was seen before the deadline
    /// stays known.
    fn rooms(
        &self,
        keys: &[&str],
        deadline: Deadline,
        tell: &mut dyn FnMut(&str, Option<Entry>),
    ) -> Result<(), Error> {
        if keys.len() < MANY_BLOCKS {
            let found = self.get(keys, deadline)?;
            keys.iter().zip(found).for_each(|(key, entry)| tell(key, entry));
            return Ok(());
        }
        self.run("list", deadline, blocks::contents(&self.cluster, keys, tell))
    }

    /// The answer is the newest revision.
    fn commit(&self, writes: &[Write], deadline: Deadline) -> Result<Revision, CommitError> {
        Ok(self.commit_each(writes, deadline)?.into_iter().max().unwrap_or(1))
    }

    fn commit_each(&self, writes: &[Write], deadline: Deadline) -> Result<Vec<Revision>, CommitError> {
        let outcome = self.run("write to", deadline, async {
            self.cluster.generation.check(&self.cluster.link).await?;
            write::commit(&self.cluster, writes).await
        });
        match outcome? {
            write::Outcome::Done(revisions) => Ok(revisions),
            write::Outcome::Conflict { applied, current } => Err(CommitError::Conflict { applied, current }),
        }
    }

    /// A read asks the majority of the server's etcd, so what it saw is durable already; if it is still
    /// what counts (see `generation`).
    fn barrier(&self, deadline: Deadline) -> Result<(), Error> {
        self.run("look at", deadline, self.cluster.generation.check(&self.cluster.link))
    }

    fn set_network_available(&self, node: &str, deadline: Deadline) -> Result<(), Error> {
        self.run(
            "set the condition of the node in",
            deadline,
            node::set_network_available(&self.cluster, node),
        )
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, Error> {
        self.watcher(watch::Watcher::start(&self.runtime, &self.cluster, prefix))
    }

    fn watch_key(&self, key: &str) -> Result<Box<dyn Watch>, Error> {
        self.watcher(watch::Watcher::of_key(&self.runtime, &self.cluster, key))
    }
}
