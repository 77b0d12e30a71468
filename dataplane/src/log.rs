//! The daemon's log: lines on stderr.

use std::sync::OnceLock;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, reload};

type Handle = reload::Handle<LevelFilter, tracing_subscriber::Registry>;

static LEVEL: OnceLock<Handle> = OnceLock::new();

/// Starts logging at the level of `FELIX_LOGSEVERITYSCREEN` (Calico's spelling), else info.
pub fn start() {
    let named = std::env::var("FELIX_LOGSEVERITYSCREEN").ok();
    let level = named.as_deref().and_then(level_of).unwrap_or(LevelFilter::INFO);
    let (filter, handle) = reload::Layer::new(level);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    // A second start in one process (tests) keeps the first.
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Changes the level while the daemon runs. Unknown names are refused with `false`.
pub fn set_level(name: &str) -> bool {
    let Some(level) = level_of(name) else { return false };
    LEVEL.get().is_some_and(|handle| handle.reload(level).is_ok())
}

/// Calico's names of levels, in any case; "" and "none" are silence.
fn level_of(name: &str) -> Option<LevelFilter> {
    Some(match name.to_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warning" | "warn" => LevelFilter::WARN,
        "error" | "fatal" | "panic" | "critical" => LevelFilter::ERROR,
        "none" | "" => LevelFilter::OFF,
        _ => return None,
    })
}
