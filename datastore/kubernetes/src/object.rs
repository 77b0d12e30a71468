//! Objects as the API has them, and the values under their keys (reference 3.2, 3.3, 4).
//!
//! | value (etcd's model) | object |
//! |---|---|
//! | block: `affinity_claim_time`, `affinity: null` | `affinityClaimTime`, no `affinity`, `strictAffinity: false` |
//! | affinity: `deleted: true` | `deleted: "true"`, and `cidr`, `node`, `type` from the key |
//! | handle | and `handleID` from the key |
//! | configuration: `strict_affinity`, `auto_allocate_blocks` | `strictAffinity`, `autoAllocateBlocks` |
//! | workload endpoint | a pod, and annotations of it |
//! | resource of `projectcalico.org/v3` | of `crd.projectcalico.org/v1`, its metadata in an annotation |
//!
//! All other members pass in both directions.

pub(crate) mod endpoint;
mod ipam;
pub(crate) mod node;
mod resource;

use crate::error::Failure;
use crate::name;
use crate::place::{HOST_LABEL, Kind, NETWORK_LABEL, Place, Shape, network_label};
use model::keys::{self, AffinityKind};
use model::store::{Entry, Revision};
use model::{Family, Scope};
use serde_json::{Map, Value, json};

/// Calico's metadata, where Kubernetes' own has no room for it.
const METADATA: &str = "projectcalico.org/metadata";
/// Members of the metadata that only the server sets.
const OF_SERVER: [&str; 5] =
    ["managedFields", "creationTimestamp", "generation", "selfLink", "deletionTimestamp"];

/// An object as the server sent it.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub kind: &'static Kind,
    pub key: String,
    pub revision: Revision,
    pub uid: String,
    raw: Value,
}

impl Object {
    /// `None`: it is under no key (its name is not the one of its content).
    pub fn read(kind: &'static Kind, raw: Value) -> Option<Self> {
        let metadata = raw.get("metadata")?;
        let text = |name: &str| metadata.get(name).and_then(Value::as_str);
        let revision = text("resourceVersion")?.parse().ok()?;
        let uid = text("uid").unwrap_or_default().to_owned();
        let key = key(kind, text("namespace"), text("name")?, &raw)?;
        Some(Self { kind, key, revision, uid, raw })
    }

    /// Whether its deletion has begun, when it counts as absent.
    pub fn is_deleted(&self) -> bool {
        let deleted = self.raw.pointer("/spec/deleted");
        self.kind.shape.announces_deletion()
            && deleted.is_some_and(|d| d.as_bool() == Some(true) || d.as_str() == Some("true"))
    }

    pub fn entry(&self) -> Entry {
        Entry { key: self.key.clone(), value: self.value(), revision: self.revision }
    }

    fn value(&self) -> Vec<u8> {
        let spec = || self.raw.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
        let value = match self.kind.shape {
            Shape::Block => ipam::block_value(spec()),
            Shape::Affinity => ipam::affinity_value(spec()),
            Shape::Handle => ipam::handle_value(spec()),
            Shape::Config => ipam::config_value(spec()),
            Shape::Resource => resource::value(&self.raw),
            Shape::Record => return spec().get("value").and_then(Value::as_str).unwrap_or_default().into(),
            Shape::Endpoint => endpoint::value(&self.raw),
            Shape::Node => node::value(&self.raw),
            Shape::Native => native_value(&self.raw),
        };
        value.to_string().into_bytes()
    }

    /// Whether its content is what was sent.
    pub fn holds(&self, sent: &Value) -> bool {
        self.raw.get("spec") == sent.get("spec")
    }

    /// The same object, its deletion announced: the body of a PUT.
    pub fn announcing_deletion(&self) -> Value {
        let mut raw = self.raw.clone();
        if !raw["spec"].is_object() {
            raw["spec"] = json!({});
        }
        raw["spec"]["deleted"] = if self.kind.shape == Shape::Affinity { json!("true") } else { json!(true) };
        raw["apiVersion"] = json!(self.kind.api);
        raw["kind"] = json!(self.kind.kind);
        raw
    }
}

fn native_value(raw: &Value) -> Value {
    let mut value = raw.clone();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    value
}

fn key(kind: &Kind, namespace: Option<&str>, object: &str, raw: &Value) -> Option<String> {
    let spec = |name: &str| raw.pointer(&format!("/spec/{name}")).and_then(Value::as_str);
    match kind.shape {
        Shape::Block => Some(keys::block(&Scope::Cluster, &name::block_cidr(object)?)),
        Shape::Affinity => {
            let (host, cidr) = (spec("node")?, spec("cidr")?.parse().ok()?);
            let key = affinity_key(spec("type").unwrap_or_default(), host, &cidr);
            (name::affinity(host, &cidr) == object).then_some(key)
        }
        Shape::Handle => {
            let id = spec("handleID").filter(|id| !id.is_empty()).unwrap_or(object);
            (id.to_lowercase() == object).then(|| keys::handle(&Scope::Cluster, id))
        }
        Shape::Config => (object == "default").then(|| keys::ipam_config(&Scope::Cluster)),
        Shape::Record => spec("key").filter(|key| name::record(key) == object).map(str::to_owned),
        Shape::Endpoint => {
            endpoint::name(raw).map(|(namespace, name)| kind.key_of_name(Some(&namespace), &name))
        }
        Shape::Resource | Shape::Node | Shape::Native => Some(kind.key_of_name(namespace, object)),
    }
}

fn affinity_key(kind: &str, host: &str, cidr: &ipnet::IpNet) -> String {
    let key = keys::affinity(&Scope::Cluster, host, cidr);
    match kind == AffinityKind::Virtual.as_str() {
        true => key.replacen("/host/", "/virtual/", 1),
        false => key,
    }
}

