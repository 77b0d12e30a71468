//! A disk for tests: it loses what was not synced, in whole sectors, when the power is cut.

use crate::embedded::Layout;
use crate::embedded::disk::{Disk, File, Syncer};
use crate::embedded::header::SECTOR;
use crate::embedded::slots::Slots;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// Small, so that a few commits fill the log.
pub const LAYOUT: Layout = Layout { log_len: 2048, worn: 1536, reserve: 512, step: 1024 };

/// A seeded source of chance (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What happens at a write or sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies there; a write may have been done in part.
    Kill,
    /// The call fails, nothing is written, the process goes on.
    Fail,
}

#[derive(Clone, Default)]
struct Medium {
    /// What reads see.
    cached: Vec<u8>,
    /// What is on the medium for sure.
    durable: Vec<u8>,
    /// Sectors written since the last sync, in order.
    pending: Vec<(usize, Vec<u8>)>,
}

struct State {
    media: [Medium; 3],
    fuse: Option<(u64, Fault)>,
    dead: bool,
    capacity: u64,
}

/// Clones share the same medium.
#[derive(Clone)]
pub struct Sim(Arc<Mutex<State>>);

impl Sim {
    pub fn new() -> Self {
        let media = [Medium::default(), Medium::default(), Medium::default()];
        Self(Arc::new(Mutex::new(State { media, fuse: None, dead: false, capacity: u64::MAX })))
    }

    /// A disk with an empty store.
    pub fn formatted() -> Self {
        let sim = Self::new();
        sim.slots().format(1).unwrap();
        sim
    }

    /// A new opener of the store on this disk.
    pub fn slots(&self) -> Slots {
        Slots::new(Box::new(self.clone()), LAYOUT)
    }

    /// The `after`-th write or sync from now on meets the fault.
    pub fn arm(&self, after: u64, fault: Fault) {
        self.state().fuse = Some((after, fault));
    }

    /// Ends the fault; what a dead process wrote stays in the cache.
    pub fn restart(&self) {
        let mut state = self.state();
        (state.fuse, state.dead) = (None, false);
    }

    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Cuts the power: of what was not synced, any sectors may be there or not.
    pub fn cut(&self, rng: &mut Rng) {
        self.restart();
        // All, none and every mixture must come up.
        let share = [0, 1, 4, 7, 8][rng.below(5) as usize];
        for medium in &mut self.state().media {
            for (sector, bytes) in std::mem::take(&mut medium.pending) {
                if rng.below(8) < share {
                    overwrite(&mut medium.durable, &bytes, sector * SECTOR);
                }
            }
            medium.cached.clone_from(&medium.durable);
        }
    }

    pub fn bytes(&self, file: File) -> Vec<u8> {
        self.state().media[file as usize].cached.clone()
    }

    pub fn set_bytes(&self, file: File, bytes: Vec<u8>) {
        self.state().media[file as usize] =
            Medium { cached: bytes.clone(), durable: bytes, pending: Vec::new() };
    }

    /// Writes that make the files larger than `total` together fail.
    pub fn limit(&self, total: u64) {
        self.state().capacity = total;
    }

    pub fn total(&self) -> u64 {
        self.state().total()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// Burns the fuse. The answer is how much of a write of `len` bytes is still done, if not all.
    fn tick(&mut self, len: usize) -> io::Result<Option<usize>> {
        if self.dead {
            return Err(io::Error::other("the process is dead"));
        }
        match &mut self.fuse {
            Some((0, Fault::Kill)) => {
                self.dead = true;
                Ok(Some(len / 3))
            }
            Some((0, Fault::Fail)) => {
                self.fuse = None;
                Err(io::Error::other("injected"))
            }
            Some((n, _)) => {
                *n -= 1;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn total(&self) -> u64 {
        self.media.iter().map(|m| m.cached.len() as u64).sum()
    }
}

/// The part of a write that is done when its process is killed: the kernel copies page by page,
/// and we are stricter and tear at sectors, but nothing tears a sector.
fn whole_sectors(offset: usize, part: usize) -> usize {
    ((offset + part) / SECTOR * SECTOR).saturating_sub(offset)
}

fn overwrite(into: &mut Vec<u8>, bytes: &[u8], at: usize) {
    if into.len() < at + bytes.len() {
        into.resize(at + bytes.len(), 0);
    }
    into[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Medium {
    fn write(&mut self, bytes: &[u8], at: usize) {
        overwrite(&mut self.cached, bytes, at);
        for sector in at / SECTOR..(at + bytes.len()).div_ceil(SECTOR) {
            let end = self.cached.len().min((sector + 1) * SECTOR);
            self.pending.push((sector, self.cached[sector * SECTOR..end].to_vec()));
        }
    }

    fn sync(&mut self) {
        self.durable.truncate(self.cached.len());
        for (sector, bytes) in std::mem::take(&mut self.pending) {
            overwrite(&mut self.durable, &bytes, sector * SECTOR);
        }
    }
}

impl Disk for Sim {
    fn read_at(&self, file: File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state();
        let rest = state.media[file as usize].cached.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, file: File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let part = state.tick(bytes.len())?;
        let growth =
            (offset + bytes.len() as u64).saturating_sub(state.media[file as usize].cached.len() as u64);
        if growth > 0 && state.total() + growth > state.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let done = part.map_or(bytes.len(), |part| whole_sectors(offset as usize, part));
        state.media[file as usize].write(&bytes[..done], offset as usize);
        if part.is_some() { Err(io::Error::other("killed")) } else { Ok(()) }
    }

    fn sync(&self, file: File) -> io::Result<()> {
        let mut state = self.state();
        if state.dead {
            return Err(io::Error::other("the process is dead"));
        }
        let ticked = state.tick(0);
        let medium = &mut state.media[file as usize];
        match ticked {
            Ok(None) => medium.sync(),
            Ok(Some(_)) => return Err(io::Error::other("killed")),
            // As the kernel does: what could not be written is not tried again.
            Err(_) => medium.pending.clear(),
        }
        ticked.map(drop)
    }

    fn start_sync(&self, _file: File, _offset: u64, _len: u64) {}

    fn syncer(&self, file: File) -> io::Result<Syncer> {
        let sim = self.clone();
        Ok(Box::new(move || sim.sync(file)))
    }

    fn len(&self, file: File) -> io::Result<u64> {
        Ok(self.state().media[file as usize].cached.len() as u64)
    }

    fn truncate(&self, file: File, len: u64) -> io::Result<()> {
        self.state().media[file as usize].cached.truncate(len as usize);
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
        PathBuf::from("sim").join(file.name())
    }
}
