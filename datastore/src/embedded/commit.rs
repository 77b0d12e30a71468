//! Commits: conditions, limits, and appending to the log.

use super::disk::File;
use super::frame::{self, Kind};
use super::header::{Format, LOG_AT};
use super::loaded::Loaded;
use super::record;
use super::slots::Slots;
use super::{MAX_COMMIT, MAX_KEY, MAX_VALUE, failed};
use crate::{CommitError, Error, ErrorKind};
use model::store::{Entry, Expect, Revision, Write};
use std::collections::BTreeMap;

pub(super) const COMMIT: &str = "commit to store";

impl Slots {
    /// Applies `writes` if all their conditions hold. Durable when it returns.
    #[cfg(test)]
    pub fn commit(&mut self, writes: &[Write]) -> Result<Revision, CommitError> {
        let revision = self.commit_soon(writes)?;
        self.settle()?;
        Ok(revision)
    }

    /// Applies `writes` if all their conditions hold. Everybody sees them; what makes them durable is
    /// `settle`, or a sync of the file by anyone.
    pub fn commit_soon(&mut self, writes: &[Write]) -> Result<Revision, CommitError> {
        self.check_limits(writes)?;
        self.refresh()?;
        if writes.is_empty() {
            return Ok(self.loaded()?.revision);
        }
        let before = self.current(writes)?;
        let Some(change) = evaluate(writes, &before) else {
            let current = writes.iter().map(|w| (w.key.clone(), before[w.key.as_str()].clone())).collect();
            return Err(CommitError::Conflict { applied: 0, current });
        };
        Ok(self.write(writes, change)?)
    }

    fn write(&mut self, writes: &[Write], change: Change) -> Result<Revision, Error> {
        self.make_good()?;
        let loaded = self.loaded()?;
        let revision = loaded.revision + 1;
        let live = (loaded.live + change.added).saturating_sub(change.removed);
        let fits = self.fits(loaded, writes);
        self.make_room(live, change.may_use_reserve)?;
        if fits {
            self.append(writes, revision, live)?;
        } else {
            self.checkpoint(writes, revision)?;
        }
        Ok(revision)
    }

    /// Whether a commit goes into the log: not once every reader has so much of it to read that writing a
    /// new slot costs less.
    fn fits(&self, loaded: &Loaded, writes: &[Write]) -> bool {
        let size = frame::size(record::commit_size(writes)) as u64;
        let used = loaded.end() - LOG_AT;
        let worn = self.layout.worn.max(4 * loaded.live);
        let is_current = loaded.header.format == Format::Chained;
        is_current && size <= loaded.log_left() as u64 && (used == 0 || used + size <= worn)
    }

