//! The attachment's workload endpoint: what Calico's agent and policies know of it (reference 2.6).
//!
//! In etcd it is an object; in Kubernetes a view of the pod, of its first interface only. It is written
//! after everything else of an ADD, and removed before the addresses are free (decision 15). An endpoint
//! that names another container is a newer sandbox's, and is left alone.

mod build;
mod own;

pub(crate) use own::{PodName, differences, holders, remove, stored};

use super::call::Call;
use super::links::Place;
use super::pods::{self, Facts};
use super::undo::Undo;
use super::{failure, leases};
use cni_protocol::{Attachment, CniError};
use datastore::embedded::Mode;
use datastore::{Age, DriveError, How, drive_as};
use model::endpoint::KUBERNETES;
use model::store::{Entry, Expect, Plan, Query, Stop, View, Write};
use model::{Stored, WorkloadEndpoint, profile, time};
use netlink::{PodPlan, Wired};

/// Where containers without a pod are.
const DEFAULT_NAMESPACE: &str = "default";
/// The one interface that Kubernetes knows of a pod.
const FIRST: &str = "eth0";
/// Ours, in an endpoint's metadata: the network, which Calico's form has no room for.
const NETWORK: &str = "percale.io/network";

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
    let Some(mut wanted) = build::wanted(call, facts, place)? else {
        call.note("Kubernetes holds no workload endpoint for this interface");
        return Ok(());
    };
    build::complete(call, facts, place, plan, wired, &mut wanted);
    let known = plan.addresses.clone();
    // Pushed first: an answer that is lost may belong to a write that was done.
    undo.push("remove workload endpoint", move || {
        remove(call, call.at(), None, &[], &known).map_err(|e| e.to_string())
    });
    commit(call, facts, wanted)
}

/// Under which interface's name the endpoint of an attachment is kept.
pub(crate) fn ifname<'n>(call: &Call, at: &'n Attachment) -> &'n str {
    if call.is_kubernetes() { FIRST } else { &at.ifname }
}

fn commit(call: &Call, facts: &Facts, wanted: WorkloadEndpoint) -> Result<(), CniError> {
    let store = call.store(Mode::Create).map_err(|e| e.into_cni())?;
    let plan = |view: &View| match call.is_kubernetes() {
        true => plan_view(view, facts, &wanted),
        false => plan_object(view, call, &wanted),
    };
    let how = How::of(Age::Watched);
    let done = drive_as(how, store.as_ref(), &mut View::new(), call.deadline, plan);
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

/// In etcd: as a new one, unread, and after a conflict in place of what is there, whose identity and
/// unknown members stay.
fn plan_object(view: &View, call: &Call, wanted: &WorkloadEndpoint) -> Result<Plan<()>, Stop<CniError>> {
    let key = wanted.key();
    let network = network_profile(call, wanted);
    let profile_key = network.as_ref().map(model::Profile::key);
    view.require(profile_key.clone().map(Query::Get))?;
    let before = view.get(&key).unwrap_or_default();
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
            metadata.generate_name = wanted.metadata.generate_name;
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
