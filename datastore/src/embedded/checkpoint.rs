//! Writing a whole slot: checkpoints, replacing all content, creating a store.

use super::disk::{Disk, File};
use super::failed;
use super::frame;
use super::header::{COPY_AT, Format, Found, Header, LOG_AT, Phase, SECTOR};
use super::loaded::Loaded;
use super::mark::Mark;
use super::record::{self, Item};
use super::room::extend_to;
use super::slots::Slots;
use super::snapshot::{self, Extent, Writer};
use crate::Error;
use model::store::{Entry, Revision, Write};
use std::io;

impl Slots {
    /// Writes the state after `writes` into the other slot, which then becomes the current one.
    pub fn checkpoint(&mut self, writes: &[Write], revision: Revision) -> Result<(), Error> {
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
        loaded.note_durable();
        self.loaded = Some(loaded);
        self.set_mark();
        // The commit is durable. What fails here is made good by the next one.
        drop(self.retire(target.other()));
        Ok(())
    }

    /// Marks the slot that a checkpoint superseded, so that it is never taken for the newest
    /// should the newer one be damaged.
    pub fn retire(&mut self, file: File) -> Result<(), Error> {
        if let Found::Header(header) = self.read_header(file)?
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
        let mark = Mark { seed: header.seed(), end: LOG_AT, revision: header.revision, written: LOG_AT };
        write_slot(disk, File::A, header, |_| Ok(()))?;
        // Spares readers of a store that is never written, such as the journal, a search for commits.
        drop(disk.write_at(File::Mark, &mark.encode(), 0));
        Ok(())
    }
}

fn next_header(old: &Header, generation: u64, revision: Revision) -> Header {
    Header { format: Format::Chained, phase: Phase::Active, generation, revision, ..old.clone() }
}

pub(super) fn first_header(id: u64, log_len: u64) -> Header {
    let (live, index_at, data_end) = (0, 0, LOG_AT + log_len);
    let (format, phase) = (Format::Chained, Phase::Active);
    Header { format, phase, generation: 1, id, revision: 0, live, log_len, index_at, data_end }
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
