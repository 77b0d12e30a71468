//! The kinds of resource that this build manages: names, members, where they are stored.
//!
//! Resources stay JSON here, so that members that a newer Calico wrote survive what is not about
//! them; only what a user writes is held to the tables (reference 4, modern data model 2 to 5).

mod affinity;
mod check;
mod config;
mod network;
mod policy;
pub mod profile;
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
    names: Names,
    place: Place,
    /// Others write it; we show it.
    pub is_read_only: bool,
    /// Members beside those of `spec` are taken as they are.
    is_open: bool,
    /// Heading, JSON pointer, and whether it is shown with `-o wide` only.
    pub columns: &'static [(&'static str, &'static str, bool)],
    rule: fn(&Value, &mut Vec<Problem>),
}

/// Which names objects of a kind can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// What Kubernetes takes (RFC 1123 subdomains), as Calico asks for.
    Any,
    /// Names of hosts may have capital letters too.
    Hosts,
    Only(&'static str),
    /// `default`, or `node.NAME` for one node.
    DefaultOrNode,
}

/// Where objects of a kind are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Cluster,
    /// Keys have a namespace before the name.
    Namespaced,
    /// Under a key and in a form of its own (reference 3.1).
    IpamConfig,
    Affinities,
}

impl Kind {
    const PLAIN: Kind = Kind {
        name: "",
        plural: "",
        aliases: &[],
        spec: &[],
        status: &[],
        names: Names::Any,
        place: Place::Cluster,
        is_read_only: false,
        is_open: false,
        columns: &[],
        rule: check::nothing,
    };
}

