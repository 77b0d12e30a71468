//! The pair of slots as seen by one opener: what is current, and reads from it.
//!
//! Nothing here locks; the caller holds the store's lock, shared to read and exclusive to write.

use super::disk::{Disk, File};
use super::frame::{self, Kind, Parsed};
use super::header::{self, Choice, Doubt, Header, LOG_AT, SECTOR};
use super::mark::{self, Mark};
use super::record::{Commit, Item};
use super::snapshot::Index;
use super::{Layout, damage, failed};
use crate::{Error, ErrorKind};
use model::store::{Entry, Revision};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

const READ: &str = "read store";
/// How much of a log is read at first, when nothing tells how long it is.
const FIRST_READ: usize = 64 << 10;

/// Entries that cover those of the snapshot; `None` is a deleted key.
pub(super) type Layer<'a> = BTreeMap<&'a str, (Revision, Option<&'a [u8]>)>;

pub(super) struct Slots {
    pub disk: Box<dyn Disk>,
    pub layout: Layout,
    pub loaded: Option<Loaded>,
}

/// What a refresh found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The log was read on from this offset in `Loaded::log`; it may have nothing new.
    Grown(usize),
    /// Another generation: all has to be read anew.
    Replaced,
}

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

impl Slots {
    pub fn new(disk: Box<dyn Disk>, layout: Layout) -> Self {
        Self { disk, layout, loaded: None }
    }

    /// Neither slot has a header; a first look without the lock.
    pub fn looks_empty(&self) -> Result<bool, Error> {
        let blank = |found| matches!(found, header::Found::Absent | header::Found::Zeros);
        Ok(blank(self.read_header(File::A)?) && blank(self.read_header(File::B)?))
    }

    /// Neither slot was ever completed. Fails where the headers are blank but the files are not.
    pub fn is_empty(&self) -> Result<bool, Error> {
        let empty = self.choose()? == Choice::Empty;
        if empty {
            self.check_blank()?;
        }
        Ok(empty)
    }

    /// Takes notice of what others did since the last call.
    pub fn refresh(&mut self) -> Result<Seen, Error> {
        let Choice::Slot { file, header, retire_other } = self.choose()? else {
            self.loaded = None;
            self.check_blank()?;
            return Err(Error::new("open store", self.place(), ErrorKind::Missing, "there is no store"));
        };
        let known = self.loaded.as_ref().is_some_and(|l| l.file == file && l.header.seed() == header.seed());
        if !known {
            self.loaded = None;
            check_length(&*self.disk, file, &header)?;
            self.loaded = Some(Loaded::new(file, header));
        }
        let mark = self.read_mark();
        let loaded = self.loaded.as_mut().expect("set above");
        loaded.retire_other = retire_other;
        let from = loaded.log.len();
        loaded.read_log(&*self.disk, mark)?;
        loaded.check_end(&*self.disk, mark)?;
        Ok(if known { Seen::Grown(from) } else { Seen::Replaced })
    }

    /// The current slot, with its index. Call `refresh` first.
    pub fn ready(&mut self) -> Result<(&Loaded, &dyn Disk), Error> {
        let disk = &*self.disk;
        let loaded = self
            .loaded
            .as_mut()
            .ok_or_else(|| Error::new(READ, disk.path(File::A), ErrorKind::Missing, "there is no store"))?;
        if loaded.index.is_none() {
            loaded.index = Some(Index::read(disk, loaded.file, &loaded.header)?);
        }
        Ok((loaded, disk))
    }

    pub fn get(&mut self, key: &str) -> Result<Option<Entry>, Error> {
        let (loaded, disk) = self.ready()?;
        loaded.get(disk, key)
    }

    pub fn list(&mut self, prefix: &str) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        self.each(prefix, |item| entries.push(entry(item)))?;
        Ok(entries)
    }

    pub fn keys(&mut self, prefix: &str) -> Result<Vec<String>, Error> {
        let mut keys = Vec::new();
        self.each(prefix, |item| keys.push(item.key.to_owned()))?;
        Ok(keys)
    }

    fn each(&mut self, prefix: &str, mut f: impl FnMut(Item)) -> Result<(), Error> {
        let (loaded, disk) = self.ready()?;
        loaded.merge(disk, prefix, &loaded.layer(prefix), |item| {
            f(item);
            Ok(())
        })
    }

    pub fn read_header(&self, file: File) -> Result<header::Found, Error> {
        let mut sector = [0; SECTOR];
        let read = self.disk.read_at(file, &mut sector, 0);
        let read = read.map_err(|e| failed(&*self.disk, file, READ, &e))?;
        Ok(header::read(&sector[..read]))
    }

    pub fn read_mark(&self) -> Option<Mark> {
        let mut bytes = [0; mark::SIZE];
        let read = self.disk.read_at(File::Mark, &mut bytes, 0).ok()?;
        Mark::decode(&bytes[..read])
    }

    fn choose(&self) -> Result<Choice, Error> {
        let (a, b) = (self.read_header(File::A)?, self.read_header(File::B)?);
        header::choose(a, b).map_err(|doubt| self.doubtful(doubt))
    }

    fn doubtful(&self, doubt: Doubt) -> Error {
        let (file, what) = match doubt {
            Doubt::Bad(file) => (file, "the header is damaged".to_owned()),
            Doubt::Unknown(file, version) => {
                (file, format!("format version {version} is newer than this program; use the newer one"))
            }
            Doubt::Lost(file) => (file, "the file is missing or cut short".to_owned()),
            Doubt::Superseded(file) => (file, "superseded, and its successor is gone".to_owned()),
            Doubt::HalfLoaded(file) => (file, "a load was cut off; load again".to_owned()),
            Doubt::Unrelated => (File::A, "slots a and b do not belong together".to_owned()),
        };
        damage(&*self.disk, file, 0, &what)
    }

    /// Blank headers mean a store that was never completed only if nothing else is there either.
    fn check_blank(&self) -> Result<(), Error> {
        for file in [File::A, File::B] {
            if let Some(at) = first_nonzero(&*self.disk, file)? {
                return Err(damage(&*self.disk, file, at, "there is data under a blank header"));
            }
        }
        match self.read_mark() {
            Some(_) => Err(damage(&*self.disk, File::A, 0, "the store's content is gone")),
            None => Ok(()),
        }
    }

    pub fn place(&self) -> std::path::PathBuf {
        let file = self.disk.path(File::A);
        file.parent().map_or_else(|| file.clone(), std::path::Path::to_owned)
    }
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

fn check_length(disk: &dyn Disk, file: File, header: &Header) -> Result<(), Error> {
    let len = disk.len(file).map_err(|e| failed(disk, file, READ, &e))?;
    if len >= header.data_end {
        return Ok(());
    }
    Err(damage(disk, file, len, &format!("the file is cut short of {} bytes", header.data_end)))
}

fn first_nonzero(disk: &dyn Disk, file: File) -> Result<Option<u64>, Error> {
    let mut chunk = vec![0; FIRST_READ];
    let mut at = 0;
    loop {
        let read = disk.read_at(file, &mut chunk, at).map_err(|e| failed(disk, file, READ, &e))?;
        match chunk[..read].iter().position(|b| *b != 0) {
            Some(found) => return Ok(Some(at + found as u64)),
            None if read < chunk.len() => return Ok(None),
            None => at += read as u64,
        }
    }
}
