//! What is wrong with the stored objects, and what puts it right.

use crate::IpamError;
use crate::request::{Context, Held};
use ipnet::IpNet;
use model::store::{Plan, Revision, Stop, View};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

mod broken;
mod judge;
mod objects;
mod repair;
mod witness;

/// What one host knows about its attachments, gathered after the allocations were read. Only what was looked at is listed: an allocation
/// whose namespace is not in `netns` is not judged by it.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    pub host: String,
    pub boot_id: String,
    /// Each `netns` attribute that was looked at (its text, as stored), and whether that very
    /// namespace (path and inode) exists.
    pub netns: BTreeMap<String, bool>,
    /// Owners of living host links: handle and interface name in the container.
    pub links: BTreeSet<(String, String)>,
    /// Addresses that this host routes to a living link.
    pub routed: BTreeSet<IpAddr>,
    /// What the store knows of the owners.
    pub witness: Witness,
    /// The wall clock, in nanoseconds since 1970.
    pub now_ns: u64,
}

/// Which objects of the store tell whether an address's owner exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Witness {
    #[default]
    Nothing,
    /// Kubernetes' pods.
    Pods,
    /// Workload endpoints.
    Endpoints,
}

/// Something wrong, as `percalectl ipam check` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Item {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<IpNet>,
    pub reason: String,
    /// Whether [`plan_repair`] acts on it.
    pub repairable: bool,
    /// What must still be so when it is repaired.
    #[serde(skip)]
    pub seen: Seen,
}

/// The state an [`Item`] was judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    #[default]
    Nothing,
    Held(Held),
    /// A key and the revision it had; 0: it did not exist.
    Key(String, Revision),
}

/// The result of an audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Addresses in use, tunnel addresses too.
    pub allocations: usize,
    pub blocks: usize,
    /// Proven twice to have no owner: neither namespace nor host link lives, node and pod are gone.
    pub leaked: Vec<Item>,
    /// Only one proof: not counted as wrong, and never repaired.
    pub suspected: Vec<Item>,
    /// In two blocks at once.
    pub duplicated: Vec<Item>,
    /// Handles that hold nothing.
    pub orphan_handles: Vec<Item>,
    /// Affinities without a block, for another host's block, or of an unknown node.
    pub orphan_affinities: Vec<Item>,
    /// Handles that count other numbers than the blocks hold, or are missing.
    pub handle_counts: Vec<Item>,
    /// Addresses that are neither taken nor in a block's queue; blocks without their affinity.
    pub lost: Vec<Item>,
    /// Objects that cannot be read, or not be used as they are; blocks that only a newer release may write.
    pub damaged: Vec<Item>,
}

impl Report {
    /// Every item that is wrong, kind by kind.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        let kinds = [
            &self.leaked,
            &self.duplicated,
            &self.orphan_handles,
            &self.orphan_affinities,
            &self.handle_counts,
            &self.lost,
            &self.damaged,
        ];
        kinds.into_iter().flatten()
    }

    /// Nothing is wrong.
    pub fn clean(&self) -> bool {
        self.items().next().is_none()
    }
}

/// Compares everything stored under the scope with what the host knows.
pub fn audit(view: &View, cx: &Context, facts: &HostFacts) -> Result<Report, Stop<IpamError>> {
    Ok(judge::judge(&objects::Objects::load(view, cx, facts)?, facts))
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    pub released: Vec<Held>,
    /// Objects written or deleted.
    pub writes: usize,
    /// Something repairable is left for another audit and repair.
    pub more: bool,
}

/// Repairs what `report` found and what is still exactly so, in at most 100 writes.
///
/// Leaked addresses go first, each only if its owner, attributes and sequence number are
/// unchanged. Where the store has no transactions, an ADD in flight looks like an orphan handle
/// for a moment: there, wait for the longest deadline between audit and repair.
pub fn plan_repair(
    view: &View,
    cx: &Context,
    facts: &HostFacts,
    report: &Report,
) -> Result<Plan<Repaired>, Stop<IpamError>> {
    repair::plan(view, cx, facts, report)
}
