//! Stored forms of block affinities, handles and the IPAM configuration (reference 3.1).

use crate::block::clean_handle;
use crate::decode::{DecodeError, Problem, Stored, bad_value, json, null_default};
use crate::keys::{self, Key};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How far a host's claim to a block has come (reference 3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityState {
    Pending,
    Confirmed,
    PendingDeletion,
}

/// A host's claim to a block. The block's own `affinity` member decides; this says where to look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Affinity {
    #[serde(default, deserialize_with = "null_default")]
    state: String,
    #[serde(default, deserialize_with = "null_default")]
    pub deleted: bool,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Affinity {
    pub fn new(state: AffinityState) -> Self {
        let mut affinity = Self { state: String::new(), deleted: false, other: Map::new() };
        affinity.set_state(state);
        affinity
    }

    /// An empty state is one that Calico before 3.0.7 confirmed.
    pub fn state(&self) -> AffinityState {
        match self.state.as_str() {
            "pending" => AffinityState::Pending,
            "pendingDeletion" => AffinityState::PendingDeletion,
            _ => AffinityState::Confirmed,
        }
    }

    pub fn set_state(&mut self, state: AffinityState) {
        let text = match state {
            AffinityState::Pending => "pending",
            AffinityState::Confirmed => "confirmed",
            AffinityState::PendingDeletion => "pendingDeletion",
        };
        text.clone_into(&mut self.state);
    }
}

impl Stored for Affinity {
    fn decode(key: &str, value: &[u8]) -> Result<Self, DecodeError> {
        let fail = |problem| DecodeError { kind: "affinity", subject: key.to_owned(), problem };
        let Some(Key::Affinity { .. }) = keys::parse(key) else { return Err(fail(Problem::BadKey)) };
        if value.is_empty() {
            return Ok(Self::new(AffinityState::Confirmed));
        }
        let affinity: Affinity = json(value).map_err(fail)?;
        match affinity.state.as_str() {
            "" | "pending" | "confirmed" | "pendingDeletion" => Ok(affinity),
            other => Err(fail(bad_value("state", other))),
        }
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an affinity has only string keys")
    }
}

/// How many addresses an owner has in which blocks. May count too many after a crash.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Handle {
    /// Addresses by block CIDR.
    #[serde(default, rename = "block", deserialize_with = "null_default")]
    pub blocks: BTreeMap<IpNet, u32>,
    #[serde(default, deserialize_with = "null_default")]
    pub deleted: bool,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Handle {
    /// Addresses in all blocks.
    pub fn total(&self) -> u64 {
        self.blocks.values().map(|count| u64::from(*count)).sum()
    }

    /// Takes `count` off a block; the entry goes with its last address.
    pub fn decrement(&mut self, block: &IpNet, count: u32) {
        if let Some(held) = self.blocks.get_mut(block) {
            *held = held.saturating_sub(count);
        }
        self.blocks.retain(|_, held| *held > 0);
    }
}

impl Stored for Handle {
    fn decode(key: &str, value: &[u8]) -> Result<Self, DecodeError> {
        let fail = |problem| DecodeError { kind: "handle", subject: key.to_owned(), problem };
        let Some(Key::Handle { .. }) = keys::parse(key) else { return Err(fail(Problem::BadKey)) };
        let handle: Handle = json(value).map_err(fail)?;
        match handle.blocks.keys().find(|cidr| cidr.trunc() != **cidr) {
            Some(cidr) => Err(fail(bad_value("block", cidr))),
            None => Ok(handle),
        }
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a handle has only string keys")
    }
}

/// The id of a handle's key, cleaned as [`clean_handle`] does.
pub fn handle_key(scope: &keys::Scope, id: &str) -> String {
    keys::handle(scope, clean_handle(id))
}

/// Whether Kubernetes takes a handle's id, in lower case, as the name of an object (RFC 1123
/// subdomain; reference 3.4).
pub fn is_object_name(id: &str) -> bool {
    let id = clean_handle(id);
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let label = |label: &str| {
        let bytes = label.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    id.len() <= 253 && id.split('.').all(label)
}

/// Settings of the whole IPAM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IpamConfig {
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null_default")]
    pub strict_affinity: bool,
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null_default")]
    pub auto_allocate_blocks: bool,
    /// Blocks of one family that a host may claim; 0 is no limit.
    #[serde(
        default,
        rename = "maxBlocksPerHost",
        skip_serializing_if = "is_zero",
        deserialize_with = "null_default"
    )]
    pub max_blocks_per_host: u32,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Default for IpamConfig {
    /// What holds where no configuration is stored. (A stored one without `auto_allocate_blocks`
    /// means false: Calico leaves false members out.)
    fn default() -> Self {
        Self { strict_affinity: false, auto_allocate_blocks: true, max_blocks_per_host: 0, other: Map::new() }
    }
}

impl Stored for IpamConfig {
    fn decode(key: &str, value: &[u8]) -> Result<Self, DecodeError> {
        json(value).map_err(|problem| DecodeError {
            kind: "IPAM configuration",
            subject: key.to_owned(),
            problem,
        })
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the IPAM configuration has only string keys")
    }
}
