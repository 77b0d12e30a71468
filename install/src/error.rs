//! What can go wrong on a disk, told with the operation, the path and the cure.

use rustix::io::Errno;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file could not be put in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ReadOnly,
    Full,
    Denied,
    /// The directory belongs to somebody who could replace what root executes.
    WrongOwner {
        uid: u32,
    },
    NoExec,
    NoRename,
    NoSync,
    /// A directory, socket or the like is in the way.
    InTheWay,
    /// What was read back is not what was written.
    Changed,
    /// The plugin did not answer VERSION.
    BadPlugin,
    Other,
}

/// A failed operation on a file.
#[derive(Debug)]
pub struct FileError {
    pub op: &'static str,
    pub path: PathBuf,
    pub kind: Kind,
    pub source: Option<io::Error>,
    /// What a program said, for `BadPlugin`.
    pub told: String,
}

impl FileError {
    pub fn new(op: &'static str, path: &Path, kind: Kind) -> Self {
        Self { op, path: path.to_owned(), kind, source: None, told: String::new() }
    }

    pub fn told(mut self, told: impl Into<String>) -> Self {
        self.told = told.into();
        self
    }

    /// An error of the system; its kind follows from the operation and the number.
    pub fn os(op: &'static str, path: &Path, source: io::Error) -> Self {
        let kind = kind_of(op, &source);
        Self { op, path: path.to_owned(), kind, source: Some(source), told: String::new() }
    }

    pub fn errno(op: &'static str, path: &Path, errno: Errno) -> Self {
        Self::os(op, path, errno.into())
    }
}

fn kind_of(op: &str, source: &io::Error) -> Kind {
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ROFS) => Kind::ReadOnly,
        Some(Errno::NOSPC | Errno::DQUOT) => Kind::Full,
        Some(Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY) => Kind::InTheWay,
        Some(_) if op == "rename" => Kind::NoRename,
        Some(_) if op == "sync" => Kind::NoSync,
        Some(Errno::ACCESS | Errno::PERM) => Kind::Denied,
        _ => Kind::Other,
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.path.display(), self.op)?;
        match self.kind {
            Kind::ReadOnly => f.write_str("the file system is read-only; mount it writable, or choose another directory"),
            Kind::Full => f.write_str("no space is left; free some and run again, the old files are still in place"),
            Kind::Denied => f.write_str("permission denied; run as root, and look at the directory's owner, mode and security labels"),
            Kind::WrongOwner { uid } => write!(f, "the directory belongs to uid {uid}, who could replace programs that root executes; chown it to root"),
            Kind::NoExec => f.write_str("the file system is mounted noexec, so no plugin can run from it; mount it exec, or choose another directory"),
            Kind::NoRename => f.write_str("the file system does not rename a file over another, so an update cannot be atomic; choose another directory"),
            Kind::NoSync => f.write_str("the file system does not write through to the disk, so a crash could leave half a file; choose another directory"),
            Kind::InTheWay => f.write_str("something that is no file is in the way; move it away"),
            Kind::Changed => f.write_str("its content is not what was written; is somebody else writing it, or the disk damaged?"),
            Kind::BadPlugin => f.write_str("the program does not answer VERSION as a CNI plugin does"),
            Kind::Other => f.write_str("failed"),
        }?;
        match (&self.source, self.told.is_empty()) {
            (Some(source), _) => write!(f, ": {source}"),
            (None, false) => write!(f, ": {}", self.told),
            (None, true) => Ok(()),
        }
    }
}

impl std::error::Error for FileError {}
