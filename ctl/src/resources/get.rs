//! `get`.

use super::{decode, wishes};
use crate::cli::{GetArgs, GetOutput};
use crate::documents::to_yaml;
use crate::kinds::{self, Kind, name_of, profile};
use crate::outcome::{Outcome, chain, say, say_error, say_json};
use crate::session::{Places, store_deadline};
use crate::table::Table;
use anyhow::{Result, anyhow};
use datastore::Store;
use datastore::embedded::Mode;
use model::store::Entry;
use serde_json::{Value, json};

/// Prints objects. Damaged ones are told on stderr, and the rest is printed all the same.
pub fn get(places: &Places, args: &GetArgs) -> Result<Outcome> {
    let wanted = wanted(args)?;
    let session = places.open(Mode::ReadOnly)?;
    let mut found: Vec<(&'static Kind, Value)> = Vec::new();
    let mut damaged = false;
    for (kind, name) in &wanted {
        let namespace = args.namespace.as_deref().or((!args.all_namespaces).then_some("default"));
        for entry in fetch(session.store.as_ref(), kind, namespace, name.as_deref())? {
            match decode(kind, &entry) {
                Ok(object) => found.push((kind, object)),
                Err(error) => {
                    damaged = true;
                    say_error(&format!("damaged object {}: {}", entry.key, chain(&error)));
                }
            }
        }
    }
    print(args.output, &wanted, &found)?;
    Ok(if damaged { Outcome::Found } else { Outcome::Done })
}

type Wanted = (&'static Kind, Option<String>);

fn wanted(args: &GetArgs) -> Result<Vec<Wanted>> {
    if let Some(file) = &args.filename {
        let wishes = wishes(std::slice::from_ref(file))?;
        return Ok(wishes.iter().map(|w| (w.kind, Some(w.name()))).collect());
    }
    let kind = kinds::find(args.kind.as_deref().unwrap_or_default())?;
    match args.names.as_slice() {
        [] => Ok(vec![(kind, None)]),
        names => {
            let full = |name: &String| kind.full_name(args.namespace.as_deref(), name);
            Ok(names.iter().map(|name| (kind, Some(full(name)))).collect())
        }
    }
}

fn fetch(store: &dyn Store, kind: &Kind, namespace: Option<&str>, name: Option<&str>) -> Result<Vec<Entry>> {
    if kind.is_derived() && store.identity().starts_with("kubernetes:") {
        let found = profile::derived(store, name, store_deadline())?;
        return match name {
            Some(name) if found.is_empty() => Err(anyhow!("{} does not exist", kind.subject(name))),
            _ => Ok(found),
        };
    }
    let Some(name) = name else {
        return Ok(store.list(&kind.prefix(namespace), store_deadline())?);
    };
    let missing = || anyhow!("{} does not exist", kind.subject(name));
    if kind.is_listed() {
        let mut all = store.list(&kind.prefix(None), store_deadline())?;
        let is_it = |entry: &Entry| decode(kind, entry).is_ok_and(|object| name_of(&object) == name);
        all.retain(is_it);
        return if all.is_empty() { Err(missing()) } else { Ok(all) };
    }
    if !kind.can_be(name) {
        return Err(missing());
    }
    let entry = store.get(&[&kind.key(name)], store_deadline())?.into_iter().flatten().next();
    Ok(vec![entry.ok_or_else(missing)?])
}

fn print(output: GetOutput, wanted: &[Wanted], found: &[(&'static Kind, Value)]) -> Result<()> {
    // One object that was asked for by name stands alone; all else is a list.
    let one = wanted.len() == 1 && wanted[0].1.is_some();
    let value = || match found {
        [(_, object)] if one => object.clone(),
        _ => json!({
            "apiVersion": kinds::API_VERSION,
            "kind": list_kind(wanted),
            "items": found.iter().map(|(_, object)| object).collect::<Vec<_>>(),
        }),
    };
    match output {
        GetOutput::Json => say_json(&value()),
        GetOutput::Yaml => say(&to_yaml(&value())?),
        GetOutput::Table | GetOutput::Wide => say(&tables(wanted, found, output == GetOutput::Wide)),
    }
}

fn list_kind(wanted: &[Wanted]) -> String {
    match wanted {
        [(kind, _), rest @ ..] if rest.iter().all(|(k, _)| k == kind) => format!("{}List", kind.name),
        _ => "List".to_owned(),
    }
}

/// A table for each kind.
fn tables(wanted: &[Wanted], found: &[(&'static Kind, Value)], wide: bool) -> String {
    let mut kinds: Vec<&'static Kind> = Vec::new();
    wanted.iter().for_each(|(kind, _)| {
        if !kinds.contains(kind) {
            kinds.push(kind)
        }
    });
    let table =
        |kind: &&'static Kind| table(kind, found.iter().filter(|(k, _)| k == kind).map(|(_, o)| o), wide);
    kinds.iter().map(table).collect::<Vec<_>>().join("\n")
}

fn table<'a>(kind: &Kind, objects: impl Iterator<Item = &'a Value>, wide: bool) -> String {
    let columns: Vec<_> = kind.columns.iter().filter(|(.., only_wide)| wide || !only_wide).collect();
    let mut table = Table::new(["NAME"].into_iter().chain(columns.iter().map(|(heading, ..)| *heading)));
    for object in objects {
        let cell = |pointer: &str| object.pointer(pointer).map(plain).unwrap_or_default();
        let cells = columns.iter().map(|(_, pointer, _)| cell(pointer));
        table.row(std::iter::once(name_of(object).to_owned()).chain(cells));
    }
    table.render()
}

/// A value as a cell: text without quotes, items and members after each other.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Object(members) => {
            members.iter().map(|(name, v)| format!("{name}={}", plain(v))).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}
