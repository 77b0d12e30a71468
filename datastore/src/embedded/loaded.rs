//! The current slot as it was read: its log in memory, its snapshot read on demand.

use super::disk::{Disk, File};
use super::frame::{self, Kind, Link, Parsed, Seed};
use super::header::{Format, Header, LOG_AT};
use super::mark::Mark;
use super::record::{Commit, Item};
use super::snapshot::Index;
use super::{READ, damage, failed};
use crate::Error;
use model::store::{Entry, Revision};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

/// How much of a log is read at first, when nothing tells how long it is.
const FIRST_READ: usize = 64 << 10;

/// Room for what a process of one request adds to a log: few blocks are larger.
const OWN_COMMITS: usize = 24 << 10;

/// Entries that cover those of the snapshot; `None` is a deleted key.
pub(super) type Layer<'a> = BTreeMap<&'a str, (Revision, Option<&'a [u8]>)>;

/// The current slot.
pub(super) struct Loaded {
    pub file: File,
    pub header: Header,
    /// The other slot's header must still be marked as superseded.
    pub retire_other: bool,
    /// How far this slot is known to be on the medium; `None`: not even its header.
    synced: Option<Synced>,
    pub revision: Revision,
    /// Size of all entries, as pages hold them.
    pub live: u64,
    /// The sound frames of the log, as the file holds them from `LOG_AT` on.
    log: Vec<u8>,
    /// Checksum of the last frame of the log.
    last: u32,
    /// Every change of the log, in its order: the last one of a key counts.
    changes: Vec<Logged>,
    index: Option<Index>,
    /// The rest of the log was searched when the log ended here.
    searched: Option<u64>,
}

/// The end of a log that is on the medium, and the revision there.
#[derive(Clone, Copy)]
struct Synced {
    end: u64,
    revision: Revision,
}

/// A change, by its places in `Loaded::log`: a process that lives for one commit looks up a few keys
/// among hundreds, so that an index would cost more than it saves.
struct Logged {
    key: Range<usize>,
    revision: Revision,
    /// `None` for a deletion.
    value: Option<Range<usize>>,
}

impl Loaded {
    pub fn new(file: File, header: Header) -> Self {
        Self {
            file,
            revision: header.revision,
            live: header.live,
            header,
            retire_other: false,
            synced: None,
            log: Vec::new(),
            last: 0,
            changes: Vec::new(),
            index: None,
            searched: None,
        }
    }

    /// Takes notice of what was appended to the log.
    pub fn read_on(&mut self, disk: &dyn Disk, mark: Option<Mark>) -> Result<(), Error> {
        self.read_log(disk, mark)?;
        self.check_end(disk, mark)
    }

    /// The slot, and how much of its log was read: see [`Loaded::commits`].
    pub fn place(&self) -> (Seed, usize) {
        (self.header.seed(), self.log.len())
    }

    /// Reads the snapshot's index, unless that was done.
    pub fn read_index(&mut self, disk: &dyn Disk) -> Result<(), Error> {
        if self.index.is_none() {
            self.index = Some(Index::read(disk, self.file, &self.header)?);
        }
        Ok(())
    }

    /// Where the next commit goes in the file.
    pub fn end(&self) -> u64 {
        LOG_AT + self.log.len() as u64
    }

    /// All that was read is known to be on the medium.
    pub fn is_durable(&self) -> bool {
        self.synced.is_some_and(|synced| synced.end >= self.end())
    }

    /// All that was read is on the medium now.
    pub fn note_durable(&mut self) {
        self.note_synced(self.end(), self.revision);
    }

    /// So much of it is.
    pub fn note_synced(&mut self, end: u64, revision: Revision) {
        if self.synced.is_none_or(|known| known.end < end) {
            self.synced = Some(Synced { end, revision });
        }
    }

    /// Where the part of the log begins that is not known to be on the medium.
    pub fn synced_end(&self) -> u64 {
        self.synced.map_or(0, |synced| synced.end)
    }

    /// What the mark should say.
    pub fn mark(&self) -> Mark {
        let Synced { end, revision } = self.synced.unwrap_or(Synced { end: 0, revision: 0 });
        Mark { seed: self.header.seed(), end, revision, written: self.end() }
    }

    /// The part of the log that is not known to be on the medium, and its offset in the file.
    pub fn unsynced(&self) -> (u64, &[u8]) {
        let from = self.synced_end().max(LOG_AT);
        (from, &self.log[(from - LOG_AT) as usize..])
    }

    /// Checksum of the last frame, which the next one must name.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// The commits from this offset in the log on.
    pub fn commits(&self, from: usize) -> impl Iterator<Item = Commit<'_>> {
        let mut at = from;
        std::iter::from_fn(move || {
            let place = LOG_AT + at as u64;
            match frame::parse(&self.log[at..], Kind::Log, self.header.seed(), place) {
                Parsed::Frame { payload, size, .. } => {
                    at += size;
                    Commit::decode(payload, self.header.format)
                }
                _ => None,
            }
        })
    }

    /// The entry of `key`.
    pub fn get(&self, disk: &dyn Disk, key: &str) -> Result<Option<Entry>, Error> {
        let is_key = |logged: &&Logged| self.log[logged.key.clone()] == *key.as_bytes();
        if let Some(logged) = self.changes.iter().rfind(is_key) {
            let value = logged.value.clone();
            return Ok(value.map(|range| Entry {
                key: key.to_owned(),
                value: self.log[range].to_vec(),
                revision: logged.revision,
            }));
        }
        let mut found = None;
        self.scan(disk, key, |item| {
            found = (item.key == key).then(|| entry(item));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// What the log says about keys under `prefix`.
    pub fn layer(&self, prefix: &str) -> Layer<'_> {
        let under = self.changes.iter().filter(|c| self.log[c.key.clone()].starts_with(prefix.as_bytes()));
        under
            .map(|c| {
                let key = std::str::from_utf8(&self.log[c.key.clone()]).expect("checked when it was applied");
                (key, (c.revision, c.value.clone().map(|range| &self.log[range])))
            })
            .collect()
    }

    /// Calls `f` with every entry under `prefix`, in key order: the snapshot's, covered by `layer`.
    pub fn merge(
        &self,
        disk: &dyn Disk,
        prefix: &str,
        layer: &Layer,
        mut f: impl FnMut(Item) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut upper = layer.iter().map(|(key, (revision, value))| (*key, *revision, *value)).peekable();
        let put = |(key, revision, value): (&str, Revision, Option<&[u8]>), f: &mut dyn FnMut(Item) -> _| {
            value.map_or(Ok(()), |value| f(Item { key, value, revision }))
        };
        self.scan(disk, prefix, |item| {
            if !item.key.starts_with(prefix) {
                return Ok(ControlFlow::Break(()));
            }
            while let Some(above) = upper.next_if(|(key, ..)| *key < item.key) {
                put(above, &mut f)?;
            }
            match upper.next_if(|(key, ..)| *key == item.key) {
                Some(above) => put(above, &mut f)?,
                None => f(item)?,
            }
            Ok(ControlFlow::Continue(()))
        })?;
        upper.try_for_each(|above| put(above, &mut f))
    }

    fn scan(
        &self,
        disk: &dyn Disk,
        from: &str,
        f: impl FnMut(Item) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let index = self.index.as_ref().expect("`Slots::ready` reads the index");
        index.scan(disk, self.file, self.header.seed(), from, f)
    }

    /// Reads the log on from where it ended, up to the first thing that is no sound commit.
    fn read_log(&mut self, disk: &dyn Disk, mark: Option<Mark>) -> Result<(), Error> {
        let mut want = self.first_read(mark);
        loop {
            let sound = self.log.len();
            let len = want.min(self.log_left());
            if sound == 0 {
                // With room for what this process commits.
                self.log = vec![0; len + OWN_COMMITS];
                self.log.truncate(len);
            } else {
                self.log.resize(sound + len, 0);
            }
            let read = disk.read_at(self.file, &mut self.log[sound..], LOG_AT + sound as u64);
            self.log.truncate(sound + read.as_ref().unwrap_or(&0));
            let read = read.map_err(|e| failed(disk, self.file, READ, &e))?;
            match self.take_frames(disk, sound)? {
                Some(more) if read == len && more <= self.log_left() => want = more.max(FIRST_READ),
                _ => return Ok(()),
            }
        }
    }

    /// Bytes of the log area that are not used yet.
    pub fn log_left(&self) -> usize {
        (self.header.data_at() - self.end()) as usize
    }

    fn first_read(&self, mark: Option<Mark>) -> usize {
        let end = |mark: Mark| mark.end.max(mark.written).saturating_sub(self.end());
        let vouched = mark.filter(|m| m.seed == self.header.seed()).map(end);
        match vouched {
            Some(0) => frame::HEAD,
            Some(len) => len as usize + frame::HEAD,
            None => FIRST_READ,
        }
    }

    /// Applies the sound frames that `log` holds from `at` on, and cuts off the rest.
    /// Returns how many bytes are needed to go on, `None` where the log ends.
    fn take_frames(&mut self, disk: &dyn Disk, mut at: usize) -> Result<Option<usize>, Error> {
        let more = loop {
            let place = LOG_AT + at as u64;
            let (size, link) = match frame::parse(&self.log[at..], Kind::Log, self.header.seed(), place) {
                Parsed::Frame { size, link, .. } => (size, link),
                Parsed::Short(size) => break Some(size),
                Parsed::End | Parsed::Bad => break None,
            };
            if !self.follows(link) {
                break None;
            }
            if self.take_frame(at, link).is_none() {
                self.log.truncate(at);
                return Err(damage(disk, self.file, place, "a commit makes no sense"));
            }
            at += size;
        };
        self.log.truncate(at);
        Ok(more)
    }

    /// Whether a sound frame is what followed the last one, and no leftover.
    fn follows(&self, link: Link) -> bool {
        self.header.format == Format::First || link.before == self.last
    }

    /// Takes over a sound frame that was just written. `None`, and nothing is changed, if its content
    /// cannot follow.
    pub fn apply(&mut self, bytes: &[u8], link: Link) -> Option<()> {
        let at = self.log.len();
        self.log.extend_from_slice(bytes);
        let taken = self.take_frame(at, link);
        if taken.is_none() {
            self.log.truncate(at);
        }
        taken
    }

    /// Notes the changes of the sound frame at `at` of the log.
    fn take_frame(&mut self, at: usize, link: Link) -> Option<()> {
        let commit = Commit::decode(frame::payload(&self.log[at..])?, self.header.format)?;
        if commit.revision.checked_sub(1) != Some(self.revision) || commit.live > super::MAX_LIVE {
            return None;
        }
        let known = self.changes.len();
        let start = self.log.as_ptr() as usize;
        let place = |part: &[u8]| {
            let at = part.as_ptr() as usize - start;
            at..at + part.len()
        };
        for change in commit.changes() {
            let Some((key, value)) = change else {
                self.changes.truncate(known);
                return None;
            };
            let (key, value) = (place(key.as_bytes()), value.map(place));
            self.changes.push(Logged { key, revision: commit.revision, value });
        }
        (self.revision, self.live, self.last) = (commit.revision, commit.live, link.crc);
        Some(())
    }

    /// A log that ends early has lost commits: the mark tells, and any sound commit further on that
    /// was written when more than this was durable.
    fn check_end(&mut self, disk: &dyn Disk, mark: Option<Mark>) -> Result<(), Error> {
        let mark = mark.filter(|m| m.seed.id == self.header.id);
        if let Some(mark) = mark.filter(|m| (m.seed.generation, m.end) > (self.header.generation, self.end()))
        {
            let what = format!("commits up to revision {} are damaged or gone", mark.revision);
            return Err(damage(disk, self.file, self.end(), &what));
        }
        let mark = mark.filter(|m| m.seed == self.header.seed());
        if let Some(mark) = mark.filter(|m| m.end >= LOG_AT) {
            self.note_synced(mark.end, mark.revision);
        }
        let is_expected = mark.is_some_and(|m| m.end == self.end() || m.written == self.end());
        if !is_expected && self.searched != Some(self.end()) {
            self.search_rest(disk)?;
            self.searched = Some(self.end());
        }
        Ok(())
    }

    fn search_rest(&self, disk: &dyn Disk) -> Result<(), Error> {
        let at = self.end();
        let mut rest = vec![0; self.log_left()];
        let read = disk.read_at(self.file, &mut rest, at);
        let read = read.map_err(|e| failed(disk, self.file, READ, &e))?;
        let mut sound = frame::find_all(&rest[..read], Kind::Log, self.header.seed(), at);
        if sound.any(|place| self.says_more_was_durable(&rest[place..])) {
            return Err(damage(disk, self.file, at, "a commit is damaged, and later ones follow"));
        }
        // Commits that were in flight together: a loss of power kept a later one and not an earlier.
        Ok(())
    }

    fn says_more_was_durable(&self, frame: &[u8]) -> bool {
        let commit = frame::payload(frame).and_then(|payload| Commit::decode(payload, self.header.format));
        commit.is_none_or(|commit| commit.synced.is_none_or(|synced| synced > self.end()))
    }
}

pub(super) fn entry(item: Item) -> Entry {
    Entry { key: item.key.to_owned(), value: item.value.to_vec(), revision: item.revision }
}
