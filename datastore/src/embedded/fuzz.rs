//! A door for fuzzing: a store from any bytes, used in every way. No input may panic.

use super::disk::{Disk, File, Syncer};
use super::slots::Slots;
use super::{Layout, frame, header, record, salvage};
use model::store::{Expect, Write};
use std::cell::RefCell;
use std::io;
use std::path::PathBuf;

/// Files never grow beyond this in memory.
const CAPACITY: usize = 8 << 20;
const LAYOUT: Layout = Layout { log_len: 4096, worn: 4096, reserve: 4096, step: 4096 };

/// Opens a store of these two slot files, reads all of it, commits to it and salvages it.
#[doc(hidden)]
pub fn fuzz_open(a: &[u8], b: &[u8]) {
    let memory = Memory { files: [a.to_vec(), b.to_vec(), Vec::new()].map(RefCell::new) };
    let mut slots = Slots::new(Box::new(memory), LAYOUT);
    if slots.refresh().is_ok() {
        drop(slots.list(""));
        drop(slots.get("/key"));
        let write = |key: &str, value| Write { key: key.into(), expect: Expect::Any, value };
        for i in 0..3 {
            let writes = [write("/key", Some(vec![b'x'; 2000])), write(&format!("/key/{i}"), None)];
            drop(slots.commit_soon(&writes));
        }
    }
    salvage::salvage(&*slots.disk, String::new());
}

/// Gives the bytes to every decoder that otherwise lies behind a checksum.
#[doc(hidden)]
pub fn fuzz_records(bytes: &[u8]) {
    for format in [header::Format::First, header::Format::Chained] {
        if let Some(commit) = record::Commit::decode(bytes, format) {
            commit.changes().for_each(drop);
        }
    }
    record::items(bytes).for_each(drop);
    drop(record::pages(bytes, 0..u64::MAX));
    let _ = header::read(bytes);
    let seed = frame::Seed { id: 0, generation: 0 };
    let _ = frame::parse(bytes, frame::Kind::Log, seed, 0);
    frame::find(bytes, frame::Kind::Log, seed, 0);
}

struct Memory {
    files: [RefCell<Vec<u8>>; 3],
}

impl Disk for Memory {
    fn read_at(&self, file: File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.files[file as usize].borrow();
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, file: File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut all = self.files[file as usize].borrow_mut();
        let end = usize::try_from(offset).ok().and_then(|at| at.checked_add(bytes.len()));
        let end = end.filter(|end| *end <= CAPACITY).ok_or(io::ErrorKind::StorageFull)?;
        if all.len() < end {
            all.resize(end, 0);
        }
        all[end - bytes.len()..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self, _file: File) -> io::Result<()> {
        Ok(())
    }

    fn start_sync(&self, _file: File, _offset: u64, _len: u64) {}

    fn syncer(&self, _file: File) -> io::Result<Syncer> {
        Ok(Box::new(|| Ok(())))
    }

    fn len(&self, file: File) -> io::Result<u64> {
        Ok(self.files[file as usize].borrow().len() as u64)
    }

    fn truncate(&self, file: File, len: u64) -> io::Result<()> {
        self.files[file as usize].borrow_mut().truncate(len as usize);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn belongs_to(&self, _lock: &std::fs::File) -> bool {
        true
    }

    fn path(&self, file: File) -> PathBuf {
        PathBuf::from("memory").join(file.name())
    }
}
