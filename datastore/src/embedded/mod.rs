//! The embedded store.

use crate::{CommitError, Deadline, Error, ErrorKind, Store, Watch};
use model::store::{Entry, Revision, Write};
use std::path::{Path, PathBuf};

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Creates the directory (0700) and an empty store where there is none.
    Create,
    /// Fails with `ErrorKind::Missing` where there is none, and creates nothing.
    Existing,
    /// As `Existing`, and commits fail with `ErrorKind::Denied`.
    ReadOnly,
}

/// A store in a directory of one host, shared by many processes.
pub struct Embedded {
    dir: PathBuf,
}

/// What could be read of a store, damaged or not.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// In key order.
    pub entries: Vec<Entry>,
    /// The store's revision.
    pub revision: Revision,
    /// What could not be read; empty when the store is sound.
    pub problems: Vec<String>,
}

impl Embedded {
    /// Opens the store in `dir`. Damage of its content shows in the first operation.
    pub fn open(dir: &Path, _mode: Mode) -> Result<Self, Error> {
        Ok(Self { dir: dir.to_owned() })
    }

    /// Reads what is readable of the store in `dir` and reports what is not.
    pub fn dump(dir: &Path, deadline: Deadline) -> Result<Dump, Error> {
        let _ = deadline;
        Err(not_built(dir))
    }

    /// Replaces the whole content of the store in `dir` (created if missing) at once.
    pub fn load(dir: &Path, entries: Vec<Entry>, deadline: Deadline) -> Result<Revision, Error> {
        let _ = (entries, deadline);
        Err(not_built(dir))
    }
}

fn not_built(dir: &Path) -> Error {
    Error::new("use store", dir, ErrorKind::Io, "not built yet")
}

impl Store for Embedded {
    fn identity(&self) -> String {
        format!("embedded:{}", self.dir.display())
    }

    fn get(&self, _keys: &[&str], _deadline: Deadline) -> Result<Vec<Option<Entry>>, Error> {
        Err(not_built(&self.dir))
    }

    fn list(&self, _prefix: &str, _deadline: Deadline) -> Result<Vec<Entry>, Error> {
        Err(not_built(&self.dir))
    }

    fn keys(&self, _prefix: &str, _deadline: Deadline) -> Result<Vec<String>, Error> {
        Err(not_built(&self.dir))
    }

    fn commit(&self, _writes: &[Write], _deadline: Deadline) -> Result<Revision, CommitError> {
        Err(not_built(&self.dir).into())
    }

    fn barrier(&self, _deadline: Deadline) -> Result<(), Error> {
        Err(not_built(&self.dir))
    }

    fn watch(&self, _prefix: &str) -> Result<Box<dyn Watch>, Error> {
        Err(not_built(&self.dir))
    }
}
