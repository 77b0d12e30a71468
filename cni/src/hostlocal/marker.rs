//! The file that says that a directory was imported, and what its lease files said: JSON,
//! `{"version":1,"leases":[{"ip":"10.0.0.5","container":"4f0c","ifname":"eth0"}]}`. Writing
//! those files again (`container`, CR LF, `ifname`) undoes the import on host-local's side.

use super::parse::Lease;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const NAME: &str = "imported-by-percale";
/// The marker while it is being written; without meaning if a crash leaves it.
pub const DRAFT: &str = "imported-by-percale.tmp";
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub struct Marker {
    version: u32,
    /// Imported leases, by address, each address once.
    pub leases: Vec<Lease>,
}

impl Marker {
    /// What an earlier marker listed and what is new; of two leases of one address the new one.
    pub fn of(past: &[Lease], new: &[Lease]) -> Self {
        let by_address: BTreeMap<_, _> = past.iter().chain(new).map(|lease| (lease.ip, lease)).collect();
        Self { version: VERSION, leases: by_address.into_values().cloned().collect() }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("a marker has only strings as keys");
        bytes.push(b'\n');
        bytes
    }

    /// Reads a marker. A version that this build does not know is read as far as it goes: a
    /// newer one only adds members.
    pub fn decode(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }
}
