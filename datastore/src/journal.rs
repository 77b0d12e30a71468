//! Releases that could not be written to their store yet (decision 17).
//!
//! The journal is an embedded store of its own (`STATE_DIR/journal/`), small and with room
//! allocated in advance, so that a release can be written down on a full disk. One per host,
//! shared by all processes.

use crate::embedded::{Embedded, Layout, Mode};
use crate::{CommitError, Deadline, Error, ErrorKind, Store};
use model::store::{Entry, Expect, Write};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Room for about 200 releases of two addresses each, however full the disk is.
const LAYOUT: Layout = Layout { log_len: 64 << 10, worn: 64 << 10, reserve: 4 << 10, step: 192 << 10 };

/// How long any call waits for other processes that use the journal.
const WAIT: Duration = Duration::from_secs(5);

/// One address that an attachment held, with what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub ip: IpAddr,
    pub handle: String,
    pub attrs: BTreeMap<String, String>,
    pub sequence: u64,
}

/// A release that is owed to a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// `Store::identity` of the store that the addresses belong to.
    pub store: String,
    pub network: String,
    pub container: String,
    pub ifname: String,
    pub addresses: Vec<Held>,
}

/// Names a pending entry; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

impl Id {
    fn key(self) -> String {
        format!("{:016x}", self.0)
    }
}

/// The host's journal of releases.
pub struct Journal {
    path: PathBuf,
    store: Embedded,
}

impl Journal {
    /// Opens `state_dir/journal`, creating it with room allocated in advance.
    ///
    /// Fails with `Full` when it must be created on a full disk: create it early.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        Self::open_as(state_dir, Mode::Create)
    }

    /// As `open`, but creates nothing: `ErrorKind::Missing` where there is none.
    pub fn open_existing(state_dir: &Path) -> Result<Self, Error> {
        Self::open_as(state_dir, Mode::Existing)
    }

    /// Whether the journal is there and nothing was ever written into it, as on most hosts: a look that takes
    /// no lock. `false` where there is any doubt.
    pub fn is_unused(state_dir: &Path) -> bool {
        Embedded::is_unused(&state_dir.join("journal"))
    }

    fn open_as(state_dir: &Path, mode: Mode) -> Result<Self, Error> {
        let path = state_dir.join("journal");
        Ok(Self { store: Embedded::open_with(&path, mode, LAYOUT)?, path })
    }

    /// Writes an entry durably. An equal entry that is pending is not written twice.
    pub fn append(&self, release: &Release) -> Result<Id, Error> {
        let value = serde_json::to_vec(release).map_err(|e| self.bad(ErrorKind::Invalid, &e))?;
        loop {
            if let Some(id) = self.find(&value)? {
                self.store.barrier(deadline())?;
                return Ok(id);
            }
            // The revision that this commit will have, or one that passed and named no entry:
            // in both cases nobody else will ever choose it.
            let id = Id(self.store.revision(deadline())? + 1);
            match self.write(id, Expect::Absent, Some(value.clone())) {
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error),
                Ok(()) => return Ok(id),
            }
        }
    }

    /// The entries that are owed, oldest first.
    pub fn pending(&self) -> Result<Vec<(Id, Release)>, Error> {
        self.entries()?.iter().map(|e| Ok((self.id(e)?, self.release(e)?))).collect()
    }

    /// Forgets an entry that was carried out; one that is gone already is no error.
    pub fn done(&self, id: Id) -> Result<(), Error> {
        self.write(id, Expect::Any, None).map_err(|error| match error {
            CommitError::Store(error) => error,
            CommitError::Conflict { .. } => self.bad(ErrorKind::Io, &"conflict without a condition"),
        })
    }

    fn write(&self, id: Id, expect: Expect, value: Option<Vec<u8>>) -> Result<(), CommitError> {
        let write = Write { key: id.key(), expect, value };
        self.store.commit(&[write], deadline()).map(drop)
    }

    fn find(&self, value: &[u8]) -> Result<Option<Id>, Error> {
        let entries = self.entries()?;
        entries.iter().find(|e| e.value == value).map(|e| self.id(e)).transpose()
    }

    fn entries(&self) -> Result<Vec<Entry>, Error> {
        self.store.list("", deadline())
    }

    fn id(&self, entry: &Entry) -> Result<Id, Error> {
        u64::from_str_radix(&entry.key, 16).map(Id).map_err(|e| self.bad(ErrorKind::Corrupt, &e))
    }

    fn release(&self, entry: &Entry) -> Result<Release, Error> {
        serde_json::from_slice(&entry.value).map_err(|e| self.bad(ErrorKind::Corrupt, &e))
    }

    fn bad(&self, kind: ErrorKind, source: &dyn std::fmt::Display) -> Error {
        Error::new("use journal", &self.path, kind, source.to_string())
    }
}

fn deadline() -> Deadline {
    Deadline::after(WAIT)
}
