//! The plugin's own log: one logfmt line per event, on stderr and in a rotated file.
//!
//! ```text
//! 2026-11-21T22:00:03.417Z info verb=ADD result=ok network=k8s container=4f0c... ifname=eth0 ...
//! ```
//!
//! Many short-lived processes write to one file at once, so nothing is kept open and nobody
//! owns it: a line is one `open`, one `fstat` and one `O_APPEND` `write`, which the kernel
//! does not interleave. Rotation is in [`rotate`], the escaping and bounds in [`text`].
//!
//! Logging never fails a pod: every failure ends in a notice on stderr, once.
//! What is logged is built from named fields ([`Call`]); no configuration is ever passed here.

mod call;
mod rotate;
mod stamp;
mod text;

pub use call::{Call, Failure};
pub use text::MAX_LINE;

use rotate::Rotation;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// How much a line matters; a log shows its own level and what is above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

impl Level {
    /// Reads Calico's `log_level`: "debug", "info" or "error" in any case. Anything else means
    /// info, as in Calico: a typo in the log's settings never fails a pod.
    pub fn from_config(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "debug" => Level::Debug,
            "error" => Level::Error,
            _ => Level::Info,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// The keys `log_level` and `log_file_*` of the network configuration, with Calico's meaning.
#[derive(Clone, Debug, Default)]
pub struct LogSettings {
    pub level: Level,
    /// `None`: stderr alone.
    pub path: Option<PathBuf>,
    /// A file that would grow past this many MB (2^20 bytes) is rotated. 0 means 100.
    pub max_size_mb: u64,
    /// Rotated files older than this many days are removed. 0 means 30.
    pub max_age_days: u64,
    /// This many rotated files are kept. 0 means 10.
    pub max_count: usize,
}

/// Where lines go. Cheap to make; may be shared between threads.
#[derive(Debug)]
pub struct Log {
    level: Level,
    file: Option<Rotation>,
    /// The notice that the file cannot be written has been given.
    told: AtomicBool,
}

impl Log {
    /// Never fails and touches no file before the first line. The file's directory is then
    /// created (0755) where it is missing; a file that cannot be written is reported once.
    pub fn open(settings: &LogSettings) -> Self {
        let file = settings.path.as_deref().filter(|p| !p.as_os_str().is_empty());
        Self::new(settings.level, file.map(|path| rotation(path, settings)))
    }

    /// For what happens before the configuration has been read.
    pub fn stderr(level: Level) -> Self {
        Self::new(level, None)
    }

    fn new(level: Level, file: Option<Rotation>) -> Self {
        Self { level, file, told: AtomicBool::new(false) }
    }

    pub fn enabled(&self, level: Level) -> bool {
        level >= self.level
    }

    /// Writes `fields` as one line of at most [`MAX_LINE`] bytes. Keys are fixed words of the
    /// code; values may be anything and are escaped and cut.
    pub fn line(&self, level: Level, fields: &[(&str, &dyn Display)]) {
        if self.enabled(level) {
            self.write(level, SystemTime::now(), fields);
        }
    }

    /// Writes the record of one call: at info, or at error when it failed.
    pub fn call(&self, call: &Call) {
        let fields = call.fields();
        let fields: Vec<(&str, &dyn Display)> = fields.iter().map(|(k, v)| (k.as_ref(), v as _)).collect();
        self.line(call.level(), &fields);
    }

    fn write(&self, level: Level, now: SystemTime, fields: &[(&str, &dyn Display)]) {
        let line = text::line(&stamp::rfc3339(now), level.name(), fields);
        to_stderr(&line);
        let Some(file) = &self.file else { return };
        if let Err(error) = file.append(line.as_bytes(), now) {
            self.tell(now, file.path(), &error);
        }
    }

    fn tell(&self, now: SystemTime, path: &Path, error: &io::Error) {
        if self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let fields: [(&str, &dyn Display); 3] = [
            ("msg", &"cannot write the log file, logging to stderr"),
            ("file", &path.display()),
            ("error", error),
        ];
        to_stderr(&text::line(&stamp::rfc3339(now), Level::Warn.name(), &fields));
    }
}

fn rotation(path: &Path, settings: &LogSettings) -> Rotation {
    let or = |value: u64, default: u64| if value == 0 { default } else { value };
    Rotation::new(
        path.to_owned(),
        rotate::Limits {
            bytes: or(settings.max_size_mb, 100).saturating_mul(1 << 20),
            age: Duration::from_secs(or(settings.max_age_days, 30).saturating_mul(24 * 3600)),
            count: if settings.max_count == 0 { 10 } else { settings.max_count },
        },
    )
}

/// A line that nobody can read any more is no reason to stop.
fn to_stderr(line: &str) {
    let _ = io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
#[path = "log/tests.rs"]
mod tests;
