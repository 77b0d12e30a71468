//! The IPAM configuration between its resource and its stored form (reference 3.1).

use super::object;
use anyhow::Result;
use model::{IpamConfig, Stored};
use serde_json::{Map, Value};

/// Members that a newer Calico keeps beside ours stay in the spec under their stored names.
pub fn decode(key: &str, value: &[u8]) -> Result<Value> {
    let config = IpamConfig::decode(key, value)?;
    let mut spec = config.other;
    spec.insert("strictAffinity".into(), config.strict_affinity.into());
    spec.insert("autoAllocateBlocks".into(), config.auto_allocate_blocks.into());
    spec.insert("maxBlocksPerHost".into(), config.max_blocks_per_host.into());
    Ok(object("IPAMConfiguration", "default", spec))
}

pub fn encode(object: &Value) -> Result<Vec<u8>> {
    let mut other: Map<String, Value> = object["spec"].as_object().cloned().unwrap_or_default();
    let bool_or = |value: Option<Value>, default| value.and_then(|v| v.as_bool()).unwrap_or(default);
    let strict_affinity = bool_or(other.remove("strictAffinity"), false);
    let auto_allocate_blocks = bool_or(other.remove("autoAllocateBlocks"), true);
    let limit = other.remove("maxBlocksPerHost").and_then(|v| v.as_u64()).unwrap_or(0);
    let max_blocks_per_host = u32::try_from(limit)?;
    Ok(IpamConfig { strict_affinity, auto_allocate_blocks, max_blocks_per_host, other }.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_stored_form_is_calicos() {
        let spec = json!({"strictAffinity": true, "maxBlocksPerHost": 20});
        let stored = encode(&json!({"spec": spec})).unwrap();
        let wanted = r#"{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":20}"#;
        assert_eq!(String::from_utf8(stored.clone()).unwrap(), wanted);
        assert_eq!(decode("k", &stored).unwrap()["spec"]["maxBlocksPerHost"], 20);
    }

    #[test]
    fn members_of_a_newer_calico_survive() {
        let read = decode("k", br#"{"strict_affinity":true,"ipCooldownSeconds":30}"#).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&encode(&read).unwrap()).unwrap()["ipCooldownSeconds"],
            30
        );
    }
}
