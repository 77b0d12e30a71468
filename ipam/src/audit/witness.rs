//! What the store itself says about the owner of an address: its pod, or its endpoint.

use super::Witness;
use crate::draft::Step;
use crate::request::Held;
use model::store::{Query, View};
use model::{Stored, WorkloadEndpoint, pod::Pod};
use std::collections::{BTreeMap, BTreeSet};

const PODS: &str = "/kubernetes/pods/";
const ENDPOINTS: &str = "/calico/resources/v3/projectcalico.org/workloadendpoints/";

/// What is known of an allocation's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It is there, or what was read does not prove that it is gone.
    Lives,
    /// A proof.
    Gone(String),
    /// The store does not know such owners.
    Unknown,
}

/// The owners in the store.
pub(super) enum Owners {
    Unknown,
    /// By namespace and name; `None` cannot be read.
    Pods(BTreeMap<(String, String), Option<Pod>>),
    /// Ids of containers that an endpoint names; `None` when an endpoint cannot be read.
    Endpoints(Option<BTreeSet<String>>),
}

impl Owners {
    /// What must be read. It comes after the allocations: who is not there then was there before.
    pub fn query(witness: Witness) -> Option<Query> {
        match witness {
            Witness::Nothing => None,
            Witness::Pods => Some(Query::List(PODS.to_owned())),
            Witness::Endpoints => Some(Query::List(ENDPOINTS.to_owned())),
        }
    }

    pub fn load(view: &View, witness: Witness) -> Step<Self> {
        Ok(match witness {
            Witness::Nothing => Owners::Unknown,
            Witness::Pods => {
                let named = |key: &str| {
                    let (namespace, name) = key.strip_prefix(PODS)?.split_once('/')?;
                    Some((namespace.to_owned(), name.to_owned()))
                };
                let pods = view.list(PODS)?;
                let pods = pods.filter_map(|e| Some((named(&e.key)?, Pod::decode(&e.key, &e.value).ok())));
                Owners::Pods(pods.collect())
            }
            Witness::Endpoints => {
                let container = |entry: &model::store::Entry| {
                    WorkloadEndpoint::decode(&entry.key, &entry.value).ok().map(|e| e.spec.container_id)
                };
                Owners::Endpoints(view.list(ENDPOINTS)?.map(container).collect())
            }
        })
    }

    pub fn of(&self, held: &Held) -> Owner {
        let attr = |name: &str| held.attrs.get(name).map(String::as_str).filter(|text| !text.is_empty());
        match self {
            Owners::Unknown | Owners::Endpoints(None) => Owner::Unknown,
            Owners::Pods(pods) => match (attr("namespace"), attr("pod")) {
                (Some(namespace), Some(name)) => {
                    judge_pod(pods.get(&(namespace.to_owned(), name.to_owned())), held)
                }
                _ => Owner::Unknown,
            },
            Owners::Endpoints(Some(containers)) => judge_endpoint(containers, held),
        }
    }
}

fn judge_pod(found: Option<&Option<Pod>>, held: &Held) -> Owner {
    let attr = |name: &str| held.attrs.get(name).map(String::as_str);
    let pod = match found {
        None => return Owner::Gone("its pod does not exist".to_owned()),
        Some(None) => return Owner::Lives,
        Some(Some(pod)) => pod,
    };
    if let Some(uid) = attr("poduid").filter(|uid| !pod.has_uid(uid)) {
        return Owner::Gone(format!("its pod (UID {uid}) was replaced by another of the same name"));
    }
    if attr("node").is_some_and(|node| !pod.node.is_empty() && pod.node != node) {
        return Owner::Gone(format!("its pod runs on node {}", pod.node));
    }
    if pod.is_finished() {
        return Owner::Gone("its pod has ended".to_owned());
    }
    // Only the addresses of the first interface are told.
    let first = attr("ifname").is_none_or(|ifname| ifname == "eth0");
    let addresses = pod.addresses();
    if first && !addresses.is_empty() && !addresses.contains(&held.ip) {
        return Owner::Gone("its pod has other addresses".to_owned());
    }
    Owner::Lives
}

/// A handle ends in its container's id, which has no dot.
fn judge_endpoint(containers: &BTreeSet<String>, held: &Held) -> Owner {
    let handle = held.handle.as_deref().unwrap_or_default();
    let names = |id: &String| !id.is_empty() && (handle == id || handle.ends_with(&format!(".{id}")));
    match containers.iter().any(names) {
        true => Owner::Lives,
        false => Owner::Gone("no endpoint names its container".to_owned()),
    }
}
