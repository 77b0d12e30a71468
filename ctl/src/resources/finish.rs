//! From what a user wrote to what is stored: canonical, with an identity, and with the members of
//! the stored object that its writer did not mean to remove.

use super::Wish;
use crate::kinds::{self, API_VERSION, pool_net};
use model::Family;
use model::block::default_block_size;
use serde_json::{Value, json};

/// What is stored: the wish in its canonical form, with identity and foreign members of what is there.
pub fn finish(wish: &Wish, stored: Option<&Value>, time: &str, chance: &[u8; 16]) -> Value {
    let mut object = without_version(&wish.object);
    object["apiVersion"] = API_VERSION.into();
    object["kind"] = wish.kind.name.into();
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    if wish.kind.name == "IPPool" {
        fill_pool(&mut object);
    }
    fill_others(wish, &mut object);
    if wish.kind.name == "IPAMConfiguration" {
        fill_config(&mut object);
        // Its stored form has no place for metadata.
        return kinds::object(
            wish.kind.name,
            "default",
            object["spec"].as_object().cloned().unwrap_or_default(),
        );
    }
    match stored {
        Some(stored) => keep(wish, stored, &mut object),
        None => name_it(&mut object, time, chance),
    }
    object
}

pub fn without_version(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    object
}

/// Identity stays; what this build does not know, and what users do not write, stays too.
fn keep(wish: &Wish, stored: &Value, object: &mut Value) {
    for member in
        ["uid", "creationTimestamp", "deletionTimestamp", "generation", "finalizers", "ownerReferences"]
    {
        if let Some(value) = stored["metadata"].get(member) {
            object["metadata"][member] = value.clone();
        }
    }
    if let (None, Some(status)) = (object.get("status"), stored.get("status")) {
        object["status"] = status.clone();
    }
    wish.kind.carry_over(stored, object);
}

fn name_it(object: &mut Value, time: &str, chance: &[u8; 16]) {
    let metadata = &mut object["metadata"];
    if metadata["uid"].as_str().unwrap_or_default().is_empty() {
        metadata["uid"] = uuid(chance).into();
    }
    if metadata["creationTimestamp"].as_str().unwrap_or_default().is_empty() {
        metadata["creationTimestamp"] = time.into();
    }
}

/// A random UUID, version 4 (RFC 9562 section 5.4).
fn uuid(chance: &[u8; 16]) -> String {
    let mut bits = u128::from_be_bytes(*chance);
    bits = bits & !(0xf << 76) | 4 << 76;
    bits = bits & !(3 << 62) | 2 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Calico fills these when it writes a pool (reference 4.1), and old readers count on them.
fn fill_pool(object: &mut Value) {
    let Some(net) = pool_net(object) else { return };
    let spec = &mut object["spec"];
    spec["cidr"] = net.to_string().into();
    if spec["blockSize"].as_u64().unwrap_or(0) == 0 {
        spec["blockSize"] = default_block_size(Family::of_net(&net)).into();
    }
    for (member, default) in [("ipipMode", "Never"), ("vxlanMode", "Never"), ("nodeSelector", "all()")] {
        if spec[member].as_str().unwrap_or_default().is_empty() {
            spec[member] = default.into();
        }
    }
}

/// What Calico's library fills in when it writes these (reference 4.5; policy types by their rules).
fn fill_others(wish: &Wish, object: &mut Value) {
    if wish.kind.is_namespaced() && object["metadata"]["namespace"].as_str().unwrap_or_default().is_empty() {
        object["metadata"]["namespace"] = "default".into();
    }
    let spec = &mut object["spec"];
    match wish.kind.name {
        "KubeControllersConfiguration" if spec["prometheusMetricsPort"].is_null() => {
            spec["prometheusMetricsPort"] = 9094.into();
        }
        "NetworkPolicy" | "GlobalNetworkPolicy" if spec["types"].as_array().is_none_or(Vec::is_empty) => {
            let has = |rules: &Value| rules.as_array().is_some_and(|rules| !rules.is_empty());
            let (ingress, egress) = (has(&spec["ingress"]), has(&spec["egress"]));
            let types = [("Ingress", ingress || !egress), ("Egress", egress)];
            spec["types"] = types.into_iter().filter_map(|(name, on)| on.then_some(name)).collect();
        }
        _ => {}
    }
}

fn fill_config(object: &mut Value) {
    let defaults = [
        ("strictAffinity", json!(false)),
        ("autoAllocateBlocks", json!(true)),
        ("maxBlocksPerHost", json!(0)),
    ];
    for (member, default) in defaults {
        if object["spec"].get(member).is_none() {
            object["spec"][member] = default;
        }
    }
}
