//! Keeps the kernel as the cluster's objects say: routes, tunnels, rules, MTU.
//!
//! ```text
//!   watches of the store ─┐                       ┌► links, VTEPs, routes ──► netlink
//!   (a thread each)       ├─► Event ─► Graph ─► Kernel ► rules ────────────► nft
//!   kernel's reports ─────┘   (one loop)          └► MTU file, pods' links
//! ```
//! Before the first full sync nothing is changed. A change of the store costs its difference; a report
//! of the kernel that something of ours is otherwise than wished costs a full comparison.

mod event;
mod kernel;
mod mtu;
mod progress;
mod rules;
mod summary;
mod tunnels;
mod wireguard;
mod workloads;

pub use progress::Progress;
pub(crate) use wireguard::public_key;

use crate::context::Context;
use crate::health::Condition;
use anyhow::{Context as _, Result};
use event::{Event, PREFIXES};
use kernel::Kernel;
use policy::config::Sources;
use policy::{Delta, Graph};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use summary::Summary;

/// Longest sleep of the loop, so that a stop is noticed.
const TICK: Duration = Duration::from_millis(500);
/// How long reports of the kernel are gathered before it is compared with the wish.
const GATHER: Duration = Duration::from_millis(100);
/// How long an ADD or DEL that is under way is left alone.
const POD_GRACE: Duration = Duration::from_millis(400);
/// Changes that are taken together.
const MAX_BATCH: usize = 1000;
/// First and longest pause before what failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Felix's file where none is named.
const FELIX_FILE: &str = "/etc/calico/felix.cfg";

/// Whether BGP makes the routes that need no VXLAN (`CALICO_NETWORKING_BACKEND`; Calico's default is bird).
pub fn is_bgp(env: &dyn Fn(&str) -> Option<OsString>) -> bool {
    let backend = env("CALICO_NETWORKING_BACKEND").unwrap_or_default();
    !matches!(backend.to_string_lossy().to_lowercase().as_str(), "none" | "vxlan")
}

/// Runs until the shutdown is set. Forwarding state stays as it is.
pub(crate) fn run(context: &Arc<Context>) -> Result<()> {
    let events = event::start(context).context("listening to the kernel")?;
    Plane::new(context)?.run(&events)
}

/// What is to be done and when.
#[derive(Default)]
struct Due {
    full: Option<Instant>,
    pods: Option<Instant>,
    rules: Option<Instant>,
}

struct Plane<'a> {
    context: &'a Context,
    graph: Graph,
    kernel: Kernel,
    delta: Delta,
    due: Due,
    unsynced: BTreeSet<usize>,
    pause: Duration,
    condition: Condition,
    summary: Summary,
    log_level: String,
}

impl<'a> Plane<'a> {
    fn new(context: &'a Context) -> Result<Self> {
        let file = context.config.felix_file.clone().unwrap_or_else(|| FELIX_FILE.into());
        let sources =
            Sources::new(environment(), &read_felix_file(&file, context.config.felix_file.is_some())?);
        let bgp = is_bgp(&|name| std::env::var_os(name));
        let graph = Graph::new(&context.node_name, bgp, sources);
        let plane = Self {
            context,
            kernel: Kernel::new(context)?,
            graph,
            delta: Delta::default(),
            due: Due::default(),
            unsynced: (0..PREFIXES).collect(),
            pause: RETRY.0,
            condition: context.health.condition("plane"),
            summary: Summary::new(&context.metrics),
            log_level: String::new(),
        };
        plane.condition.not_ready("reading the store");
        Ok(plane)
    }

