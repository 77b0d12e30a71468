//! Which stored endpoint is an attachment's, taking it away, and comparing it.

use super::{DEFAULT_NAMESPACE, FIRST, NETWORK, decoded, ifname, in_cni};
use crate::engine::call::Call;
use crate::engine::{failure, pods, ready};
use cni_protocol::{Attachment, CniError};
use datastore::drive;
use datastore::embedded::Mode;
use ipam::Held;
use model::endpoint::{self, KUBERNETES, PLAIN};
use model::resource::Spec;
use model::store::{Expect, Plan, Query, View, Write};
use model::{Stored, WorkloadEndpoint, WorkloadEndpointSpec, keys};
use std::net::IpAddr;

/// The kind in keys.
const ENDPOINTS: &str = <WorkloadEndpointSpec as Spec>::PLURAL;
/// Endpoints that are read at once.
const AT_ONCE: usize = 100;

/// The pod that an attachment belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodName {
    namespace: String,
    name: String,
}

/// Removes the endpoint of an attachment, if it still is the attachment's. `held` are its leases, which
/// name its pod where `pod` does not; `known` are its addresses.
///
/// # Errors
/// As any write to the store. What is gone is done.
pub(crate) fn remove(
    call: &Call,
    at: &Attachment,
    pod: Option<&PodName>,
    held: &[Held],
    known: &[IpAddr],
) -> Result<(), CniError> {
    if !call.is_cluster() {
        return Ok(());
    }
    let pod = pod.cloned().or_else(|| pod_of(call, at, held));
    let Some(key) = key(call, at, pod) else { return Ok(()) };
    let store = call.store(Mode::Existing).map_err(|e| e.into_cni())?;
    let done = drive(store.as_ref(), &mut View::new(), call.deadline, |view| {
        view.require([Query::Get(keys::cluster_information()), Query::Get(key.clone())])?;
        let Some(entry) = view.get(&key)? else { return Ok(Plan::Done(())) };
        ready::refuse(view, call)?;
        if !is_of(call, at, known, &decoded(entry)?.spec) {
            return Ok(Plan::Done(()));
        }
        let expect = Expect::At(entry.revision);
        Ok(Plan::Commit(vec![Write { key: key.clone(), expect, value: None }], ()))
    });
    done.map(|_| ()).map_err(in_cni)
}

/// The key of an attachment's endpoint; `None` where it can have none.
fn key(call: &Call, at: &Attachment, pod: Option<PodName>) -> Option<String> {
    let spec = WorkloadEndpointSpec {
        node: call.node.clone(),
        endpoint: ifname(call, at).to_owned(),
        ..WorkloadEndpointSpec::default()
    };
    let (namespace, spec) = match pod {
        Some(pod) => (
            pod.namespace,
            WorkloadEndpointSpec { orchestrator: KUBERNETES.to_owned(), pod: pod.name, ..spec },
        ),
        None if call.is_kubernetes() => return None,
        None => {
            let container_id = at.container_id.clone();
            let plain = WorkloadEndpointSpec { orchestrator: PLAIN.to_owned(), container_id, ..spec };
            (DEFAULT_NAMESPACE.to_owned(), plain)
        }
    };
    Some(endpoint::key(&namespace, &spec.name()?))
}

fn pod_of(call: &Call, at: &Attachment, held: &[Held]) -> Option<PodName> {
    let of_lease = held.iter().find_map(|held| {
        let (namespace, name) = (held.attrs.get("namespace")?.clone(), held.attrs.get("pod")?.clone());
        Some(PodName { namespace, name })
    });
    let is_own_call = call.req.attachment.as_ref() == Some(at);
    let told = call.req.args.pod().filter(|_| is_own_call);
    told.map(|(namespace, name)| PodName { namespace: namespace.to_owned(), name: name.to_owned() })
        .or(of_lease)
}

/// Whether a stored endpoint is this attachment's: it names the container, or, written by an older Calico,
/// none, and has the attachment's addresses. In Kubernetes, where all interfaces of a pod share one view,
/// the addresses tell in any case which of them it shows.
fn is_of(call: &Call, at: &Attachment, known: &[IpAddr], spec: &WorkloadEndpointSpec) -> bool {
    let shown = spec.addresses();
    let shared = shown.iter().any(|ip| known.contains(ip));
    if spec.container_id.is_empty() {
        return shared || (known.is_empty() && !call.is_kubernetes());
    }
    let is_first = known.is_empty() && at.ifname == FIRST && !shown.is_empty();
    spec.container_id == at.container_id && (!call.is_kubernetes() || shared || is_first)
}

