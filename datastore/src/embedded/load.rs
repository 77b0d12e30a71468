//! Replacing the whole content of a store, also of a damaged one.

use super::checkpoint::{first_header, push_all, write_slot};
use super::disk::{Access, Directory, Disk, File};
use super::header::{self, COPY_AT, Found, Header, LOG_AT, Phase, SECTOR};
use super::room::make_room_for;
use super::slots::Slots;
use super::{Embedded, LAYOUT, MAX_KEY, MAX_LIVE, MAX_VALUE, failed, new_id};
use crate::lock::{Kind, Lock};
use crate::{Deadline, Error, ErrorKind};
use model::store::{Entry, Revision};
use std::io;
use std::path::{Path, PathBuf};

const LOAD: &str = "load store";
/// How far the revision jumps when the damaged store's own cannot be known for sure: nothing
/// that a client remembers may be mistaken for what is loaded now.
const JUMP: Revision = 1 << 20;

impl Embedded {
    /// Replaces the whole content of the store in `dir` (created if missing) at once.
    ///
    /// Every key gets the returned revision, which is higher than any before; those in `entries`
    /// count only for that. A damaged store is kept aside as `a.damaged-N` and `b.damaged-N`
    /// and is refused as `Corrupt` until the load is complete.
    /// Fails with `Invalid` for a key given twice or anything outside the limits, `Full` or
    /// `Denied`; the store is then as it was.
    pub fn load(dir: &Path, mut entries: Vec<Entry>, deadline: Deadline) -> Result<Revision, Error> {
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        check(dir, &entries)?;
        super::create_directory(dir)?;
        let directory = Directory::open(dir, Access::Create).map_err(|e| Error::os(LOAD, dir, &e))?;
        let _lock = Lock::acquire_in_place(&dir.join(File::Mark.name()), Kind::Exclusive, deadline)?;
        if !directory.is_writable() {
            return Err(Error::new(LOAD, dir, ErrorKind::Denied, "the store can only be read"));
        }
        let mut slots = Slots::new(Box::new(directory), LAYOUT);
        match prepare(&mut slots) {
            Ok(()) => slots.replace(&entries),
            Err(error) if error.kind == ErrorKind::Corrupt => rebuild(&mut slots, &entries),
            Err(error) => Err(error),
        }
    }
}

fn check(dir: &Path, entries: &[Entry]) -> Result<(), Error> {
    let refuse =
        |key: &str, what: &str| Err(Error::new(LOAD, dir, ErrorKind::Invalid, format!("key {key:?} {what}")));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].key == pair[1].key) {
        return refuse(&pair[0].key, "is there twice");
    }
    match entries.iter().find(|e| e.key.is_empty() || e.key.len() > MAX_KEY || e.value.len() > MAX_VALUE) {
        Some(entry) => refuse(&entry.key, "or its value is too long, or empty"),
        None => Ok(()),
    }
}

/// Creates the store if there is none; `Corrupt` if any of it is damaged.
fn prepare(slots: &mut Slots) -> Result<(), Error> {
    if slots.is_empty()? {
        slots.format(new_id())?;
    }
    slots.refresh()?;
    slots.keys("").map(drop)
}

/// Builds a new store over a damaged one, whose files are copied aside first.
///
/// The files stay the same ones, so that whoever has them open sees the new content. Slot `a`
/// says that a load is under way until slot `b` is complete.
fn rebuild(slots: &mut Slots, entries: &[Entry]) -> Result<Revision, Error> {
    for file in [File::A, File::B] {
        keep_aside(&slots.disk.path(file)).map_err(|e| failed(&*slots.disk, file, LOAD, &e))?;
    }
    let newest = entries.iter().map(|e| e.revision).max().unwrap_or(0);
    let (generation, revision) = highest(slots)?;
    let generation = generation.saturating_add(2);
    let revision = revision.max(newest).saturating_add(JUMP);
    let live = entries.iter().map(|e| super::record::item_size(&e.key, &e.value)).sum();
    if live > MAX_LIVE {
        return Err(Error::new(LOAD, slots.place(), ErrorKind::Full, "the store is limited to 1 GiB"));
    }
    make_room_for(slots, LOG_AT + slots.layout.log_len, live, slots.layout.reserve)?;
    let disk = &*slots.disk;
    let header = Header { generation, revision, ..first_header(new_id(), slots.layout.log_len) };
    let loading = Header { phase: Phase::Loading, generation: generation - 1, ..header.clone() };
    let marked = disk.write_at(File::A, &loading.encode(), 0).and_then(|()| disk.sync(File::A));
    marked.map_err(|e| failed(disk, File::A, LOAD, &e))?;
    let written = write_slot(disk, File::B, header, |writer| push_all(writer, entries, revision))?;
    slots.flip(File::B, written)?;
    Ok(revision)
}

/// The highest generation and revision that anything readable tells of.
fn highest(slots: &Slots) -> Result<(u64, Revision), Error> {
    let mark = slots.read_mark().map(|m| (m.seed.generation, m.revision));
    let (mut generation, mut revision) = mark.unwrap_or((0, 0));
    for file in [File::A, File::B] {
        for at in [0, COPY_AT] {
            let mut sector = [0; SECTOR];
            let read = slots.disk.read_at(file, &mut sector, at);
            let read = read.map_err(|e| failed(&*slots.disk, file, LOAD, &e))?;
            if let Found::Header(header) = header::read(&sector[..read]) {
                generation = generation.max(header.generation);
                revision = revision.max(header.revision);
            }
        }
    }
    Ok((generation, revision))
}

/// Copies a file to the first free `NAME.damaged-N` beside it.
fn keep_aside(path: &Path) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    let copy = (1..).map(numbered).find(|copy| !copy.exists()).expect("some number is free");
    let copied = std::fs::copy(path, &copy).and_then(|_| std::fs::File::open(&copy)?.sync_all());
    if copied.is_err() {
        drop(std::fs::remove_file(&copy));
    }
    copied
}
