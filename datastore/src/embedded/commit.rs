//! Writing: append to the log, or a checkpoint into the other slot; and the room for both.

use super::disk::{Disk, File};
use super::frame::{self, Kind};
use super::header::{COPY_AT, Header, LOG_AT, Phase, SECTOR};
use super::record::{self, Item};
use super::slots::{Loaded, Slots};
use super::snapshot::{self, Extent, Writer};
use super::{MAX_COMMIT, MAX_KEY, MAX_LIVE, MAX_VALUE, failed};
use crate::{CommitError, Error, ErrorKind};
use model::store::{Entry, Expect, Revision, Write};
use std::collections::BTreeMap;
use std::io;

const COMMIT: &str = "commit to store";
/// Files grow by zeros written in pieces of this size.
const ZEROS: usize = 64 << 10;

impl Slots {
    /// Applies `writes` if all their conditions hold. Durable when it returns.
    pub fn commit(&mut self, writes: &[Write]) -> Result<Revision, CommitError> {
        self.check_limits(writes)?;
        self.refresh()?;
        if writes.is_empty() {
            self.settle()?;
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
        let fits = frame::size(record::commit_size(writes)) <= loaded.log_left();
        self.make_room(live, change.may_use_reserve)?;
        if fits {
            self.append(writes, revision, live)?;
        } else {
            self.checkpoint(writes, revision)?;
        }
        Ok(revision)
    }

    /// What the written keys are now.
    fn current<'w>(&mut self, writes: &'w [Write]) -> Result<BTreeMap<&'w str, Option<Entry>>, Error> {
        let (loaded, disk) = self.ready()?;
        writes.iter().map(|w| Ok((w.key.as_str(), loaded.get(disk, &w.key)?))).collect()
    }

    pub fn loaded(&self) -> Result<&Loaded, Error> {
        self.loaded
            .as_ref()
            .ok_or_else(|| Error::new(COMMIT, self.place(), ErrorKind::Missing, "there is no store"))
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

    /// Makes a commit durable whose author died before syncing it.
    pub fn settle(&mut self) -> Result<(), Error> {
        let (durable, file) = (self.loaded()?.durable, self.loaded()?.file);
        if !durable {
            self.sync(file)?;
            self.set_mark();
        }
        Ok(())
    }

    /// Completes what dead processes left half done, before anything is built on it.
    ///
    /// So at most one commit is ever unsynced, and a damaged commit with a sound one behind it
    /// is never the result of a power cut.
    fn make_good(&mut self) -> Result<(), Error> {
        self.settle()?;
        match self.loaded()? {
            loaded if loaded.retire_other => self.retire(loaded.file.other()),
            _ => Ok(()),
        }
    }

    /// Notes that all that is loaded is durable. Losing the mark costs a sync later, no more.
    fn set_mark(&mut self) {
        if let Some(loaded) = &mut self.loaded {
            loaded.durable = true;
            let mark = loaded.mark().encode();
            drop(self.disk.write_at(File::Mark, &mark, 0));
        }
    }

    fn append(&mut self, writes: &[Write], revision: Revision, live: u64) -> Result<(), Error> {
        let loaded = self.loaded()?;
        let (file, at) = (loaded.file, loaded.end());
        let mut bytes = Vec::with_capacity(frame::size(record::commit_size(writes)) + frame::HEAD);
        let start = frame::begin(&mut bytes);
        record::push_commit(&mut bytes, revision, live, writes);
        frame::finish(&mut bytes, start, Kind::Log, loaded.header.seed(), at);
        let size = bytes.len();
        // Zeros behind it tell where the log ends, over what a torn commit may have left.
        bytes.resize((size + frame::HEAD).min(loaded.log_left()), 0);
        if let Err(error) = self.put(file, &bytes, at).and_then(|()| self.sync(file)) {
            // Nobody saw it yet, and nobody shall.
            drop(self.disk.write_at(file, &[0; frame::HEAD], at));
            return Err(error);
        }
        let applied = self.loaded.as_mut().and_then(|l| l.apply(&bytes[..size]));
        applied.expect("what was just encoded can be applied");
        self.set_mark();
        Ok(())
    }

    /// Writes the state after `writes` into the other slot, which then becomes the current one.
    fn checkpoint(&mut self, writes: &[Write], revision: Revision) -> Result<(), Error> {
        let (loaded, disk) = self.ready()?;
        let mut layer = loaded.layer("");
        for write in writes {
            layer.insert(&write.key, (revision, write.value.as_deref()));
        }
        let (old, target) = (&loaded.header, loaded.file.other());
        let generation = old.generation + 1;
        let header = next_header(old, generation, revision);
        let written = write_slot(disk, target, header, |writer| {
            loaded.merge(disk, "", &layer, |item| writer.push(item))
        })?;
        self.flip(target, written)
    }

    /// Replaces the whole content by `entries` (in key order, revisions ignored).
    pub fn replace(&mut self, entries: &[Entry]) -> Result<Revision, Error> {
        self.refresh()?;
        self.make_good()?;
        let newest = entries.iter().map(|e| e.revision).max().unwrap_or(0);
        let revision = self.loaded()?.revision.max(newest) + 1;
        let live = entries.iter().map(|e| record::item_size(&e.key, &e.value)).sum();
        self.make_room(live, false)?;
        let (loaded, disk) = self.ready()?;
        let (old, target) = (&loaded.header, loaded.file.other());
        let header = next_header(old, old.generation + 1, revision);
        let written = write_slot(disk, target, header, |writer| push_all(writer, entries, revision))?;
        self.flip(target, written)?;
        Ok(revision)
    }

    /// The other slot has been written and counts from here on.
    pub fn flip(&mut self, target: File, header: Header) -> Result<(), Error> {
        let mut loaded = Loaded::new(target, header);
        loaded.retire_other = true;
        self.loaded = Some(loaded);
        self.set_mark();
        // The commit is durable. What fails here is made good by the next one.
        drop(self.retire(target.other()));
        Ok(())
    }

    /// Marks the slot that a checkpoint superseded, so that it is never taken for the newest
    /// should the newer one be damaged.
    fn retire(&mut self, file: File) -> Result<(), Error> {
        if let super::header::Found::Header(header) = self.read_header(file)?
            && header.phase == Phase::Active
        {
            let header = Header { phase: Phase::Retired, ..header };
            self.put(file, &header.encode(), 0)?;
            self.sync(file)?;
        }
        if let Some(loaded) = &mut self.loaded {
            loaded.retire_other = false;
        }
        Ok(())
    }

    /// As `make_room_for`; on a full disk a commit that does not grow the store needs none.
    fn make_room(&mut self, live: u64, may_use_reserve: bool) -> Result<(), Error> {
        if live > MAX_LIVE {
            return Err(Error::new(COMMIT, self.place(), ErrorKind::Full, "the store is limited to 1 GiB"));
        }
        let loaded = self.loaded()?;
        let reserve = if may_use_reserve { 0 } else { self.layout.reserve };
        let room = make_room_for(self, loaded.header.data_at(), live, reserve);
        if live <= loaded.live { Ok(()) } else { room }
    }

    fn put(&self, file: File, bytes: &[u8], at: u64) -> Result<(), Error> {
        self.disk.write_at(file, bytes, at).map_err(|e| failed(&*self.disk, file, COMMIT, &e))
    }

    fn sync(&self, file: File) -> Result<(), Error> {
        self.disk.sync(file).map_err(|e| failed(&*self.disk, file, COMMIT, &e))
    }

    /// Writes an empty store into blank files.
    pub fn format(&mut self, id: u64) -> Result<(), Error> {
        let data_at = LOG_AT + self.layout.log_len;
        let len = data_at + snapshot::room(0) + self.layout.reserve + self.layout.step;
        let disk = &*self.disk;
        for file in [File::A, File::B] {
            extend_to(disk, file, len, len).map_err(|e| failed(disk, file, "create store", &e))?;
        }
        disk.sync_names().map_err(|e| failed(disk, File::A, "create store", &e))?;
        let header = first_header(id, self.layout.log_len);
        write_slot(disk, File::A, header, |_| Ok(()))?;
        Ok(())
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

fn next_header(old: &Header, generation: u64, revision: Revision) -> Header {
    Header { phase: Phase::Active, generation, revision, ..old.clone() }
}

pub(super) fn first_header(id: u64, log_len: u64) -> Header {
    let (live, index_at, data_end) = (0, 0, LOG_AT + log_len);
    Header { phase: Phase::Active, generation: 1, id, revision: 0, live, log_len, index_at, data_end }
}

pub(super) fn push_all(writer: &mut Writer, entries: &[Entry], revision: Revision) -> Result<(), Error> {
    entries.iter().try_for_each(|e| writer.push(Item { key: &e.key, value: &e.value, revision }))
}

/// Writes a slot so that it counts only once all of it is durable. Returns its header.
pub(super) fn write_slot(
    disk: &dyn Disk,
    file: File,
    header: Header,
    fill: impl FnOnce(&mut Writer) -> Result<(), Error>,
) -> Result<Header, Error> {
    let check = |r: io::Result<()>| r.map_err(|e| failed(disk, file, "write store", &e));
    check(disk.write_at(file, &[0; SECTOR], 0))?;
    let mut writer = Writer::new(disk, file, header.seed(), header.data_at());
    fill(&mut writer)?;
    let Extent { live, index_at, data_end } = writer.finish()?;
    let header = Header { live, index_at, data_end, ..header };
    check(disk.write_at(file, &[0; frame::HEAD], LOG_AT))?;
    check(disk.sync(file))?;
    let written = disk.write_at(file, &header.encode(), 0).and_then(|()| disk.sync(file));
    if let Err(error) = written {
        drop(disk.write_at(file, &[0; SECTOR], 0));
        return Err(failed(disk, file, "write store", &error));
    }
    // Behind the sync: a copy without a header is then always damage, never a cut-off creation.
    drop(disk.write_at(file, &header.encode(), COPY_AT));
    Ok(header)
}

/// Sees to it that both slots have room for entries of `live` bytes, so that every later
/// commit that does not grow them succeeds on a full disk, through checkpoints too.
pub(super) fn make_room_for(slots: &Slots, data_at: u64, live: u64, reserve: u64) -> Result<(), Error> {
    let disk = &*slots.disk;
    let least = data_at + snapshot::room(live) + reserve;
    let generous = (least + slots.layout.step.max(live / 8)).next_multiple_of(4096);
    [File::A, File::B].into_iter().try_for_each(|file| {
        extend_to(disk, file, least, generous).map_err(|e| failed(disk, file, COMMIT, &e))
    })
}

/// Extends `file` with allocated zeros to `generous` bytes, or where the disk is too full, to `least`.
fn extend_to(disk: &dyn Disk, file: File, least: u64, generous: u64) -> io::Result<()> {
    let len = disk.len(file)?;
    if len >= least {
        return Ok(());
    }
    fill_to(disk, file, len, generous).or_else(|_| fill_to(disk, file, len, least))
}

fn fill_to(disk: &dyn Disk, file: File, from: u64, to: u64) -> io::Result<()> {
    let result = write_zeros(disk, file, from, to).and_then(|()| disk.sync(file));
    if result.is_err() {
        drop(disk.truncate(file, from));
    }
    result
}

fn write_zeros(disk: &dyn Disk, file: File, mut from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS];
    while from < to {
        let len = (to - from).min(ZEROS as u64);
        disk.write_at(file, &zeros[..len as usize], from)?;
        from += len;
    }
    Ok(())
}
