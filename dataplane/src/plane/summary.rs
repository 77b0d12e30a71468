//! One line a minute about what was done in the background (felix 2605), and metrics of it.

use super::kernel::Done;
use crate::metrics::Metrics;
use prometheus::{Histogram, IntCounter, IntGauge};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(60);
/// Upper bounds in seconds.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

pub(super) struct Summary {
    since: Instant,
    rounds: u32,
    changed: usize,
    total: Duration,
    longest: Duration,
    names: BTreeSet<&'static str>,
    time: Histogram,
    failures: IntCounter,
    routes: IntGauge,
}

impl Summary {
    pub fn new(metrics: &Metrics) -> Self {
        let time = "felix_int_dataplane_apply_time_seconds";
        Self {
            since: Instant::now(),
            rounds: 0,
            changed: 0,
            total: Duration::ZERO,
            longest: Duration::ZERO,
            names: BTreeSet::new(),
            time: metrics.histogram(time, "Time to bring the kernel to the wish.", &BUCKETS),
            failures: metrics.counter("felix_int_dataplane_failures", "Rounds that failed in part."),
            routes: metrics.gauge("percale_node_routes", "Routes to other nodes and of own blocks."),
        }
    }

    pub fn note(&mut self, name: &'static str, took: Duration, done: &Done) {
        self.rounds += 1;
        self.changed += done.changed;
        self.total += took;
        self.longest = self.longest.max(took);
        self.names.insert(name);
        self.time.observe(took.as_secs_f64());
        self.routes.set(i64::try_from(done.routes).unwrap_or(i64::MAX));
        tracing::debug!(name, ?took, changed = done.changed, "applied");
    }

    pub fn failed(&self) {
        self.failures.inc();
    }

    /// Writes the line when it is time and there is something to tell.
    pub fn tell(&mut self) {
        let over = self.since.elapsed();
        if over < PERIOD {
            return;
        }
        if self.rounds > 0 {
            let names: Vec<&str> = self.names.iter().copied().collect();
            tracing::info!(
                "Summarising {} dataplane reconciliation loops over {:.1?}: avg={:.1?} longest={:.1?} changes={} ({})",
                self.rounds,
                over,
                self.total / self.rounds,
                self.longest,
                self.changed,
                names.join(",")
            );
        }
        (self.since, self.rounds, self.changed) = (Instant::now(), 0, 0);
        (self.total, self.longest) = (Duration::ZERO, Duration::ZERO);
        self.names.clear();
    }
}
