//! A claim to a block, between its key and Calico's resource (reference 3.1, 3.3).

use super::object;
use anyhow::{Result, bail};
use model::keys::{self, AffinityKind, Key};
use serde_json::{Map, Value, json};

pub fn decode(key: &str, value: &[u8]) -> Result<Value> {
    let Some(Key::Affinity { kind, name, cidr, .. }) = keys::parse(key) else {
        bail!("{key}: not the key of an affinity")
    };
    let stored: Map<String, Value> =
        if value.is_empty() { Map::new() } else { serde_json::from_slice(value)? };
    let state = stored.get("state").and_then(Value::as_str).filter(|state| !state.is_empty());
    let spec = json!({
        "cidr": cidr.to_string(),
        "node": name,
        // As Calico reads what its oldest releases wrote.
        "state": state.unwrap_or("confirmed"),
        "type": if kind == AffinityKind::Host { "host" } else { "virtual" },
        "deleted": "false",
    });
    let spec = spec.as_object().cloned().unwrap_or_default();
    Ok(object("BlockAffinity", &format!("{name}-{}", keys::cidr_name(&cidr)), spec))
}
