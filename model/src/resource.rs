//! Resources in their `projectcalico.org/v3` form (reference 4; modern data model 3).
//!
//! Members that this build does not know are kept in `other` at every level.

use crate::block::{block_sizes, default_block_size};
use crate::decode::{DecodeError, Problem, Stored, bad_value, json, null_default};
use crate::ip::{self, Family};
use crate::keys::{self, Key};
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The API version of every resource in this module.
pub const API_VERSION: &str = "projectcalico.org/v3";

/// Name, identity and labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    /// Of kinds that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// RFC 3339; Calico writes null where it has none.
    pub creation_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A resource with its envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de> + Default"))]
pub struct Resource<S> {
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: S,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a spec is called and must satisfy.
pub trait Spec: Serialize + DeserializeOwned + Default {
    /// `kind` member.
    const KIND: &'static str;
    /// The kind's part of the key.
    const PLURAL: &'static str;
    /// Whether names are unique within a namespace only.
    const NAMESPACED: bool = false;

    fn check(&self) -> Result<(), Problem> {
        Ok(())
    }
}

impl<S: Spec> Resource<S> {
    pub fn new(name: &str, spec: S) -> Self {
        let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
        Self {
            kind: S::KIND.to_owned(),
            api_version: API_VERSION.to_owned(),
            metadata,
            spec,
            other: Map::new(),
        }
    }

    pub fn key(&self) -> String {
        match &self.metadata.namespace {
            Some(namespace) if S::NAMESPACED => {
                keys::resource(S::PLURAL, &format!("{namespace}/{}", self.metadata.name))
            }
            _ => keys::resource(S::PLURAL, &self.metadata.name),
        }
    }

    pub fn name(&self) -> &str {
        &self.metadata.name
    }
}

impl<S: Spec> Stored for Resource<S> {
    fn decode(key: &str, value: &[u8]) -> Result<Self, DecodeError> {
        let fail = |problem| DecodeError { kind: S::KIND, subject: key.to_owned(), problem };
        let Some(Key::Resource { name, .. }) = keys::parse(key) else { return Err(fail(Problem::BadKey)) };
        let mut resource: Self = json(value).map_err(fail)?;
        let name = match name.split_once('/').filter(|_| S::NAMESPACED) {
            Some((namespace, name)) => {
                resource.metadata.namespace.get_or_insert_with(|| namespace.to_owned());
                name.to_owned()
            }
            None => name,
        };
        if resource.metadata.name.is_empty() {
            resource.metadata.name.clone_from(&name);
        }
        if resource.metadata.name != name {
            let found = resource.metadata.name;
            return Err(fail(Problem::Mismatch { field: "metadata.name", found, wanted: name }));
        }
        resource.spec.check().map_err(fail)?;
        Ok(resource)
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a resource has only string keys")
    }
}

/// A pool of addresses, cut into blocks.
pub type IpPool = Resource<IpPoolSpec>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpPoolSpec {
    pub cidr: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub vxlan_mode: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub ipip_mode: String,
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_default")]
    pub nat_outgoing: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_default")]
    pub disabled: bool,
    /// Prefix length of its blocks; 0 is the family's default.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_default")]
    pub block_size: u8,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub node_selector: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub namespace_selector: String,
    /// `Workload`, `Tunnel`, `LoadBalancer`; empty means the first two.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub allowed_uses: Vec<String>,
    /// `Automatic` (also when empty) or `Manual`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub assignment_mode: String,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn is_zero(value: &u8) -> bool {
    *value == 0
}

impl IpPoolSpec {
    /// The pool's network. Decoded pools always have one.
    pub fn net(&self) -> Option<IpNet> {
        ip::parse_net(&self.cidr).ok()
    }

    /// Prefix length of its blocks.
    pub fn block_prefix(&self) -> Option<u8> {
        let family = Family::of_net(&self.net()?);
        Some(if self.block_size == 0 { default_block_size(family) } else { self.block_size })
    }

    /// Whether pods may have its addresses.
    pub fn allows_workloads(&self) -> bool {
        self.allowed_uses.is_empty() || self.allowed_uses.iter().any(|u| u == "Workload")
    }
}

impl Spec for IpPoolSpec {
    const KIND: &'static str = "IPPool";
    const PLURAL: &'static str = "ippools";

    fn check(&self) -> Result<(), Problem> {
        let net = self.net().ok_or_else(|| bad_value("spec.cidr", &self.cidr))?;
        let size = self.block_prefix().unwrap_or_default();
        let fits =
            block_sizes(Family::of_net(&net)).contains(&size) && (size >= net.prefix_len() || self.disabled);
        if fits { Ok(()) } else { Err(bad_value("spec.blockSize", self.block_size)) }
    }
}

impl IpPool {
    /// What a newer Calico judged: `None` where it has not.
    pub fn allocatable(&self) -> Option<bool> {
        let conditions = self.other.get("status")?.get("conditions")?.as_array()?;
        let condition = conditions.iter().find(|c| c.get("type").is_some_and(|t| t == "Allocatable"))?;
        match condition.get("status")?.as_str()? {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        }
    }
}

/// A node. Only what allocation needs is typed.
pub type Node = Resource<NodeSpec>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeSpec {
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Spec for NodeSpec {
    const KIND: &'static str = "Node";
    const PLURAL: &'static str = "nodes";
}

/// Whether and as what the store may be used; its only legal name is `default`.
pub type ClusterInformation = Resource<ClusterInformationSpec>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterInformationSpec {
    #[serde(
        rename = "clusterGUID",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_default"
    )]
    pub cluster_guid: String,
    #[serde(
        rename = "clusterType",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_default"
    )]
    pub cluster_type: String,
    #[serde(
        rename = "calicoVersion",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_default"
    )]
    pub calico_version: String,
    /// False locks the store: nothing may be written. Absent counts as not ready where the object exists.
    #[serde(rename = "datastoreReady", skip_serializing_if = "Option::is_none")]
    pub datastore_ready: Option<bool>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Spec for ClusterInformationSpec {
    const KIND: &'static str = "ClusterInformation";
    const PLURAL: &'static str = "clusterinformations";
}

/// Addresses that are never given out on their own account (Calico 3.21 and newer).
pub type IpReservation = Resource<IpReservationSpec>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpReservationSpec {
    /// Networks or single addresses.
    #[serde(rename = "reservedCIDRs", deserialize_with = "null_default")]
    pub reserved_cidrs: Vec<String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl IpReservationSpec {
    pub fn nets(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.reserved_cidrs.iter().filter_map(|text| ip::parse_net_or_ip(text).ok())
    }
}

impl Spec for IpReservationSpec {
    const KIND: &'static str = "IPReservation";
    const PLURAL: &'static str = "ipreservations";

    fn check(&self) -> Result<(), Problem> {
        match self.reserved_cidrs.iter().find(|text| ip::parse_net_or_ip(text).is_err()) {
            Some(text) => Err(bad_value("spec.reservedCIDRs", text)),
            None => Ok(()),
        }
    }
}
