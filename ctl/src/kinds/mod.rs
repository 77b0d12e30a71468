//! The kinds of resource that this build manages: names, members, where they are stored.
//!
//! Resources stay JSON here, so that members that a newer Calico wrote survive what is not about
//! them; only what a user writes is held to the tables (reference 4, modern data model 2 to 5).

mod check;
mod config;
mod schema;
mod tables;

pub use schema::{Problem, nearest};

use crate::outcome::usage;
use anyhow::{Result, bail};
use model::{Scope, keys};
use schema::{Member, Shape, check, member};
use serde_json::{Map, Value, json};

pub const API_VERSION: &str = "projectcalico.org/v3";

/// One kind of resource.
pub struct Kind {
    pub name: &'static str,
    pub plural: &'static str,
    aliases: &'static [&'static str],
    spec: &'static [Member],
    status: &'static [Member],
    /// The only name that an object of this kind can have.
    pub only_name: Option<&'static str>,
    /// Heading, JSON pointer, and whether it is shown with `-o wide` only.
    pub columns: &'static [(&'static str, &'static str, bool)],
    rule: fn(&Value, &mut Vec<Problem>),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for &'static Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Finds a kind by name in any case, singular, plural or short.
pub fn find(text: &str) -> Result<&'static Kind> {
    let lower = text.to_lowercase();
    let is = |k: &&Kind| {
        k.name.to_lowercase() == lower || k.plural == lower || k.aliases.contains(&lower.as_str())
    };
    if let Some(kind) = tables::KINDS.iter().find(is) {
        return Ok(kind);
    }
    let names = || tables::KINDS.iter().map(|k| k.name);
    let hint = match nearest(text, names()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known are {}", names().collect::<Vec<_>>().join(", ")),
    };
    bail!(usage(format!("unknown kind {text:?}; {hint}")))
}

impl Kind {
    /// `ippool/NAME`, as results are reported.
    pub fn subject(&self, name: &str) -> String {
        format!("{}/{name}", self.name.to_lowercase())
    }

    pub fn key(&self, name: &str) -> String {
        if self.in_ipam_config() {
            keys::ipam_config(&Scope::Cluster)
        } else {
            keys::resource(self.plural, name)
        }
    }

    /// Prefix of the keys of all objects of this kind.
    pub fn prefix(&self) -> String {
        if self.in_ipam_config() { keys::ipam_config(&Scope::Cluster) } else { keys::resources(self.plural) }
    }

    /// Calico keeps this one under a key and in a form of its own (reference 3.1).
    fn in_ipam_config(&self) -> bool {
        self.plural == "ipamconfigurations"
    }

    /// The stored form of an object.
    pub fn encode(&self, object: &Value) -> Result<Vec<u8>> {
        if self.in_ipam_config() { config::encode(object) } else { Ok(serde_json::to_vec(object)?) }
    }

    /// The object of a stored value. Fails where it is not even an object of this kind.
    pub fn decode(&self, key: &str, value: &[u8]) -> Result<Value> {
        if self.in_ipam_config() {
            return config::decode(key, value);
        }
        let mut object: Value = serde_json::from_slice(value)?;
        let Some(members) = object.as_object_mut() else { bail!("{key}: not a JSON object") };
        members.insert("kind".into(), self.name.into());
        members.insert("apiVersion".into(), API_VERSION.into());
        let metadata = members.entry("metadata").or_insert_with(|| json!({}));
        let Some(metadata) = metadata.as_object_mut() else { bail!("{key}: metadata is not an object") };
        let name = key.rsplit('/').next().unwrap_or_default();
        metadata.insert("name".into(), name.into());
        Ok(object)
    }

    /// Everything wrong with an object that a user wrote, but for what depends on other objects.
    /// Fields that this build does not know are fine where `stored` has them: a newer Calico's.
    pub fn check(&self, object: &Value, stored: Option<&Value>) -> Vec<Problem> {
        let mut problems = Vec::new();
        check("", object, &Shape::Object(ENVELOPE), &mut problems);
        check_version(object, &mut problems);
        check_name(self, object, &mut problems);
        check("spec", &object["spec"], &Shape::Object(self.spec), &mut problems);
        check("status", &object["status"], &Shape::Object(self.status), &mut problems);
        let is_stored = |p: &Problem| stored.and_then(|s| s.pointer(&pointer(&p.field))).is_some();
        problems.retain(|p| !(p.unknown && is_stored(p)));
        if problems.is_empty() {
            (self.rule)(&object["spec"], &mut problems);
        }
        problems
    }

