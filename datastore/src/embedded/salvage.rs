//! Reading what is left of a damaged store, and replacing its content.
//!
//! The slot that a checkpoint superseded still holds the state from which the current snapshot
//! was written. What a damaged page held is therefore taken from there.

use super::disk::{Access, Directory, Disk, File};
use super::frame::{self, Kind as FrameKind, Parsed};
use super::header::{self, COPY_AT, Found, Header, LOG_AT, Phase, SECTOR};
use super::loaded::entry;
use super::record::{self, Change, Commit};
use super::slots::Slots;
use super::{Embedded, LAYOUT, missing};
use crate::lock::{Kind, Lock};
use crate::{Deadline, Error, ErrorKind};
use model::store::{Entry, Revision};
use std::collections::BTreeMap;
use std::path::Path;

/// What could be read of a store, damaged or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// In key order.
    pub entries: Vec<Entry>,
    /// The store's revision, as far as it is known.
    pub revision: Revision,
    /// What could not be read, one line each; empty when the store is sound.
    pub problems: Vec<String>,
}

impl Embedded {
    /// Reads what is readable of the store in `dir` and reports what is not. Changes nothing.
    ///
    /// Fails only where there is no store (`Missing`), it may not be read (`Denied`), or its lock
    /// is busy until the deadline (`Timeout`).
    pub fn dump(dir: &Path, deadline: Deadline) -> Result<Dump, Error> {
        let directory = Directory::open(dir, Access::Read).map_err(|e| Error::os("dump store", dir, &e))?;
        if directory.is_missing() {
            return Err(missing(dir));
        }
        let _lock = match Lock::acquire_in_place(&dir.join(File::Mark.name()), Kind::Shared, deadline) {
            Err(error) if error.kind == ErrorKind::Timeout => return Err(error),
            // A lost lock file must not keep anybody from saving the rest.
            other => other.ok(),
        };
        let mut slots = Slots::new(Box::new(directory), LAYOUT);
        match sound(&mut slots) {
            Ok(dump) => Ok(dump),
            Err(error) if error.kind == ErrorKind::Missing => Err(error),
            Err(error) => Ok(salvage(&*slots.disk, error.to_string())),
        }
    }
}

fn sound(slots: &mut Slots) -> Result<Dump, Error> {
    slots.refresh()?;
    let revision = slots.loaded()?.revision;
    Ok(Dump { entries: slots.list("")?, revision, problems: Vec::new() })
}

/// Reads what is readable of both slots.
pub(super) fn salvage(disk: &dyn Disk, first_problem: String) -> Dump {
    let mut problems = vec![first_problem];
    let mut slots: Vec<Slot> = [File::A, File::B].iter().filter_map(|file| Slot::read(disk, *file)).collect();
    slots.sort_by_key(|s| s.header.generation);
    let (Some(newest), older) = (slots.pop(), slots.pop()) else {
        problems.push("no header is readable, so nothing can be found".into());
        return Dump { problems, ..Dump::default() };
    };
    problems.extend(newest.problems.iter().map(|p| format!("{}: {p}", disk.path(newest.file).display())));
    let older = older.filter(|o| o.header.generation + 1 == newest.header.generation);
    if older.is_none() && newest.header.phase == Phase::Retired {
        problems.push("only a superseded slot is readable: what was written later is missing".into());
    }
    let revision = newest.revision();
    Dump { entries: newest.complete(older, &mut problems), revision, problems }
}

/// What is readable of one slot.
struct Slot {
    file: File,
    header: Header,
    snapshot: BTreeMap<String, Entry>,
    /// Between these keys, exclusively, the snapshot may lack some; `None` is no bound.
    gaps: Vec<(Option<String>, Option<String>)>,
    /// The log's last word on each key.
    log: BTreeMap<String, (Revision, Option<Entry>)>,
    problems: Vec<String>,
}

impl Slot {
    fn read(disk: &dyn Disk, file: File) -> Option<Self> {
        let len = disk.len(file).ok()?.min(super::MAX_FILE);
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        let read = disk.read_at(file, &mut bytes, 0).ok()?;
        bytes.truncate(read);
        let (header, problem) = find_header(&bytes)?;
        let mut slot = Self {
            file,
            header,
            snapshot: BTreeMap::new(),
            gaps: Vec::new(),
            log: BTreeMap::new(),
            problems: problem.into_iter().collect(),
        };
        slot.read_pages(&bytes);
        slot.read_log(&bytes);
        Some(slot)
    }

