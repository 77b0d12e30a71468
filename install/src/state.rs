//! The installer's records: which set is in place, which was before, which is being put in place,
//! and the contents that could be needed again.
//!
//! `STATE_DIR/install/`: `records.json`, replaced whole by a rename; `contents/SHA256`; `lock`.

use crate::error::FileError;
use crate::observe;
use crate::place;
use crate::plan::{Records, referenced};
use crate::set::{Content, Hash};
use anyhow::{Context as _, Result, bail};
use datastore::Deadline;
use datastore::lock::{Kind, Lock};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another installer may hold the lock.
const PATIENCE: Duration = Duration::from_secs(120);

/// The records' directory.
#[derive(Clone, Debug)]
pub struct State {
    dir: PathBuf,
}

impl State {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Excludes other installers until it is dropped, or its process ends.
    pub fn lock(&self) -> Result<Lock> {
        place::make_dir(&self.contents(), 0o700)?;
        Lock::acquire(&self.dir.join("lock"), Kind::Exclusive, Deadline::after(PATIENCE))
            .context("another percale-install is at work on this node")
    }

    fn contents(&self) -> PathBuf {
        self.dir.join("contents")
    }

    fn records(&self) -> PathBuf {
        self.dir.join("records.json")
    }

    /// # Errors
    /// Records that cannot be read: they say what is ours, so nothing is guessed.
    pub fn read(&self) -> Result<Records> {
        let path = self.records();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Records::default()),
            Err(e) => return Err(FileError::os("read", &path, e).into()),
        };
        serde_json::from_slice(&bytes).with_context(|| {
            format!("{}: damaged; move it away to install as on a fresh node (what was there before is then forgotten)", path.display())
        })
    }

    pub fn write(&self, records: &Records) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(records)?;
        let content = Content { sha256: Hash::of(&bytes), mode: 0o600 };
        Ok(place::place(&self.records(), &mut bytes.as_slice(), &content, false)?)
    }

    /// Contents that are kept.
    pub fn saved(&self) -> BTreeSet<Hash> {
        let entries = fs::read_dir(self.contents()).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.len() == 64).map(Hash).collect()
    }

    /// Keeps the content of a file.
    pub fn save(&self, path: &Path, sha256: &Hash) -> Result<(), FileError> {
        let mut file = File::open(path).map_err(|e| FileError::os("read", path, e))?;
        let content = Content { sha256: sha256.clone(), mode: 0o600 };
        place::place(&self.contents().join(&sha256.0), &mut file, &content, false)
    }

    /// A content that was kept.
    pub fn open(&self, sha256: &Hash) -> Result<File, FileError> {
        let path = self.contents().join(&sha256.0);
        File::open(&path).map_err(|e| FileError::os("read", &path, e))
    }

    /// Lets go of contents that nobody will ask for. What cannot be removed does no harm.
    pub fn clean(&self, records: &Records) {
        let wanted = referenced(records);
        for entry in fs::read_dir(self.contents()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !wanted.contains(&Hash(name)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Forgets everything.
    pub fn forget(&self) -> Result<()> {
        place::remove(&self.records())?;
        let contents = self.contents();
        match fs::remove_dir_all(&contents) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(FileError::os("remove", &contents, e).into())
            }
            _ => Ok(()),
        }
    }

    /// Every content that shall come back must be there before anything goes.
    pub fn require(&self, needed: &BTreeSet<Hash>) -> Result<()> {
        for sha256 in needed {
            let path = self.contents().join(&sha256.0);
            match observe::content(&path)? {
                Some(seen) if seen.sha256 == *sha256 => {}
                _ => bail!(
                    "{}: the content that should come back is not there any more, or damaged",
                    path.display()
                ),
            }
        }
        Ok(())
    }
}