    fn run(&mut self, events: &Receiver<Event>) -> Result<()> {
        let beat = self.context.health.heartbeat("plane", Duration::from_secs(60));
        while !self.context.shutdown.is_set() {
            beat.beat();
            match events.recv_timeout(self.sleep()) {
                Ok(event) => {
                    self.take(event);
                    events.try_iter().take(MAX_BATCH).for_each(|event| self.take(event));
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Every source has ended: so are we about to.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.unsynced.is_empty() {
                self.work();
            }
            self.summary.tell();
        }
        Ok(())
    }

    fn sleep(&self) -> Duration {
        let now = Instant::now();
        let next = [self.due.full, self.due.pods, self.due.rules].into_iter().flatten().min();
        next.map_or(TICK, |next| next.saturating_duration_since(now).min(TICK))
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Stored { key, value } => self.stored(&key, value.as_deref()),
            Event::InSync(source) => {
                if self.unsynced.remove(&source) && self.unsynced.is_empty() {
                    tracing::info!(nodes = self.graph.nodes().len(), "the store is read");
                    self.due.full = Some(Instant::now());
                }
            }
            Event::Kernel(seen) => {
                let touched = self.kernel.concerns(&seen, self.graph.wish());
                if touched.full {
                    earlier(&mut self.due.full, GATHER);
                }
                if touched.pods {
                    earlier(&mut self.due.pods, POD_GRACE);
                }
                if touched.rules {
                    earlier(&mut self.due.rules, GATHER);
                }
            }
        }
    }

    fn stored(&mut self, key: &str, value: Option<&[u8]>) {
        match model::Change::read(key, value) {
            Ok(Some(change)) => self.graph.apply(change),
            Ok(None) => {}
            Err(error) => tracing::warn!("{error}; what was known of it before holds on"),
        }
    }

    /// Brings the kernel to the wish: by difference, or by comparison where that is due.
    fn work(&mut self) {
        merge(&mut self.delta, self.graph.flush());
        self.context.plane.set_borrowed(self.graph.borrowed_from());
        self.follow_settings();
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if !self.delta.workloads.is_empty() {
            earlier(&mut self.due.pods, POD_GRACE);
        }
        if self.delta.rules {
            earlier(&mut self.due.rules, GATHER);
        }
        self.delta.workloads.clear();
        self.delta.rules = false;
        if self.delta.links || self.delta.mtu || self.delta.wireguard || is_due(self.due.full) {
            self.delta = Delta::default();
            self.due = Due::default();
            self.whole();
        } else {
            self.parts(is_due(self.due.pods), is_due(self.due.rules));
        }
    }

    fn whole(&mut self) {
        let begun = Instant::now();
        let done = self.kernel.sync(&self.graph);
        self.summary.note("resync", begun.elapsed(), &done);
        self.context.plane.set_wireguard(self.kernel.wireguard_links(&self.graph));
        let next = self.graph.config().refresh_secs;
        if next > 0 {
            self.due.full = Some(Instant::now() + Duration::from_secs(next.into()));
        }
        self.judge(done.problems, true);
    }

    fn parts(&mut self, pods: bool, rules: bool) {
        let mut problems = Vec::new();
        let delta = std::mem::take(&mut self.delta);
        if !delta.routes.is_empty() || !delta.vteps.is_empty() {
            let begun = Instant::now();
            let done = self.kernel.change(&self.graph, &delta);
            self.summary.note("routes", begun.elapsed(), &done);
            problems.extend(done.problems);
        }
        if pods {
            self.due.pods = None;
            let done = self.kernel.sync_workloads(&self.graph);
            problems.extend(done.problems);
        }
        if rules {
            self.due.rules = None;
            let done = self.kernel.sync_rules(&self.graph);
            problems.extend(done.problems);
        }
        if !problems.is_empty() {
            self.judge(problems, false);
        }
    }

    /// Says how it went; what failed is tried again by a full comparison.
    fn judge(&mut self, problems: Vec<String>, whole: bool) {
        let Some(first) = problems.first() else {
            self.pause = RETRY.0;
            if whole {
                self.condition.ready();
                self.context.plane.set_synced(self.graph.own_node().cloned());
            }
            return;
        };
        self.context.plane.set_synced(None);
        self.summary.failed();
        problems.iter().for_each(|problem| tracing::warn!("{problem}"));
        self.condition.not_ready(match problems.len() {
            1 => first.clone(),
            more => format!("{first} (and {} more; see the log)", more - 1),
        });
        earlier(&mut self.due.full, self.pause);
        self.pause = (self.pause * 2).min(RETRY.1);
    }

    /// Settings that take effect here, and what is wrong with any.
    fn follow_settings(&mut self) {
        let level = &self.graph.config().log_level;
        if !level.is_empty() && *level != self.log_level {
            self.log_level.clone_from(level);
            crate::log::set_level(level);
        }
        let problems: Vec<String> = self.graph.problems().iter().map(ToString::to_string).collect();
        if self.context.health.warn("settings", problems.clone()) {
            problems.iter().for_each(|problem| tracing::warn!("{problem}"));
        }
    }
}

fn earlier(due: &mut Option<Instant>, wait: Duration) {
    let at = Instant::now() + wait;
    *due = Some(due.map_or(at, |due| due.min(at)));
}

fn merge(into: &mut Delta, delta: Delta) {
    into.routes.extend(delta.routes);
    into.vteps.extend(delta.vteps);
    into.workloads.extend(delta.workloads);
    into.links |= delta.links;
    into.wireguard |= delta.wireguard;
    into.rules |= delta.rules;
    into.mtu |= delta.mtu;
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The file's text; one that was not asked for need not exist.
fn read_felix_file(path: &Path, is_named: bool) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !is_named => Ok(String::new()),
        Err(e) => Err(e).with_context(|| format!("--config {}", path.display())),
    }
}
