//! The mark: how far the log is known to be on the medium.
//!
//! It lies in the lock file, is rewritten after each sync and is never synced itself, so it
//! costs nothing and never runs ahead of what is durable. It is a hint that may be lost, and
//! where it is there it proves two things: a log that ends earlier has lost commits, and a log
//! that ends later has a commit whose author died before syncing it.

use super::bytes::Cursor;
use super::frame::Seed;

pub(super) const SIZE: usize = 48;
const MAGIC: &[u8; 8] = b"PERCMARK";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub seed: Seed,
    /// The offset in the slot's file at which the durable part of its log ends.
    pub end: u64,
    /// The store's revision at that point.
    pub revision: u64,
}

impl Mark {
    pub fn encode(&self) -> [u8; SIZE] {
        let mut out = [0; SIZE];
        out[..8].copy_from_slice(MAGIC);
        let fields = [self.seed.id, self.seed.generation, self.end, self.revision];
        for (field, place) in fields.iter().zip(out[8..].chunks_exact_mut(8)) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..40]);
        out[40..44].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` where there is no sound mark.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor::new(bytes);
        if c.take(8)? != MAGIC {
            return None;
        }
        let seed = Seed { id: c.u64()?, generation: c.u64()? };
        let mark = Self { seed, end: c.u64()?, revision: c.u64()? };
        (c.u32()? == crc32fast::hash(&bytes[..40])).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_encoding_and_damage_makes_it_none() {
        let mark = Mark { seed: Seed { id: 1, generation: 2 }, end: 4096, revision: 3 };
        let bytes = mark.encode();
        assert_eq!(Mark::decode(&bytes), Some(mark));
        assert_eq!(Mark::decode(&bytes[..43]), None);
        let mut bad = bytes;
        bad[20] ^= 4;
        assert_eq!(Mark::decode(&bad), None);
    }
}
