//! File locks: `flock` with a bound on the wait (decision 6).
//!
//! A waiter blocks in the kernel on a thread of its own and never polls, because a poller
//! starves beside processes that block. The kernel releases a lock when its holder dies.
//! fs2 and Calico's Go code take the same kind of lock, so they exclude each other.

use crate::{Deadline, Error, ErrorKind};
use fs2::FileExt;
use std::fs::{DirBuilder, DirEntry, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

const OP: &str = "lock";

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Together with other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// A held lock on a file; dropping it releases it.
#[derive(Debug)]
pub struct Lock {
    file: File,
    waited: bool,
}

impl Lock {
    /// Takes the lock on `path`, waiting at most until `deadline`.
    ///
    /// The file (0600) and its parent directories (0755) are created.
    /// Fails with `ErrorKind::Timeout` when others kept it, `Denied` when it can be neither
    /// opened nor created.
    pub fn acquire(path: &Path, kind: Kind, deadline: Deadline) -> Result<Self, Error> {
        let file = open_with_parents(path)?;
        wait(file, path, kind, deadline)
    }

    /// Takes the lock if nobody holds it against us; `None` when it is busy.
    pub fn try_acquire(path: &Path, kind: Kind) -> Result<Option<Self>, Error> {
        let file = open_with_parents(path)?;
        Ok(try_lock(&file, path, kind)?.then_some(Self { file, waited: false }))
    }

    /// Whether somebody else held it when it was asked for.
    pub fn waited(&self) -> bool {
        self.waited
    }

    /// The file that is locked.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// As `acquire`, in a directory that must exist.
    pub(crate) fn acquire_in_place(path: &Path, kind: Kind, deadline: Deadline) -> Result<Self, Error> {
        let file = open(path).map_err(|e| Error::os(OP, path, &e))?;
        wait(file, path, kind, deadline)
    }
}

/// The lock of one attachment: a file of its own, removed when the attachment is gone.
#[derive(Debug)]
pub struct AttachmentLock {
    path: PathBuf,
    lock: Lock,
}

impl AttachmentLock {
    /// Takes the exclusive lock `name` in `dir` (created, 0755), waiting at most until `deadline`.
    ///
    /// `name` is one path component of 1 to 255 bytes, else `ErrorKind::Invalid`.
    pub fn acquire(dir: &Path, name: &str, deadline: Deadline) -> Result<Self, Error> {
        let path = attachment_path(dir, name)?;
        loop {
            let lock = Lock::acquire(&path, Kind::Exclusive, deadline)?;
            // The former holder may have removed the file while we waited: then our lock is on
            // an inode that nobody else will find.
            if is_still_at(&lock.file, &path)? {
                return Ok(Self { path, lock });
            }
        }
    }

    /// As `acquire`, but `None` at once when somebody holds it.
    pub fn try_acquire(dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        let path = attachment_path(dir, name)?;
        loop {
            match Lock::try_acquire(&path, Kind::Exclusive)? {
                None => return Ok(None),
                Some(lock) if is_still_at(&lock.file, &path)? => return Ok(Some(Self { path, lock })),
                Some(_) => {}
            }
        }
    }

    /// Removes the lock file, then releases it: for an attachment that is gone.
    pub fn remove_and_release(self) -> Result<(), Error> {
        let result = std::fs::remove_file(&self.path);
        drop(self.lock);
        match result {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::os("remove lock", self.path, &e)),
            _ => Ok(()),
        }
    }
}

/// Removes the lock files in `dir` that nobody holds and nobody made or changed within `idle`:
/// those of attachments that were killed and forgotten. One of a living attachment may be among
/// them; its next call makes it anew. Answers how many went; what cannot be read stays.
pub fn prune_attachment_locks(dir: &Path, idle: Duration) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let old = entries.flatten().filter(|entry| has_rested(entry, idle));
    let names: Vec<String> = old.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let unheld = names.iter().filter_map(|name| AttachmentLock::try_acquire(dir, name).ok().flatten());
    unheld.filter_map(|lock| lock.remove_and_release().ok()).count()
}

fn has_rested(entry: &DirEntry, idle: Duration) -> bool {
    let Ok(metadata) = entry.metadata() else { return false };
    let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
    metadata.is_file() && metadata.len() == 0 && age.is_some_and(|age| age >= idle)
}

fn attachment_path(dir: &Path, name: &str) -> Result<PathBuf, Error> {
    let plain =
        !name.is_empty() && name.len() <= 255 && !name.contains(['/', '\0']) && name != "." && name != "..";
    if plain {
        Ok(dir.join(name))
    } else {
        Err(Error::new(OP, dir, ErrorKind::Invalid, format!("{name:?} is no name for a lock file")))
    }
}

fn is_still_at(file: &File, path: &Path) -> Result<bool, Error> {
    let held = file.metadata().map_err(|e| Error::os(OP, path, &e))?;
    match std::fs::metadata(path) {
        Ok(found) => Ok((held.dev(), held.ino()) == (found.dev(), found.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::os(OP, path, &e)),
    }
}

fn open_with_parents(path: &Path) -> Result<File, Error> {
    match open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                create_dirs(parent, 0o755)?;
            }
            open(path)
        }
        other => other,
    }
    .map_err(|e| Error::os(OP, path, &e))
}

/// Creates `dir` and its parents. A concurrent creator is no error.
pub(crate) fn create_dirs(dir: &Path, mode: u32) -> Result<(), Error> {
    let result = DirBuilder::new().recursive(true).mode(mode).create(dir);
    result.map_err(|e| Error::os("create directory", dir, &e))
}

/// `flock` needs no write access: an existing file on a read-only medium is opened for reading.
fn open(path: &Path) -> io::Result<File> {
    match OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path) {
        Err(e) if is_denied(&e) => File::open(path).map_err(|_| e),
        other => other,
    }
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

fn try_lock(file: &File, path: &Path, kind: Kind) -> Result<bool, Error> {
    let result = match kind {
        Kind::Shared => FileExt::try_lock_shared(file),
        Kind::Exclusive => FileExt::try_lock_exclusive(file),
    };
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(Error::os(OP, path, &e)),
    }
}

fn wait(file: File, path: &Path, kind: Kind, deadline: Deadline) -> Result<Lock, Error> {
    if try_lock(&file, path, kind)? {
        return Ok(Lock { file, waited: false });
    }
    // No room in the channel: the thread hands the lock to a waiter that is there, or finds
    // that it left, and then drops the file and with it the lock.
    let (sender, receiver) = mpsc::sync_channel(0);
    std::thread::Builder::new()
        .name("percale-lock".into())
        .stack_size(64 * 1024)
        .spawn(move || {
            let result = block(&file, kind).map(|()| file);
            drop(sender.send(result));
        })
        .map_err(|e| Error::os(OP, path, &e))?;
    match receiver.recv_timeout(deadline.left()) {
        Ok(Ok(file)) => Ok(Lock { file, waited: true }),
        Ok(Err(e)) => Err(Error::os(OP, path, &e)),
        Err(_) => Err(Error::new(OP, path, ErrorKind::Timeout, "others kept the lock until the deadline")),
    }
}

fn block(file: &File, kind: Kind) -> io::Result<()> {
    loop {
        let result = match kind {
            Kind::Shared => FileExt::lock_shared(file),
            Kind::Exclusive => FileExt::lock_exclusive(file),
        };
        match result {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
