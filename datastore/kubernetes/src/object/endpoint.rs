//! A pod as Calico's workload endpoint (reference 2.6). Read, it is derived from the pod; written, it
//! becomes three annotations of the pod.

use crate::error::Failure;
use model::endpoint::{CONTAINER_ID, POD_IP, POD_IPS, WorkloadEndpointSpec, of_pod};
use model::{Pod, WorkloadEndpoint};
use serde_json::{Map, Value, json};

/// Kubernetes knows one interface of a pod. Calico gives it this name.
const IFNAME: &str = "eth0";

/// Namespace and name of a pod's endpoint; `None` for a pod without one.
pub(super) fn name(raw: &Value) -> Option<(String, String)> {
    let pod = Pod::from_value(raw)?;
    let endpoint = of_pod(&pod, IFNAME)?;
    Some((pod.namespace, endpoint.metadata.name))
}

pub(super) fn value(raw: &Value) -> Value {
    let endpoint = Pod::from_value(raw).and_then(|pod| of_pod(&pod, IFNAME));
    let Some(mut endpoint) = endpoint else { return json!({}) };
    let metadata = raw.get("metadata").unwrap_or(&Value::Null);
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).map(str::to_owned);
    endpoint.metadata.uid = text("uid");
    endpoint.metadata.creation_timestamp = text("creationTimestamp");
    endpoint.metadata.deletion_timestamp = text("deletionTimestamp");
    serde_json::to_value(&endpoint).unwrap_or_default()
}

/// The patch of the pod's status that stores an endpoint. Its metadata's UID is the pod's.
pub(crate) fn written(value: &[u8]) -> Result<Value, Failure> {
    let endpoint: WorkloadEndpoint = serde_json::from_slice(value)
        .map_err(|e| Failure::invalid(format!("the value is no workload endpoint: {e}")))?;
    let WorkloadEndpointSpec { ip_networks, container_id, .. } = endpoint.spec;
    let first = ip_networks.first().cloned().unwrap_or_default();
    let mut metadata = Map::new();
    if let Some(uid) = endpoint.metadata.uid {
        metadata.insert("uid".to_owned(), json!(uid));
    }
    let annotations = json!({POD_IP: first, POD_IPS: ip_networks.join(","), CONTAINER_ID: container_id});
    metadata.insert("annotations".to_owned(), annotations);
    Ok(json!({"metadata": metadata}))
}

/// The patch that takes the addresses back. The container's id stays: it tells a late deletion of an
/// older container apart (modern data model 4.2).
pub(crate) fn blanked() -> Value {
    json!({"metadata": {"annotations": {POD_IP: "", POD_IPS: ""}}})
}
