//! A Kubernetes node as Calico's node (reference 4.2), and what of it is written: annotations.

use crate::error::Failure;
use model::resource::API_VERSION;
use serde_json::{Map, Value, json};

/// Annotations of the node, and where in Calico's node they stand.
const FIELDS: [(&str, &str, &str); 13] = [
    ("IPv4Address", "bgp", "ipv4Address"),
    ("IPv6Address", "bgp", "ipv6Address"),
    ("IPv4IPIPTunnelAddr", "bgp", "ipv4IPIPTunnelAddr"),
    ("RouteReflectorClusterID", "bgp", "routeReflectorClusterID"),
    ("ASNumber", "bgp", "asNumber"),
    ("IPv4VXLANTunnelAddr", "", "ipv4VXLANTunnelAddr"),
    ("VXLANTunnelMACAddr", "", "vxlanTunnelMACAddr"),
    ("IPv4WireguardInterfaceAddr", "wireguard", "interfaceIPv4Address"),
    ("WireguardPublicKey", "status", "wireguardPublicKey"),
    ("IPv6VXLANTunnelAddr", "", "ipv6VXLANTunnelAddr"),
    ("VXLANTunnelMACAddrV6", "", "vxlanTunnelMACAddrV6"),
    ("IPv6WireguardInterfaceAddr", "wireguard", "interfaceIPv6Address"),
    ("WireguardPublicKeyV6", "status", "wireguardPublicKeyV6"),
];

pub(super) fn value(raw: &Value) -> Value {
    let name = raw.pointer("/metadata/name").cloned().unwrap_or_default();
    let mut node = json!({
        "kind": "Node",
        "apiVersion": API_VERSION,
        "metadata": metadata(raw),
        "spec": {"orchRefs": [{"nodeName": name, "orchestrator": "k8s"}]},
    });
    let addresses = addresses(raw);
    if !addresses.is_empty() {
        node["spec"]["addresses"] = Value::Array(addresses);
    }
    if let Some(nets) = raw.pointer("/spec/podCIDRs").or_else(|| raw.pointer("/spec/podCIDR")) {
        node["status"]["podCIDRs"] = if nets.is_array() { nets.clone() } else { json!([nets]) };
    }
    for (source, part, field) in FIELDS {
        if let Some(text) = annotation(raw, source).filter(|text| !text.is_empty()) {
            let text = if field == "asNumber" { as_number(text) } else { json!(text) };
            *member(&mut node, part, field) = text;
        }
    }
    node
}

/// What Kubernetes knows of the node's addresses, as newer Calicos list them.
fn addresses(raw: &Value) -> Vec<Value> {
    let listed = raw.pointer("/status/addresses").and_then(Value::as_array);
    let is_ip = |kind: &str| kind == "InternalIP" || kind == "ExternalIP";
    let known = |entry: &&Value| entry.get("type").and_then(Value::as_str).is_some_and(is_ip);
    listed.into_iter().flatten().filter(known).cloned().collect()
}

/// The patch that stores a node: its annotations. What it does not have is taken away.
pub(crate) fn written(value: &[u8]) -> Result<Value, Failure> {
    let node: Value =
        serde_json::from_slice(value).map_err(|e| Failure::invalid(format!("the value is no node: {e}")))?;
    let mut annotations = Map::new();
    for (name, part, field) in FIELDS {
        let path = match part {
            "" => format!("/spec/{field}"),
            "status" => format!("/status/{field}"),
            part => format!("/spec/{part}/{field}"),
        };
        let text = node.pointer(&path).filter(|value| !value.is_null()).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        annotations.insert(format!("projectcalico.org/{name}"), json!(text));
    }
    Ok(json!({"metadata": {"annotations": annotations}}))
}

fn member<'n>(node: &'n mut Value, part: &str, field: &str) -> &'n mut Value {
    match part {
        "" => &mut node["spec"][field],
        "status" => &mut node["status"][field],
        part => &mut node["spec"][part][field],
    }
}

/// A number, also where it was written as text.
fn as_number(text: &str) -> Value {
    text.parse::<u32>().map_or_else(|_| json!(text), Value::from)
}

fn annotation<'r>(raw: &'r Value, name: &str) -> Option<&'r str> {
    raw.get("metadata")?.get("annotations")?.get(format!("projectcalico.org/{name}"))?.as_str()
}

fn metadata(raw: &Value) -> Value {
    let of_kubernetes =
        |name: &str| raw.get("metadata").and_then(|m| m.get(name)).cloned().unwrap_or_default();
    let mut labels = table(raw, "labels");
    labels.extend(of_kubernetes("labels").as_object().cloned().unwrap_or_default());
    json!({
        "name": of_kubernetes("name"),
        "uid": of_kubernetes("uid"),
        "creationTimestamp": of_kubernetes("creationTimestamp"),
        "labels": labels,
        "annotations": table(raw, "annotations"),
    })
}

/// Calico's own labels and annotations: a JSON object in an annotation.
fn table(raw: &Value, name: &str) -> Map<String, Value> {
    annotation(raw, name).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
