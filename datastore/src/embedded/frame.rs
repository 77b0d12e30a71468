//! Frames: the checksummed unit in which log records, pages and the index are stored.
//!
//! ```text
//! kind u32 | length of payload u32 | crc u32 | before u32 | payload | zeros up to a multiple of 8
//! ```
//! `before` is the checksum of the log's previous frame, zero for the first one and outside of logs: what a
//! loss of power left behind a torn commit never follows upon another one.
//!
//! The checksum also covers the store's id, the generation and the frame's place in the file, so
//! that what an earlier generation left in a reused file is never taken for something current.

use super::bytes::Cursor;

pub(super) const HEAD: usize = 16;
pub(super) const ALIGN: usize = 8;

/// What a frame holds. The values contain bytes that no JSON text has, so that a search for
/// frames does not stumble over stored values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Log = 0xFFC5_010A,
    Page = 0xFFC5_020B,
    Index = 0xFFC5_030C,
}

/// What ties a frame to one generation of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seed {
    pub id: u64,
    pub generation: u64,
}

/// What joins the frames of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// Checksum of the frame before.
    pub before: u32,
    /// This frame's own.
    pub crc: u32,
}

/// What was found where a frame may begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// A sound frame that takes `size` bytes.
    Frame {
        payload: &'a [u8],
        size: usize,
        link: Link,
    },
    /// Zeros: nothing was written here.
    End,
    /// The frame claims to be this long, more than the bytes at hand.
    Short(usize),
    Bad,
}

/// The stored size of a frame with this payload.
pub(super) fn size(payload: usize) -> usize {
    HEAD + payload.next_multiple_of(ALIGN)
}

/// Reserves a frame's head at the end of `out`; the payload follows, then `finish`.
pub(super) fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    start
}

/// Completes the frame that began at `start` of `out` and will be stored at `offset` of its file.
pub(super) fn finish(out: &mut Vec<u8>, start: usize, kind: Kind, seed: Seed, offset: u64) {
    finish_after(out, start, kind, seed, offset, 0);
}

/// As `finish`, for a frame of a log: `before` is the checksum of the one before it.
pub(super) fn finish_after(
    out: &mut Vec<u8>,
    start: usize,
    kind: Kind,
    seed: Seed,
    offset: u64,
    before: u32,
) -> Link {
    let len = out.len() - start - HEAD;
    out.resize(start + size(len), 0);
    let len = u32::try_from(len).expect("commits and values are bounded far below 4 GiB");
    let crc = checksum(kind, seed, offset, len, before, &out[start + HEAD..]);
    out[start..start + 4].copy_from_slice(&(kind as u32).to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
    out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
    out[start + 12..start + 16].copy_from_slice(&before.to_le_bytes());
    Link { before, crc }
}

/// Reads the frame at the start of `bytes`, which lie at `offset` of their file.
pub(super) fn parse(bytes: &[u8], kind: Kind, seed: Seed, offset: u64) -> Parsed<'_> {
    let Some((found, len, crc, before)) = head(bytes) else { return Parsed::Short(HEAD) };
    if (found, len, crc, before) == (0, 0, 0, 0) {
        return Parsed::End;
    }
    if found != kind as u32 || (before != 0 && kind != Kind::Log) {
        return Parsed::Bad;
    }
    let size = size(len as usize);
    let Some(padded) = bytes.get(HEAD..size) else { return Parsed::Short(size) };
    if checksum(kind, seed, offset, len, before, padded) != crc {
        return Parsed::Bad;
    }
    Parsed::Frame { payload: &padded[..len as usize], size, link: Link { before, crc } }
}

/// The payload of a frame that is known to be sound.
pub(super) fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let (_, len, ..) = head(bytes)?;
    bytes.get(HEAD..HEAD + len as usize)
}

fn head(bytes: &[u8]) -> Option<(u32, u32, u32, u32)> {
    let mut c = Cursor::new(bytes);
    Some((c.u32()?, c.u32()?, c.u32()?, c.u32()?))
}

/// Without `before` it is the checksum of format version 1.
fn checksum(kind: Kind, seed: Seed, offset: u64, len: u32, before: u32, padded: &[u8]) -> u32 {
    let mut place = [0; 32];
    place[..8].copy_from_slice(&seed.id.to_le_bytes());
    place[8..16].copy_from_slice(&seed.generation.to_le_bytes());
    place[16..24].copy_from_slice(&offset.to_le_bytes());
    place[24..28].copy_from_slice(&(kind as u32).to_le_bytes());
    place[28..].copy_from_slice(&len.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.update(&place);
    hasher.update(padded);
    hasher.finalize()
}

/// The offset in `bytes` of the first sound frame, at multiples of [`ALIGN`]. `bytes` lie at `offset`.
pub(super) fn find(bytes: &[u8], kind: Kind, seed: Seed, offset: u64) -> Option<usize> {
    find_all(bytes, kind, seed, offset).next()
}

/// As `find`, one after the other.
pub(super) fn find_all(
    bytes: &[u8],
    kind: Kind,
    seed: Seed,
    offset: u64,
) -> impl Iterator<Item = usize> + use<'_> {
    let magic = (kind as u32).to_le_bytes();
    (0..bytes.len()).step_by(ALIGN).filter(move |&at| {
        bytes[at..].starts_with(&magic)
            && matches!(parse(&bytes[at..], kind, seed, offset + at as u64), Parsed::Frame { .. })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Seed = Seed { id: 7, generation: 3 };

    fn frame(payload: &[u8], offset: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let start = begin(&mut out);
        out.extend_from_slice(payload);
        finish(&mut out, start, Kind::Log, SEED, offset);
        out
    }

    #[test]
    fn a_frame_is_found_only_where_it_was_written() {
        let bytes = frame(b"hello", 64);
        assert_eq!(bytes.len(), size(5));
        let found = parse(&bytes, Kind::Log, SEED, 64);
        assert!(matches!(found, Parsed::Frame { payload: b"hello", size: 24, .. }), "{found:?}");
        assert_eq!(parse(&bytes, Kind::Log, SEED, 72), Parsed::Bad);
        assert_eq!(parse(&bytes, Kind::Page, SEED, 64), Parsed::Bad);
        let older = Seed { generation: 2, ..SEED };
        assert_eq!(parse(&bytes, Kind::Log, older, 64), Parsed::Bad);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        begin(&mut bytes);
        bytes.extend_from_slice(b"hello");
        finish_after(&mut bytes, 0, Kind::Log, SEED, 0, 77);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = parse(&bad, Kind::Log, SEED, 0);
            assert!(!matches!(found, Parsed::Frame { .. }), "bit {bit}: {found:?}");
        }
    }

    #[test]
    fn a_search_finds_the_next_frame_behind_garbage() {
        let mut bytes = vec![0xAA; 16];
        bytes.extend(frame(b"x", 4096 + 16));
        assert_eq!(find(&bytes, Kind::Log, SEED, 4096), Some(16));
        assert_eq!(find(&bytes[..24], Kind::Log, SEED, 4096), None);
    }
}
