//! What Kubernetes says of the pod that is networked, and what its annotations ask for (C-15).

use super::call::Call;
use super::{delegated, failure};
use cni_protocol::{CniError, Code, NetConf};
use datastore::Store;
use datastore::embedded::Mode;
use model::pod::{self, AnnotationError, Wishes};
use model::{DecodeError, Namespace, Pod};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `policy.type` with which pods are looked up.
const KUBERNETES_POLICY: &str = "k8s";

/// What is known of the pod; nothing for a container without one.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub pod: Option<Pod>,
    pub namespace: Option<Namespace>,
    pub wishes: Wishes,
}

impl Facts {
    /// For pools that select namespaces.
    pub fn namespace_labels(&self) -> Option<BTreeMap<String, String>> {
        self.namespace.as_ref().map(|namespace| namespace.labels.clone())
    }
}

/// Whether the pod decides about its network, not the configuration alone.
pub(crate) fn follows_policy(conf: &NetConf) -> bool {
    conf.policy.kind == KUBERNETES_POLICY
}

/// Looks up the pod: always where its endpoint is a view of it, else only with `policy.type` k8s.
///
/// # Errors
/// Code 11 for a pod that is not there, or is another by now; 7 for an annotation that cannot be followed.
pub(crate) fn load(call: &Call) -> Result<Facts, CniError> {
    let follows = follows_policy(call.conf);
    let Some((namespace, name)) = call.req.args.pod().filter(|_| call.is_cluster()) else {
        return without_pod(call);
    };
    if !follows && !call.is_kubernetes() {
        return Ok(Facts::default());
    }
    let keys = [pod::key(namespace, name), pod::namespace_key(namespace)];
    let keys: Vec<&str> = keys.iter().map(String::as_str).take(if follows { 2 } else { 1 }).collect();
    let store = source(call)?;
    let mut found = store.get(&keys, call.deadline).map_err(|e| failure::store(&e))?.into_iter();
    let pod = found.next().flatten().ok_or_else(|| unknown(namespace, name))?;
    let mut pod = Pod::decode(&pod.key, &pod.value).map_err(|e| damaged(&e))?;
    check_identity(call, &pod)?;
    let namespace = found.next().flatten().map(|entry| Namespace::decode(&entry.key, &entry.value));
    let namespace = namespace.transpose().map_err(|e| damaged(&e))?;
    let wishes = match follows {
        true => pod::wishes(&pod, namespace.as_ref()).map_err(|e| annotation(&e))?,
        false => Wishes::default(),
    };
    check_allowed(call.conf, &wishes)?;
    // The node's name in the store, which the agent may have chosen.
    pod.node.clone_from(&call.node);
    Ok(Facts { pod: Some(pod), namespace, wishes })
}

/// The labels of the pod's namespace, for the IPAM of another main plugin.
pub(crate) fn namespace_of(call: &Call) -> Option<BTreeMap<String, String>> {
    let (namespace, _) = call.req.args.pod().filter(|_| call.is_kubernetes())?;
    let key = pod::namespace_key(namespace);
    let found = source(call).ok()?.get(&[&key], call.deadline).ok()?.pop().flatten()?;
    Namespace::decode(&found.key, &found.value).ok().map(|namespace| namespace.labels)
}

/// Where pods are: in the network's own store, or in Kubernetes beside it.
fn source(call: &Call) -> Result<Arc<dyn Store>, CniError> {
    match call.is_kubernetes() {
        true => call.store(Mode::Existing).cloned().map_err(|e| e.into_cni()),
        false => call.pods_store().map_err(|e| e.into_cni()),
    }
}

fn without_pod(call: &Call) -> Result<Facts, CniError> {
    if call.conf.features.ip_addrs_no_ipam && call.is_cluster() {
        let why =
            "feature_control.ip_addrs_no_ipam: only pods of Kubernetes can have it, and CNI_ARGS names none";
        return Err(CniError::unsupported_field(why));
    }
    Ok(Facts::default())
}

fn unknown(namespace: &str, name: &str) -> CniError {
    CniError::try_again(format!(
        "K8S_POD_NAME: pod {namespace}/{name} is not known to the API server; it was deleted, or is not there yet"
    ))
}

/// Decision 32: a pod that was deleted and made again under the same name is another one.
fn check_identity(call: &Call, pod: &Pod) -> Result<(), CniError> {
    let name = format!("{}/{}", pod.namespace, pod.name);
    if let Some(uid) = call.req.args.pod_uid.as_deref().filter(|uid| !pod.has_uid(uid)) {
        let msg = format!("K8S_POD_UID: pod {name} is another one by now ({}, not {uid})", pod.uid);
        return Err(CniError::try_again(msg));
    }
    if call.is_kubernetes() && !pod.node.is_empty() && pod.node != call.node {
        let msg = format!("nodename: pod {name} belongs to node {}, and this is {}", pod.node, call.node);
        return Err(CniError::try_again(msg));
    }
    Ok(())
}

/// Features that an administrator must have allowed, and addresses that only our pools have.
fn check_allowed(conf: &NetConf, wishes: &Wishes) -> Result<(), CniError> {
    let refused = |what: &str, why: &str| {
        Err(CniError::config(format!("annotation cni.projectcalico.org/{what}: {why}")))
    };
    let has_pools = !delegated::is_delegated(conf) && conf.ipam.ranges.is_empty();
    let exact = wishes.addresses.len() + wishes.addresses_no_ipam.len();
    if !wishes.floating.is_empty() && !conf.features.floating_ips {
        return refused("floatingIPs", "feature_control.floating_ips of the network does not allow it");
    }
    if !wishes.addresses_no_ipam.is_empty() && !conf.features.ip_addrs_no_ipam {
        return refused("ipAddrsNoIpam", "feature_control.ip_addrs_no_ipam of the network does not allow it");
    }
    if exact != 0 && !has_pools {
        return refused("ipAddrs", "it needs calico-ipam or percale-ipam with pools as the network's IPAM");
    }
    mac(wishes).map(|_| ())
}

/// The Ethernet address that the pod asks for.
///
/// # Errors
/// Code 7 for what is none.
pub(crate) fn mac(wishes: &Wishes) -> Result<Option<[u8; 6]>, CniError> {
    let parsed = wishes.mac.as_deref().map(str::parse::<cni_protocol::Mac>).transpose();
    parsed.map(|mac| mac.map(|mac| mac.0)).map_err(|e| {
        let found = wishes.mac.as_deref().unwrap_or_default();
        CniError::config(format!("annotation cni.projectcalico.org/hwAddr: {found:?} is {e}"))
    })
}

fn annotation(error: &AnnotationError) -> CniError {
    CniError::config(error.to_string())
}

pub(crate) fn damaged(error: &DecodeError) -> CniError {
    CniError::new(Code::StoreDamaged, error.to_string())
}
