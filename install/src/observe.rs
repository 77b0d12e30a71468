//! What the disk has.

use crate::error::FileError;
use crate::place::TEMPORARY;
use crate::plan::{Observed, Records, Wish};
use crate::set::{Content, Hash};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const CHUNK: usize = 1 << 20;

/// Hash and permission bits of a file; `None` where there is no regular file.
pub fn content(path: &Path) -> Result<Option<Content>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(FileError::os("read", path, e)),
    };
    let meta = file.metadata().map_err(|e| FileError::os("read", path, e))?;
    if !meta.is_file() {
        return Ok(None);
    }
    Ok(Some(Content { sha256: hash(path, file)?, mode: meta.mode() & 0o7777 }))
}

fn hash(path: &Path, mut file: File) -> Result<Hash, FileError> {
    let mut buffer = vec![0; CHUNK];
    let mut digest = Sha256::new();
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Hash::from_digest(&digest.finalize())),
            Ok(count) => digest.update(&buffer[..count]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(FileError::os("read", path, e)),
        }
    }
}

/// Looks at every path that matters.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn observe(
    wish: &Wish,
    records: &Records,
    swept: &[PathBuf],
    saved: BTreeSet<Hash>,
) -> Result<Observed, FileError> {
    let mut observed = Observed { saved, ..Observed::default() };
    for path in paths(wish, records) {
        if let Some(content) = content(&path)? {
            observed.files.insert(path.clone(), content);
        }
        if let Some(dir) = path.parent().filter(|dir| dir.is_dir()) {
            observed.dirs.insert(dir.to_owned());
        }
    }
    for dir in swept {
        observed.leftovers.extend(leftovers(dir));
    }
    Ok(observed)
}

fn paths(wish: &Wish, records: &Records) -> BTreeSet<PathBuf> {
    let sets = std::iter::once(&records.current).chain(&records.pending);
    let recorded = sets.flat_map(|set| {
        let displaced = set.displaced.iter().map(|gone| gone.path.clone());
        set.files.iter().map(|entry| entry.path.clone()).chain(displaced)
    });
    let wished = wish.files.iter().map(|want| want.path.clone());
    wished.chain(wish.absent.iter().map(|(path, _)| path.clone())).chain(recorded).collect()
}

fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(TEMPORARY));
    ours.map(|entry| entry.path()).collect()
}
