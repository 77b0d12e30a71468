//! `patch`: a JSON merge patch (RFC 7386) on a stored object.

use super::write::{How, write};
use super::{Wish, decode};
use crate::cli::PatchArgs;
use crate::documents::parse_one;
use crate::kinds::{self, Kind};
use crate::outcome::{Outcome, usage};
use crate::session::{Places, store_deadline};
use anyhow::{Context, Result, anyhow, bail};
use datastore::embedded::Mode;
use serde_json::{Map, Value};

/// Changes an object and checks the whole of it as if it had been written so.
pub fn patch(places: &Places, args: &PatchArgs) -> Result<Outcome> {
    let kind = kinds::find(&args.kind)?;
    let patch = parse_one(&args.patch).map_err(|e| usage(format!("--patch: {e:#}")))?;
    if !patch.is_object() {
        bail!(usage("--patch: an object such as {\"spec\":{...}} is needed"));
    }
    let mut object = stored(places, kind, &kind.full_name(args.namespace.as_deref(), &args.name))?;
    merge(&mut object, patch);
    if object["kind"] != kind.name || object["metadata"]["name"] != args.name.as_str() {
        bail!("kind and metadata.name cannot be patched");
    }
    // The revision stays in the object: a change by others in between is refused.
    write(places, &[Wish { kind, object, from: "--patch".to_owned() }], How::Replace)
}

fn stored(places: &Places, kind: &Kind, name: &str) -> Result<Value> {
    let missing = || anyhow!("{} does not exist", kind.subject(name));
    if !kind.can_be(name) {
        return Err(missing());
    }
    let session = places.open(Mode::ReadOnly)?;
    let entry = session.store.get(&[&kind.key(name)], store_deadline())?.into_iter().flatten().next();
    decode(kind, &entry.ok_or_else(missing)?).with_context(|| format!("{} is damaged", kind.subject(name)))
}

/// RFC 7386 section 2: null removes, objects merge, all else replaces.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(members) = target.as_object_mut() else { return };
    for (name, value) in patch {
        match value {
            Value::Null => drop(members.remove(&name)),
            value => merge(members.entry(name).or_insert(Value::Null), value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_the_rfc() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut target, patch, wanted) in cases {
            merge(&mut target, patch);
            assert_eq!(target, wanted);
        }
    }
}
