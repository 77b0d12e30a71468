//! One file put in place: written beside its name, synced, executed if it is a plugin, renamed,
//! read back. A crash at any point leaves the file that was there, or the new one.

use crate::error::{FileError, Kind};
use crate::observe;
use crate::set::{Content, Hash};
use crate::verify;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Ends the name of a file that is being written. No runtime reads such a name as a configuration,
/// and the next run removes what a crash left.
pub const TEMPORARY: &str = ".percale-new";

const CHUNK: usize = 1 << 20;

/// Puts `from` at `path`.
///
/// # Errors
/// Each by its kind; the temporary file is gone and the old file in place.
pub fn place(path: &Path, from: &mut dyn Read, content: &Content, plugin: bool) -> Result<(), FileError> {
    if path.is_dir() {
        return Err(FileError::new("replace", path, Kind::InTheWay));
    }
    let temporary = temporary(path);
    let outcome = write(&temporary, from, content)
        .and_then(|()| if plugin { verify::version(&temporary, &name(path)) } else { Ok(()) })
        .and_then(|()| std::fs::rename(&temporary, path).map_err(|e| FileError::os("rename", path, e)));
    if let Err(error) = outcome {
        // The file system may be the very one that fails.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(path)?;
    read_back(path, content)
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn temporary(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}{TEMPORARY}", name(path)))
}

fn write(path: &Path, from: &mut dyn Read, content: &Content) -> Result<(), FileError> {
    let _ = std::fs::remove_file(path);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR);
    let mut file = File::from(file.map_err(|e| FileError::errno("create", path, e))?);
    let written = copy(path, from, &mut file)?;
    if written != content.sha256 {
        return Err(FileError::new("write", path, Kind::Changed));
    }
    let mode = Mode::from_raw_mode(content.mode);
    rustix::fs::fchmod(&file, mode).map_err(|e| FileError::errno("set the mode", path, e))?;
    file.sync_all().map_err(|e| FileError::os("sync", path, e))
}

/// Plain reads and writes: `copy_file_range` fails on odd file systems.
fn copy(path: &Path, from: &mut dyn Read, to: &mut File) -> Result<Hash, FileError> {
    use sha2::{Digest as _, Sha256};
    let mut buffer = vec![0; CHUNK];
    let mut digest = Sha256::new();
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(Hash::from_digest(&digest.finalize())),
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(FileError::os("read what is to be copied to", path, e)),
        };
        digest.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(|e| FileError::os("write", path, e))?;
    }
}

/// The name itself reaches the disk with its directory.
pub fn sync_dir(path: &Path) -> Result<(), FileError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let file = File::open(dir).map_err(|e| FileError::os("open", dir, e))?;
    file.sync_all().map_err(|e| FileError::os("sync", dir, e))
}

fn read_back(path: &Path, content: &Content) -> Result<(), FileError> {
    match observe::content(path)? {
        Some(seen) if seen == *content => Ok(()),
        _ => Err(FileError::new("read back", path, Kind::Changed)),
    }
}

/// Removes a file, and lets the disk know.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_dir(path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(FileError::os("remove", path, e)),
    }
}

/// Makes a directory with those above it.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|e| FileError::os("create the directory", path, e))?;
    sync_dir(path)
}

/// Whoever owns the directory of a plugin could put another in its place.
pub fn check_owner(dir: &Path) -> Result<(), FileError> {
    let Ok(meta) = std::fs::metadata(dir) else { return Ok(()) };
    if !meta.is_dir() {
        return Err(FileError::new("look at the directory", dir, Kind::InTheWay));
    }
    let own = rustix::process::geteuid().as_raw();
    match meta.uid() {
        0 => Ok(()),
        uid if uid == own => Ok(()),
        uid => Err(FileError::new("look at the directory", dir, Kind::WrongOwner { uid })),
    }
}