/// The body that stores `value`: of a POST, or of a PUT in place of `before`.
pub(crate) fn body(place: &Place, value: &[u8], before: Option<&Object>) -> Result<Value, Failure> {
    let bad = |why: &str| Failure::invalid(format!("{}: {why}", place.key));
    if place.kind.shape == Shape::Record {
        let value = std::str::from_utf8(value).map_err(|_| bad("the value is no text"))?;
        return Ok(envelope(place, metadata(place, before), json!({"key": place.key, "value": value})));
    }
    let value: Value =
        serde_json::from_slice(value).map_err(|e| bad(&format!("the value is no JSON: {e}")))?;
    let Value::Object(value) = value else { return Err(bad("the value is no JSON object")) };
    let spec = match place.kind.shape {
        Shape::Block => ipam::block_spec(value),
        Shape::Affinity => ipam::affinity_spec(value, &place.key),
        Shape::Handle => ipam::handle_spec(value, &place.key),
        Shape::Config => ipam::config_spec(value),
        Shape::Resource => return resource::body(place, value, before),
        Shape::Endpoint | Shape::Record | Shape::Node | Shape::Native => {
            return Err(bad("is read-only in Kubernetes"));
        }
    };
    Ok(envelope(place, metadata(place, before), spec))
}

fn envelope(place: &Place, metadata: Map<String, Value>, spec: Value) -> Value {
    json!({"apiVersion": place.kind.api, "kind": place.kind.kind, "metadata": metadata, "spec": spec})
}

/// What others keep in the metadata stays; the labels by which Calico finds affinities are ours to set.
fn metadata(place: &Place, before: Option<&Object>) -> Map<String, Value> {
    let mut metadata = kept(place, before);
    match place.kind.shape {
        Shape::Record => {
            if let Some(label) = network_label(&place.key) {
                set(&mut metadata, "labels", NETWORK_LABEL, label);
            }
        }
        shape => {
            let annotations = metadata.get("annotations").and_then(|annotations| annotations.get(METADATA));
            if annotations.is_none() {
                set(&mut metadata, "annotations", METADATA, r#"{"creationTimestamp":null}"#.to_owned());
            }
            if shape == Shape::Affinity {
                affinity_labels(&place.key).into_iter().for_each(|(k, v)| set(&mut metadata, "labels", k, v));
            }
        }
    }
    metadata
}

fn kept(place: &Place, before: Option<&Object>) -> Map<String, Value> {
    let metadata = before.and_then(|object| object.raw.get("metadata")).and_then(Value::as_object);
    let mut metadata = metadata.cloned().unwrap_or_default();
    metadata.retain(|name, _| !OF_SERVER.contains(&name.as_str()));
    metadata.insert("name".to_owned(), json!(place.name));
    metadata
}

/// Sets a label or an annotation.
fn set(metadata: &mut Map<String, Value>, table: &str, name: &str, value: String) {
    let table = metadata.entry(table).or_insert_with(|| json!({}));
    if !table.is_object() {
        *table = json!({});
    }
    table[name] = json!(value);
}

/// Modern data model 2.1.
fn affinity_labels(key: &str) -> Vec<(&'static str, String)> {
    let Some(keys::Key::Affinity { kind, name, cidr, .. }) = keys::parse(key) else { return Vec::new() };
    vec![
        (HOST_LABEL, name::host_hash(&name)),
        ("projectcalico.org/affinity-type", kind.as_str().to_owned()),
        ("projectcalico.org/ip-version", Family::of_net(&cidr).version().to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::{place, sources};

    fn spoilt(value: &Value) -> Vec<Value> {
        let wrong = [Value::Null, json!(7), json!("text"), json!([1]), json!({"a": null})];
        let Value::Object(members) = value else { return wrong.to_vec() };
        let mut all = wrong.to_vec();
        for (name, member) in members {
            for spoilt in spoilt(member) {
                let mut copy = value.clone();
                copy[name] = spoilt;
                all.push(copy);
            }
        }
        all
    }

    #[test]
    fn objects_of_any_content_are_read_without_a_panic() {
        let whole = json!({
            "metadata": {"name": "10-0-0-0-26", "namespace": "n", "resourceVersion": "7", "uid": "u", "labels": {"a": "b"},
                "annotations": {METADATA: "{\"uid\":1}", "projectcalico.org/labels": "[]", "projectcalico.org/ASNumber": "x"}},
            "spec": {"cidr": "10.0.0.0/26", "node": "n", "deleted": "true", "handleID": "10-0-0-0-26", "key": "k",
                "value": "v", "attributes": [{"handle_id": null}, 7], "affinity": null},
        });
        let mut read = 0;
        for source in sources("").unwrap() {
            for raw in spoilt(&whole) {
                if let Some(object) = Object::read(source.kind, raw) {
                    let value = object.value();
                    object.announcing_deletion();
                    read += 1;
                    if let Ok(place) = place(&object.key) {
                        let _ = body(&place, &value, Some(&object));
                    }
                }
            }
        }
        assert!(read > 100, "{read}");
    }

    #[test]
    fn values_that_are_no_json_objects_are_invalid() {
        for key in [
            "/calico/ipam/v2/handle/h",
            "/calico/ipam/v2/config",
            "/calico/resources/v3/projectcalico.org/ippools/p",
        ] {
            for value in ["", "[]", "7", "{"] {
                assert!(body(&place(key).unwrap(), value.as_bytes(), None).is_err(), "{key} {value}");
            }
            assert!(body(&place(key).unwrap(), b"{}", None).is_ok(), "{key}");
        }
        let place = place("/percale/x").unwrap();
        assert!(body(&place, &[0xff], None).is_err() && body(&place, b"anything", None).is_ok());
    }
}
