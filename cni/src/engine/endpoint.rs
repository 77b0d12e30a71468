//! The attachment's workload endpoint: what Calico's agent and policies know of it (reference 2.6).
//!
//! In etcd it is an object; in Kubernetes a view of the pod, of its first interface only. It is written
//! after everything else of an ADD, and removed before the addresses are free (decision 15). An endpoint
//! that names another container is a newer sandbox's, and is left alone.

use super::call::Call;
use super::links::Place;
use super::pods::{self, Facts};
use super::result::mac_text;
use super::undo::Undo;
use super::{failure, leases, ready};
use cni_protocol::{Attachment, CniError};
use datastore::embedded::Mode;
use datastore::{DriveError, drive};
use ipam::Held;
use model::endpoint::{self, KUBERNETES, NAMESPACE_LABEL, ORCHESTRATOR_LABEL, PLAIN};
use model::store::{Entry, Expect, Plan, Query, Stop, View, Write};
use model::{Stored, WorkloadEndpoint, WorkloadEndpointSpec, keys, profile, time};
use netlink::{PodPlan, Wired};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Where containers without a pod are.
const DEFAULT_NAMESPACE: &str = "default";
/// The one interface that Kubernetes knows of a pod.
const FIRST: &str = "eth0";
/// Ours, in an endpoint's metadata: the network, which Calico's form has no room for.
const NETWORK: &str = "percale.io/network";

/// The pod that an attachment belongs to, by the runtime or by its leases.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PodName {
    namespace: String,
    name: String,
}

/// Writes the endpoint of a wired attachment.
///
/// # Errors
/// As any write to the store; code 11 when the pod is another one by now.
pub(crate) fn write<'a>(
    call: &'a Call<'_>,
    facts: &Facts,
    place: &Place,
    plan: &PodPlan,
    wired: &Wired,
    undo: &mut Undo<'a>,
) -> Result<(), CniError> {
    if !call.is_cluster() {
        return Ok(());
    }
    let Some(mut wanted) = wanted(call, facts, place)? else {
        call.note("Kubernetes holds no workload endpoint for this interface");
        return Ok(());
    };
    complete(call, facts, place, plan, wired, &mut wanted);
    let known = plan.addresses.clone();
    // Pushed first: an answer that is lost may belong to a write that was done.
    undo.push("remove workload endpoint", move || {
        remove(call, call.at(), &[], &known).map_err(|e| e.to_string())
    });
    commit(call, facts, wanted)
}

/// The endpoint as far as it follows from names. `None` where the store has none for it.
fn wanted(call: &Call, facts: &Facts, place: &Place) -> Result<Option<WorkloadEndpoint>, CniError> {
    let Some((namespace, name)) = call.req.args.pod() else {
        return if call.is_kubernetes() { Ok(None) } else { plain(call).map(Some) };
    };
    let pod = PodName { namespace: namespace.to_owned(), name: name.to_owned() };
    let is_first = place.name == model::veth::host_name(&model::HostNameOf::Pod { namespace, pod: name });
    if call.is_kubernetes() && !is_first {
        return Ok(None);
    }
    let derived = facts.pod.as_ref().filter(|_| pods::follows_policy(call.conf));
    let derived = derived.and_then(|of| endpoint::of_pod(of, ifname(call, call.at())));
    match derived {
        Some(endpoint) => Ok(Some(endpoint)),
        None => of_name(call, &pod).map(Some),
    }
}

/// Under which interface's name the endpoint of an attachment is kept.
pub(crate) fn ifname<'n>(call: &Call, at: &'n Attachment) -> &'n str {
    if call.is_kubernetes() { FIRST } else { &at.ifname }
}

/// Without `policy.type` k8s the pod's labels are not read.
fn of_name(call: &Call, pod: &PodName) -> Result<WorkloadEndpoint, CniError> {
    let spec = WorkloadEndpointSpec {
        orchestrator: KUBERNETES.to_owned(),
        node: call.node.clone(),
        pod: pod.name.clone(),
        endpoint: ifname(call, call.at()).to_owned(),
        profiles: vec![call.conf.name.clone()],
        ..WorkloadEndpointSpec::default()
    };
    named(&pod.namespace, spec)
}

fn plain(call: &Call) -> Result<WorkloadEndpoint, CniError> {
    let spec = WorkloadEndpointSpec {
        orchestrator: PLAIN.to_owned(),
        node: call.node.clone(),
        endpoint: call.at().ifname.clone(),
        container_id: call.at().container_id.clone(),
        profiles: vec![call.conf.name.clone()],
        ..WorkloadEndpointSpec::default()
    };
    named(DEFAULT_NAMESPACE, spec)
}

fn named(namespace: &str, spec: WorkloadEndpointSpec) -> Result<WorkloadEndpoint, CniError> {
    let name = spec.name().ok_or_else(|| {
        CniError::config(format!(
            "nodename: no workload endpoint can be named after node {:?}, container {:?} and interface {:?}: \
             each must be there, and neither begin nor end with '-'",
            spec.node, spec.container_id, spec.endpoint
        ))
    })?;
    let orchestrator = spec.orchestrator.clone();
    let mut endpoint = WorkloadEndpoint::new(&name, spec);
    endpoint.metadata.namespace = Some(namespace.to_owned());
    endpoint.metadata.labels = BTreeMap::from([
        (NAMESPACE_LABEL.to_owned(), namespace.to_owned()),
        (ORCHESTRATOR_LABEL.to_owned(), orchestrator),
    ]);
    Ok(endpoint)
}

