//! The current slot as it was read: its log in memory, its snapshot read on demand.

use super::disk::{Disk, File};
use super::frame::{self, Kind, Parsed};
use super::header::{Header, LOG_AT};
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

/// Entries that cover those of the snapshot; `None` is a deleted key.
pub(super) type Layer<'a> = BTreeMap<&'a str, (Revision, Option<&'a [u8]>)>;

/// The current slot.
pub(super) struct Loaded {
    pub file: File,
    pub header: Header,
    /// The other slot's header must still be marked as superseded.
    pub retire_other: bool,
    /// All that was read is known to be on the medium.
    pub durable: bool,
    pub revision: Revision,
    /// Size of all entries, as pages hold them.
    pub live: u64,
    /// The sound frames of the log, as the file holds them from `LOG_AT` on.
    log: Vec<u8>,
    overlay: BTreeMap<String, Logged>,
    index: Option<Index>,
    /// The rest of the log was searched when the log ended here.
    searched: Option<u64>,
}

struct Logged {
    revision: Revision,
    /// The value's place in `Loaded::log`; `None` for a deletion.
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
            durable: false,
            log: Vec::new(),
            overlay: BTreeMap::new(),
            index: None,
            searched: None,
        }
    }

    /// Takes notice of what was appended to the log; returns where it ended before.
    pub fn read_on(&mut self, disk: &dyn Disk, mark: Option<Mark>) -> Result<usize, Error> {
        let from = self.log.len();
        self.read_log(disk, mark)?;
        self.check_end(disk, mark)?;
        Ok(from)
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

    /// What the mark says when all of this is durable.
    pub fn mark(&self) -> Mark {
        Mark { seed: self.header.seed(), end: self.end(), revision: self.revision }
    }

    /// The commits from this offset in the log on.
    pub fn commits(&self, from: usize) -> impl Iterator<Item = Commit<'_>> {
        let mut at = from;
        std::iter::from_fn(move || {
            let place = LOG_AT + at as u64;
            match frame::parse(&self.log[at..], Kind::Log, self.header.seed(), place) {
                Parsed::Frame { payload, size } => {
                    at += size;
                    Commit::decode(payload)
                }
                _ => None,
            }
        })
    }

    /// The entry of `key`.
    pub fn get(&self, disk: &dyn Disk, key: &str) -> Result<Option<Entry>, Error> {
        if let Some(logged) = self.overlay.get(key) {
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
        let range =
            self.overlay.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        range
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, l)| (key.as_str(), (l.revision, l.value.clone().map(|range| &self.log[range]))))
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
            let mut bytes = vec![0; want.min(self.log_left())];
            let read = disk.read_at(self.file, &mut bytes, self.end());
            let read = read.map_err(|e| failed(disk, self.file, READ, &e))?;
            match self.take_frames(disk, &bytes[..read])? {
                Some(more) if read == bytes.len() && more <= self.log_left() => want = more.max(FIRST_READ),
                _ => return Ok(()),
            }
        }
    }

    /// Bytes of the log area that are not used yet.
    pub fn log_left(&self) -> usize {
        (self.header.data_at() - self.end()) as usize
    }

    fn first_read(&self, mark: Option<Mark>) -> usize {
        let vouched = mark.filter(|m| m.seed == self.header.seed()).map(|m| m.end.saturating_sub(self.end()));
        match vouched {
            Some(0) => frame::HEAD,
            Some(len) => len as usize + frame::HEAD,
            None => FIRST_READ,
        }
    }

    /// Applies the sound frames at the start of `bytes`, which follow the log.
    /// Returns how many bytes are needed to go on, `None` where the log ends.
    fn take_frames(&mut self, disk: &dyn Disk, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let mut rest = bytes;
        loop {
            match frame::parse(rest, Kind::Log, self.header.seed(), self.end()) {
                Parsed::Frame { size, .. } => {
                    self.apply(&rest[..size])
                        .ok_or_else(|| damage(disk, self.file, self.end(), "a commit makes no sense"))?;
                    rest = &rest[size..];
                }
                Parsed::Short(size) => return Ok(Some(size)),
                Parsed::End | Parsed::Bad => return Ok(None),
            }
        }
    }

    /// Takes over a sound frame. `None`, and nothing is changed, if its content cannot follow.
    pub fn apply(&mut self, bytes: &[u8]) -> Option<()> {
        let commit = Commit::decode(frame::payload(bytes)?)?;
        if commit.revision.checked_sub(1) != Some(self.revision) || commit.live > super::MAX_LIVE {
            return None;
        }
        let base = self.log.len();
        let place = |value: &[u8]| {
            let start = base + (value.as_ptr() as usize - bytes.as_ptr() as usize);
            start..start + value.len()
        };
        for (key, value) in commit.changes() {
            let logged = Logged { revision: commit.revision, value: value.map(place) };
            self.overlay.insert(key.to_owned(), logged);
        }
        (self.revision, self.live) = (commit.revision, commit.live);
        self.log.extend_from_slice(bytes);
        Some(())
    }

    /// A log that ends early has lost commits: the mark tells, and any sound commit further on.
    fn check_end(&mut self, disk: &dyn Disk, mark: Option<Mark>) -> Result<(), Error> {
        let mark = mark.filter(|m| m.seed.id == self.header.id);
        if let Some(mark) = mark.filter(|m| (m.seed.generation, m.end) > (self.header.generation, self.end()))
        {
            let what = format!("commits up to revision {} are damaged or gone", mark.revision);
            return Err(damage(disk, self.file, self.end(), &what));
        }
        self.durable = mark.is_some_and(|m| m.end == self.end() && m.seed == self.header.seed());
        if !self.durable && self.searched != Some(self.end()) {
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
        match frame::find(&rest[..read], Kind::Log, self.header.seed(), at) {
            None => Ok(()),
            Some(_) => Err(damage(disk, self.file, at, "a commit is damaged, and later ones follow")),
        }
    }
}

pub(super) fn entry(item: Item) -> Entry {
    Entry { key: item.key.to_owned(), value: item.value.to_vec(), revision: item.revision }
}
