//! The embedded store: a directory with two slot files and a lock.
//!
//! ```text
//! a, b   header | log (fixed size) | snapshot pages | index | room
//! lock   flock: shared to read, exclusive to commit; holds the mark
//! ```
//! One slot is current. A commit appends one checksummed record to its log and syncs once. When
//! the log is full, the state is written into the other slot, which becomes current by its higher
//! generation. Both slots always have room for the present state, so that whatever does not grow
//! it succeeds on a full disk. `datastore/README.md` has the format and the reasons.

mod bytes;
mod checkpoint;
mod commit;
mod disk;
mod frame;
mod fuzz;
mod header;
mod load;
mod loaded;
mod lookout;
mod mark;
mod record;
mod room;
mod salvage;
mod slots;
mod snapshot;
#[cfg(test)]
mod tests;
mod watch;

pub use fuzz::{fuzz_open, fuzz_records};
pub use salvage::Dump;

use crate::lock::{Kind, Lock};
use crate::{Age, CommitError, Deadline, Error, ErrorKind, Store, Watch};
use disk::{Access, Directory, Disk, File};
use header::LOG_AT;
use lookout::Lookout;
use model::store::{Entry, Query, Revision, View, Write};
use slots::{Pending, Slots};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

/// Longest key, in bytes.
pub const MAX_KEY: usize = 1024;
/// Longest value, in bytes.
pub const MAX_VALUE: usize = 16 << 20;
/// Largest commit, in bytes of keys and values with 6 bytes for each.
pub const MAX_COMMIT: usize = 64 << 20;
/// Most that all entries take together, in bytes of keys and values with 14 bytes for each.
pub const MAX_LIVE: u64 = 1 << 30;
/// No slot file is longer than this.
const MAX_FILE: u64 = 2 * MAX_LIVE;

const READ: &str = "read store";

/// How long creating a store waits for others who create it too.
const CREATE_WAIT: Duration = Duration::from_secs(10);

/// Sizes of a store, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// The log area of each slot; commits that do not fit in any more start a checkpoint.
    pub log_len: u64,
    /// So does a log of this length, or of four times the entries if that is more.
    pub worn: u64,
    /// Room that only commits that free something may use.
    pub reserve: u64,
    /// Files grow by at least this.
    pub step: u64,
}

const LAYOUT: Layout = Layout { log_len: 256 << 10, worn: 96 << 10, reserve: 64 << 10, step: 256 << 10 };

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
    mode: Mode,
    slots: Mutex<Slots>,
    /// Of the watches that are open.
    lookout: Mutex<Weak<Lookout>>,
}

impl Embedded {
    /// Opens the store in `dir`.
    ///
    /// Fails with `Missing` (see [`Mode`]), `Denied`, `Full` (when creating), or `Corrupt`;
    /// damage behind the headers shows only in the first operation.
    pub fn open(dir: &Path, mode: Mode) -> Result<Self, Error> {
        Self::open_with(dir, mode, LAYOUT)
    }

    pub(crate) fn open_with(dir: &Path, mode: Mode, layout: Layout) -> Result<Self, Error> {
        let directory = open_directory(dir, mode)?;
        if directory.is_missing() {
            return Err(missing(dir));
        }
        let slots = Mutex::new(Slots::new(Box::new(directory), layout));
        let store = Self { dir: dir.to_owned(), mode, slots, lookout: Mutex::default() };
        if store.slots().looks_empty()? {
            store.create()?;
        }
        Ok(store)
    }

    /// Whether there is a store in `dir` that nobody ever wrote to. Takes no lock; `false` where there is any
    /// doubt.
    pub(crate) fn is_unused(dir: &Path) -> bool {
        let read = |file: File, bytes: &mut [u8]| {
            let read = std::fs::File::open(dir.join(file.name())).and_then(|f| f.read_at(bytes, 0));
            read.is_ok_and(|read| read == bytes.len())
        };
        let (mut first, mut second) = ([0; LOG_AT as usize + frame::HEAD], [0; header::SECTOR]);
        if !read(File::A, &mut first) || !read(File::B, &mut second) {
            return false;
        }
        let (sector, log) = (&first[..header::SECTOR], &first[LOG_AT as usize..]);
        let is_first = |found| matches!(found, header::Found::Header(h) if h.is_first());
        is_first(header::read(sector)) && [log, &second].iter().all(|part| part.iter().all(|b| *b == 0))
    }

    /// Formats the blank files, unless somebody else did it first.
    fn create(&self) -> Result<(), Error> {
        let mode = self.mode;
        let kind = if mode == Mode::Create { Kind::Exclusive } else { Kind::Shared };
        let (_lock, mut slots) = self.locked(kind, Deadline::after(CREATE_WAIT))?;
        match slots.is_empty()? {
            false => Ok(()),
            true if mode == Mode::Create => slots.format(new_id()),
            true => Err(missing(&self.dir)),
        }
    }

    fn lock(&self, kind: Kind, deadline: Deadline) -> Result<Lock, Error> {
        Lock::acquire_in_place(&self.dir.join(File::Mark.name()), kind, deadline)
    }

