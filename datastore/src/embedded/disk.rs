//! The files of a store as numbered byte ranges, so that a test can put another disk under it.

use std::fs::{File as OsFile, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum File {
    A,
    B,
    /// The lock file, which also holds the mark.
    Mark,
}

impl File {
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::Mark => "lock",
        }
    }

    /// The other slot.
    pub fn other(self) -> Self {
        if self == Self::A { Self::B } else { Self::A }
    }
}

/// Reads, writes and syncs of a store's files. A missing file reads as empty.
pub(super) trait Disk: Send {
    /// Fills `buf` from `offset`, or up to the end of the file; returns the bytes read.
    fn read_at(&self, file: File, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`, extending the file if needed.
    fn write_at(&self, file: File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when all that was written to `file` is on the medium, with the file's length.
    fn sync(&self, file: File) -> io::Result<()>;
    /// Lets the kernel begin with the writing of a range; `sync` then has less to wait for.
    fn start_sync(&self, file: File, offset: u64, len: u64);
    /// A `sync` of this file for later, without this disk at hand.
    fn syncer(&self, file: File) -> io::Result<Syncer>;
    fn len(&self, file: File) -> io::Result<u64>;
    fn truncate(&self, file: File, len: u64) -> io::Result<()>;
    /// Makes the files' names durable.
    fn sync_names(&self) -> io::Result<()>;
    fn is_writable(&self) -> bool;
    /// The path of a file, for messages.
    fn path(&self, file: File) -> PathBuf;
    /// Whether these are still the files of the store whose lock file is `lock`.
    fn belongs_to(&self, lock: &OsFile) -> bool;
}

/// A sync that is still to be done.
pub(super) type Syncer = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// How the files are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Create,
    ReadWrite,
    Read,
}

/// The real files, in a directory.
pub(super) struct Directory {
    dir: PathBuf,
    files: [Option<Arc<OsFile>>; 3],
    /// Device and inode of the lock file.
    lock: Option<(u64, u64)>,
    writable: bool,
}

impl Directory {
    /// Opens the files in `dir`; missing ones stay missing unless `Access::Create`.
    /// Where writing is not permitted, falls back to reading.
    pub fn open(dir: &Path, access: Access) -> io::Result<Self> {
        match Self::open_all(dir, access) {
            Err(e) if access != Access::Read && is_read_only(&e) => Self::open_all(dir, Access::Read),
            other => other,
        }
    }

    fn open_all(dir: &Path, access: Access) -> io::Result<Self> {
        let open = |file: File| Ok::<_, io::Error>(open_one(&dir.join(file.name()), access)?.map(Arc::new));
        let files = [open(File::A)?, open(File::B)?, open(File::Mark)?];
        let lock = files[File::Mark as usize].as_deref().and_then(identity);
        Ok(Self { dir: dir.to_owned(), files, lock, writable: access != Access::Read })
    }

    /// Neither slot file is there.
    pub fn is_missing(&self) -> bool {
        self.files[0].is_none() && self.files[1].is_none()
    }

    fn file(&self, file: File) -> Option<&Arc<OsFile>> {
        self.files[file as usize].as_ref()
    }

    fn existing(&self, file: File) -> io::Result<&Arc<OsFile>> {
        self.file(file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn identity(file: &OsFile) -> Option<(u64, u64)> {
    let found = file.metadata().ok()?;
    Some((found.dev(), found.ino()))
}

fn open_one(path: &Path, access: Access) -> io::Result<Option<OsFile>> {
    let mut options = OpenOptions::new();
    options.read(true).write(access != Access::Read).create(access == Access::Create).mode(0o600);
    match options.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound && access != Access::Create => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

impl Disk for Directory {
    fn read_at(&self, file: File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(file) = self.file(file) else { return Ok(0) };
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, file: File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.existing(file)?.write_all_at(bytes, offset)
    }

    fn sync(&self, file: File) -> io::Result<()> {
        self.existing(file)?.sync_data()
    }

    fn start_sync(&self, file: File, offset: u64, len: u64) {
        let Some(file) = self.file(file) else { return };
        let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
        // SAFETY: the descriptor is open, and the call touches no memory of ours. What it does not do,
        // the sync will.
        unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn syncer(&self, file: File) -> io::Result<Syncer> {
        let file = Arc::clone(self.existing(file)?);
        Ok(Box::new(move || file.sync_data()))
    }

    fn len(&self, file: File) -> io::Result<u64> {
        self.file(file).map_or(Ok(0), |f| Ok(f.metadata()?.len()))
    }

    fn truncate(&self, file: File, len: u64) -> io::Result<()> {
        self.existing(file)?.set_len(len)
    }

    fn sync_names(&self) -> io::Result<()> {
        OsFile::open(&self.dir)?.sync_all()
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn path(&self, file: File) -> PathBuf {
        self.dir.join(file.name())
    }

    fn belongs_to(&self, lock: &OsFile) -> bool {
        self.lock.is_some() && self.lock == identity(lock)
    }
}
