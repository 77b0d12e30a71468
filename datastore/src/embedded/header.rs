//! The first sector of a slot file, and which of the two slots counts.

use super::bytes::Cursor;
use super::disk::File;
use super::frame::Seed;

/// A header is one sector, the unit that a disk writes in whole.
pub(super) const SECTOR: usize = 512;
/// A second copy, read only to salvage a damaged store.
pub(super) const COPY_AT: u64 = 3584;
/// Where the log begins.
pub(super) const LOG_AT: u64 = 4096;
/// Upper bound of a log area.
pub(super) const MAX_LOG: u64 = 16 << 20;

const MAGIC: &[u8; 8] = b"PERCALE\xC5";
/// The versions of a slot's format: number and what it means.
const VERSIONS: [(u32, Format); 2] = [(1, Format::First), (2, Format::Chained)];
const CRC_AT: usize = SECTOR - 4;

/// What a slot's content is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The store's content, unless the other slot has the next generation.
    Active,
    /// Superseded by the next generation in the other slot.
    Retired,
    /// About to be superseded by a load; until then there is no content.
    Loading,
}

/// How the log of a slot is written. The rest is the same in all versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Each commit was synced before the next one was written. Only read: the next commit begins a new slot.
    First,
    /// Commits follow each other by checksum, and say how far the log was synced.
    Chained,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub format: Format,
    pub phase: Phase,
    pub generation: u64,
    /// Chosen when the store was created or loaded.
    pub id: u64,
    /// The store's revision when the snapshot was written.
    pub revision: u64,
    /// Bytes of all records of the snapshot.
    pub live: u64,
    /// Bytes of the log area, which begins at [`LOG_AT`].
    pub log_len: u64,
    /// Where the index frame begins, zero when the snapshot is empty.
    pub index_at: u64,
    /// Where snapshot and index end.
    pub data_end: u64,
}

impl Header {
    pub fn seed(&self) -> Seed {
        Seed { id: self.id, generation: self.generation }
    }

    /// The slot that a store begins with, before any checkpoint.
    pub fn is_first(&self) -> bool {
        self.generation == 1 && self.phase == Phase::Active && self.index_at == 0
    }

    /// Where the log ends and the snapshot begins.
    pub fn data_at(&self) -> u64 {
        LOG_AT + self.log_len
    }

    pub fn encode(&self) -> [u8; SECTOR] {
        let mut out = [0; SECTOR];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&version_of(self.format).to_le_bytes());
        out[12..16].copy_from_slice(&phase_code(self.phase).to_le_bytes());
        let fields =
            [self.generation, self.id, self.revision, self.live, self.log_len, self.index_at, self.data_end];
        for (field, place) in fields.iter().zip(out[16..].chunks_exact_mut(8)) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], format: Format) -> Option<Self> {
        let mut c = Cursor::new(bytes.get(12..)?);
        let header = Self {
            format,
            phase: phase_of(c.u32()?)?,
            generation: c.u64()?,
            id: c.u64()?,
            revision: c.u64()?,
            live: c.u64()?,
            log_len: c.u64()?,
            index_at: c.u64()?,
            data_end: c.u64()?,
        };
        header.is_plausible().then_some(header)
    }

    fn is_plausible(&self) -> bool {
        let log = self.log_len > 0 && self.log_len <= MAX_LOG && self.log_len.is_multiple_of(8);
        let index = self.index_at == 0 || (self.data_at()..self.data_end).contains(&self.index_at);
        log && index && self.data_end >= self.data_at() && self.data_end <= super::MAX_FILE
    }
}

fn version_of(format: Format) -> u32 {
    VERSIONS.iter().find(|(_, f)| *f == format).expect("every format has a version").0
}

fn phase_code(phase: Phase) -> u32 {
    match phase {
        Phase::Active => 1,
        Phase::Retired => 2,
        Phase::Loading => 3,
    }
}

fn phase_of(code: u32) -> Option<Phase> {
    [Phase::Active, Phase::Retired, Phase::Loading].into_iter().find(|p| phase_code(*p) == code)
}

/// What the first sector of a slot file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The file is missing or shorter than a header.
    Absent,
    Zeros,
    Header(Header),
    /// Written by a version that this build does not know.
    Unknown(u32),
    Bad,
}

pub(super) fn read(sector: &[u8]) -> Found {
    if sector.len() < SECTOR {
        return Found::Absent;
    }
    if sector.iter().all(|b| *b == 0) {
        return Found::Zeros;
    }
    let mut c = Cursor::new(sector);
    let sound = c.take(8) == Some(MAGIC.as_slice())
        && sector[CRC_AT..SECTOR] == crc32fast::hash(&sector[..CRC_AT]).to_le_bytes();
    let Some(version) = c.u32().filter(|_| sound) else { return Found::Bad };
    match VERSIONS.iter().find(|(number, _)| *number == version) {
        Some((_, format)) => Header::decode(sector, *format).map_or(Found::Bad, Found::Header),
        None => Found::Unknown(version),
    }
}

