//! What is asked of the speaker on its socket, and its answers: one line of JSON each.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest request in bytes.
pub const MAX_REQUEST: usize = 4096;

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op")]
pub enum Request {
    /// Identity and peers.
    Status,
    /// Routes, within a network if one is given, at most `limit`.
    Routes {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<String>,
        limit: usize,
    },
    /// Why a network goes where it goes.
    Explain { prefix: String },
    /// Withdraw everything, or (`undo`) tell it again.
    Drain { undo: bool },
}

/// The answer; `error` alone where the request could not be carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    Status(Status),
    Routes(Routes),
    Explain(Explained),
    Drained { drained: bool },
    Error(String),
}

/// What the daemon answers to `GET /status` of its health address: how it is, whatever parts it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    pub version: String,
    /// Parts that are not ready, and why.
    pub not_ready: Vec<String>,
    /// Parts without a sign of life.
    pub hung: Vec<String>,
    /// Settings and objects that cannot be used as they are.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node: String,
    pub version: String,
    pub router_id: String,
    pub local_as: u32,
    pub listening: Vec<String>,
    pub drained: bool,
    /// After a restart, until the peers have told everything.
    pub restarting: bool,
    /// Seconds since the Unix epoch.
    pub started: u64,
    pub configured: u64,
    pub peers: Vec<Peer>,
    /// What is wrong with resources, by object.
    pub problems: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub address: String,
    pub port: u16,
    /// `NodeMesh`, `NodePeer` or `GlobalPeer`.
    pub kind: String,
    /// Of the range that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    pub peer_as: Option<u32>,
    /// As RFC 4271 names it.
    pub state: String,
    /// Seconds since the Unix epoch of the last change between up and down.
    pub since: u64,
    pub received: u32,
    pub restarts_gracefully: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<String>,
    /// Why the session ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routes {
    pub routes: Vec<Route>,
    /// There are more than were asked for.
    pub truncated: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub prefix: String,
    /// Next hops in use; empty for routes that start here.
    pub next_hops: Vec<String>,
    /// `local`, `installed`, `refused: ...`, `unresolved`, or the kernel's error.
    pub kernel: String,
    pub paths: Vec<PathLine>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PathLine {
    /// Address of the peer, or `local`.
    pub from: String,
    pub next_hop: String,
    pub as_path: String,
    pub local_pref: Option<u32>,
    pub med: Option<u32>,
    pub communities: Vec<String>,
    /// Best, equal, lost at a step, refused and why, unreachable.
    pub fate: String,
    pub stale: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    pub route: Route,
    /// What each peer that is up is told, or why it is not.
    pub told: BTreeMap<String, String>,
}
