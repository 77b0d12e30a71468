//! Resources by name and by file: `get`, `create`, `apply`, `replace`, `patch`, `delete`.
//!
//! What is written is planned as a pure function of what was read; all documents of a command are
//! one commit, so that a file is applied as a whole or not at all.

mod claims;
mod delete;
mod finish;
mod get;
mod patch;
mod write;

pub use delete::delete;
pub use get::get;
pub use patch::patch;
pub use write::{apply, create, replace};

use crate::documents::{self, Document};
use crate::kinds::{self, Kind, Problem};
use crate::outcome::usage;
use crate::session::Places;
use anyhow::{Result, anyhow, bail};
use model::keys;
use model::store::{Entry, Missing, Stop, View};
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;

/// An object that a user wrote, of a kind that we know.
#[derive(Debug)]
struct Wish {
    kind: &'static Kind,
    object: Value,
    /// File and document, for messages.
    from: String,
}

impl Wish {
    /// With its namespace, where it has one.
    fn name(&self) -> String {
        self.kind.name_in(&self.object)
    }

    fn key(&self) -> String {
        self.kind.key(&self.name())
    }

    fn subject(&self) -> String {
        self.kind.subject(&self.name())
    }
}

/// Reads the objects of several files.
fn wishes(files: &[PathBuf]) -> Result<Vec<Wish>> {
    if files.iter().filter(|f| f.as_os_str() == "-").count() > 1 {
        bail!(usage("standard input can be read only once"));
    }
    let mut wishes = Vec::new();
    for file in files {
        for document in documents::read(file)? {
            wishes.push(wish(document)?);
        }
    }
    refuse_twins(&wishes)?;
    Ok(wishes)
}

fn wish(document: Document) -> Result<Wish> {
    let Document { from, mut value } = document;
    kinds::drop_nulls(&mut value);
    if !value.is_object() {
        bail!("{from}: an object with kind, metadata and spec is needed");
    }
    let Some(kind) = value["kind"].as_str() else { bail!("{from}: kind: missing, or not text") };
    let kind = kinds::find(kind).map_err(|e| anyhow!("{from}: kind: {e}"))?;
    Ok(Wish { kind, object: value, from })
}

/// Two documents for one object would make the result depend on their order.
fn refuse_twins(wishes: &[Wish]) -> Result<()> {
    let mut seen = std::collections::BTreeMap::new();
    for wish in wishes {
        if let Some(first) = seen.insert(wish.key(), &wish.from) {
            bail!("{}: {} is in {first} already", wish.from, wish.subject());
        }
    }
    Ok(())
}

/// Why a change is refused: all reasons at once.
#[derive(Debug, Default, PartialEq)]
struct Refusal(Vec<String>);

impl Refusal {
    fn one(text: impl Into<String>) -> Stop<Self> {
        Stop::Fail(Self(vec![text.into()]))
    }

    fn add(&mut self, from: &str, subject: &str, problems: &[Problem]) {
        self.0.extend(problems.iter().map(|p| format!("{from}: {subject}: {p}")));
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

type Step<T> = Result<T, Stop<Refusal>>;

/// The object under a key, with its revision as `resourceVersion`. A damaged one is `Err`.
pub fn decode(kind: &Kind, entry: &Entry) -> Result<Value> {
    let mut object = kind.decode(&entry.key, &entry.value)?;
    object["metadata"]["resourceVersion"] = entry.revision.to_string().into();
    Ok(object)
}

/// Writes one object as `apply` does, without printing.
pub fn put(places: &Places, kind: &'static Kind, object: Value, from: &str) -> Result<()> {
    let wish = Wish { kind, object, from: from.to_owned() };
    write::commit(places, &[wish], write::How::Apply).map(drop)
}

/// Nothing but the lock itself may be changed while a migration holds the store locked (decision 22).
fn refuse_if_locked<'a>(view: &View, kinds: impl IntoIterator<Item = &'a Kind>) -> Step<()> {
    if kinds.into_iter().all(|k| k.name == "ClusterInformation") {
        return Ok(());
    }
    let locked = match view.get(&keys::cluster_information())? {
        Some(entry) => serde_json::from_slice::<Value>(&entry.value)
            .is_ok_and(|info| info["spec"]["datastoreReady"] == false),
        None => false,
    };
    if locked {
        return Err(Refusal::one(
            "the store is locked (ClusterInformation default has datastoreReady false): a migration runs, or one \
             was broken off; `percalectl patch clusterinformation default -p '{\"spec\":{\"datastoreReady\":true}}'` unlocks it",
        ));
    }
    Ok(())
}

/// Everything that is wanted at once, so that it is read in one go.
fn require(view: &View, wanted: Vec<model::store::Query>) -> Result<(), Missing> {
    view.require(wanted)
}
