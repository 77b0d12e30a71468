//! What frames hold: commits in the log, entries in pages, page references in the index.
//!
//! ```text
//! log    revision u64 | live u64 | synced u64 (not in format version 1) | writes of
//!        key length u16 | value length u32, all ones for a deletion | key | value
//! page   entries of key length u16 | value length u32 | revision u64 | key | value
//! index  pages of key length u16 | frame size u32 | offset u64 | first key
//! ```
//! All numbers are little-endian. `live` is the size of all entries after the commit, as pages
//! would hold them; `synced` is how far the file's log was known to be durable when the commit was written.

use super::bytes::Cursor;
use super::header::Format;
use model::store::{Revision, Write};

const DELETED: u32 = u32::MAX;
const ENTRY_HEAD: u64 = 14;

/// One commit of the log.
#[derive(Clone, Copy)]
pub(super) struct Commit<'a> {
    pub revision: Revision,
    pub live: u64,
    /// `None` in format version 1, whose commits were written only behind durable ones.
    pub synced: Option<u64>,
    writes: &'a [u8],
}

/// A key and what a commit made of it; `None` is a deletion.
pub(super) type Change<'a> = (&'a str, Option<&'a [u8]>);

impl<'a> Commit<'a> {
    pub fn decode(payload: &'a [u8], format: Format) -> Option<Self> {
        let mut c = Cursor::new(payload);
        let (revision, live) = (c.u64()?, c.u64()?);
        let synced = if format == Format::Chained { Some(c.u64()?) } else { None };
        Some(Self { revision, live, synced, writes: c.take(c.left())? })
    }

    /// The changes in order; the last is `None` where the record is malformed.
    pub fn changes(&self) -> impl Iterator<Item = Option<Change<'a>>> + use<'a> {
        let mut rest = Cursor::new(self.writes);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let found = change(&mut rest);
            if found.is_none() {
                rest = Cursor::new(&[]);
            }
            Some(found)
        })
    }
}

fn change<'a>(c: &mut Cursor<'a>) -> Option<Change<'a>> {
    let (key_len, value_len) = (c.u16()?, c.u32()?);
    let key = c.text(key_len.into())?;
    if value_len == DELETED {
        return Some((key, None));
    }
    Some((key, Some(c.take(value_len as usize)?)))
}

pub(super) fn push_commit(out: &mut Vec<u8>, revision: Revision, live: u64, synced: u64, writes: &[Write]) {
    for number in [revision, live, synced] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for write in writes {
        let value_len = write.value.as_ref().map_or(DELETED, |v| length(v));
        push_lengths(out, &write.key, value_len);
        out.extend_from_slice(write.key.as_bytes());
        out.extend_from_slice(write.value.as_deref().unwrap_or_default());
    }
}

/// The payload size of a commit of these writes.
pub(super) fn commit_size(writes: &[Write]) -> usize {
    let bytes = |w: &Write| 6 + w.key.len() + w.value.as_ref().map_or(0, Vec::len);
    24 + writes.iter().map(bytes).sum::<usize>()
}

/// An entry as pages hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item<'a> {
    pub key: &'a str,
    pub value: &'a [u8],
    pub revision: Revision,
}

impl Item<'_> {
    /// Bytes of this entry in a page.
    pub fn size(&self) -> u64 {
        item_size(self.key, self.value)
    }

    pub fn push(&self, out: &mut Vec<u8>) {
        push_lengths(out, self.key, length(self.value));
        out.extend_from_slice(&self.revision.to_le_bytes());
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(self.value);
    }
}

pub(super) fn item_size(key: &str, value: &[u8]) -> u64 {
    ENTRY_HEAD + key.len() as u64 + value.len() as u64
}

/// The entries of a page; the last is an error where the page is malformed.
pub(super) fn items(payload: &[u8]) -> impl Iterator<Item = Result<Item<'_>, Malformed>> {
    let mut c = Cursor::new(payload);
    std::iter::from_fn(move || {
        if c.is_empty() {
            return None;
        }
        let item = item(&mut c).ok_or(Malformed);
        if item.is_err() {
            c = Cursor::new(&[]);
        }
        Some(item)
    })
}

/// A sound frame whose payload makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

fn item<'a>(c: &mut Cursor<'a>) -> Option<Item<'a>> {
    let (key_len, value_len, revision) = (c.u16()?, c.u32()?, c.u64()?);
    Some(Item { revision, key: c.text(key_len.into())?, value: c.take(value_len as usize)? })
}