    /// Takes the store's lock, then this handle's state.
    fn locked(&self, kind: Kind, deadline: Deadline) -> Result<(Lock, MutexGuard<'_, Slots>), Error> {
        let lock = self.lock(kind, deadline)?;
        let mut slots = self.slots();
        if !slots.disk.belongs_to(lock.file()) {
            // The directory was removed and made anew: our files are nobody's any more.
            let mode = if self.mode == Mode::Create { Mode::Existing } else { self.mode };
            *slots = Slots::new(Box::new(open_directory(&self.dir, mode)?), slots.layout);
        }
        Ok((lock, slots))
    }

    /// Commits without waiting for the medium.
    fn append(&self, writes: &[Write], deadline: Deadline) -> Result<Revision, CommitError> {
        let (lock, mut slots) = self.locked(Kind::Exclusive, deadline)?;
        let revision = slots.commit_soon(writes)?;
        drop(lock);
        slots.start_sync();
        Ok(revision)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(|poisoned| {
            self.slots.clear_poison();
            let mut slots = PoisonError::into_inner(poisoned);
            // Whoever panicked may have left it half updated; the files are the truth.
            slots.loaded = None;
            slots
        })
    }

    /// Runs `f` on a fresh view of the store, which nobody changes meanwhile.
    fn read<T>(
        &self,
        deadline: Deadline,
        f: impl FnOnce(&mut Slots) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (_lock, mut slots) = self.locked(Kind::Shared, deadline)?;
        slots.refresh()?;
        f(&mut slots)
    }

    /// The revision of the last commit.
    pub fn revision(&self, deadline: Deadline) -> Result<Revision, Error> {
        self.read(deadline, |slots| Ok(slots.loaded()?.revision))
    }
}

fn open_directory(dir: &Path, mode: Mode) -> Result<Directory, Error> {
    let access = match mode {
        Mode::Create => Access::Create,
        Mode::Existing => Access::ReadWrite,
        Mode::ReadOnly => Access::Read,
    };
    let opened = match Directory::open(dir, access) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && mode == Mode::Create => {
            create_directory(dir)?;
            Directory::open(dir, access)
        }
        other => other,
    };
    opened.map_err(|e| Error::os("open store", dir, &e))
}

fn create_directory(dir: &Path) -> Result<(), Error> {
    if let Some(parent) = dir.parent() {
        crate::lock::create_dirs(parent, 0o755)?;
    }
    crate::lock::create_dirs(dir, 0o700)
}

fn missing(dir: impl Into<PathBuf>) -> Error {
    Error::new("open store", dir, ErrorKind::Missing, "there is no store")
}

/// Distinguishes this store's frames from those of any other that used the same files.
fn new_id() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since.as_nanos() as u64) ^ u64::from(std::process::id()).rotate_left(40)
}

/// An error of the operating system on one of the store's files.
fn failed(disk: &dyn Disk, file: File, op: &'static str, source: &io::Error) -> Error {
    Error::os(op, disk.path(file), source)
}

/// Stored bytes are not what was written.
fn damage(disk: &dyn Disk, file: File, offset: u64, what: &str) -> Error {
    let cure = "save what is readable with `percalectl store dump`, put it back with `percalectl store load`";
    let detail = format!("{what} (at byte {offset}); {cure}");
    Error::new(READ, disk.path(file), ErrorKind::Corrupt, detail)
}

impl Store for Embedded {
    fn identity(&self) -> String {
        format!("embedded:{}", self.dir.display())
    }

    fn get(&self, keys: &[&str], deadline: Deadline) -> Result<Vec<Option<Entry>>, Error> {
        self.read(deadline, |slots| keys.iter().map(|key| slots.get(key)).collect())
    }

    fn list(&self, prefix: &str, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        self.read(deadline, |slots| slots.list(prefix))
    }

    fn keys(&self, prefix: &str, deadline: Deadline) -> Result<Vec<String>, Error> {
        self.read(deadline, |slots| slots.keys(prefix))
    }

    fn fetch(&self, queries: &[Query], age: Age, view: &mut View, deadline: Deadline) -> Result<(), Error> {
        // Without the lock a checkpoint may write over a page meanwhile: then it is read again, with it.
        if age == Age::Before && self.slots().answer_known(queries, view).is_some() {
            return Ok(());
        }
        self.read(deadline, |slots| slots.answer(queries, view))
    }

    fn commit(&self, writes: &[Write], deadline: Deadline) -> Result<Revision, CommitError> {
        let revision = self.append(writes, deadline)?;
        self.barrier(deadline)?;
        Ok(revision)
    }

    fn commit_soon(&self, writes: &[Write], deadline: Deadline) -> Result<Vec<Revision>, CommitError> {
        self.append(writes, deadline).map(|revision| vec![revision; writes.len()])
    }

    fn settle(&self, deadline: Deadline) -> Result<(), Error> {
        self.barrier(deadline)
    }

    fn barrier(&self, deadline: Deadline) -> Result<(), Error> {
        let Some(Pending { sync, file, seed, end, revision }) = self.slots().pending()? else {
            return Ok(());
        };
        // Without any lock: whoever commits meanwhile is covered as well, if his write came first.
        if let Err(source) = sync() {
            let (_lock, mut slots) = self.locked(Kind::Exclusive, deadline)?;
            slots.refresh()?;
            slots.write_again();
            return Err(failed(&*slots.disk, file, commit::COMMIT, &source));
        }
        self.slots().synced(seed, end, revision);
        Ok(())
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, Error> {
        Ok(Box::new(watch::Watcher::new(self, prefix)?))
    }
}
