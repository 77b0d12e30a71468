//! Where Percale keeps its objects: one trait, several back ends.
//!
//! | back end | module | for |
//! |---|---|---|
//! | embedded | [`embedded`] | one host; a crash-safe store in a directory |
//!
//! Everything here is synchronous and takes a [`Deadline`]; a cluster back end owns its runtime.

#[doc(hidden)]
pub mod conformance;
mod drive;
pub mod embedded;
mod error;
mod fetch;
pub mod hints;
pub mod journal;
pub mod lock;

pub use drive::{Conflicts, DriveError, How, drive, drive_as, drive_hinted};
pub use error::{CommitError, Error, ErrorKind};

use model::store::{Entry, Query, Revision, View, Write};
use std::time::{Duration, Instant};

/// The instant by which a call must have answered.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

impl Deadline {
    pub fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// Time left, zero when it has passed.
    pub fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// A set of keys with revisions and conditional commits.
///
/// Keys and values are those of Calico's etcd model; a back end that stores them otherwise
/// (Kubernetes) converts. Implementations are shared between threads.
pub trait Store: Send + Sync {
    /// Names this store for messages and for the record of the store in use:
    /// kind and place, such as `embedded:/var/lib/percale/store`.
    fn identity(&self) -> String;

    /// Whether a commit is applied as a whole; otherwise in order, up to the first failure.
    fn is_transactional(&self) -> bool {
        true
    }

    /// Reads several keys at once; the answer has their order. Absent keys are `None`.
    fn get(&self, keys: &[&str], deadline: Deadline) -> Result<Vec<Option<Entry>>, Error>;

    /// All entries under `prefix`, in key order, from one moment.
    fn list(&self, prefix: &str, deadline: Deadline) -> Result<Vec<Entry>, Error>;

    /// The keys under `prefix`, in order, without their values.
    fn keys(&self, prefix: &str, deadline: Deadline) -> Result<Vec<String>, Error>;

    /// As [`Store::keys`], with the revision of each key's last write, or 0 where the back end would
    /// have to read the values for it.
    fn revisions(&self, prefix: &str, deadline: Deadline) -> Result<Vec<(String, Revision)>, Error> {
        Ok(self.keys(prefix, deadline)?.into_iter().map(|key| (key, 0)).collect())
    }

    /// Looks at blocks of which only their room matters, one after the other, and tells of each what it is.
    /// A back end that reads many more cheaply by listing what is beside them tells of those too.
    fn rooms(
        &self,
        keys: &[&str],
        deadline: Deadline,
        tell: &mut dyn FnMut(&str, Option<Entry>),
    ) -> Result<(), Error> {
        fetch::rooms(self, keys, deadline, tell)
    }

    /// Answers all `queries` into `view`, none older than `age` says.
    fn fetch(&self, queries: &[Query], age: Age, view: &mut View, deadline: Deadline) -> Result<(), Error> {
        let _ = age;
        fetch::one_by_one(self, queries, view, deadline)
    }

    /// Applies `writes`: all or none where the back end has transactions, else in order up to the
    /// first failure. Durable when it returns. The answer is the revision of the written keys.
    fn commit(&self, writes: &[Write], deadline: Deadline) -> Result<Revision, CommitError>;

    /// As [`Store::commit`]; the answer is the revision of each written key, in the order of the
    /// writes. A back end without transactions, whose keys get different ones, must tell them apart.
    fn commit_each(&self, writes: &[Write], deadline: Deadline) -> Result<Vec<Revision>, CommitError> {
        self.commit(writes, deadline).map(|revision| vec![revision; writes.len()])
    }

    /// As `commit_each`, but not yet durable where the back end can tell the difference: every reader sees
    /// it, the death of any process leaves it, and only a loss of power before the next [`Store::settle`]
    /// of this handle may undo it, and what was committed after it.
    fn commit_soon(&self, writes: &[Write], deadline: Deadline) -> Result<Vec<Revision>, CommitError> {
        self.commit_each(writes, deadline)
    }

    /// Makes durable what `commit_soon` of this handle wrote.
    fn settle(&self, deadline: Deadline) -> Result<(), Error> {
        let _ = deadline;
        Ok(())
    }

    /// Makes sure that what was read is durable, for an answer that commits nothing itself.
    fn barrier(&self, deadline: Deadline) -> Result<(), Error>;

    /// Tells the cluster that pods may be sent to this node, where the cluster waits for that word.
    fn set_network_available(&self, _node: &str, _deadline: Deadline) -> Result<(), Error> {
        Ok(())
    }

    /// Starts a watch of `prefix`: first every existing entry, then [`Event::Synced`], then changes.
    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, Error>;

    /// As [`Store::watch`], of one key; of others that begin with it events may come too.
    fn watch_key(&self, key: &str) -> Result<Box<dyn Watch>, Error> {
        self.watch(key)
    }
}

/// How old an answer may be. A stale one costs a conflict, never correctness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// As of now.
    Now,
    /// As a running watch has told it; as of now where there is none.
    Watched,
    /// What this handle has read or been told before will do.
    Before,
}

/// A change under a watched prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put(Entry),
    Delete {
        key: String,
    },
    /// All that existed has been told; from here on events are changes.
    Synced,
    /// History was lost: forget everything; the full list follows, then `Synced`.
    Reset,
}

/// A running watch. Dropping it ends it.
pub trait Watch: Send {
    /// The next event, or `None` when none came before the deadline.
    fn next(&mut self, deadline: Deadline) -> Result<Option<Event>, Error>;
}
