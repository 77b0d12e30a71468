//! A file that many processes append to and any of them rotates.
//!
//! Who finds the file full tries its `flock`, never waiting: while another process rotates,
//! this one's line goes to the file it has open, which is the one being set aside, so no line
//! is lost. The winner renames the file to `BASE-TIME.EXT` (lumberjack's form) and never onto
//! an existing name; whoever opens the path next creates the new file. A process that opened
//! the old file before and locks it after sees by inode that the path is another file by now.
//!
//! A file may therefore exceed its limit by the lines that were in flight.

use super::stamp;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// When a file is rotated and how much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest size of the file.
    pub bytes: u64,
    /// Rotated files older than this are removed.
    pub age: Duration,
    /// Rotated files kept, the newest ones.
    pub count: usize,
}

#[derive(Debug)]
pub struct Rotation {
    path: PathBuf,
    limits: Limits,
}

impl Rotation {
    pub fn new(path: PathBuf, limits: Limits) -> Self {
        Self { path, limits }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `line` with one write. A rotation that fails does not keep the line from being
    /// written, but is the error that is returned.
    pub fn append(&self, line: &[u8], now: SystemTime) -> io::Result<()> {
        let mut file = self.open()?;
        let mut rotated = Ok(());
        if self.is_full(&file, line.len())? {
            rotated = self.rotate(&file, now);
            file = self.open()?;
        }
        file.write_all(line)?;
        rotated
    }

    fn is_full(&self, file: &File, more: usize) -> io::Result<bool> {
        let meta = file.metadata()?;
        Ok(meta.is_file() && meta.len() > 0 && meta.len().saturating_add(more as u64) > self.limits.bytes)
    }

    fn open(&self) -> io::Result<File> {
        match self.try_open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_directory()?;
                self.try_open()
            }
            result => result,
        }
    }

    /// O_NONBLOCK: a FIFO that nobody reads must not hold up a pod; files ignore it.
    fn try_open(&self) -> io::Result<File> {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(&self.path)
    }

    fn create_directory(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(parent) => DirBuilder::new().recursive(true).mode(0o755).create(parent),
            None => Ok(()),
        }
    }

    /// Sets the file aside, unless another process does or did. The lock ends with `file`.
    fn rotate(&self, file: &File, now: SystemTime) -> io::Result<()> {
        if flock(file, FlockOperation::NonBlockingLockExclusive).is_err() || !self.is_current(file)? {
            return Ok(());
        }
        self.set_aside(now)?;
        self.prune(now)
    }

    /// Whether the path still leads to `file`.
    fn is_current(&self, file: &File) -> io::Result<bool> {
        let ours = file.metadata()?;
        match self.path.metadata() {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Renames the file to the first free name from `now` on; several rotations may fall into
    /// one millisecond.
    fn set_aside(&self, now: SystemTime) -> io::Result<()> {
        let mut result = Ok(());
        for step in 0..1000 {
            result = rename_new(&self.path, &self.rotated(now + Duration::from_millis(step)));
            if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
                break;
            }
        }
        result
    }

    fn rotated(&self, time: SystemTime) -> PathBuf {
        let (prefix, suffix) = self.name_parts();
        self.path.with_file_name(format!("{prefix}{}{suffix}", stamp::file_name(time)))
    }

    /// What stands before and after the time in the names of rotated files: `cni-`, `.log`.
    fn name_parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let suffix = text(self.path.extension());
        let dot = if suffix.is_empty() { "" } else { "." };
        (format!("{}-", text(self.path.file_stem())), format!("{dot}{suffix}"))
    }

    /// Removes rotated files that are too old or too many; other files are left alone.
    fn prune(&self, now: SystemTime) -> io::Result<()> {
        let mut past = self.past()?;
        past.sort_unstable_by(|a, b| b.cmp(a));
        let oldest = now.checked_sub(self.limits.age).unwrap_or(SystemTime::UNIX_EPOCH);
        let kept = past.iter().take(self.limits.count).take_while(|(time, _)| *time >= oldest).count();
        past.iter().skip(kept).try_for_each(|(_, path)| remove(path))
    }

    /// The rotated files and their times.
    fn past(&self) -> io::Result<Vec<(SystemTime, PathBuf)>> {
        let (prefix, suffix) = self.name_parts();
        let mut past = Vec::new();
        for entry in std::fs::read_dir(self.directory())? {
            let entry = entry?;
            let name = entry.file_name();
            let time = name.to_str().and_then(|n| n.strip_prefix(&prefix)?.strip_suffix(&suffix));
            if let Some(time) = time.and_then(stamp::from_file_name) {
                past.push((time, entry.path()));
            }
        }
        Ok(past)
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }
}

/// A rename that fails if `to` exists. File systems without that promise (some network ones)
/// get a plain rename after a look.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if to.symlink_metadata().is_err() => {
            std::fs::rename(from, to)
        }
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
        result => Ok(result?),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_late_does_not_set_the_new_file_aside() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { bytes: 10, age: Duration::MAX, count: usize::MAX };
        let rotation = Rotation::new(dir.path().join("cni.log"), limits);
        rotation.append(b"the first line\n", SystemTime::now()).unwrap();
        let late = rotation.open().unwrap();
        rotation.append(b"the second line\n", SystemTime::now()).unwrap();
        rotation.rotate(&late, SystemTime::now()).unwrap();
        assert_eq!(std::fs::read_to_string(rotation.path()).unwrap(), "the second line\n");
    }
}
