//! Carries out the releases that DELs could not write to the store (decision 17): in the background, in
//! their order, each once.

use crate::context::Context;
use anyhow::Result;
use cni::engine::ledger::{Change, Moment};
use cni::engine::owed;
use cni_protocol::CniError;
use datastore::journal::{Id, Journal, Release as Entry};
use datastore::{Deadline, Error};
use ipam::BatchItem;
use model::Scope;
use model::store::View;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Pause between two looks at the journal.
const PAUSE: Duration = Duration::from_secs(5);
/// Bound on one release.
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
    let text = |e: Error| e.to_string();
    if !context.state_dir.join("journal").exists() {
        return Ok(0);
    }
    let journal = Journal::open_existing(&context.state_dir).map_err(text)?;
    let entries = journal.pending().map_err(text)?;
    let mut left = 0;
    for (id, entry) in &entries {
        match finish(context, &journal, *id, entry) {
            Ok(true) => tracing::info!(attachment = %owed::attachment(entry), "finished an owed release"),
            Ok(false) => left += 1,
            Err(e) => return Err(e.to_string()),
        }
    }
    Ok(left)
}

fn finish(context: &Context, journal: &Journal, id: Id, entry: &Entry) -> Result<bool, CniError> {
    let change = change(context, Scope::Cluster, BatchItem::Release(ipam::Release::default()));
    let dir = &context.config.attachment_dir;
    owed::finish(context.ledger.as_ref(), &change, dir, journal, id, entry)
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
    }
}
