//! `store dump` and `store load`: everything in the store as JSON. Of a cluster's store only what is Calico's
//! and ours; what the cluster itself keeps (its nodes and pods) is shown, and not written back.
//!
//! ```json
//! {"format": "percale-store/1", "revision": 7, "entries": [
//!   {"key": "/calico/...", "revision": 3, "value": {...}},
//!   {"key": "/percale/...", "revision": 4, "text": "not JSON"},
//!   {"key": "/percale/...", "revision": 5, "hex": "00ff"}]}
//! ```
//! A value stands in the file exactly as it is stored where it is JSON, else as text, else as bytes.

use crate::cli::LoadArgs;
use crate::documents::read_text;
use crate::outcome::{Outcome, say, say_error, usage};
use crate::session::{Places, explain, store_deadline};
use anyhow::{Context, Result, anyhow, bail};
use datastore::embedded::{Embedded, Mode};
use datastore::{ErrorKind, Store};
use model::store::{Entry, Expect, Write};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;

const FORMAT: &str = "percale-store/1";
/// Largest dump that is read back, in bytes. 20,000 leases take about 10 MiB.
const MAX_DUMP: u64 = 1 << 30;

#[derive(Serialize, Deserialize)]
struct File<'a> {
    #[serde(default)]
    format: Option<Cow<'a, str>>,
    #[serde(default)]
    revision: u64,
    #[serde(borrow)]
    entries: Vec<Item<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    key: String,
    #[serde(default)]
    revision: u64,
    #[serde(borrow, default, deserialize_with = "even_null", skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

/// A stored `null` is a value like any other.
fn even_null<'de: 'a, 'a, D: serde::Deserializer<'de>>(source: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(source).map(Some)
}

/// Where everything of ours is.
const ROOTS: [&str; 2] = ["/calico/", "/percale/"];
/// Views of what Kubernetes keeps for itself.
const VIEWS: [&str; 3] = ["nodes", "profiles", "workloadendpoints"];
/// Keys written at once: of each batch all or none.
const BATCH: usize = 50;

/// Prints the store. What cannot be read of a damaged one is told on stderr.
pub fn dump(places: &Places) -> Result<Outcome> {
    if places.backend.is_cluster() {
        let entries = content(places.open(Mode::ReadOnly)?.store.as_ref())?;
        let revision = entries.iter().map(|entry| entry.revision).max().unwrap_or(0);
        let entries = entries.iter().map(item).collect();
        say(&serde_json::to_string_pretty(&File { format: Some(FORMAT.into()), revision, entries })?)?;
        return Ok(Outcome::Done);
    }
    let dump = Embedded::dump(&places.store, store_deadline()).map_err(explain)?;
    let entries = dump.entries.iter().map(item).collect();
    let file = File { format: Some(FORMAT.into()), revision: dump.revision, entries };
    say(&serde_json::to_string_pretty(&file)?)?;
    dump.problems.iter().for_each(|problem| say_error(&format!("damaged: {problem}")));
    Ok(if dump.problems.is_empty() { Outcome::Done } else { Outcome::Found })
}

fn item(entry: &Entry) -> Item<'_> {
    let mut item =
        Item { key: entry.key.clone(), revision: entry.revision, value: None, text: None, hex: None };
    let text = std::str::from_utf8(&entry.value);
    match text.map(|text| (text, serde_json::from_str::<&RawValue>(text))) {
        // White space around the value would be lost.
        Ok((text, Ok(raw))) if raw.get() == text => item.value = Some(raw),
        Ok((text, _)) => item.text = Some(text.to_owned()),
        Err(_) => item.hex = Some(entry.value.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
    item
}

/// Replaces the store's content, under the host's IPAM lock.
pub fn load(places: &Places, args: &LoadArgs) -> Result<Outcome> {
    let name = args.file.display();
    let text = read_text(&args.file, MAX_DUMP).with_context(|| format!("reading {name}"))?;
    let entries = parse(&text).with_context(|| format!("reading {name}"))?;
    let _lock = places.lock()?;
    if places.backend.is_cluster() {
        return load_cluster(places, entries, args.force);
    }
    if !args.force {
        refuse_content(places)?;
    }
    let count = entries.len();
    let revision = Embedded::load(&places.store, entries, store_deadline()).map_err(explain)?;
    say(&format!("loaded {count} entries into {} (revision {revision})", places.store.display()))?;
    Ok(Outcome::Done)
}

fn content(store: &dyn Store) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for root in ROOTS {
        entries.extend(store.list(root, store_deadline()).map_err(explain)?);
    }
    Ok(entries)
}

