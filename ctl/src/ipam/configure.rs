//! `ipam configure`.

use crate::cli::{ConfigureArgs, Output};
use crate::kinds::{self, Kind};
use crate::outcome::{Outcome, say, say_json};
use crate::resources;
use crate::session::{Places, store_deadline};
use anyhow::Result;
use datastore::embedded::Mode;
use serde_json::{Map, Value};

/// Changes the settings that are given; without any, prints them.
pub fn configure(places: &Places, args: &ConfigureArgs) -> Result<Outcome> {
    let kind = kinds::find("IPAMConfiguration")?;
    let mut config = stored(places, kind)?;
    let before = config.clone();
    if let Some(strict) = args.strictaffinity {
        config["spec"]["strictAffinity"] = strict.into();
    }
    if let Some(limit) = args.max_blocks_per_host {
        config["spec"]["maxBlocksPerHost"] = limit.into();
    }
    if config != before {
        resources::put(places, kind, config.clone(), "ipam configure")?;
    }
    match args.output.output {
        Output::Json => say_json(&config["spec"])?,
        Output::Table => say(&table(&config["spec"]))?,
    }
    Ok(Outcome::Done)
}

/// The stored settings with their revision, else the defaults.
fn stored(places: &Places, kind: &'static Kind) -> Result<Value> {
    let session = places.open(Mode::ReadOnly)?;
    let entry = session.store.get(&[&kind.key("default")], store_deadline())?.into_iter().flatten().next();
    match entry {
        Some(entry) => resources::decode(kind, &entry),
        None => kind.decode(&kind.key("default"), br#"{"auto_allocate_blocks":true}"#),
    }
}

fn table(spec: &Value) -> String {
    let members: Option<&Map<String, Value>> = spec.as_object();
    members.into_iter().flatten().map(|(name, value)| format!("{name:<19} {value}\n")).collect()
}
