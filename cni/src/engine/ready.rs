//! May this store be written to now (decision 18), and does it know this node (decision 29).

use super::call::Call;
use super::{failure, journal, leases};
use cni_protocol::{CniError, Code};
use datastore::embedded::Mode;
use datastore::{DriveError, drive};
use model::decode::Stored;
use model::resource::NodeSpec;
use model::store::{Expect, Plan, Query, Stop, View, Write};
use model::{ClusterInformation, Node, keys, time};

/// Before an ADD: the store is ready, and has a Node object for this host.
///
/// # Errors
/// Code 11 while the store is not ready.
pub(crate) fn for_add(call: &Call) -> Result<(), CniError> {
    let store = call.store(Mode::Create).map_err(|e| e.into_cni())?;
    let planned = drive(store.as_ref(), &mut View::new(), call.deadline, |view| plan_node(view, call));
    planned.map(|_| ()).map_err(plan_error)?;
    journal::prepare(call)
}

/// Whether the store accepts changes; one without ClusterInformation does.
pub(crate) fn is_ready(call: &Call) -> Result<bool, CniError> {
    let store = call.store(Mode::Existing).map_err(|e| e.into_cni())?;
    let planned = drive(store.as_ref(), &mut View::new(), call.deadline, |view| ready(view).map(Plan::Done));
    planned.map(|(ready, _)| ready).map_err(plan_error)
}

fn plan_node(view: &View, call: &Call) -> Result<Plan<()>, Stop<CniError>> {
    let key = keys::node(&call.node);
    view.require([Query::Get(keys::cluster_information()), Query::Get(key.clone())])?;
    if !ready(view)? {
        return Err(Stop::Fail(not_ready()));
    }
    if view.get(&key)?.is_some() {
        return Ok(Plan::Done(()));
    }
    let mut node = Node::new(&call.node, NodeSpec::default());
    node.metadata.creation_timestamp = Some(time::rfc3339(call.clock.wall_ns));
    node.metadata.uid = Some(leases::uid(call));
    Ok(Plan::Commit(vec![Write { key, expect: Expect::Absent, value: Some(node.encode()) }], ()))
}

fn ready(view: &View) -> Result<bool, Stop<CniError>> {
    let key = keys::cluster_information();
    let Some(entry) = view.get(&key)? else { return Ok(true) };
    match ClusterInformation::decode(&key, &entry.value) {
        Ok(info) => Ok(info.spec.datastore_ready.unwrap_or(true)),
        Err(e) => Err(Stop::Fail(CniError::new(Code::StoreDamaged, e.to_string()))),
    }
}

pub(crate) fn not_ready() -> CniError {
    CniError::try_again("the datastore is not ready: a migration or an upgrade is running; try again")
}

fn plan_error(error: DriveError<CniError>) -> CniError {
    match error {
        DriveError::Plan(error) => error,
        DriveError::Store(error) => failure::store(&error),
        DriveError::Contended(cost) => CniError::try_again(format!("the store is busy ({cost}); try again")),
    }
}
