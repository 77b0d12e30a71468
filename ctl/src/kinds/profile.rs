//! Profiles in Kubernetes: nobody stores them. They are derived from namespaces and service accounts, as
//! Calico's clients do (modern data model 5; reference 1.8).

use super::API_VERSION;
use anyhow::{Context as _, Result};
use datastore::{Deadline, Store};
use model::keys;
use model::store::Entry;
use serde_json::{Map, Value, json};

const NAMESPACES: &str = "/kubernetes/namespaces/";
const ACCOUNTS: &str = "/kubernetes/serviceaccounts/";
/// The profile that allows everything.
const ALLOW: &str = "projectcalico-default-allow";
/// The label that holds the object's own name.
const NAME: &str = "projectcalico.org/name";

/// The profile of this name, or all.
///
/// # Errors
/// Those of the store, and objects of Kubernetes that are none.
pub fn derived(store: &dyn Store, name: Option<&str>, deadline: Deadline) -> Result<Vec<Entry>> {
    let mut profiles = vec![entry(ALLOW, true, Map::new(), 0)];
    for namespace in store.list(NAMESPACES, deadline)? {
        let owner = rest(&namespace, NAMESPACES);
        profiles.push(of(&namespace, &format!("kns.{owner}"), "pcns.", true)?);
    }
    for account in store.list(ACCOUNTS, deadline)? {
        let owner = rest(&account, ACCOUNTS).replace('/', ".");
        profiles.push(of(&account, &format!("ksa.{owner}"), "pcsa.", false)?);
    }
    let wanted = name.map(|name| keys::resource("profiles", name));
    profiles.retain(|entry| wanted.as_ref().is_none_or(|key| *key == entry.key));
    Ok(profiles)
}

fn rest<'e>(entry: &'e Entry, prefix: &str) -> &'e str {
    entry.key.strip_prefix(prefix).unwrap_or_default()
}

/// Labels of the owner under a prefix, and its name. Rules allow everything for namespaces, for accounts there
/// are none.
fn of(owner: &Entry, name: &str, prefix: &str, allows: bool) -> Result<Entry> {
    let object: Value = serde_json::from_slice(&owner.value).with_context(|| owner.key.clone())?;
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut apply: Map<String, Value> =
        labels.into_iter().map(|(label, value)| (format!("{prefix}{label}"), value)).collect();
    let own = owner.key.rsplit('/').next().unwrap_or_default();
    apply.insert(format!("{prefix}{NAME}"), own.into());
    Ok(entry(name, allows, apply, owner.revision))
}

fn entry(name: &str, allows: bool, labels: Map<String, Value>, revision: u64) -> Entry {
    let mut spec = Map::new();
    if allows {
        let rules = json!([{"action": "Allow", "source": {}, "destination": {}}]);
        spec.insert("ingress".into(), rules.clone());
        spec.insert("egress".into(), rules);
    }
    if !labels.is_empty() {
        spec.insert("labelsToApply".into(), labels.into());
    }
    let object =
        json!({"apiVersion": API_VERSION, "kind": "Profile", "metadata": {"name": name}, "spec": spec});
    Entry { key: keys::resource("profiles", name), value: object.to_string().into_bytes(), revision }
}
