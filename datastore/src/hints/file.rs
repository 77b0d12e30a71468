//! The files: `lists` and `full`, each one line with a checksum and then JSON. Whoever finds one that is
//! damaged, of another store or another boot has found nothing.
//!
//! ```text
//! percale 1 CRC32(of what follows, 8 hex digits)\n
//! {"store": IDENTITY, "boot": ID, "of": {PREFIX: {"at_ms": MS, "keys": [KEY, ..]}}}
//! {"store": IDENTITY, "full": {PREFIX: {REST OF THE KEY: REVISION}}}
//! ```

use model::store::Revision;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

const LISTS: &str = "lists";
const FULL: &str = "full";
const MAGIC: &str = "percale 1 ";
/// Longest file that is read or written: an index of 100,000 blocks.
const MAX_BYTES: u64 = 4 << 20;

/// What was listed, and when by the boot's clock.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lists {
    pub store: String,
    pub boot: String,
    pub of: BTreeMap<String, List>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    pub at_ms: u64,
    pub keys: Vec<String>,
}

/// Keys of blocks that were seen full, each with its revision then.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Index {
    pub store: String,
    pub full: BTreeMap<String, Revision>,
}

/// An index as it is stored: by what keys have in common.
#[derive(Serialize, Deserialize)]
struct Grouped {
    store: String,
    full: BTreeMap<String, BTreeMap<String, Revision>>,
}

pub(super) fn read_lists(dir: &Path, store: &str, boot: &str) -> Lists {
    let read = read(&dir.join(LISTS)).and_then(|bytes| decode_lists(&bytes));
    let ours = read.filter(|lists| lists.store == store && lists.boot == boot && !boot.is_empty());
    ours.unwrap_or_else(|| Lists { store: store.to_owned(), boot: boot.to_owned(), of: BTreeMap::new() })
}

pub(super) fn write_lists(dir: &Path, lists: &Lists) {
    write(dir, LISTS, &framed(lists));
}

pub(super) fn read_index(dir: &Path, store: &str) -> BTreeMap<String, Revision> {
    let read = read(&dir.join(FULL)).and_then(|bytes| decode_index(&bytes));
    read.filter(|index| index.store == store).map(|index| index.full).unwrap_or_default()
}

pub(super) fn write_index(dir: &Path, index: &Index) {
    let mut grouped = Grouped { store: index.store.clone(), full: BTreeMap::new() };
    for (key, revision) in &index.full {
        let (prefix, rest) = key.split_at(key.rfind('/').map_or(0, |slash| slash + 1));
        grouped.full.entry(prefix.to_owned()).or_default().insert(rest.to_owned(), *revision);
    }
    write(dir, FULL, &framed(&grouped));
}

/// What the bytes of a file `lists` say, if they are whole.
pub fn decode_lists(bytes: &[u8]) -> Option<Lists> {
    unframed(bytes)
}

/// What the bytes of a file `full` say, if they are whole.
pub fn decode_index(bytes: &[u8]) -> Option<Index> {
    let Grouped { store, full } = unframed(bytes)?;
    let keys = |(prefix, blocks): (String, BTreeMap<String, Revision>)| {
        blocks.into_iter().map(move |(rest, revision)| (format!("{prefix}{rest}"), revision))
    };
    Some(Index { store, full: full.into_iter().flat_map(keys).collect() })
}

fn framed(value: &impl Serialize) -> Vec<u8> {
    frame(&serde_json::to_vec(value).expect("maps of strings and numbers can be written"))
}

/// A whole file with this JSON.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{MAGIC}{:08x}\n", crc32fast::hash(body)).into_bytes();
    bytes.extend(body);
    bytes
}

fn unframed<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (checksum, body) = bytes.strip_prefix(MAGIC.as_bytes())?.split_at_checked(9)?;
    let told = u32::from_str_radix(std::str::from_utf8(checksum).ok()?.trim_end(), 16).ok()?;
    (told == crc32fast::hash(body)).then(|| serde_json::from_slice(body).ok()).flatten()
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let is_small = fs::metadata(path).ok()?.len() <= MAX_BYTES;
    is_small.then(|| fs::read(path).ok()).flatten()
}

/// In place of what is there, at once. Two writers at a time may spoil the new file; the checksum tells.
fn write(dir: &Path, name: &str, bytes: &[u8]) {
    if bytes.len() as u64 > MAX_BYTES {
        return;
    }
    let new = dir.join(format!("{name}.new"));
    let open = || fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let made = open().or_else(|_| {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        open()
    });
    let written = made.and_then(|mut file| file.write_all(bytes));
    let _ = written.and_then(|()| fs::rename(&new, dir.join(name)));
}