    /// Members of a stored spec that this build does not know: a user who leaves them out does not
    /// mean to remove them (decision 22).
    pub fn carry_over(&self, stored: &Value, new: &mut Value) {
        let (Some(old), Some(new)) = (stored["spec"].as_object(), new["spec"].as_object_mut()) else {
            return;
        };
        for (name, value) in old.iter().filter(|(name, _)| self.spec.iter().all(|m| m.name != *name)) {
            new.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }

    /// What may not change from `old` to `new`.
    pub fn check_change(&self, old: &Value, new: &Value) -> Vec<Problem> {
        if self.plural == "ippools" { check::pool_change(old, new) } else { Vec::new() }
    }
}

const ENVELOPE: &[Member] = &[
    member("apiVersion", Shape::Text),
    member("kind", Shape::Text),
    member("metadata", Shape::Object(METADATA)),
    member("spec", Shape::Any),
    member("status", Shape::Any),
];

const METADATA: &[Member] = &[
    member("name", Shape::Text),
    member("labels", Shape::Texts),
    member("annotations", Shape::Texts),
    member("uid", Shape::Text),
    member("resourceVersion", Shape::Text),
    member("creationTimestamp", Shape::Text),
    member("deletionTimestamp", Shape::Text),
    member("deletionGracePeriodSeconds", Shape::Any),
    member("generation", Shape::Any),
    member("finalizers", Shape::List(&Shape::Text)),
    member("ownerReferences", Shape::Any),
    member("managedFields", Shape::Any),
];

/// `spec.a[1].b` as a JSON pointer. A name with a dot in it finds nothing, which only refuses more.
fn pointer(field: &str) -> String {
    format!("/{}", field.replace("[", ".").replace("]", "").replace('.', "/"))
}

/// A file written for the Kubernetes CRDs differs in the version alone.
fn check_version(object: &Value, problems: &mut Vec<Problem>) {
    match object["apiVersion"].as_str() {
        Some(API_VERSION | "crd.projectcalico.org/v1") => {}
        _ => problems.push(Problem::new("apiVersion", format!("write {API_VERSION}"))),
    }
}

fn check_name(kind: &Kind, object: &Value, problems: &mut Vec<Problem>) {
    let name = name_of(object);
    let text = match kind.only_name {
        Some(only) if name == only => return,
        Some(only) => format!("the only {} is named {only}", kind.name),
        None if is_name(name) => return,
        None if name.is_empty() => "a name is needed".to_owned(),
        None => format!("{name:?} is no name: use at most 253 letters, digits, '-' and '.'"),
    };
    problems.push(Problem::new("metadata.name", text));
}

/// Whether a text can be the name of an object: it becomes part of a key.
pub fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (1..=253).contains(&name.len())
        && name.chars().all(fits)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Removes null members at every level: they count as absent.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, v| !v.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// An object with this spec and nothing else.
pub fn object(kind: &str, name: &str, spec: Map<String, Value>) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// The network of a pool that is stored or written.
pub use check::pool_net;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_every_name() {
        for text in ["IPPool", "ippool", "ippools", "IPPOOLS", "pool"] {
            assert_eq!(find(text).unwrap().name, "IPPool", "{text}");
        }
        assert_eq!(find("ipamconfig").unwrap().name, "IPAMConfiguration");
        assert!(find("ipool").unwrap_err().to_string().contains("did you mean IPPool?"));
        assert!(find("bgppeer").unwrap_err().to_string().contains("known are IPPool"));
    }

    #[test]
    fn the_envelope_is_checked_too() {
        let kind = find("ippool").unwrap();
        let all = kind
            .check(&json!({"apiVersion": "v1", "metadata": {"name": "a/b", "label": {}}, "sepc": {}}), None);
        let text: Vec<_> = all.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(text, ["metadata.label", "sepc", "apiVersion", "metadata.name"]);
    }

    #[test]
    fn what_a_newer_calico_stored_may_stay_and_is_kept() {
        let kind = find("ippool").unwrap();
        let stored = object(
            "IPPool",
            "p",
            json!({"cidr": "10.0.0.0/16", "future": {"x": 1}}).as_object().unwrap().clone(),
        );
        assert!(kind.check(&stored, None)[0].unknown);
        assert!(kind.check(&stored, Some(&stored)).is_empty());
        let mut new = json!({"spec": {"cidr": "10.0.0.0/16"}});
        kind.carry_over(&stored, &mut new);
        assert_eq!(new["spec"]["future"]["x"], 1);
    }

    #[test]
    fn names_that_would_break_a_key_are_refused() {
        for name in ["", "a/b", "../x", "a b", ".x", "é"] {
            assert!(!is_name(name), "{name}");
        }
        assert!(!is_name(&"a".repeat(254)) && is_name("10-91-0-0-16") && is_name("Node_1.example"));
    }
}
