//! What every part of the daemon is given.

use crate::config::Config;
use crate::health::Health;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use cni::engine::Ledger;
use datastore::Store;
use std::path::PathBuf;
use std::sync::Arc;

/// Shared by all parts, for the life of the process.
pub struct Context {
    /// Opened once; watches and commits of all parts go through it.
    pub store: Arc<dyn Store>,
    /// The same, for the engine.
    pub memory: Arc<Memory>,
    /// Commits changes of leases, those of many callers together.
    pub ledger: Arc<dyn Ledger>,
    pub node_name: String,
    pub config: Config,
    /// Set when the daemon is to stop: a part then returns within a second or two, and leaves the
    /// forwarding state in place (decision 33).
    pub shutdown: Shutdown,
    pub health: Health,
    pub metrics: Metrics,
    pub state_dir: PathBuf,
    /// How much of Calico's work was ours when the daemon started.
    pub(crate) stage: crate::stage::Stage,
    /// How far the plane has come.
    pub plane: crate::plane::Progress,
}
