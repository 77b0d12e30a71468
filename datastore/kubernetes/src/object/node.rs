//! A Kubernetes node as Calico's node (reference 4.2). Only read.

use model::resource::API_VERSION;
use serde_json::{Map, Value, json};

/// Annotations of the node, and where in Calico's node they stand.
const FIELDS: [(&str, &str, &str); 9] = [
    ("IPv4Address", "bgp", "ipv4Address"),
    ("IPv6Address", "bgp", "ipv6Address"),
    ("IPv4IPIPTunnelAddr", "bgp", "ipv4IPIPTunnelAddr"),
    ("RouteReflectorClusterID", "bgp", "routeReflectorClusterID"),
    ("ASNumber", "bgp", "asNumber"),
    ("IPv4VXLANTunnelAddr", "", "ipv4VXLANTunnelAddr"),
    ("VXLANTunnelMACAddr", "", "vxlanTunnelMACAddr"),
    ("IPv4WireguardInterfaceAddr", "wireguard", "interfaceIPv4Address"),
    ("WireguardPublicKey", "status", "wireguardPublicKey"),
];

pub(super) fn value(raw: &Value) -> Value {
    let name = raw.pointer("/metadata/name").cloned().unwrap_or_default();
    let mut node = json!({
        "kind": "Node",
        "apiVersion": API_VERSION,
        "metadata": metadata(raw),
        "spec": {"orchRefs": [{"nodeName": name, "orchestrator": "k8s"}]},
    });
    for (source, part, field) in FIELDS {
        if let Some(text) = annotation(raw, source) {
            let text = if field == "asNumber" { as_number(text) } else { json!(text) };
            *member(&mut node, part, field) = text;
        }
    }
    node
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
