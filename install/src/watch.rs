//! Stays: renews the token, follows certificates, repairs what others overwrite.
//!
//! Everything that can change is seen through inotify; a run costs nothing where nothing changed but
//! a look at the files.

use crate::cluster::Api;
use crate::settings::Settings;
use crate::token::renew_at;
use crate::{run, wish};
use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A look at everything even if nothing was told.
const RESYNC: Duration = Duration::from_secs(300);
/// Events come in groups: one run for all of them.
const QUIET: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(5);
/// More repairs than this within a minute are a quarrel with another program.
const QUARREL: usize = 20;

/// Where the plugin's token comes from.
pub struct Tokens<'a> {
    settings: &'a Settings,
    asked: Option<String>,
    /// The last attempt to renew it failed.
    late: bool,
}

impl<'a> Tokens<'a> {
    pub fn new(settings: &'a Settings) -> Self {
        Self { settings, asked: None, late: false }
    }

    /// The token to write now: the projected one as it is, an asked one until half of its life is over.
    /// `None` where this node has no account.
    ///
    /// # Errors
    /// The API server's, where there is no token that still lives.
    pub fn current(&mut self) -> Result<Option<String>> {
        let Some((namespace, account)) = &self.settings.token_account else { return self.projected() };
        let due = |token: &String| renew_at(token).is_some_and(|at| now() >= at);
        if self.asked.as_ref().is_some_and(|token| !due(token)) {
            return Ok(self.asked.clone());
        }
        let server =
            wish::server(self.settings)?.context("PERCALE_CNI_SERVICE_ACCOUNT is set, but this is no pod")?;
        let fresh =
            Api::in_pod(&server, &self.settings.account).and_then(|api| api.token(namespace, account));
        self.late = fresh.is_err();
        match (fresh, &self.asked) {
            (Ok(token), _) => self.asked = Some(token),
            (Err(e), None) => return Err(e),
            (Err(e), Some(_)) => eprintln!("percale-install: the token could not be renewed yet: {e:#}"),
        }
        Ok(self.asked.clone())
    }

    fn projected(&self) -> Result<Option<String>> {
        let file = self.settings.account.join("token");
        match fs::read_to_string(&file) {
            Ok(token) => Ok(Some(token.trim().to_owned())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| file.display().to_string()),
        }
    }

    /// How long until another token is due.
    fn left(&self) -> Duration {
        let due = self.asked.as_deref().and_then(renew_at);
        let left = due.map_or(RESYNC, |at| Duration::from_secs(at.saturating_sub(now())));
        if self.late { RETRY } else { left.max(Duration::from_secs(1)) }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Stays until the process is ended.
///
/// # Errors
/// Only what keeps it from watching; failed runs are told and tried again.
pub fn stay(settings: &Settings, tokens: &mut Tokens<'_>) -> Result<()> {
    end_on_signals();
    let watcher = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("inotify")?;
    let mut repairs: Vec<Instant> = Vec::new();
    eprintln!("percale-install: staying, to renew tokens and repair files");
    loop {
        watch_dirs(&watcher, settings);
        // Looked at after the watches are there: nothing falls between.
        let outcome = tokens.current().and_then(|token| run::once(settings, token.as_deref()));
        let pause = match outcome {
            Ok(changed) => quarrel(&mut repairs, changed),
            Err(e) => {
                eprintln!("percale-install: {e:#}");
                Some(RETRY)
            }
        };
        match pause {
            Some(pause) => std::thread::sleep(pause),
            None => wait(&watcher, tokens.left().min(RESYNC))?,
        }
    }
}

/// How long to hold off, where another program undoes every repair.
fn quarrel(repairs: &mut Vec<Instant>, changed: bool) -> Option<Duration> {
    repairs.retain(|at| at.elapsed() < Duration::from_secs(60));
    if changed {
        repairs.push(Instant::now());
    }
    if repairs.len() <= QUARREL {
        return None;
    }
    eprintln!("percale-install: another program keeps overwriting these files; the next repair is in 30 s");
    Some(Duration::from_secs(30))
}

/// Directories whose changes matter. One that is not there is added when it is.
fn watch_dirs(watcher: &OwnedFd, settings: &Settings) {
    let flags = WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::ATTRIB
        | WatchFlags::ONLYDIR;
    let mut dirs: Vec<PathBuf> = settings.bin_dirs.clone();
    dirs.extend([settings.conf_dir.clone(), settings.tls_dir()]);
    dirs.extend([settings.tls_assets.clone(), settings.account.clone()]);
    for dir in dirs {
        let _ = inotify::add_watch(watcher, &dir, flags);
    }
}

/// Waits for a change, and then until it is quiet.
fn wait(watcher: &OwnedFd, limit: Duration) -> Result<()> {
    let mut left = limit;
    while poll_for(watcher, left)? {
        drain(watcher);
        left = QUIET;
    }
    Ok(())
}

fn poll_for(watcher: &OwnedFd, limit: Duration) -> Result<bool> {
    let limit = Timespec { tv_sec: limit.as_secs().try_into()?, tv_nsec: limit.subsec_nanos().into() };
    let mut fds = [PollFd::from_borrowed_fd(watcher.as_fd(), PollFlags::IN)];
    match poll(&mut fds, Some(&limit)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e).context("inotify"),
    }
}

/// What changed does not matter: everything is looked at.
fn drain(watcher: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watcher, &mut buffer);
    while reader.next().is_ok() {}
}

/// As process 1 of a container, signals without a handler are ignored. Whatever is under way may be
/// cut off at any point.
fn end_on_signals() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(0) }
    }
    let handler = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler calls nothing but _exit.
        unsafe { libc::signal(signal, handler) };
    }
}
