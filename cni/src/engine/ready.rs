//! May this store be written to now (decision 18), and does it know this node (decisions 29, 31).

use super::call::Call;
use super::{failure, journal, leases, node};
use cni_protocol::{CniError, Code};
use datastore::embedded::Mode;
use datastore::{Age, DriveError, How, drive_as};
use ipam::IpamError;
use model::decode::Stored;
use model::resource::NodeSpec;
use model::store::{Expect, Plan, Query, Stop, View, Write};
use model::{ClusterInformation, Node, keys, time};

/// Before an ADD: the host's agent has named it where there is one, the store is ready, and has a Node
/// object for this host. A store of this host alone makes that itself; in a cluster the agent does.
///
/// # Errors
/// Code 11 while one of them is missing.
pub(crate) fn for_add(call: &Call) -> Result<(), CniError> {
    if call.is_cluster() {
        node::required(call.req)?;
    }
    let store = call.store(Mode::Create).map_err(|e| e.into_cni())?;
    let ready = |age, view: &mut View| {
        let planned =
            drive_as(How::of(age), store.as_ref(), view, call.deadline, |view| plan_node(view, call));
        planned.map(|_| ())
    };
    call.learn(watched(ready)?);
    journal::prepare(call)
}

/// For STATUS: whether an ADD would find all that it needs beside addresses. Writes nothing.
///
/// # Errors
/// As [`for_add`].
pub(crate) fn for_status(call: &Call) -> Result<(), CniError> {
    let store = call.store(Mode::Existing).map_err(|e| e.into_cni())?;
    let is_cluster = call.is_cluster();
    if is_cluster {
        node::required(call.req)?;
        store.barrier(call.deadline).map_err(|e| failure::store(&e))?;
    }
    let ready = |age, view: &mut View| {
        let planned = drive_as(How::of(age), store.as_ref(), view, call.deadline, |view| {
            plan_node(view, call).map(|_| Plan::Done(()))
        });
        planned.map(|_| ())
    };
    watched(ready).map(|_| ())
}

/// Asks what a watch has told, and the store itself before anything is refused. What was read.
fn watched(ready: impl Fn(Age, &mut View) -> Result<(), DriveError<CniError>>) -> Result<View, CniError> {
    let mut view = View::new();
    let first = ready(Age::Watched, &mut view);
    if !matches!(first, Err(DriveError::Plan(_))) {
        return first.map(|()| view).map_err(plan_error);
    }
    view.refresh();
    ready(Age::Now, &mut view).map(|()| view).map_err(plan_error)
}

fn plan_node(view: &View, call: &Call) -> Result<Plan<()>, Stop<CniError>> {
    let key = keys::node(&call.node);
    view.require([Query::Get(keys::cluster_information()), Query::Get(key.clone())])?;
    refuse_unready(view, call.is_cluster()).map_err(in_cni)?;
    if view.get(&key)?.is_some() {
        return Ok(Plan::Done(()));
    }
    if call.is_cluster() {
        return Err(Stop::Fail(no_node(call)));
    }
    let mut node = Node::new(&call.node, NodeSpec::default());
    node.metadata.creation_timestamp = Some(time::rfc3339(call.clock.wall_ns));
    node.metadata.uid = Some(leases::uid(call));
    Ok(Plan::Commit(vec![Write { key, expect: Expect::Absent, value: Some(node.encode()) }], ()))
}

/// A plan of the allocator, if the store takes changes now. What both need to know is asked for at once.
pub(crate) fn gated<T>(
    is_cluster: bool,
    view: &View,
    planned: Result<Plan<T>, Stop<IpamError>>,
) -> Result<Plan<T>, Stop<IpamError>> {
    match (refuse_unready(view, is_cluster), planned) {
        (Err(Stop::Need(mut gate)), Err(Stop::Need(plan))) => {
            gate.extend(plan);
            Err(Stop::Need(gate))
        }
        (Err(stop), _) => Err(stop),
        (Ok(()), planned) => planned,
    }
}

/// For writes of the engine itself, as [`gated`].
pub(crate) fn refuse(view: &View, call: &Call) -> Result<(), Stop<CniError>> {
    refuse_unready(view, call.is_cluster()).map_err(in_cni)
}

/// A cluster that was never initialised is not ready; a host's own store without the object is.
fn refuse_unready(view: &View, is_cluster: bool) -> Result<(), Stop<IpamError>> {
    let key = keys::cluster_information();
    let ready = match view.get(&key)? {
        None => !is_cluster,
        Some(entry) => {
            let info = ClusterInformation::decode(&key, &entry.value);
            info.map_err(|e| Stop::Fail(IpamError::Damaged(e)))?.spec.datastore_ready == Some(true)
        }
    };
    if ready { Ok(()) } else { Err(Stop::Fail(IpamError::NotReady)) }
}

fn in_cni(stop: Stop<IpamError>) -> Stop<CniError> {
    match stop {
        Stop::Need(queries) => Stop::Need(queries),
        Stop::Fail(error) => Stop::Fail(failure::ipam(&error)),
    }
}

fn no_node(call: &Call) -> CniError {
    CniError::new(
        Code::TryAgain,
        format!(
            "node {:?} is not known to the cluster; is the host's agent (percaled or calico-node) running, \
             and is that the node's name there?",
            call.node
        ),
    )
}

fn plan_error(error: DriveError<CniError>) -> CniError {
    match error {
        DriveError::Plan(error) => error,
        DriveError::Store(error) => failure::store(&error),
        DriveError::Contended(cost) => CniError::try_again(format!("the store is busy ({cost}); try again")),
    }
}
