//! Room allocated in advance, so that a full disk stops only what grows the store.

use super::commit::COMMIT;
use super::disk::{Disk, File};
use super::slots::Slots;
use super::{MAX_LIVE, failed, snapshot};
use crate::{Error, ErrorKind};
use std::io;

/// Files grow by zeros written in pieces of this size.
const ZEROS: usize = 64 << 10;

impl Slots {
    /// As `make_room_for`; on a full disk a commit that does not grow the store needs none.
    pub fn make_room(&mut self, live: u64, may_use_reserve: bool) -> Result<(), Error> {
        if live > MAX_LIVE {
            return Err(Error::new(COMMIT, self.place(), ErrorKind::Full, "the store is limited to 1 GiB"));
        }
        let loaded = self.loaded()?;
        let (data_at, grows) = (loaded.header.data_at(), live > loaded.live);
        let reserve = if may_use_reserve { 0 } else { self.layout.reserve };
        if has_room_for(self, data_at, live, reserve)? {
            return Ok(());
        }
        // First, because a sync of new room that fails would drop commits that are not synced yet.
        let room = self.settle().and_then(|()| make_room_for(self, data_at, live, reserve));
        if grows { room } else { Ok(()) }
    }
}

fn has_room_for(slots: &Slots, data_at: u64, live: u64, reserve: u64) -> Result<bool, Error> {
    let least = data_at + snapshot::room(live) + reserve;
    let len = |file| slots.disk.len(file).map_err(|e| failed(&*slots.disk, file, COMMIT, &e));
    Ok(len(File::A)? >= least && len(File::B)? >= least)
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
pub(super) fn extend_to(disk: &dyn Disk, file: File, least: u64, generous: u64) -> io::Result<()> {
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
