//! The host daemon: one process of several parts, each on a thread of its own.
//!
//! ```text
//!   main ─ config ─ lock of the host's one daemon ─ store (opened once, by all parts)
//!     │
//!     ├ http      /liveness /readiness /metrics ◄── health, metrics: what the parts report
//!     └ PARTS     each gets the Context, and ends soon after Context::shutdown is set
//! ```

mod adopt;
pub mod args;
mod bgp;
pub mod config;
pub mod context;
mod gc;
pub mod health;
mod http;
pub mod log;
pub mod memory;
pub mod metrics;
mod node;
mod owed;
mod own;
mod parts;
pub mod plane;
mod privileges;
mod serve;
pub mod shutdown;
mod stage;
mod store;

use anyhow::{Context as _, Result};
use config::Config;
use context::Context;
use datastore::Deadline;
use datastore::lock::{Kind, Lock};
use health::{Condition, Health};
use memory::Memory;
use metrics::Metrics;
use parts::Part;
use shutdown::Shutdown;
use stage::Stage;
use std::sync::Arc;
use std::time::Duration;

/// Every part of the daemon. One that ends before it was asked to ends the daemon with a failure, and
/// whoever supervises it starts it again.
const PARTS: &[Part] = &[
    Part { name: "serve", when: Stage::is_serving, condition: Some("socket"), run: serve::run },
    Part { name: "plane", when: Stage::is_network, condition: Some("plane"), run: plane::run },
    Part { name: "node", when: Stage::is_network, condition: Some("node"), run: node::run },
    Part { name: "bgp", when: Stage::is_network, condition: Some("bgp"), run: bgp::run },
    Part { name: "journal", when: Stage::always, condition: None, run: owed::run },
    Part { name: "gc", when: Stage::is_serving, condition: None, run: gc::run },
    Part { name: "memory", when: Stage::always, condition: None, run: memory::run },
    Part { name: "stage", when: Stage::always, condition: None, run: stage::run },
    Part { name: "adopt", when: Stage::always, condition: Some("take-over"), run: adopt::run },
];

/// How long the daemon waits for another one on this host before it says so again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// Where it cannot work: a wrong configuration, no state directory, a part that failed.
pub fn run(args: &args::Args) -> Result<()> {
    let config = Config::resolve(args, &|name| std::env::var_os(name))?;
    let stage = Stage::read(&config.state_dir);
    privileges::drop_all_others(stage);
    let shutdown = Shutdown::new().context("preparing the stop")?;
    shutdown.on_signals().context("listening for signals")?;
    let (health, metrics) = (Health::default(), Metrics::default());
    let start = health.condition(parts::START);
    let http = http::start(&config, &health, &metrics, &shutdown)?;
    let outcome = work(config, stage, health, metrics, &shutdown, &start);
    shutdown.set();
    http.join().ok();
    outcome
}

fn work(
    config: Config,
    stage: Stage,
    health: Health,
    metrics: Metrics,
    shutdown: &Shutdown,
    start: &Condition,
) -> Result<()> {
    let Some(_alone) = be_the_only_one(&config, shutdown, start)? else { return Ok(()) };
    let Some(store) = store::open(&config, &health, shutdown)? else { return Ok(()) };
    let node_name = config.node_name()?;
    let memory = match config.is_cluster() {
        true => Memory::of_cluster(store.clone(), &node_name, &metrics),
        false => Memory::plain(store.clone(), &metrics),
    };
    let context = Arc::new(Context {
        store,
        memory: Arc::new(memory),
        ledger: Arc::new(serve::Group::new(&metrics)),
        node_name,
        state_dir: config.state_dir.clone(),
        stage,
        config,
        shutdown: shutdown.clone(),
        health,
        metrics,
        plane: plane::Progress::default(),
    });
    tracing::info!(node = context.node_name, store = context.store.identity(), "percaled runs");
    parts::run(PARTS, &context)
}

/// One daemon per host, by a lock in its state directory. The one that an upgrade replaces may need
/// a moment to end. `None`: asked to stop before.
fn be_the_only_one(config: &Config, shutdown: &Shutdown, start: &Condition) -> Result<Option<Lock>> {
    let path = config.state_dir.join("percaled.lock");
    while !shutdown.is_set() {
        match Lock::acquire(&path, Kind::Exclusive, Deadline::after(PATIENCE)) {
            Ok(lock) => return Ok(Some(lock)),
            Err(e) if e.kind == datastore::ErrorKind::Timeout => {
                start.not_ready("another percaled serves this host; waiting for it to end");
                tracing::warn!(lock = %path.display(), "another percaled serves this host; waiting for it to end");
            }
            Err(e) => return Err(e).context("taking the lock of the host's daemon"),
        }
    }
    Ok(None)
}