    fn read_pages(&mut self, bytes: &[u8]) {
        let end = if self.header.index_at == 0 { self.header.data_at() } else { self.header.index_at };
        let mut last = None;
        let mut gap = false;
        for found in frames(bytes, FrameKind::Page, &self.header, self.header.data_at()..end) {
            let items = found.map(|payload| record::items(payload).collect::<Result<Vec<_>, _>>());
            let Ok(Ok(items)) = items else {
                gap = true;
                continue;
            };
            if std::mem::take(&mut gap) {
                self.add_gap(last.take(), items.first().map(|i| i.key.to_owned()));
            }
            last = items.last().map(|i| i.key.to_owned()).or(last);
            self.snapshot.extend(items.into_iter().map(|i| (i.key.to_owned(), entry(i))));
        }
        if gap {
            self.add_gap(last, None);
        }
    }

    fn add_gap(&mut self, after: Option<String>, before: Option<String>) {
        let name = |key: &Option<String>| key.clone().unwrap_or_else(|| "the end".into());
        self.problems.push(format!("entries between {} and {} are damaged", name(&after), name(&before)));
        self.gaps.push((after, before));
    }

    fn read_log(&mut self, bytes: &[u8]) {
        let mut damaged = false;
        let header = self.header.clone();
        for found in frames(bytes, FrameKind::Log, &header, LOG_AT..header.data_at()) {
            let commit = found.ok().and_then(|payload| Commit::decode(payload, header.format));
            let changes = commit.and_then(|commit| commit.changes().collect::<Option<Vec<_>>>());
            match commit.zip(changes) {
                Some((commit, changes)) => {
                    if std::mem::take(&mut damaged) {
                        self.problems
                            .push(format!("commits before revision {} are damaged", commit.revision));
                    }
                    self.apply(commit.revision, changes);
                }
                None => damaged = true,
            }
        }
        if damaged {
            self.problems.push("the last commit is damaged or was never completed".into());
        }
    }

    fn apply(&mut self, revision: Revision, changes: Vec<Change>) {
        for (key, value) in changes {
            let entry = value.map(|v| Entry { key: key.to_owned(), value: v.to_vec(), revision });
            self.log.insert(key.to_owned(), (revision, entry));
        }
    }

    fn revision(&self) -> Revision {
        self.log.values().map(|(revision, _)| *revision).fold(self.header.revision, Revision::max)
    }

    fn in_gap(&self, key: &str) -> bool {
        self.gaps.iter().any(|(after, before)| {
            after.as_deref().is_none_or(|a| key > a) && before.as_deref().is_none_or(|b| key < b)
        })
    }

    /// The entries of this slot, with those of its gaps from the slot that it was written from.
    fn complete(self, older: Option<Slot>, problems: &mut Vec<String>) -> Vec<Entry> {
        let mut all = BTreeMap::new();
        if let Some(older) = older.filter(|_| !self.gaps.is_empty()) {
            let spare = older.complete(None, &mut Vec::new());
            all.extend(spare.into_iter().filter(|e| self.in_gap(&e.key)).map(|e| (e.key.clone(), e)));
            problems.push(format!("{} entries were taken from the superseded slot", all.len()));
        }
        all.extend(self.snapshot);
        for (key, (_, entry)) in self.log {
            match entry {
                Some(entry) => drop(all.insert(key, entry)),
                None => drop(all.remove(&key)),
            }
        }
        all.into_values().collect()
    }
}

/// The header, or where it is damaged its copy, and what to say about that.
fn find_header(bytes: &[u8]) -> Option<(Header, Option<String>)> {
    let sector = |at: usize| bytes.get(at..at + SECTOR).map_or(Found::Absent, header::read);
    let usable = |found| match found {
        Found::Header(header) if header.phase != Phase::Loading => Some(header),
        _ => None,
    };
    if let Some(header) = usable(sector(0)) {
        return Some((header, None));
    }
    let header = usable(sector(COPY_AT as usize))?;
    Some((header, Some("the header is damaged; its copy was used".into())))
}

/// The frames in this range of a file; `Err` stands for one or more damaged ones.
fn frames<'a>(
    bytes: &'a [u8],
    kind: FrameKind,
    header: &Header,
    range: std::ops::Range<u64>,
) -> impl Iterator<Item = Result<&'a [u8], ()>> + use<'a> {
    let seed = header.seed();
    let end = bytes.len().min(range.end as usize);
    let mut at = range.start as usize;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..end).filter(|rest| !rest.is_empty())?;
        if let Parsed::Frame { payload, size, .. } = frame::parse(rest, kind, seed, at as u64) {
            at += size;
            return Some(Ok(payload));
        }
        let next = frame::find(rest, kind, seed, at as u64);
        let blank = rest.iter().all(|b| *b == 0);
        at = next.map_or(end, |n| at + n);
        // Zeros, or what an earlier generation left, are the normal end of a log.
        let is_end = next.is_none() && (blank || rest.starts_with(&[0; frame::HEAD]));
        (!(is_end && kind == FrameKind::Log)).then_some(Err(()))
    })
}