/// What the two slots say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Neither slot was ever completed.
    Empty,
    Slot {
        file: File,
        header: Header,
        /// The other slot still calls itself active, because a checkpoint was cut off.
        retire_other: bool,
    },
}

/// Why no slot can be trusted. A doubt is never settled by going back to an older slot: the
/// addresses given since would be given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    Bad(File),
    Unknown(File, u32),
    /// The file is missing or cut short, and it may have been the newer one.
    Lost(File),
    /// The slot was superseded, but its successor is not there.
    Superseded(File),
    /// A load was cut off.
    HalfLoaded(File),
    /// The generations of the two slots do not follow each other.
    Unrelated,
}

pub(super) fn choose(a: Found, b: Found) -> Result<Choice, Doubt> {
    for (file, found) in [(File::A, &a), (File::B, &b)] {
        match found {
            Found::Bad => return Err(Doubt::Bad(file)),
            Found::Unknown(version) => return Err(Doubt::Unknown(file, *version)),
            _ => {}
        }
    }
    match (a, b) {
        (Found::Header(a), Found::Header(b)) => choose_newer(a, b),
        (Found::Header(a), other) => choose_only(File::A, a, &other),
        (other, Found::Header(b)) => choose_only(File::B, b, &other),
        _ => Ok(Choice::Empty),
    }
}

fn choose_newer(a: Header, b: Header) -> Result<Choice, Doubt> {
    let (file, newer, older) = if a.generation > b.generation { (File::A, a, b) } else { (File::B, b, a) };
    if older.generation.checked_add(1) != Some(newer.generation) {
        return Err(Doubt::Unrelated);
    }
    only_active(file, newer, older.phase == Phase::Active)
}

fn choose_only(file: File, header: Header, other: &Found) -> Result<Choice, Doubt> {
    if *other == Found::Absent {
        return Err(Doubt::Lost(file.other()));
    }
    only_active(file, header, false)
}

fn only_active(file: File, header: Header, retire_other: bool) -> Result<Choice, Doubt> {
    match header.phase {
        Phase::Active => Ok(Choice::Slot { file, header, retire_other }),
        Phase::Retired => Err(Doubt::Superseded(file)),
        Phase::Loading => Err(Doubt::HalfLoaded(file)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(phase: Phase, generation: u64) -> Header {
        let data_at = LOG_AT + 4096;
        Header {
            format: Format::Chained,
            phase,
            generation,
            id: 5,
            revision: 9,
            live: 0,
            log_len: 4096,
            index_at: 0,
            data_end: data_at,
        }
    }

    fn found(phase: Phase, generation: u64) -> Found {
        Found::Header(header(phase, generation))
    }

    #[test]
    fn a_header_survives_encoding_and_no_flipped_bit_does() {
        let sector = header(Phase::Active, 4).encode();
        assert_eq!(read(&sector), found(Phase::Active, 4));
        for bit in 0..SECTOR * 8 {
            let mut bad = sector;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bad), Found::Bad, "bit {bit}");
        }
    }

    #[test]
    fn a_version_of_the_future_is_named() {
        let mut sector = header(Phase::Active, 4).encode();
        sector[8] = 9;
        let crc = crc32fast::hash(&sector[..CRC_AT]);
        sector[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read(&sector), Found::Unknown(9));
        assert_eq!(choose(Found::Unknown(9), found(Phase::Active, 1)), Err(Doubt::Unknown(File::A, 9)));
    }

    #[test]
    fn which_slot_counts() {
        use Phase::*;
        let slot = |file, generation, retire_other| {
            Ok(Choice::Slot { file, header: header(Active, generation), retire_other })
        };
        assert_eq!(choose(Found::Absent, Found::Zeros), Ok(Choice::Empty));
        assert_eq!(choose(found(Active, 1), Found::Zeros), slot(File::A, 1, false));
        assert_eq!(choose(found(Active, 2), found(Retired, 1)), slot(File::A, 2, false));
        assert_eq!(choose(found(Active, 2), found(Active, 3)), slot(File::B, 3, true));
        assert_eq!(choose(found(Loading, 2), found(Active, 3)), slot(File::B, 3, false));
    }

    #[test]
    fn no_doubt_is_settled_by_going_back() {
        use Phase::*;
        let doubt = |a, b| choose(a, b).unwrap_err();
        assert_eq!(doubt(found(Active, 1), Found::Bad), Doubt::Bad(File::B));
        assert_eq!(doubt(found(Active, 1), Found::Absent), Doubt::Lost(File::B));
        assert_eq!(doubt(Found::Zeros, found(Retired, 1)), Doubt::Superseded(File::B));
        assert_eq!(doubt(found(Loading, 1), Found::Zeros), Doubt::HalfLoaded(File::A));
        assert_eq!(doubt(found(Active, 1), found(Retired, 3)), Doubt::Unrelated);
        assert_eq!(doubt(found(Active, 2), found(Active, 2)), Doubt::Unrelated);
        assert_eq!(doubt(found(Active, 1), found(Retired, 2)), Doubt::Superseded(File::B));
    }
}
