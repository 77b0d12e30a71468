//! The mark: how far the log is known to be on the medium.
//!
//! It lies in the lock file, is rewritten after each commit and each sync, and is never synced itself, so
//! it costs nothing. What it says to be durable never runs ahead of the medium. It is a hint that may
//! be lost, and where it is there it proves that a log which ends earlier has lost commits.

use super::bytes::Cursor;
use super::frame::Seed;

pub(super) const SIZE: usize = 56;
const MAGIC: &[u8; 8] = b"PERCMARK";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub seed: Seed,
    /// The offset in the slot's file at which the durable part of its log ends.
    pub end: u64,
    /// The store's revision at that point.
    pub revision: u64,
    /// Where the log ended when this was written. A log that ends elsewhere was cut by a loss of power, or
    /// its last author died; then what follows it is searched for commits.
    pub written: u64,
}

impl Mark {
    pub fn encode(&self) -> [u8; SIZE] {
        let mut out = [0; SIZE];
        out[..8].copy_from_slice(MAGIC);
        let fields = [self.seed.id, self.seed.generation, self.end, self.revision, self.written];
        for (field, place) in fields.iter().zip(out[8..].chunks_exact_mut(8)) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..48]);
        out[48..52].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` where there is no sound mark.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor::new(bytes);
        if c.take(8)? != MAGIC {
            return None;
        }
        let seed = Seed { id: c.u64()?, generation: c.u64()? };
        let mark = Self { seed, end: c.u64()?, revision: c.u64()?, written: c.u64()? };
        (c.u32()? == crc32fast::hash(&bytes[..48])).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_encoding_and_damage_makes_it_none() {
        let mark = Mark { seed: Seed { id: 1, generation: 2 }, end: 4096, revision: 3, written: 5000 };
        let bytes = mark.encode();
        assert_eq!(Mark::decode(&bytes), Some(mark));
        assert_eq!(Mark::decode(&bytes[..51]), None);
        let mut bad = bytes;
        bad[20] ^= 4;
        assert_eq!(Mark::decode(&bad), None);
    }
}