/// What follows from the interface that was made.
fn complete(
    call: &Call,
    facts: &Facts,
    place: &Place,
    plan: &PodPlan,
    wired: &Wired,
    endpoint: &mut WorkloadEndpoint,
) {
    let spec = &mut endpoint.spec;
    spec.container_id.clone_from(&call.at().container_id);
    spec.set_addresses(plan.addresses.iter().copied());
    spec.interface_name.clone_from(&place.name);
    spec.mac = mac_text(&wired.pod_mac);
    for outer in spec.set_floating(&facts.wishes.floating) {
        call.note(&format!("floating address {outer} leads nowhere: the pod has no address of its family"));
    }
}

fn commit(call: &Call, facts: &Facts, wanted: WorkloadEndpoint) -> Result<(), CniError> {
    let store = call.store(Mode::Create).map_err(|e| e.into_cni())?;
    let done = drive(store.as_ref(), &mut View::new(), call.deadline, |view| match call.is_kubernetes() {
        true => plan_view(view, facts, &wanted),
        false => plan_object(view, call, &wanted),
    });
    done.map(|_| ()).map_err(in_cni)
}

/// In Kubernetes: written unread, under the pod's UID. A conflict tells what is there instead.
fn plan_view(view: &View, facts: &Facts, wanted: &WorkloadEndpoint) -> Result<Plan<()>, Stop<CniError>> {
    let uid = facts.pod.as_ref().map(|pod| pod.uid.clone());
    let key = wanted.key();
    let is_another = match view.get(&key) {
        Ok(Some(entry)) => decoded(entry)?.metadata.uid != uid,
        Ok(None) => true,
        Err(_) => false,
    };
    if is_another {
        let msg = format!("pod {} was deleted, or is another one by now", wanted.spec.pod);
        return Err(Stop::Fail(CniError::try_again(msg)));
    }
    let mut wanted = wanted.clone();
    wanted.metadata.uid = uid;
    Ok(Plan::Commit(vec![Write { key, expect: Expect::Any, value: Some(wanted.encode()) }], ()))
}

/// In etcd: in place of what is there, whose identity and unknown members stay.
fn plan_object(view: &View, call: &Call, wanted: &WorkloadEndpoint) -> Result<Plan<()>, Stop<CniError>> {
    let key = wanted.key();
    let network = network_profile(call, wanted);
    let profile_key = network.as_ref().map(model::Profile::key);
    let queries = std::iter::once(key.clone()).chain(profile_key.clone()).map(Query::Get);
    view.require(queries)?;
    let before = view.get(&key)?;
    let value = joined(call, before.map(decoded).transpose()?, wanted.clone());
    let expect = before.map_or(Expect::Absent, |entry| Expect::At(entry.revision));
    let mut writes = vec![Write { key, expect, value: Some(value.encode()) }];
    if let (Some(mut profile), Some(key)) = (network, profile_key)
        && view.get(&key)?.is_none()
    {
        profile.metadata.uid = Some(leases::uid(call));
        profile.metadata.creation_timestamp = Some(time::rfc3339(call.clock.wall_ns));
        writes.push(Write { key, expect: Expect::Absent, value: Some(profile.encode()) });
    }
    Ok(Plan::Commit(writes, ()))
}

/// The network's own profile, where nobody else provides any (reference 1.8).
fn network_profile(call: &Call, wanted: &WorkloadEndpoint) -> Option<model::Profile> {
    let of_pods = wanted.spec.orchestrator == KUBERNETES;
    call.conf.policy.kind.is_empty().then(|| profile::of_network(&call.conf.name, of_pods))
}

fn joined(call: &Call, before: Option<WorkloadEndpoint>, mut wanted: WorkloadEndpoint) -> WorkloadEndpoint {
    match before {
        Some(before) => {
            let mut metadata = before.metadata;
            metadata.labels = wanted.metadata.labels;
            metadata.other.extend(wanted.metadata.other);
            wanted.metadata = metadata;
            wanted.spec.other = before.spec.other;
            wanted.other = before.other;
        }
        None => {
            wanted.metadata.uid = Some(leases::uid(call));
            wanted.metadata.creation_timestamp = Some(time::rfc3339(call.clock.wall_ns));
        }
    }
    wanted.metadata.annotations.insert(NETWORK.to_owned(), call.conf.name.clone());
    wanted
}

/// Removes the endpoint of an attachment, if it still is the attachment's. `held` are its leases, which
/// name its pod; `known` its addresses.
///
/// # Errors
/// As any write to the store. What is gone is done.
pub(crate) fn remove(call: &Call, at: &Attachment, held: &[Held], known: &[IpAddr]) -> Result<(), CniError> {
    if !call.is_cluster() {
        return Ok(());
    }
    let Some(key) = key(call, at, held) else { return Ok(()) };
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
fn key(call: &Call, at: &Attachment, held: &[Held]) -> Option<String> {
    let spec = WorkloadEndpointSpec {
        node: call.node.clone(),
        endpoint: ifname(call, at).to_owned(),
        ..WorkloadEndpointSpec::default()
    };
    let (namespace, spec) = match pod_of(call, at, held) {
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
    let Some(key) = key(call, call.at(), &[]).filter(|_| call.is_cluster()) else { return Ok(None) };
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

fn decoded(entry: &Entry) -> Result<WorkloadEndpoint, Stop<CniError>> {
    WorkloadEndpoint::decode(&entry.key, &entry.value).map_err(|e| Stop::Fail(pods::damaged(&e)))
}

fn in_cni(error: DriveError<CniError>) -> CniError {
    match error {
        DriveError::Plan(error) => error,
        DriveError::Store(error) => failure::store(&error),
        DriveError::Contended(cost) => {
            CniError::try_again(format!("others changed the endpoint all the time ({cost}); try again"))
        }
    }
}