/// Where a page is and what it begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageRef {
    pub first: String,
    pub at: u64,
    /// Size of the whole frame.
    pub size: u32,
}

impl PageRef {
    pub fn push(&self, out: &mut Vec<u8>) {
        push_lengths(out, &self.first, self.size);
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(self.first.as_bytes());
    }
}

/// The pages of an index in key order, all within `range` of the file.
pub(super) fn pages(payload: &[u8], range: std::ops::Range<u64>) -> Option<Vec<PageRef>> {
    let mut c = Cursor::new(payload);
    let mut pages: Vec<PageRef> = Vec::new();
    let mut from = range.start;
    while !c.is_empty() {
        let (key_len, size, at) = (c.u16()?, c.u32()?, c.u64()?);
        let first = c.text(key_len.into())?.to_owned();
        let in_place = at >= from && at.checked_add(size.into())? <= range.end;
        if !in_place || pages.last().is_some_and(|p| p.first >= first) {
            return None;
        }
        from = at + u64::from(size);
        pages.push(PageRef { first, at, size });
    }
    Some(pages)
}

fn push_lengths(out: &mut Vec<u8>, key: &str, second: u32) {
    let key = u16::try_from(key.len()).expect("keys are bounded by MAX_KEY");
    out.extend_from_slice(&key.to_le_bytes());
    out.extend_from_slice(&second.to_le_bytes());
}

fn length(value: &[u8]) -> u32 {
    u32::try_from(value.len()).expect("values are bounded by MAX_VALUE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::store::Expect;
    use proptest::prelude::*;

    fn write(key: &str, value: Option<&[u8]>) -> Write {
        Write { key: key.into(), expect: Expect::Any, value: value.map(<[u8]>::to_vec) }
    }

    #[test]
    fn a_commit_survives_encoding() {
        let writes = [write("/a", Some(b"1")), write("/b", None), write("/c", Some(b""))];
        let mut out = Vec::new();
        push_commit(&mut out, 7, 99, 4096, &writes);
        assert_eq!(out.len(), commit_size(&writes));
        let commit = Commit::decode(&out, Format::Chained).unwrap();
        assert_eq!((commit.revision, commit.live, commit.synced), (7, 99, Some(4096)));
        let expected: Vec<Change> = vec![("/a", Some(b"1")), ("/b", None), ("/c", Some(b""))];
        assert_eq!(commit.changes().collect::<Option<Vec<_>>>(), Some(expected));
        let cut = Commit::decode(&out[..out.len() - 1], Format::Chained).unwrap();
        assert_eq!(cut.changes().collect::<Vec<_>>()[1..], [Some(("/b", None)), None]);
    }

    #[test]
    fn entries_survive_encoding_and_a_short_page_ends_in_an_error() {
        let list =
            [Item { key: "/a", value: b"1", revision: 3 }, Item { key: "/b", value: b"", revision: 4 }];
        let mut out = Vec::new();
        list.iter().for_each(|item| item.push(&mut out));
        assert_eq!(out.len() as u64, list.iter().map(Item::size).sum::<u64>());
        assert_eq!(items(&out).map(Result::unwrap).collect::<Vec<_>>(), list);
        let cut: Vec<_> = items(&out[..out.len() - 1]).collect();
        assert_eq!(cut, [Ok(list[0]), Err(Malformed)]);
    }

    #[test]
    fn an_index_must_be_in_order_and_in_place() {
        let page = |first: &str, at| PageRef { first: first.into(), at, size: 8 };
        let encode = |list: &[PageRef]| {
            let mut out = Vec::new();
            list.iter().for_each(|p| p.push(&mut out));
            out
        };
        let good = [page("/a", 100), page("/b", 108)];
        assert_eq!(pages(&encode(&good), 100..116).unwrap(), good);
        assert_eq!(pages(&encode(&good), 100..115), None);
        assert_eq!(pages(&encode(&[page("/b", 100), page("/a", 108)]), 100..116), None);
        assert_eq!(pages(&encode(&[page("/a", 108), page("/b", 100)]), 100..116), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for format in [Format::First, Format::Chained] {
                let _ = Commit::decode(&bytes, format).map(|c| c.changes().count());
            }
            items(&bytes).for_each(drop);
            drop(pages(&bytes, 0..1 << 40));
        }
    }
}