    /// What the written keys are now.
    fn current<'w>(&mut self, writes: &'w [Write]) -> Result<BTreeMap<&'w str, Option<Entry>>, Error> {
        let (loaded, disk) = self.ready()?;
        writes.iter().map(|w| Ok((w.key.as_str(), loaded.get(disk, &w.key)?))).collect()
    }

    fn check_limits(&self, writes: &[Write]) -> Result<(), Error> {
        let refuse = |kind, what: &str| Err(Error::new(COMMIT, self.place(), kind, what));
        if !self.disk.is_writable() {
            return refuse(ErrorKind::Denied, "the store can only be read");
        }
        if writes.iter().any(|w| w.key.is_empty() || w.key.len() > MAX_KEY) {
            return refuse(ErrorKind::Invalid, "a key must have 1 to 1024 bytes");
        }
        if writes.iter().any(|w| w.value.as_ref().is_some_and(|v| v.len() > MAX_VALUE)) {
            return refuse(ErrorKind::Invalid, "a value must not exceed 16 MiB");
        }
        if record::commit_size(writes) > MAX_COMMIT {
            return refuse(ErrorKind::Invalid, "a commit must not exceed 64 MiB");
        }
        Ok(())
    }

    /// Makes everything durable that was read.
    pub fn settle(&mut self) -> Result<(), Error> {
        let loaded = self.loaded()?;
        if loaded.is_durable() {
            return Ok(());
        }
        if let Err(error) = self.sync(loaded.file) {
            self.write_again();
            return Err(error);
        }
        if let Some(loaded) = &mut self.loaded {
            loaded.note_durable();
        }
        self.set_mark();
        Ok(())
    }

    /// Lets the kernel begin with what must be synced before the answer.
    pub fn start_sync(&self) {
        if let Some(loaded) = self.loaded.as_ref().filter(|loaded| !loaded.is_durable()) {
            let (at, bytes) = loaded.unsynced();
            self.disk.start_sync(loaded.file, at, bytes.len() as u64);
        }
    }

    /// After a failed sync: the kernel drops what it could not write, and a later sync that succeeds would
    /// vouch for it. Written once more, it is that sync's part again.
    pub fn write_again(&self) {
        if let Some(loaded) = &self.loaded {
            let (at, bytes) = loaded.unsynced();
            drop(self.disk.write_at(loaded.file, bytes, at));
        }
    }

    /// Completes what dead processes left half done, before anything is built on it. The older slot is
    /// given up only once the newer one is known to be durable.
    pub fn make_good(&mut self) -> Result<(), Error> {
        let loaded = self.loaded()?;
        if !loaded.retire_other {
            return Ok(());
        }
        let other = loaded.file.other();
        self.settle()?;
        self.retire(other)
    }

    /// Notes where the log ends and how far it is durable. Losing the mark costs a sync later, no more.
    pub fn set_mark(&self) {
        if let Some(loaded) = &self.loaded {
            drop(self.disk.write_at(File::Mark, &loaded.mark().encode(), 0));
        }
    }

    fn append(&mut self, writes: &[Write], revision: Revision, live: u64) -> Result<(), Error> {
        let loaded = self.loaded()?;
        let (file, at) = (loaded.file, loaded.end());
        let mut bytes = Vec::with_capacity(frame::size(record::commit_size(writes)) + frame::HEAD);
        let start = frame::begin(&mut bytes);
        record::push_commit(&mut bytes, revision, live, loaded.synced_end(), writes);
        let link = frame::finish_after(&mut bytes, start, Kind::Log, loaded.header.seed(), at, loaded.last());
        let size = bytes.len();
        // Zeros behind it tell where the log ends, over what a torn commit may have left.
        bytes.resize((size + frame::HEAD).min(loaded.log_left()), 0);
        if let Err(error) = self.put(file, &bytes, at) {
            // Nobody saw it yet, and nobody shall.
            drop(self.disk.write_at(file, &[0; frame::HEAD], at));
            return Err(error);
        }
        let applied = self.loaded.as_mut().and_then(|l| l.apply(&bytes[..size], link));
        applied.expect("what was just encoded can be applied");
        self.set_mark();
        Ok(())
    }

    pub fn put(&self, file: File, bytes: &[u8], at: u64) -> Result<(), Error> {
        self.disk.write_at(file, bytes, at).map_err(|e| failed(&*self.disk, file, COMMIT, &e))
    }

    pub fn sync(&self, file: File) -> Result<(), Error> {
        self.disk.sync(file).map_err(|e| failed(&*self.disk, file, COMMIT, &e))
    }
}

/// What a commit does to the size of the store.
#[derive(Clone, Copy)]
struct Change {
    added: u64,
    removed: u64,
    /// It deletes a key or creates none: a release must find room where an assignment does not.
    may_use_reserve: bool,
}

/// Checks the conditions in order, each against what the writes before it made; `None` if one fails.
fn evaluate(writes: &[Write], before: &BTreeMap<&str, Option<Entry>>) -> Option<Change> {
    let mut now: BTreeMap<&str, (Option<Revision>, u64)> = BTreeMap::new();
    let mut change = Change { added: 0, removed: 0, may_use_reserve: true };
    let mut creates = false;
    for write in writes {
        let size = |value: &[u8]| record::item_size(&write.key, value);
        let (revision, old) = now.entry(&write.key).or_insert_with(|| {
            let entry = before[write.key.as_str()].as_ref();
            (entry.map(|e| e.revision), entry.map_or(0, |e| size(&e.value)))
        });
        let holds = match write.expect {
            Expect::Any => true,
            Expect::Absent => revision.is_none(),
            Expect::At(wanted) => *revision == Some(wanted),
        };
        if !holds {
            return None;
        }
        creates |= revision.is_none() && write.value.is_some();
        let new = write.value.as_deref().map_or(0, size);
        change.removed += *old;
        change.added += new;
        // A later write to the same key cannot know its revision, which is this commit's.
        (*revision, *old) = (write.value.as_ref().map(|_| Revision::MAX), new);
    }
    change.may_use_reserve = !creates || writes.iter().any(|w| w.value.is_none());
    Some(change)
}
