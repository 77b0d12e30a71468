//! The daemon's log: lines on stderr.

use std::sync::{Mutex, OnceLock, PoisonError};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, reload};

type Handle = reload::Handle<Targets, tracing_subscriber::Registry>;

static FILTER: OnceLock<(Handle, Mutex<Levels>)> = OnceLock::new();

/// The daemon's level, and that of BGP where it has one of its own.
#[derive(Clone, Copy)]
struct Levels {
    all: LevelFilter,
    bgp: Option<LevelFilter>,
}

impl Levels {
    fn targets(self) -> Targets {
        let targets = Targets::new().with_default(self.all);
        self.bgp.into_iter().fold(targets, |targets, level| targets.with_target("percaled::bgp", level))
    }
}

/// Starts logging at the level of `FELIX_LOGSEVERITYSCREEN` (Calico's spelling), else info.
pub fn start() {
    let named = std::env::var("FELIX_LOGSEVERITYSCREEN").ok();
    let all = named.as_deref().and_then(level_of).unwrap_or(LevelFilter::INFO);
    let levels = Levels { all, bgp: None };
    let (filter, handle) = reload::Layer::new(levels.targets());
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    // A second start in one process (tests) keeps the first.
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = FILTER.set((handle, Mutex::new(levels)));
    }
}

/// Changes the level while the daemon runs. Unknown names are refused with `false`.
pub fn set_level(name: &str) -> bool {
    level_of(name).is_some_and(|level| change(|levels| levels.all = level))
}

/// Gives BGP a level of its own, or (`None`) the daemon's. Unknown names are refused with `false`.
pub fn set_bgp_level(name: Option<&str>) -> bool {
    let level = name.map(level_of);
    level != Some(None) && change(|levels| levels.bgp = level.flatten())
}

fn change(edit: impl FnOnce(&mut Levels)) -> bool {
    let Some((handle, levels)) = FILTER.get() else { return false };
    let mut levels = levels.lock().unwrap_or_else(PoisonError::into_inner);
    edit(&mut levels);
    handle.reload(levels.targets()).is_ok()
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