/// The endpoint that is stored for the attachment's pod and interface, whoever's it is.
///
/// # Errors
/// As any read of the store; code 107 for what cannot be understood.
pub(crate) fn stored(call: &Call) -> Result<Option<WorkloadEndpointSpec>, CniError> {
    let Some(key) = key(call, call.at(), pod_of(call, call.at(), &[])).filter(|_| call.is_cluster()) else {
        return Ok(None);
    };
    let store = call.store(Mode::Existing).map_err(|e| e.into_cni())?;
    let found = store.get(&[&key], call.deadline).map_err(|e| failure::store(&e))?.pop().flatten();
    let decoded = found.map(|entry| WorkloadEndpoint::decode(&entry.key, &entry.value)).transpose();
    Ok(decoded.map_err(|e| pods::damaged(&e))?.map(|endpoint| endpoint.spec))
}

/// What of a stored endpoint is not as ADD wrote it. `None`: the store has none for this interface.
pub(crate) fn differences(call: &Call, expected: &[IpAddr]) -> Result<Vec<String>, CniError> {
    if !call.is_cluster() || (call.is_kubernetes() && call.req.args.pod().is_none()) {
        return Ok(Vec::new());
    }
    let Some(spec) = stored(call)? else { return Ok(vec!["its workload endpoint is gone".to_owned()]) };
    let mut found = Vec::new();
    let container = &call.at().container_id;
    if !spec.container_id.is_empty() && spec.container_id != *container {
        found.push(format!("its workload endpoint is of container {}", spec.container_id));
    }
    let shown = spec.addresses();
    let is_other = call.is_kubernetes() && !shown.is_empty() && !shown.iter().any(|ip| expected.contains(ip));
    if !is_other && (shown.len() != expected.len() || !shown.iter().all(|ip| expected.contains(ip))) {
        found.push(format!("its workload endpoint has the addresses {:?}", spec.ip_networks));
    }
    Ok(found)
}

/// Attachments of this network and node that have an endpoint in etcd, and their pods. In Kubernetes the
/// pods themselves come and go.
///
/// # Errors
/// As any read of the store. What cannot be understood is passed over.
pub(crate) fn holders(call: &Call) -> Result<Vec<(Attachment, Option<PodName>)>, CniError> {
    if !call.is_cluster() || call.is_kubernetes() {
        return Ok(Vec::new());
    }
    let store = call.store(Mode::Existing).map_err(|e| e.into_cni())?;
    let all = store.keys(&keys::resources(ENDPOINTS), call.deadline).map_err(|e| failure::store(&e))?;
    let here: Vec<&str> = all.iter().map(String::as_str).filter(|key| is_here(call, key)).collect();
    let mut holders = Vec::new();
    for some in here.chunks(AT_ONCE) {
        let found = store.get(some, call.deadline).map_err(|e| failure::store(&e))?;
        let decoded = found.iter().flatten().filter_map(|e| WorkloadEndpoint::decode(&e.key, &e.value).ok());
        holders.extend(decoded.filter_map(|endpoint| holder(call, endpoint)));
    }
    Ok(holders)
}

fn is_here(call: &Call, key: &str) -> bool {
    let name = key.rsplit('/').next().and_then(endpoint::parse_name);
    name.is_some_and(|[node, ..]| node == call.node)
}

/// Whose endpoint it is, if this network's; those that Calico wrote do not say it.
fn holder(call: &Call, endpoint: WorkloadEndpoint) -> Option<(Attachment, Option<PodName>)> {
    let of_network = endpoint.metadata.annotations.get(NETWORK) == Some(&call.conf.name);
    let spec = endpoint.spec;
    let at = Attachment::new(&*call.conf.name, spec.container_id, spec.endpoint);
    let namespace = endpoint.metadata.namespace.unwrap_or_default();
    let pod = (!spec.pod.is_empty()).then_some(PodName { namespace, name: spec.pod });
    (of_network && !at.container_id.is_empty()).then_some((at, pod))
}
