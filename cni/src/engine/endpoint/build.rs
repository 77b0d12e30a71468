//! The endpoint that an attachment is to have.

use super::{DEFAULT_NAMESPACE, ifname};
use crate::engine::call::Call;
use crate::engine::links::Place;
use crate::engine::pods::{self, Facts};
use crate::engine::result::mac_text;
use cni_protocol::CniError;
use model::endpoint::{self, KUBERNETES, NAMESPACE_LABEL, ORCHESTRATOR_LABEL, PLAIN};
use model::{HostNameOf, WorkloadEndpoint, WorkloadEndpointSpec, host_name};
use netlink::{PodPlan, Wired};
use std::collections::BTreeMap;

/// The endpoint as far as it follows from names. `None` where the store has none for it.
pub(super) fn wanted(
    call: &Call,
    facts: &Facts,
    place: &Place,
) -> Result<Option<WorkloadEndpoint>, CniError> {
    let Some((namespace, name)) = call.req.args.pod() else {
        return if call.is_kubernetes() { Ok(None) } else { plain(call).map(Some) };
    };
    let is_first = place.name == host_name(&HostNameOf::Pod { namespace, pod: name });
    if call.is_kubernetes() && !is_first {
        return Ok(None);
    }
    let derived = facts.pod.as_ref().filter(|_| pods::follows_policy(call.conf));
    let derived = derived.and_then(|of| endpoint::of_pod(of, ifname(call, call.at())));
    match derived {
        Some(endpoint) => Ok(Some(endpoint)),
        None => of_name(call, namespace, name).map(Some),
    }
}

/// Without `policy.type` k8s the pod's labels are not read.
fn of_name(call: &Call, namespace: &str, name: &str) -> Result<WorkloadEndpoint, CniError> {
    let spec = WorkloadEndpointSpec {
        orchestrator: KUBERNETES.to_owned(),
        node: call.node.clone(),
        pod: name.to_owned(),
        endpoint: ifname(call, call.at()).to_owned(),
        profiles: vec![call.conf.name.clone()],
        ..WorkloadEndpointSpec::default()
    };
    named(namespace, spec)
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
pub(super) fn complete(
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
