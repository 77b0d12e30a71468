//! Frees what pods left behind that are gone and were never deleted (decision 23): containerd, for one,
//! never calls GC.
//!
//! An address is freed on two proofs: the namespace that its lease records is gone, and the runtime or the
//! API server, asked after that, does not know the sandbox or pod. It must have been gone for longer than any call may
//! last, and is freed by itself, under its attachment's lock, if the lease is still the one that was
//! judged. A lease without a recorded namespace is only counted.

mod leases;
mod proof;
mod runtime;

use crate::context::Context;
use crate::own::with_engine;
use anyhow::Result;
use datastore::Deadline;
use datastore::lock::AttachmentLock;
use leases::{Forgotten, Host, Key};
use prometheus::{IntCounter, IntGauge};
use proof::Witness;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bound on the freeing of one address.
const LIMIT: Duration = Duration::from_secs(30);

/// The collector's memory: since when each lease is without a namespace.
#[derive(Default)]
struct Seen(BTreeMap<Key, Instant>);

struct Counts {
    freed: IntCounter,
    unproven: IntGauge,
}

/// Collects at every interval until the shutdown is set.
pub(crate) fn run(context: &Arc<Context>) -> Result<()> {
    let counts = Counts {
        freed: context.metrics.counter("percale_ipam_gc_freed_total", "Addresses of gone pods that were freed."),
        unproven: context.metrics.gauge(
            "percale_ipam_gc_unproven",
            "Addresses whose lease records no namespace, so that they are never freed without being asked to.",
        ),
    };
    let mut seen = Seen::default();
    let mut told = String::new();
    let interval = context.config.gc_interval;
    while !context.shutdown.wait(interval.unwrap_or(Duration::MAX / 4)) {
        if let Err(error) = sweep(context, &mut seen, &counts) {
            let error = format!("{error:#}");
            if error != told {
                tracing::warn!("leases of gone pods are not collected: {error}");
            }
            told = error;
        }
    }
    Ok(())
}

fn sweep(context: &Context, seen: &mut Seen, counts: &Counts) -> Result<()> {
    let host = Host::look()?;
    let leases = leases::own(context)?;
    counts.unproven.set(leases.iter().filter(|lease| lease.records_no_namespace()).count() as i64);
    let gone: Vec<Forgotten> = leases.into_iter().filter(|lease| host.is_without_namespace(lease)).collect();
    let ripe = seen.ripe(gone, context.config.gc_grace);
    if ripe.is_empty() {
        return Ok(());
    }
    // Asked after the namespaces were looked at.
    let witness = Witness::find(context)?;
    for lease in &ripe {
        if witness.is_gone(lease)? {
            free(context, lease, counts)?;
        }
    }
    Ok(())
}

impl Seen {
    /// Those that have been seen gone for at least `grace`; the others are remembered.
    fn ripe(&mut self, gone: Vec<Forgotten>, grace: Duration) -> Vec<Forgotten> {
        let now = Instant::now();
        let keys: BTreeSet<Key> = gone.iter().map(Forgotten::key).collect();
        self.0.retain(|key, _| keys.contains(key));
        for key in keys {
            self.0.entry(key).or_insert(now);
        }
        let is_ripe = |lease: &Forgotten| self.0.get(&lease.key()).is_some_and(|since| now - *since >= grace);
        gone.into_iter().filter(is_ripe).collect()
    }
}

fn free(context: &Context, lease: &Forgotten, counts: &Counts) -> Result<()> {
    let at = &lease.at;
    // Busy: a verb of it is running, so it is not forgotten.
    let lock = AttachmentLock::try_acquire(&context.config.attachment_dir, &at.file_name())?;
    let Some(lock) = lock else { return Ok(()) };
    if !Host::look()?.is_without_namespace(lease) {
        return Ok(());
    }
    let deadline = Deadline::after(LIMIT);
    let freed = with_engine(context, |engine, req| {
        engine.free_forgotten(req, deadline, &lease.scope, at, &lease.held)
    });
    if freed? {
        counts.freed.inc();
        tracing::info!(attachment = %at, address = %lease.held.ip, "freed: its namespace and its sandbox are gone");
    }
    let _ = lock.remove_and_release();
    Ok(())
}
