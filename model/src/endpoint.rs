//! Workload endpoints: what Calico's agent knows of a container's interface (reference 2.6; modern data
//! model 4.1).

mod name;
mod of_pod;

pub use name::{NameOf, endpoint_name, parse_name, status_file_name};
pub use of_pod::{CONTAINER_ID, POD_IP, POD_IPS, of_pod};

use crate::keys;
use crate::resource::{Resource, Spec};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::IpAddr;

/// Orchestrator of pods.
pub const KUBERNETES: &str = "k8s";
/// Orchestrator of containers that no other claims.
pub const PLAIN: &str = "cni";

/// Labels that Calico sets on every endpoint, and on those of pods with an account.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
pub const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";
pub const ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// An interface of a container.
pub type WorkloadEndpoint = Resource<WorkloadEndpointSpec>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEndpointSpec {
    /// [`KUBERNETES`], [`PLAIN`] or another.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub orchestrator: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The interface's name in the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// Calico 3.19 and newer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// Each with `/32` or `/128`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::decode::null_default")]
    pub ip_networks: Vec<String>,
    #[serde(
        rename = "ipNATs",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::decode::null_default"
    )]
    pub ip_nats: Vec<IpNat>,
    #[serde(rename = "ipv4Gateway", skip_serializing_if = "String::is_empty")]
    pub ipv4_gateway: String,
    #[serde(rename = "ipv6Gateway", skip_serializing_if = "String::is_empty")]
    pub ipv6_gateway: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::decode::null_default")]
    pub profiles: Vec<String>,
    /// The host's end.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface_name: String,
    /// The container's end: lower case, colons.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::decode::null_default")]
    pub ports: Vec<EndpointPort>,
    /// Newer than Calico 3.21.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::decode::null_default")]
    pub allow_spoofed_source_prefixes: Vec<String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A floating address and the container's address behind it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpNat {
    #[serde(rename = "internalIP")]
    pub internal_ip: String,
    #[serde(rename = "externalIP")]
    pub external_ip: String,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A port that policies may name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`; in data of others also a number.
    pub protocol: Value,
    pub port: u16,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Spec for WorkloadEndpointSpec {
    const KIND: &'static str = "WorkloadEndpoint";
    const PLURAL: &'static str = "workloadendpoints";
    const NAMESPACED: bool = true;
}

impl WorkloadEndpointSpec {
    /// The name that an endpoint of this content must have; `None` where its parts make none.
    pub fn name(&self) -> Option<String> {
        endpoint_name(&NameOf {
            node: &self.node,
            orchestrator: &self.orchestrator,
            pod: &self.pod,
            workload: &self.workload,
            container_id: &self.container_id,
            endpoint: &self.endpoint,
        })
    }

    /// The container's addresses; what is no address is passed over.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let parsed = self.ip_networks.iter().filter_map(|net| crate::ip::parse_net_or_ip(net).ok());
        parsed.map(|net| net.addr()).collect()
    }

    pub fn set_addresses(&mut self, ips: impl IntoIterator<Item = IpAddr>) {
        self.ip_networks = ips.into_iter().map(|ip| IpNet::from(ip).to_string()).collect();
    }

    /// Puts each floating address before the container's address of its family. Those without one are
    /// answered: they lead nowhere.
    pub fn set_floating(&mut self, floating: &[IpAddr]) -> Vec<IpAddr> {
        let inner = self.addresses();
        let behind = |outer: &IpAddr| inner.iter().find(|ip| ip.is_ipv4() == outer.is_ipv4());
        let nat = |outer: &IpAddr| {
            let (internal_ip, external_ip) = (behind(outer)?.to_string(), outer.to_string());
            Some(IpNat { internal_ip, external_ip, other: Map::new() })
        };
        self.ip_nats = floating.iter().filter_map(nat).collect();
        floating.iter().filter(|outer| behind(outer).is_none()).copied().collect()
    }
}

/// The key of an endpoint.
pub fn key(namespace: &str, name: &str) -> String {
    keys::resource(WorkloadEndpointSpec::PLURAL, &format!("{namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floating_addresses_stand_before_the_address_of_their_family() {
        let mut spec = WorkloadEndpointSpec::default();
        spec.set_addresses(["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!(spec.ip_networks, ["10.0.0.1/32", "fd00::1/128"]);
        let floating: Vec<IpAddr> = ["2001:db8::9", "192.0.2.9"].map(|ip| ip.parse().unwrap()).into();
        assert!(spec.set_floating(&floating).is_empty());
        let pairs: Vec<_> =
            spec.ip_nats.iter().map(|n| (n.internal_ip.as_str(), n.external_ip.as_str())).collect();
        assert_eq!(pairs, [("fd00::1", "2001:db8::9"), ("10.0.0.1", "192.0.2.9")]);
        spec.set_addresses(["10.0.0.1".parse().unwrap()]);
        assert_eq!(spec.set_floating(&floating), [floating[0]]);
        assert_eq!(spec.ip_nats.len(), 1);
    }
}
