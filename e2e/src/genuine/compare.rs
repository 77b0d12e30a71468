//! Two dumps of a store, compared but for what no two runs have in common, and for what is known to differ:
//!
//! - Percale's own attributes of an allocation, and members that a version is older than;
//! - which free block a host begins with: both choose by chance, so blocks are numbered as they appear;
//! - before 3.30, Calico writes the default IPAM configuration at its first use, and leaves the sequence number
//!   of an address in its block when it is released;
//! - in Kubernetes the annotation in which Calico repeats an object's metadata, which nobody reads of these
//!   kinds: `{}` in the newest, with the labels for affinities, `{"creationTimestamp":null}` in all others.

use super::{Calico, Side};
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What Percale adds to an allocation beside Calico's attributes (ARCHITECTURE.md, decision 2).
const OURS: [&str; 5] = ["network", "ifname", "poduid", "netns", "boot_id"];

/// Members whose values are of a run.
const OF_A_RUN: [&str; 7] = [
    "timestamp",
    "uid",
    "creationTimestamp",
    "affinity_claim_time",
    "affinityClaimTime",
    "mac",
    "clusterGUID",
];

/// Members of blocks, with the minor version that brought them.
const SINCE: [(u32, &str); 4] = [
    (22, "sequenceNumber"),
    (22, "sequenceNumberForAllocation"),
    (31, "affinity_claim_time"),
    (31, "affinityClaimTime"),
];

/// Since 3.31.
const AFFINITY_LABELS: [&str; 3] =
    ["projectcalico.org/affinity-type", "projectcalico.org/hostname-hash", "projectcalico.org/ip-version"];

/// What is stored at one moment, and the blocks in the order in which they were first used.
pub struct Moment {
    pub what: &'static str,
    pub stored: BTreeMap<String, String>,
    pub blocks: Vec<IpNet>,
}

impl Moment {
    fn numbered(&self) -> BTreeMap<String, String> {
        let number = |text: &str| {
            self.blocks.iter().enumerate().fold(text.to_owned(), |text, (at, block)| {
                let (cidr, number) = (block.to_string(), format!("BLOCK{at}."));
                let plain = cidr.replace('/', "-");
                let name = plain.replace(['.', ':'], "-");
                [cidr, plain, name].iter().fold(text, |text, form| replace(&text, form, &number))
            })
        };
        self.stored.iter().map(|(key, text)| (number(key), number(text))).collect()
    }
}

/// Not within a longer number.
fn replace(text: &str, form: &str, number: &str) -> String {
    let mut parts = text.split(form);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let longer =
            out.ends_with(|c: char| c.is_ascii_hexdigit()) || part.starts_with(|c: char| c.is_ascii_digit());
        out.push_str(if longer { form } else { number });
        out.push_str(part);
    }
    out
}

/// What differs between two moments, by key.
pub fn differences(ours: &Moment, theirs: &Moment, calico: &Calico) -> Vec<String> {
    stored_differences(&ours.numbered(), &theirs.numbered(), calico)
}

/// What differs, by key.
pub fn stored_differences(
    ours: &BTreeMap<String, String>,
    theirs: &BTreeMap<String, String>,
    calico: &Calico,
) -> Vec<String> {
    let ours = normal(ours, &Side::Percale, calico);
    let theirs = normal(theirs, &Side::Calico(calico.clone()), calico);
    let keys: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let absent = "(absent)".to_owned();
    keys.into_iter()
        .filter(|key| ours.get(*key) != theirs.get(*key) && !is_default_config(key))
        .map(|key| {
            let of = |all: &BTreeMap<String, String>| all.get(key).unwrap_or(&absent).clone();
            format!("{key}:\n  percale {}\n  {}  {}", of(&ours), calico.version, of(&theirs))
        })
        .collect()
}

/// Written at the first use by Calico before 3.30.
fn is_default_config(key: &str) -> bool {
    key == "/calico/ipam/v2/config" || key == "ipamconfigs/default"
}

fn normal(dump: &BTreeMap<String, String>, side: &Side, calico: &Calico) -> BTreeMap<String, String> {
    let text = |(key, text): (&String, &String)| {
        let mut value: Value = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
        sequence(&mut value);
        if let Some(spec) = value.get_mut("spec") {
            sequence(spec);
        }
        walk(&mut value, side, calico);
        (key.clone(), value.to_string())
    };
    dump.iter().map(text).collect()
}

/// Sequence numbers start at a time: what counts is how long ago each was given.
fn sequence(block: &mut Value) {
    let Some(now) = block.get("sequenceNumber").and_then(Value::as_u64) else { return };
    block["sequenceNumber"] = json!("now");
    let given = block.get_mut("sequenceNumberForAllocation").and_then(Value::as_object_mut);
    for (_, number) in given.into_iter().flatten() {
        *number = json!(now - number.as_u64().unwrap_or(0));
    }
    let slots = block["allocations"].as_array().cloned().unwrap_or_default();
    let is_taken = |at: &str| at.parse::<usize>().is_ok_and(|at| slots.get(at).is_some_and(|s| !s.is_null()));
    if let Some(given) = block["sequenceNumberForAllocation"].as_object_mut() {
        given.retain(|at, _| is_taken(at));
    }
}

fn walk(value: &mut Value, side: &Side, calico: &Calico) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|value| walk(value, side, calico)),
        Value::Object(all) => {
            let ours = matches!(side, Side::Percale);
            leave_out(all, calico, ours);
            for (key, value) in all.iter_mut() {
                if OF_A_RUN.contains(&key.as_str()) {
                    *value = json!("*");
                } else {
                    walk(value, side, calico);
                }
            }
        }
        _ => {}
    }
}

/// What only one of the two writes.
fn leave_out(object: &mut Map<String, Value>, calico: &Calico, ours: bool) {
    if ours && object.contains_key("node") && object.contains_key("timestamp") {
        OURS.iter().for_each(|own| drop(object.shift_remove(*own)));
    }
    for (since, member) in SINCE {
        if !calico.since(since) {
            object.shift_remove(member);
        }
    }
    // A type of affinity; nothing else of these kinds has one.
    if !calico.since(30) && object.contains_key("state") {
        object.shift_remove("type");
    }
    if let Some(annotations) = object.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.shift_remove("projectcalico.org/metadata");
        annotations.shift_remove("percale.io/network");
    }
    object.retain(|name, value| name != "annotations" || *value != json!({}));
    let labels = object.get_mut("labels").and_then(Value::as_object_mut);
    if let Some(labels) = labels.filter(|_| !calico.since(31)) {
        AFFINITY_LABELS.iter().for_each(|label| drop(labels.shift_remove(*label)));
    }
    object.retain(|name, value| name != "labels" || *value != json!({}));
}
