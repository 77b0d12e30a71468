//! Runs another CNI plugin the way libcni does: an executable found in CNI_PATH, the request in
//! its environment and on its stdin, its answer on stdout (CNI specification 1.1.0, section 3,
//! "Execution Protocol", and section 4, "Plugin Delegation").
//!
//! The plugin gets this process's environment with CNI_COMMAND and the given overrides; of the
//! file descriptors only 0, 1 and 2. It is killed and reaped at the deadline. Needs
//! `pidfd_open` (Linux 5.3).

mod exchange;

use crate::log::{Level, Log};
use cni_protocol::{CniError, Code};
use datastore::Deadline;
use exchange::{Exchange, Fault};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Longest answer in bytes; a plugin that says more is stopped.
pub const MAX_STDOUT: usize = 1 << 20;
/// Lines of the plugin's stderr that are logged, from the first on.
const MAX_STDERR_LINES: usize = 20;
/// How much of an answer that makes no sense is shown.
const SHOWN: usize = 512;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// CNI_COMMAND.
    pub verb: &'a str,
    /// The plugin's `type`, a bare file name.
    pub plugin: &'a str,
    /// CNI_PATH: directories separated by ':', the first that has the file wins.
    pub paths: &'a str,
    /// Variables that differ from this process's own.
    pub env: &'a [(&'a str, &'a str)],
    /// The network configuration.
    pub stdin: &'a [u8],
    pub deadline: Deadline,
}

/// Why there is no result. Every kind but `Plugin` is found out here; its message is for the
/// runtime's user and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DelegateError {
    /// The configuration names something that is no file name.
    #[error("plugin type {plugin:?} (`ipam.type`) is not a bare file name: correct the configuration")]
    BadName { plugin: String },
    /// No directory of CNI_PATH has the plugin.
    #[error("no plugin {plugin:?} (`ipam.type`) in CNI_PATH {paths:?}: install it there or correct the type")]
    NotFound { plugin: String, paths: String },
    #[error("cannot {op} plugin {}", program.display())]
    Io { op: &'static str, program: PathBuf, source: io::Error },
    /// It was killed; what it had done so far is unknown, so a DEL should follow.
    #[error("plugin {} did not answer in time and was stopped: try again", program.display())]
    Late { program: PathBuf },
    #[error("plugin {} printed more than {MAX_STDOUT} bytes", program.display())]
    TooMuch { program: PathBuf },
    #[error("plugin {} printed no JSON: {shown:?}", program.display())]
    NotJson { program: PathBuf, shown: String, source: serde_json::Error },
    /// It failed without saying why on stdout.
    #[error("plugin {} failed without an error on stdout ({status})", program.display())]
    Failed { program: PathBuf, status: ExitStatus, stderr: String },
    /// The plugin's own error, whole.
    #[error(transparent)]
    Plugin(CniError),
}

impl From<DelegateError> for CniError {
    fn from(error: DelegateError) -> Self {
        let code = match &error {
            DelegateError::BadName { .. } | DelegateError::NotFound { .. } => Code::InvalidConfig,
            DelegateError::Late { .. } => Code::TryAgain,
            DelegateError::Plugin(own) => return own.clone(),
            _ => Code::Delegate,
        };
        let details = match &error {
            DelegateError::Failed { stderr, .. } => stderr.clone(),
            other => std::error::Error::source(other).map(ToString::to_string).unwrap_or_default(),
        };
        CniError::new(code, error.to_string()).with_details(details)
    }
}

/// Runs the plugin and returns what it printed: `None` if nothing, as is usual for DEL. Its
/// stderr goes to `log`, line by line.
///
/// # Errors
/// See [`DelegateError`]. Whatever the error, the plugin no longer runs (unless the kernel
/// itself holds it).
pub fn run(what: &Invocation, log: &Log) -> Result<Option<Value>, DelegateError> {
    let program = find(what.plugin, what.paths)?;
    let child = command(what, &program).spawn().map_err(|source| DelegateError::Io {
        op: "start",
        program: program.clone(),
        source,
    })?;
    let exchange = exchange::exchange(child, what.stdin, what.deadline);
    pass_on(what.plugin, &exchange.stderr, log);
    understand(program, exchange)
}

/// The first regular file of that name in `paths`.
pub fn find(plugin: &str, paths: &str) -> Result<PathBuf, DelegateError> {
    if plugin.is_empty() || plugin.contains(['/', '\0']) || plugin == "." || plugin == ".." {
        return Err(DelegateError::BadName { plugin: plugin.to_owned() });
    }
    std::env::split_paths(paths)
        .filter(|directory| !directory.as_os_str().is_empty())
        .map(|directory| directory.join(plugin))
        .find(|path| path.is_file())
        .ok_or_else(|| DelegateError::NotFound { plugin: plugin.to_owned(), paths: paths.to_owned() })
}

fn command(what: &Invocation, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.envs(what.env.iter().copied()).env("CNI_COMMAND", what.verb);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn understand(program: PathBuf, exchange: Exchange) -> Result<Option<Value>, DelegateError> {
    let Exchange { outcome, stdout, stderr } = exchange;
    let stdout = stdout.trim_ascii();
    match outcome {
        Ok(status) if status.success() => result(program, stdout),
        Ok(status) => Err(own_error(stdout).unwrap_or(DelegateError::Failed {
            program,
            status,
            stderr: shown(&stderr),
        })),
        Err(Fault::Io(source)) => Err(DelegateError::Io { op: "talk to", program, source }),
        Err(Fault::Late) => Err(DelegateError::Late { program }),
        Err(Fault::TooMuch) => Err(DelegateError::TooMuch { program }),
    }
}

fn own_error(stdout: &[u8]) -> Option<DelegateError> {
    let value = serde_json::from_slice(stdout).ok()?;
    CniError::from_json(&value).map(DelegateError::Plugin)
}

fn result(program: PathBuf, stdout: &[u8]) -> Result<Option<Value>, DelegateError> {
    if stdout.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(stdout).map(Some).map_err(|source| DelegateError::NotJson {
        program,
        shown: shown(stdout),
        source,
    })
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..SHOWN).unwrap_or(bytes)).trim().to_owned()
}

fn pass_on(plugin: &str, stderr: &[u8], log: &Log) {
    let text = String::from_utf8_lossy(stderr);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    for line in lines.by_ref().take(MAX_STDERR_LINES) {
        log.line(Level::Info, &[("plugin", &plugin), ("stderr", &line)]);
    }
    let left_out = lines.count();
    if left_out > 0 {
        log.line(Level::Info, &[("plugin", &plugin), ("stderr_lines_left_out", &left_out)]);
    }
}

#[cfg(test)]
#[path = "delegate/tests.rs"]
mod tests;
