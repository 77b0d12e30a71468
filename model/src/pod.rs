//! Pods and namespaces of Kubernetes: what of them decides how a pod is networked.
//!
//! Their keys are ours: `/kubernetes/pods/NAMESPACE/NAME` and `/kubernetes/namespaces/NAME`.

mod annotations;

pub use annotations::{AnnotationError, Fault, Wishes, wishes, wishes_leniently};

use crate::decode::{DecodeError, Problem, json, null_default};
use crate::endpoint::{EndpointPort, POD_IP, POD_IPS};
use crate::ip;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;

const PODS: &str = "/kubernetes/pods/";
const NAMESPACES: &str = "/kubernetes/namespaces/";
/// Annotations by which the API's picture of a static pod tells the UID that its runtime knows.
const STATIC: [&str; 2] = ["kubernetes.io/config.mirror", "kubernetes.io/config.hash"];
/// Addresses that are read of one pod.
const MAX_ADDRESSES: usize = 64;

pub fn key(namespace: &str, name: &str) -> String {
    format!("{PODS}{namespace}/{name}")
}

pub fn namespace_key(name: &str) -> String {
    format!("{NAMESPACES}{name}")
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub generate_name: String,
    /// Empty before it is scheduled.
    pub node: String,
    /// Service account; may be empty.
    pub account: String,
    pub host_network: bool,
    /// Named ports of its containers.
    pub ports: Vec<EndpointPort>,
    deleted: bool,
    phase: String,
    status_ips: Vec<IpAddr>,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Namespace {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl Pod {
    /// # Errors
    /// `BadKey`, `TooLarge`, `Json` for what is no pod.
    pub fn decode(key: &str, value: &[u8]) -> Result<Self, DecodeError> {
        let fail = |problem| DecodeError { kind: "pod", subject: key.to_owned(), problem };
        let named = key.strip_prefix(PODS).and_then(|rest| rest.split_once('/'));
        let (namespace, name) = named.ok_or_else(|| fail(Problem::BadKey))?;
        let raw: RawPod = json(value).map_err(fail)?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), ..raw.into() })
    }

    /// As [`Pod::decode`], by the names in the object itself; `None` for what is no pod.
    pub fn from_value(value: &Value) -> Option<Self> {
        RawPod::deserialize(value).ok().map(Self::from)
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }

    /// Whether a runtime's UID is this pod's; that of a static pod stands in an annotation.
    pub fn has_uid(&self, uid: &str) -> bool {
        self.uid == uid || STATIC.iter().any(|name| self.annotation(name) == Some(uid))
    }

    /// Its containers are gone for good: its addresses are no longer its own.
    pub fn is_finished(&self) -> bool {
        let blanked = self.annotation(POD_IP) == Some("");
        matches!(self.phase.as_str(), "Failed" | "Succeeded" | "Completed") || (self.deleted && blanked)
    }

    /// Its addresses: what the plugin noted, else what the kubelet reports.
    pub fn addresses(&self) -> Vec<IpAddr> {
        if self.is_finished() {
            return Vec::new();
        }
        self.noted_addresses().unwrap_or_else(|| self.status_ips.clone())
    }

    /// The addresses in its annotations. `None`: nobody noted any; blanked ones are an empty list.
    pub fn noted_addresses(&self) -> Option<Vec<IpAddr>> {
        let text = self.annotation(POD_IPS).or_else(|| self.annotation(POD_IP))?;
        let parsed = text.split(',').take(MAX_ADDRESSES).filter_map(|ip| ip::parse_net_or_ip(ip.trim()).ok());
        Some(parsed.map(|net| net.addr()).collect())
    }
}

impl Namespace {
    /// # Errors
    /// `BadKey`, `TooLarge`, `Json` for what is no namespace.
    pub fn decode(key: &str, value: &[u8]) -> Result<Self, DecodeError> {
        let fail = |problem| DecodeError { kind: "namespace", subject: key.to_owned(), problem };
        let name = key.strip_prefix(NAMESPACES).ok_or_else(|| fail(Problem::BadKey))?;
        let RawPod { metadata, .. } = json(value).map_err(fail)?;
        Ok(Self { name: name.to_owned(), labels: metadata.labels, annotations: metadata.annotations })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPod {
    #[serde(deserialize_with = "null_default")]
    metadata: RawMetadata,
    #[serde(deserialize_with = "null_default")]
    spec: RawSpec,
    #[serde(deserialize_with = "null_default")]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMetadata {
    namespace: String,
    name: String,
    uid: String,
    #[serde(deserialize_with = "null_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    generate_name: String,
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    #[serde(deserialize_with = "null_default")]
    node_name: String,
    #[serde(deserialize_with = "null_default")]
    service_account_name: String,
    #[serde(deserialize_with = "null_default")]
    host_network: bool,
    #[serde(deserialize_with = "null_default")]
    containers: Vec<RawContainer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawContainer {
    #[serde(deserialize_with = "null_default")]
    ports: Vec<RawPort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPort {
    #[serde(deserialize_with = "null_default")]
    name: String,
    container_port: u16,
    #[serde(deserialize_with = "null_default")]
    protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    #[serde(deserialize_with = "null_default")]
    phase: String,
    #[serde(rename = "podIP", deserialize_with = "null_default")]
    pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "null_default")]
    pod_ips: Vec<RawIp>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawIp {
    ip: String,
}

impl From<RawPod> for Pod {
    fn from(raw: RawPod) -> Self {
        let status_ips = raw.status.addresses();
        let ports = raw.spec.containers.into_iter().flat_map(|container| container.ports);
        Self {
            namespace: raw.metadata.namespace,
            name: raw.metadata.name,
            uid: raw.metadata.uid,
            labels: raw.metadata.labels,
            annotations: raw.metadata.annotations,
            generate_name: raw.metadata.generate_name,
            node: raw.spec.node_name,
            account: raw.spec.service_account_name,
            host_network: raw.spec.host_network,
            ports: ports.filter_map(RawPort::named).collect(),
            deleted: raw.metadata.deletion_timestamp.is_some(),
            phase: raw.status.phase,
            status_ips,
        }
    }
}

impl RawPort {
    /// Policies find ports by name; those without one, and of other protocols, are of no use to them.
    fn named(self) -> Option<EndpointPort> {
        let protocol = match self.protocol.as_str() {
            "" | "TCP" => "TCP",
            "UDP" => "UDP",
            "SCTP" => "SCTP",
            _ => return None,
        };
        let named = !self.name.is_empty() && self.container_port != 0;
        named.then(|| EndpointPort {
            name: self.name,
            protocol: Value::from(protocol),
            port: self.container_port,
            other: Map::new(),
        })
    }
}

impl RawStatus {
    fn addresses(&self) -> Vec<IpAddr> {
        let listed = self.pod_ips.iter().map(|ip| ip.ip.as_str()).take(MAX_ADDRESSES);
        let ips: Vec<IpAddr> = listed.filter_map(|ip| ip::parse_ip(ip).ok()).collect();
        if ips.is_empty() { ip::parse_ip(&self.pod_ip).into_iter().collect() } else { ips }
    }
}

#[cfg(test)]
mod tests;
