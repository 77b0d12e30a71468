//! Blocks, affinities, handles and the IPAM configuration.

use model::keys::{self, Key};
use serde_json::{Map, Value, json};

/// Moves a member to its other name, unless that one is there already.
fn rename(members: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = members.remove(from) {
        members.entry(to).or_insert(value);
    }
}

fn remove_null(members: &mut Map<String, Value>, name: &str) {
    if members.get(name).is_some_and(Value::is_null) {
        members.remove(name);
    }
}

pub(super) fn block_value(mut spec: Map<String, Value>) -> Value {
    // Not used by anyone, and required by the schema.
    spec.remove("strictAffinity");
    rename(&mut spec, "affinityClaimTime", "affinity_claim_time");
    spec.into()
}

pub(super) fn block_spec(mut value: Map<String, Value>) -> Value {
    value.remove("hostAffinity");
    rename(&mut value, "affinity_claim_time", "affinityClaimTime");
    for name in ["affinity", "affinityClaimTime"] {
        remove_null(&mut value, name);
    }
    value.insert("strictAffinity".to_owned(), json!(false));
    // Some releases' schema requires it.
    value.entry("sequenceNumber").or_insert(json!(0));
    let attributes = value.get_mut("attributes").and_then(Value::as_array_mut);
    for attribute in attributes.into_iter().flatten().filter_map(Value::as_object_mut) {
        attribute.retain(|_, member| !member.is_null());
    }
    value.into()
}

pub(super) fn affinity_value(mut spec: Map<String, Value>) -> Value {
    for name in ["cidr", "node", "type"] {
        spec.remove(name);
    }
    let deleted =
        spec.get("deleted").is_some_and(|d| d.as_bool() == Some(true) || d.as_str() == Some("true"));
    spec.insert("deleted".to_owned(), json!(deleted));
    spec.into()
}

pub(super) fn affinity_spec(mut value: Map<String, Value>, key: &str) -> Value {
    if let Some(Key::Affinity { kind, name, cidr, .. }) = keys::parse(key) {
        value.insert("cidr".to_owned(), json!(cidr.to_string()));
        value.insert("node".to_owned(), json!(name));
        value.insert("type".to_owned(), json!(kind.as_str()));
    }
    value.entry("state").or_insert(json!("confirmed"));
    let deleted = value.get("deleted") == Some(&json!(true));
    value.insert("deleted".to_owned(), json!(deleted.to_string()));
    value.into()
}

pub(super) fn handle_value(mut spec: Map<String, Value>) -> Value {
    spec.remove("handleID");
    spec.into()
}

pub(super) fn handle_spec(mut value: Map<String, Value>, key: &str) -> Value {
    if let Some(Key::Handle { id, .. }) = keys::parse(key) {
        value.insert("handleID".to_owned(), json!(id));
    }
    value.entry("block").or_insert(json!({}));
    value.entry("deleted").or_insert(json!(false));
    value.into()
}

const CONFIG: [(&str, &str); 2] =
    [("strict_affinity", "strictAffinity"), ("auto_allocate_blocks", "autoAllocateBlocks")];

pub(super) fn config_value(mut spec: Map<String, Value>) -> Value {
    CONFIG.iter().for_each(|(value, object)| rename(&mut spec, object, value));
    spec.into()
}

/// The schema requires what the value leaves out when it is false.
pub(super) fn config_spec(mut value: Map<String, Value>) -> Value {
    for (name, object) in CONFIG {
        rename(&mut value, name, object);
        value.entry(object).or_insert(json!(false));
    }
    value.into()
}
