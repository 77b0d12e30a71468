//! Carries out the releases that DELs could not write to the store (decision 17): in the background, in
//! their order, each once.

use crate::context::Context;
use crate::own::with_engine;
use anyhow::Result;
use cni::engine::ledger::{Change, Moment};
use datastore::Deadline;
use ipam::BatchItem;
use model::Scope;
use model::store::View;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Pause between two looks at the journal.
const PAUSE: Duration = Duration::from_secs(5);
/// Bound on all that is done at a time.
const LIMIT: Duration = Duration::from_secs(30);
/// Bound on the wait for the host's IPAM lock.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// Looks at the journal until the shutdown is set.
pub(crate) fn run(context: &Arc<Context>) -> Result<()> {
    let pending = context.metrics.gauge("percale_journal_pending", "Releases that are owed to the store.");
    let mut told = String::new();
    loop {
        let left = match replay(context) {
            Ok(left) => left,
            Err(why) => {
                if why != told {
                    tracing::warn!("owed releases: {why}");
                }
                told = why;
                pending.get()
            }
        };
        pending.set(left);
        if context.shutdown.wait(PAUSE) {
            return Ok(());
        }
    }
}

/// How many entries are left.
fn replay(context: &Context) -> Result<i64, String> {
    if !context.state_dir.join("journal").exists() {
        return Ok(0);
    }
    let left = with_engine(context, |engine, req| engine.replay(req, Deadline::after(LIMIT)));
    left.map(|left| i64::try_from(left).unwrap_or(i64::MAX)).map_err(|e| e.to_string())
}

/// A change of the daemon's own, now.
pub(crate) fn change(context: &Context, scope: Scope, item: BatchItem) -> Change {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let boottime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Change {
        store: context.store.clone(),
        scope,
        host: context.node_name.clone(),
        moment: Moment {
            wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
            boot_id: netlink::boot_id().unwrap_or_default(),
            boottime_ms: boottime.tv_sec.unsigned_abs() * 1000 + boottime.tv_nsec.unsigned_abs() / 1_000_000,
            chance: wall.subsec_nanos().into(),
        },
        item,
        lock_file: context.config.ipam_lock_file.clone(),
        lock_limit: LOCK_LIMIT,
        deadline: Deadline::after(LIMIT),
        is_cluster: context.config.is_cluster(),
        known: View::new(),
        hints: None,
    }
}
