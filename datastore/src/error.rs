//! Errors of the store, by what the caller can do about them.

use model::store::Entry;
use std::{io, path::PathBuf};

/// What went wrong, for callers that decide by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The store does not exist yet.
    Missing,
    /// The lock or the server did not answer before the deadline; try again.
    Timeout,
    /// The server cannot be reached; try again.
    Unreachable,
    /// No room left to write.
    Full,
    /// The medium is read-only or access is denied.
    Denied,
    /// The stored bytes are damaged or of a version that this build does not know.
    Corrupt,
    /// What the caller gave is outside the limits (a key, a value, a name); trying again is useless.
    Invalid,
    /// Any other failure of the operating system.
    Io,
}

/// A failed operation: what was tried, on what, and why.
#[derive(Debug, thiserror::Error)]
#[error("{op} {}: {detail}", subject.display())]
pub struct Error {
    pub op: &'static str,
    pub subject: PathBuf,
    pub kind: ErrorKind,
    pub detail: String,
}

impl Error {
    pub(crate) fn new(
        op: &'static str,
        subject: impl Into<PathBuf>,
        kind: ErrorKind,
        detail: impl Into<String>,
    ) -> Self {
        Self { op, subject: subject.into(), kind, detail: detail.into() }
    }

    /// Sorts an error of the operating system by what can be done about it.
    pub(crate) fn os(op: &'static str, subject: impl Into<PathBuf>, source: &io::Error) -> Self {
        Self::new(op, subject, os_kind(source), source.to_string())
    }
}

fn os_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::Missing,
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        _ => ErrorKind::Io,
    }
}

/// Why a commit did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A condition failed. `current` holds what each written key is now: the first `applied` are of
    /// the writes that took effect (none with transactions), both parts in the order of the writes.
    #[error("write conflict")]
    Conflict { applied: usize, current: Vec<(String, Option<Entry>)> },
    #[error(transparent)]
    Store(#[from] Error),
}