/// The namespace of an object that names none.
const NAMESPACE: &str = "default";

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

    /// The name within all objects of the kind: `NAMESPACE/NAME` where there are namespaces.
    pub fn full_name(&self, namespace: Option<&str>, name: &str) -> String {
        match self.place {
            Place::Namespaced => format!("{}/{name}", namespace.unwrap_or(NAMESPACE)),
            _ => name.to_owned(),
        }
    }

    /// As [`Kind::full_name`], of an object.
    pub fn name_in(&self, object: &Value) -> String {
        self.full_name(object["metadata"]["namespace"].as_str(), name_of(object))
    }

    /// Whether an object can have this full name: it becomes part of a key.
    pub fn can_be(&self, full: &str) -> bool {
        let name = match (self.place, full.split_once('/')) {
            (Place::Namespaced, Some((namespace, name))) if is_name(namespace) => name,
            (Place::Namespaced, _) => return false,
            _ => full,
        };
        is_name(name) && self.problem_with(name).is_none()
    }

    /// The key of the object with this full name.
    pub fn key(&self, full: &str) -> String {
        match self.place {
            Place::IpamConfig => keys::ipam_config(&Scope::Cluster),
            _ if !self.is_policy() => keys::resource(self.plural, full),
            _ => match full.rsplit_once('/') {
                Some((namespace, name)) => {
                    keys::resource(self.plural, &format!("{namespace}/{}", stored_policy(name)))
                }
                None => keys::resource(self.plural, &stored_policy(full)),
            },
        }
    }

    /// Prefix of the keys of all objects of this kind, or of those in a namespace.
    pub fn prefix(&self, namespace: Option<&str>) -> String {
        match (self.place, namespace) {
            (Place::IpamConfig, _) => keys::ipam_config(&Scope::Cluster),
            (Place::Affinities, _) => keys::all_affinities(&Scope::Cluster),
            (Place::Namespaced, Some(namespace)) => format!("{}{namespace}/", keys::resources(self.plural)),
            _ => keys::resources(self.plural),
        }
    }

    /// Objects of this kind are found only by looking at all of them.
    pub fn is_listed(&self) -> bool {
        self.place == Place::Affinities
    }

    /// Objects of this kind are derived where the store is Kubernetes.
    pub fn is_derived(&self) -> bool {
        self.plural == "profiles"
    }

    pub fn is_namespaced(&self) -> bool {
        self.place == Place::Namespaced
    }

    fn is_policy(&self) -> bool {
        ["networkpolicies", "globalnetworkpolicies"].contains(&self.plural)
    }

    /// The stored form of an object.
    pub fn encode(&self, object: &Value) -> Result<Vec<u8>> {
        if self.place == Place::IpamConfig {
            return config::encode(object);
        }
        let mut object = object.clone();
        if self.is_policy() {
            object["metadata"]["name"] = stored_policy(name_of(&object)).into();
        }
        Ok(serde_json::to_vec(&object)?)
    }

    /// The object of a stored value. Fails where it is not even an object of this kind.
    pub fn decode(&self, key: &str, value: &[u8]) -> Result<Value> {
        match self.place {
            Place::IpamConfig => return config::decode(key, value),
            Place::Affinities => return affinity::decode(key, value),
            _ => {}
        }
        let mut object: Value = serde_json::from_slice(value)?;
        let Some(members) = object.as_object_mut() else { bail!("{key}: not a JSON object") };
        members.insert("kind".into(), self.name.into());
        members.insert("apiVersion".into(), API_VERSION.into());
        let metadata = members.entry("metadata").or_insert_with(|| json!({}));
        let Some(metadata) = metadata.as_object_mut() else { bail!("{key}: metadata is not an object") };
        let mut parts = key.rsplit('/');
        let name = parts.next().unwrap_or_default();
        let name = name.strip_prefix(DEFAULT_TIER).filter(|_| self.is_policy()).unwrap_or(name);
        metadata.insert("name".into(), name.into());
        if self.is_namespaced() {
            metadata.insert("namespace".into(), parts.next().unwrap_or_default().into());
        }
        Ok(object)
    }

    /// Everything wrong with an object that a user wrote, but for what depends on other objects.
    /// Fields that this build does not know are fine where `stored` has them: a newer Calico's.
    pub fn check(&self, object: &Value, stored: Option<&Value>) -> Vec<Problem> {
        let mut problems = Vec::new();
        check("", object, &Shape::Object(ENVELOPE), &mut problems);
        check_version(object, &mut problems);
        if self.is_read_only {
            let text = format!("objects of kind {} are written by others, and only shown here", self.name);
            problems.push(Problem::new("kind", text));
        }
        problems.extend(self.problem_with(name_of(object)).map(|text| Problem::new("metadata.name", text)));
        problems.extend(check_namespace(self, object));
        let spec = if self.is_open { Shape::Any } else { Shape::Object(self.spec) };
        check("spec", &object["spec"], &spec, &mut problems);
        check("status", &object["status"], &Shape::Object(self.status), &mut problems);
        let is_stored = |p: &Problem| stored.and_then(|s| s.pointer(&pointer(&p.field))).is_some();
        problems.retain(|p| !(p.unknown && is_stored(p)));
        if problems.is_empty() {
            (self.rule)(&object["spec"], &mut problems);
        }
        problems
    }

    /// What is wrong with a name.
    fn problem_with(&self, name: &str) -> Option<String> {
        let is_host = is_name(name);
        match self.names {
            Names::Only(only) if name == only => None,
            Names::Only(only) => Some(format!("the only {} is named {only}", self.name)),
            _ if name.is_empty() => Some("a name is needed".to_owned()),
            Names::Hosts if is_host => None,
            Names::DefaultOrNode if name == "default" => None,
            Names::DefaultOrNode if name.strip_prefix("node.").is_some_and(is_name) => None,
            Names::DefaultOrNode => Some("is default, or node.NAME for the settings of one node".to_owned()),
            Names::Any if is_host && is_subdomain(name) => None,
            Names::Hosts => {
                Some(format!("{name:?} is no name: use at most 253 letters, digits, '-' and '.'"))
            }
            Names::Any => {
                Some(format!("{name:?} is no name: use at most 253 small letters, digits, '-' and '.'"))
            }
        }
    }

    /// Members of a stored spec that this build does not know: a user who leaves them out does not
    /// mean to remove them (decision 22).
    pub fn carry_over(&self, stored: &Value, new: &mut Value) {
        let (Some(old), Some(new)) = (stored["spec"].as_object(), new["spec"].as_object_mut()) else {
            return;
        };
        if self.is_open {
            return;
        }
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
    member("namespace", Shape::Text),
    member("generateName", Shape::Text),
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

fn check_namespace(kind: &Kind, object: &Value) -> Option<Problem> {
    let namespace = object["metadata"]["namespace"].as_str()?;
    let text = match kind.place {
        Place::Namespaced if is_subdomain(namespace) => return None,
        Place::Namespaced => "is no name of a namespace",
        _ => "objects of this kind are in no namespace",
    };
    Some(Problem::new("metadata.namespace", text))
}

/// Policies of the default tier are stored under this prefix (Calico until 3.31).
const DEFAULT_TIER: &str = "default.";

fn stored_policy(name: &str) -> String {
    match [DEFAULT_TIER, "knp."].iter().any(|prefix| name.starts_with(prefix)) {
        true => name.to_owned(),
        false => format!("{DEFAULT_TIER}{name}"),
    }
}

/// What Kubernetes takes as a name (RFC 1123).
fn is_subdomain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label = |label: &str| {
        !label.is_empty() && label.chars().all(fits) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
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
        assert_eq!(find("gnp").unwrap().name, "GlobalNetworkPolicy");
        assert!(find("xyzzyplugh").unwrap_err().to_string().contains("known are IPPool"));
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
    fn policies_of_the_default_tier_are_kept_as_calico_does() {
        let kind = find("np").unwrap();
        let key = "/calico/resources/v3/projectcalico.org/networkpolicies/shop/default.allow";
        assert_eq!(kind.key("shop/allow"), key);
        assert_eq!(
            find("gnp").unwrap().key("knp.x"),
            "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/knp.x"
        );
        let object = json!({"metadata": {"name": "allow", "namespace": "shop"}, "spec": {}});
        let stored = kind.encode(&object).unwrap();
        assert!(String::from_utf8_lossy(&stored).contains("default.allow"));
        let read = kind.decode(key, &stored).unwrap();
        assert_eq!(
            (&read["metadata"]["name"], &read["metadata"]["namespace"]),
            (&json!("allow"), &json!("shop"))
        );
    }

    #[test]
    fn names_are_calico_s() {
        let refused = |kind: &str, name: &str| find(kind).unwrap().problem_with(name).is_some();
        assert!(refused("bgppeer", "Upper") && refused("bgppeer", "a_b") && refused("ippool", "-a"));
        assert!(!refused("node", "Upper") && !refused("bgppeer", "a.b-c"));
        assert!(
            refused("felixconfig", "mine")
                && !refused("felixconfig", "node.N1")
                && !refused("bgpconfig", "default")
        );
        assert!(
            find("np").unwrap().can_be("a/b")
                && !find("np").unwrap().can_be("b")
                && !find("gnp").unwrap().can_be("a/b")
        );
    }

    #[test]
    fn what_excludes_each_other_is_told() {
        let problems = |kind: &str, name: &str, spec: Value| -> Vec<String> {
            let object = object(kind, name, spec.as_object().unwrap().clone());
            find(kind).unwrap().check(&object, None).iter().map(|p| p.field.clone()).collect()
        };
        assert_eq!(
            problems("bgppeer", "p", json!({"peerIP": "10.0.0.1", "peerSelector": "all()"})),
            ["spec.peerSelector"]
        );
        assert_eq!(problems("bgppeer", "p", json!({"peerIP": "host", "asNumber": 1})), ["spec.peerIP"]);
        assert_eq!(
            problems("bgppeer", "p", json!({"peerIP": "[fd00::1]:179", "asNumber": 64512})),
            Vec::<String>::new()
        );
        assert_eq!(
            problems("gnp", "p", json!({"preDNAT": true, "egress": [{"action": "Allow"}]})),
            ["spec.applyOnForward", "spec.egress"]
        );
        assert_eq!(problems("hep", "p", json!({"node": "n"})), ["spec"]);
        assert_eq!(
            problems(
                "bgpfilter",
                "f",
                json!({"exportV4": [{"cidr": "fd00::/8", "matchOperator": "In", "action": "Accept"}]})
            ),
            ["spec.exportV4[0].cidr"]
        );
        assert_eq!(
            problems("felixconfig", "default", json!({"bpfEnabled": true, "anything": 1})),
            Vec::<String>::new()
        );
        assert_eq!(problems("wep", "w", json!({})), ["kind"]);
        assert_eq!(problems("np", "p", json!({"ingress": [{"action": "Alow"}]})), ["spec.ingress[0].action"]);
    }

    #[test]
    fn names_that_would_break_a_key_are_refused() {
        for name in ["", "a/b", "../x", "a b", ".x", "é"] {
            assert!(!is_name(name), "{name}");
        }
        assert!(!is_name(&"a".repeat(254)) && is_name("10-91-0-0-16") && is_name("Node_1.example"));
    }
}
