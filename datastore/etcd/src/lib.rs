//! The store in an etcd cluster (v3): Calico's keys and values as they are.
//!
//! ```text
//!   Etcd (Store) ── Runtime: one thread that drives the connection
//!      │
//!      └─ Cluster ── one Link at a time ── dial ── datastore_resolve (hosts file, DNS)
//!           │            │ TLS, token, cluster id
//!           ├ read: get, list, keys     a lost link is replaced, another endpoint tried
//!           ├ txn:  commit              repeated only if it was never sent
//!           └ watch: list, then follow, again and again
//! ```
//!
//! Calls are synchronous and may come from several threads; the future of a call is polled on its
//! own thread, and a thread of ours drives sockets and timers.

mod cluster;
mod config;
mod dial;
mod error;
mod read;
mod runtime;
mod txn;
mod watch;

pub use config::Config;

use cluster::Cluster;
use datastore::{CommitError, Deadline, Error, Store, Watch};
use error::Failure;
use model::store::{Entry, Revision, Write};
use runtime::Runtime;
use std::sync::Arc;

/// Most writes of one commit (etcd's default limit is 128 operations).
pub const MAX_WRITES: usize = 100;
/// Most bytes of keys and values in one commit (etcd's default limit is 1.5 MiB for a request).
pub const MAX_COMMIT: usize = 1 << 20;

/// A store in an etcd cluster.
pub struct Etcd {
    runtime: Arc<Runtime>,
    cluster: Arc<Cluster>,
    id: u64,
}

impl Etcd {
    /// Connects to the first endpoint that answers, within 3 seconds for each.
    ///
    /// # Errors
    /// `Invalid`: the configuration itself. `Unreachable`, `Timeout`: no endpoint answers. `Denied`:
    /// user, password, certificate or permissions are refused.
    pub fn open(config: &Config, deadline: Deadline) -> Result<Self, Error> {
        let invalid = |failure: Failure| failure.into_error("open", &config.subject());
        let cluster = Arc::new(Cluster::new(config).map_err(invalid)?);
        let runtime = Runtime::start().map_err(|e| invalid(Failure::os(&e)))?;
        let id =
            runtime.wait(deadline, cluster.id()).unwrap_or_else(|| Err(Failure::late())).map_err(invalid)?;
        Ok(Self { runtime: Arc::new(runtime), cluster, id })
    }

    fn run<T>(
        &self,
        op: &'static str,
        of: &str,
        deadline: Deadline,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Error> {
        let answer = self.runtime.wait(deadline, call).unwrap_or_else(|| {
            self.cluster.distrust();
            Err(Failure::late())
        });
        answer.map_err(|failure| failure.about(of).into_error(op, self.cluster.subject()))
    }
}

/// Keys as an error names them.
fn some<'k>(keys: impl Iterator<Item = &'k str>) -> String {
    keys.take(4).collect::<Vec<_>>().join(", ")
}

impl Store for Etcd {
    fn identity(&self) -> String {
        format!("etcdv3:{:x}", self.id)
    }

    fn get(&self, keys: &[&str], deadline: Deadline) -> Result<Vec<Option<Entry>>, Error> {
        self.run("read from", &some(keys.iter().copied()), deadline, read::get(&self.cluster, keys))
    }

    fn list(&self, prefix: &str, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        self.run("list", prefix, deadline, read::list(&self.cluster, prefix))
    }

    fn keys(&self, prefix: &str, deadline: Deadline) -> Result<Vec<String>, Error> {
        Ok(self.revisions(prefix, deadline)?.into_iter().map(|(key, _)| key).collect())
    }

    fn revisions(&self, prefix: &str, deadline: Deadline) -> Result<Vec<(String, Revision)>, Error> {
        self.run("list", prefix, deadline, read::revisions(&self.cluster, prefix))
    }

    fn commit(&self, writes: &[Write], deadline: Deadline) -> Result<Revision, CommitError> {
        let txn =
            txn::of(writes).map_err(|failure| failure.into_error("write to", self.cluster.subject()))?;
        let answer = self.run(
            "write to",
            &some(writes.iter().map(|write| write.key.as_str())),
            deadline,
            self.cluster.write(|mut kv| {
                let txn = txn.clone();
                async move { kv.txn(txn).await }
            }),
        )?;
        txn::outcome(writes, &answer)
    }

    /// A read asks the majority (it is linearizable), so what it saw is durable already.
    fn barrier(&self, _deadline: Deadline) -> Result<(), Error> {
        Ok(())
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, Error> {
        Ok(Box::new(watch::Watcher::start(&self.runtime, &self.cluster, prefix)))
    }
}
