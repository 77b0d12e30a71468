//! Pools, reservations, cluster information: Calico's metadata travel in an annotation.

use super::{METADATA, Object, kept};
use crate::error::Failure;
use crate::place::Place;
use model::resource::API_VERSION;
use serde_json::{Map, Value, json};

/// Members of the metadata that Kubernetes' own decide (reference 3.3).
const OF_KUBERNETES: [&str; 6] = ["name", "namespace", "resourceVersion", "labels", "annotations", "uid"];
/// Members of Kubernetes' metadata that a Calico resource shows.
const SHOWN: [&str; 5] = ["name", "uid", "creationTimestamp", "deletionTimestamp", "labels"];

pub(super) fn value(raw: &Value) -> Value {
    let mut value = raw.clone();
    value["apiVersion"] = json!(API_VERSION);
    value["metadata"] = metadata_value(raw.get("metadata").unwrap_or(&Value::Null)).into();
    value
}

fn metadata_value(metadata: &Value) -> Map<String, Value> {
    let shown = SHOWN.iter().filter_map(|name| Some(((*name).to_owned(), metadata.get(name)?.clone())));
    let mut shown: Map<String, Value> = shown.collect();
    let mut annotations = metadata.get("annotations").and_then(Value::as_object).cloned().unwrap_or_default();
    let calicos = annotations.remove(METADATA);
    let calicos: Option<Map<String, Value>> =
        calicos.as_ref().and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
    for (name, member) in calicos.unwrap_or_default() {
        if !OF_KUBERNETES.contains(&name.as_str()) && !member.is_null() {
            shown.insert(name, member);
        }
    }
    if !annotations.is_empty() {
        shown.insert("annotations".to_owned(), annotations.into());
    }
    shown
}

pub(super) fn body(
    place: &Place,
    mut value: Map<String, Value>,
    before: Option<&Object>,
) -> Result<Value, Failure> {
    let given = value.remove("metadata");
    let given = given.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
    if given.get("name").is_some_and(|name| *name != json!(place.name)) {
        return Err(Failure::invalid(format!("{}: metadata.name is another one", place.key)));
    }
    value.insert("apiVersion".to_owned(), json!(place.kind.api));
    value.insert("kind".to_owned(), json!(place.kind.kind));
    value.insert("metadata".to_owned(), metadata(place, given, before).into());
    Ok(value.into())
}

fn metadata(place: &Place, mut given: Map<String, Value>, before: Option<&Object>) -> Map<String, Value> {
    let mut metadata = kept(place, before);
    for table in ["labels", "annotations"] {
        metadata.insert(table.to_owned(), given.remove(table).unwrap_or_else(|| json!({})));
    }
    given.retain(|name, _| {
        !["name", "namespace", "resourceVersion", "deletionTimestamp"].contains(&name.as_str())
    });
    given.entry("creationTimestamp").or_insert(Value::Null);
    super::set(&mut metadata, "annotations", METADATA, Value::from(given).to_string());
    metadata
}