/// Brings a cluster's store to what the dump says, in batches; with content only if that is meant.
fn load_cluster(places: &Places, entries: Vec<Entry>, force: bool) -> Result<Outcome> {
    let store = places.open(Mode::Existing)?.store;
    let is_kubernetes = !places.backend.is_transactional();
    let ours = |entry: &Entry| !(is_kubernetes && is_view(&entry.key));
    let before: Vec<Entry> = content(store.as_ref())?.into_iter().filter(&ours).collect();
    if !before.is_empty() && !force {
        bail!(usage(format!(
            "{} holds {} entries, and others may be working on it; --force replaces them \
             (`percalectl store dump` first)",
            store.identity(),
            before.len()
        )));
    }
    let wanted: Vec<Entry> = entries.into_iter().filter(&ours).collect();
    let kept: BTreeSet<&str> = wanted.iter().map(|entry| entry.key.as_str()).collect();
    let gone = before.iter().filter(|entry| !kept.contains(entry.key.as_str()));
    let gone = gone.map(|entry| Write { key: entry.key.clone(), expect: Expect::Any, value: None });
    let puts = wanted.iter().map(|entry| {
        let value = Some(entry.value.clone());
        Write { key: entry.key.clone(), expect: Expect::Any, value }
    });
    let writes: Vec<Write> = gone.chain(puts).collect();
    for batch in writes.chunks(BATCH) {
        store.commit(batch, store_deadline()).map_err(|error| anyhow!("{error}"))?;
    }
    say(&format!("loaded {} entries into {}", wanted.len(), store.identity()))?;
    Ok(Outcome::Done)
}

fn is_view(key: &str) -> bool {
    let kind =
        key.strip_prefix("/calico/resources/v3/projectcalico.org/").and_then(|rest| rest.split('/').next());
    kind.is_some_and(|kind| VIEWS.contains(&kind))
}

fn refuse_content(places: &Places) -> Result<()> {
    match Embedded::dump(&places.store, store_deadline()) {
        Ok(dump) if dump.entries.is_empty() && dump.problems.is_empty() => Ok(()),
        Ok(dump) => bail!(usage(format!(
            "{} holds {} entries{}; --force replaces them (`percalectl store dump` first)",
            places.store.display(),
            dump.entries.len(),
            if dump.problems.is_empty() { "" } else { " and is damaged" }
        ))),
        Err(error) if error.kind == ErrorKind::Missing => Ok(()),
        Err(error) => Err(explain(error)).context("looking at the present store; --force replaces it unseen"),
    }
}

fn parse(text: &str) -> Result<Vec<Entry>> {
    let file: File<'_> = serde_json::from_str(text)?;
    match file.format.as_deref() {
        None | Some(FORMAT) => {}
        Some(other) => bail!("format: {other:?} is not {FORMAT}, which this version reads"),
    }
    let mut seen = BTreeSet::new();
    let mut entries = Vec::with_capacity(file.entries.len());
    for (at, item) in file.entries.into_iter().enumerate() {
        let entry = entry(item).with_context(|| format!("entries[{at}]"))?;
        if !seen.insert(entry.key.clone()) {
            bail!("entries[{at}].key: {} is there twice", entry.key);
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(item: Item<'_>) -> Result<Entry> {
    if !item.key.starts_with('/') {
        bail!("key: {:?} does not begin with a slash", item.key);
    }
    let value = match (item.value, item.text, item.hex) {
        (Some(raw), None, None) => raw.get().as_bytes().to_vec(),
        (None, Some(text), None) => text.into_bytes(),
        (None, None, Some(hex)) => unhex(&hex).context("hex: not pairs of hexadecimal digits")?,
        _ => bail!("{}: one of value, text and hex is needed", item.key),
    };
    Ok(Entry { key: item.key, value, revision: item.revision })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let byte = |pair: &[u8]| match pair {
        [a, b] => Some(u8::try_from(digit(*a)? * 16 + digit(*b)?).ok()?),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}

fn digit(byte: u8) -> Option<u32> {
    char::from(byte).to_digit(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(value: &[u8]) {
        let entry = Entry { key: "/k".into(), value: value.to_vec(), revision: 3 };
        let file = File { format: Some(FORMAT.into()), revision: 9, entries: vec![item(&entry)] };
        let text = serde_json::to_string_pretty(&file).unwrap();
        assert_eq!(parse(&text).unwrap(), [entry], "{text}");
    }

    #[test]
    fn every_value_comes_back_byte_for_byte() {
        let values: [&[u8]; 9] = [
            b"{\"a\": [1,2],  \"n\":1800000000000000001}",
            b"{\"b\":1,\"a\":1.50}",
            b"",
            b" {}",
            b"plain",
            b"nul\0",
            b"\xff\x00",
            b"\"text\"",
            b"null",
        ];
        values.iter().for_each(|value| round(value));
    }

    #[test]
    fn errors_name_the_entry_and_the_field() {
        let cases = [
            (r#"{"entries":[{"key":"a","value":1}]}"#, "entries[0]: key: \"a\""),
            (r#"{"entries":[{"key":"/a"}]}"#, "one of value, text and hex"),
            (r#"{"entries":[{"key":"/a","hex":"0g"}]}"#, "hex: not pairs"),
            (r#"{"entries":[{"key":"/a","hex":"abc"}]}"#, "hex: not pairs"),
            (
                r#"{"entries":[{"key":"/a","value":1},{"key":"/a","value":1}]}"#,
                "entries[1].key: /a is there twice",
            ),
            (r#"{"entries":[{"key":"/a","valu":1}]}"#, "unknown field `valu`"),
            (r#"{"format":"x/9","entries":[]}"#, "percale-store/1"),
            ("[]", "line 1"),
        ];
        for (text, wanted) in cases {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
    }
}
