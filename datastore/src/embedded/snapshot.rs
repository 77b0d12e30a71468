//! The snapshot of a slot: sorted entries in pages, and an index of the pages.

use super::disk::{Disk, File};
use super::frame::{self, Kind, Parsed, Seed};
use super::header::Header;
use super::record::{self, Item, PageRef};
use super::{damage, failed};
use crate::Error;
use std::cell::Cell;
use std::ops::ControlFlow;

/// A page is closed when it holds at least this much.
pub(super) const PAGE: usize = 16 << 10;
/// A page of this length is kept until another one is read: 64 KiB, which only large values exceed.
const KEPT: usize = 64 << 10;
const SENSELESS: &str = "a page makes no sense";
/// The writer hands this much to the disk at a time.
const CHUNK: usize = 256 << 10;
/// What a page and its place in the index take beside the entries, at most.
const PAGE_EXTRA: u64 = (super::MAX_KEY + 64) as u64;

/// The room that snapshot and index take, at most, for entries of `live` bytes together.
pub(super) fn room(live: u64) -> u64 {
    live + (live / PAGE as u64 + 2) * PAGE_EXTRA
}

/// The pages of a snapshot.
#[derive(Default)]
pub(super) struct Index {
    pages: Vec<PageRef>,
    /// What was read last, which a plan's next query is often about too. A snapshot never changes.
    last: Cell<Option<Page>>,
}

struct Page {
    at: u64,
    payload: Vec<u8>,
}

impl Index {
    pub fn read(disk: &dyn Disk, file: File, header: &Header) -> Result<Self, Error> {
        if header.index_at == 0 {
            return Ok(Self::default());
        }
        let size = (header.data_end - header.index_at) as usize;
        let payload = read_frame(disk, file, header.seed(), Kind::Index, header.index_at, size)?;
        let pages = record::pages(&payload, header.data_at()..header.index_at)
            .ok_or_else(|| damage(disk, file, header.index_at, "the index makes no sense"))?;
        Ok(Self { pages, last: Cell::default() })
    }

    /// Calls `f` for every entry from the first with `key >= from` on, in key order, until it breaks.
    pub fn scan(
        &self,
        disk: &dyn Disk,
        file: File,
        seed: Seed,
        from: &str,
        mut f: impl FnMut(Item) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let after = self.pages.partition_point(|p| p.first.as_str() <= from);
        for place in &self.pages[after.saturating_sub(1)..] {
            let page = self.page(disk, file, seed, place)?;
            let broke = each(&page.payload, from, &mut f, || damage(disk, file, page.at, SENSELESS))?;
            if page.payload.len() <= KEPT {
                self.last.set(Some(page));
            }
            if broke.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn page(&self, disk: &dyn Disk, file: File, seed: Seed, place: &PageRef) -> Result<Page, Error> {
        match self.last.take().filter(|page| page.at == place.at) {
            Some(page) => Ok(page),
            None => {
                let payload = read_frame(disk, file, seed, Kind::Page, place.at, place.size as usize)?;
                Ok(Page { at: place.at, payload })
            }
        }
    }
}

/// The entries of a page from the first with `key >= from` on.
fn each(
    payload: &[u8],
    from: &str,
    f: &mut impl FnMut(Item) -> Result<ControlFlow<()>, Error>,
    senseless: impl Fn() -> Error,
) -> Result<ControlFlow<()>, Error> {
    for item in record::items(payload) {
        let item = item.map_err(|_| senseless())?;
        if item.key >= from && f(item)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn read_frame(
    disk: &dyn Disk,
    file: File,
    seed: Seed,
    kind: Kind,
    at: u64,
    size: usize,
) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; size];
    let read = disk.read_at(file, &mut bytes, at).map_err(|e| failed(disk, file, "read store", &e))?;
    match frame::parse(&bytes[..read], kind, seed, at) {
        Parsed::Frame { payload, size: found, .. } if found == size => {
            let len = payload.len();
            bytes.drain(..frame::HEAD);
            bytes.truncate(len);
            Ok(bytes)
        }
        _ => Err(damage(disk, file, at, "checksum mismatch")),
    }
}

/// Where a written snapshot ended up.
pub(super) struct Extent {
    pub live: u64,
    pub index_at: u64,
    pub data_end: u64,
}

/// Writes a snapshot, entry by entry in key order.
pub(super) struct Writer<'d> {
    disk: &'d dyn Disk,
    file: File,
    seed: Seed,
    /// Where `out` goes in the file.
    at: u64,
    /// Finished frames, then the page in work.
    out: Vec<u8>,
    /// Where the page in work begins in `out`.
    page: Option<(usize, String)>,
    index: Vec<u8>,
    live: u64,
}

impl<'d> Writer<'d> {
    pub fn new(disk: &'d dyn Disk, file: File, seed: Seed, at: u64) -> Self {
        Self { disk, file, seed, at, out: Vec::new(), page: None, index: Vec::new(), live: 0 }
    }

    pub fn push(&mut self, item: Item) -> Result<(), Error> {
        let out = &mut self.out;
        let (start, _) = self.page.get_or_insert_with(|| (frame::begin(out), item.key.to_owned()));
        let start = *start;
        item.push(&mut self.out);
        self.live += item.size();
        if self.out.len() - start - frame::HEAD >= PAGE {
            self.close_page();
        }
        if self.page.is_none() && self.out.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<Extent, Error> {
        self.close_page();
        let index_at = self.at + self.out.len() as u64;
        if self.index.is_empty() {
            return Ok(Extent { live: 0, index_at: 0, data_end: index_at });
        }
        let start = frame::begin(&mut self.out);
        self.out.append(&mut self.index);
        frame::finish(&mut self.out, start, Kind::Index, self.seed, index_at);
        let data_end = self.at + self.out.len() as u64;
        self.flush()?;
        Ok(Extent { live: self.live, index_at, data_end })
    }

    fn close_page(&mut self) {
        let Some((start, first)) = self.page.take() else { return };
        let at = self.at + start as u64;
        frame::finish(&mut self.out, start, Kind::Page, self.seed, at);
        let size = u32::try_from(self.out.len() - start).expect("values are bounded by MAX_VALUE");
        PageRef { first, at, size }.push(&mut self.index);
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.disk
            .write_at(self.file, &self.out, self.at)
            .map_err(|e| failed(self.disk, self.file, "write store", &e))?;
        self.at += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }
}
