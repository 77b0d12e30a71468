//! Serves the plugin's requests.
//!
//! ```text
//!   crew of threads: one accepts, and serves what it accepted; before that another takes its place
//!     Service::answer ─► cni::Engine ─┬─► group: commits of many calls together
//!                                     └─► links out of use ─► reaper: by group
//!   at shutdown the socket goes, who waits is refused, what runs is finished
//! ```
//! So a request wakes one thread of the daemon and starts none.

mod group;
mod reaper;
mod service;
mod socket;

pub(crate) use group::Group;

use crate::context::Context;
use crate::shutdown::Shutdown;
use anyhow::{Context as _, Result};
use netlink::NetnsId;
use reaper::Reaper;
use service::Service;
use socket::{Listener, Peer};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests served at once; more wait in the socket's backlog.
const MAX_REQUESTS: usize = 160;
/// Threads that stay when there is nothing to do.
const SPARE: usize = 4;
/// How long requests that run are waited for at the end.
const FINISH: Duration = Duration::from_secs(20);

/// Serves until the shutdown is set.
///
/// # Errors
/// Where the socket cannot be made.
pub(crate) fn run(context: &Arc<Context>) -> Result<()> {
    let ready = context.health.condition("socket");
    let reaper = Reaper::start(context).context("starting the deletion of links")?;
    let crew = Arc::new(Crew {
        service: Service::new(context.clone(), reaper.clone()),
        listener: Listener::bind(&context.config.socket).context("--socket")?,
        shutdown: context.shutdown.clone(),
        home: NetnsId::own().context("looking at the host's network namespace")?,
        turn: Mutex::new(()),
        waiting: AtomicUsize::new(0),
        members: Members::default(),
    });
    crew.hire().context("starting a thread for requests")?;
    ready.ready();
    while !context.shutdown.wait(Duration::from_secs(3600)) {}
    crew.listener.close_and_refuse("percaled is stopping");
    if !crew.members.are_gone_by(Instant::now() + FINISH) {
        tracing::warn!("requests still run; their plugins will ask the next daemon");
    }
    reaper.stop();
    Ok(())
}

/// The threads that serve requests.
struct Crew {
    service: Service,
    listener: Listener,
    shutdown: Shutdown,
    home: NetnsId,
    /// Held by the one that accepts.
    turn: Mutex<()>,
    /// Members that accept, or wait for their turn to.
    waiting: AtomicUsize,
    members: Members,
}

impl Crew {
    /// Starts another member, unless there are as many as there may be.
    fn hire(self: &Arc<Self>) -> io::Result<()> {
        let Some(place) = Place::take(self) else { return Ok(()) };
        let work = move || {
            let place = place;
            place.0.work();
        };
        std::thread::Builder::new().name("request".into()).spawn(work).map(drop)
    }

    fn work(self: &Arc<Self>) {
        while let Some(peer) = self.next() {
            self.see_to_the_next();
            self.service.serve(peer);
            if !self.is_home() {
                tracing::warn!("a request left its thread in another network namespace; the thread ends");
                return self.see_to_the_next();
            }
            if self.waiting.load(Ordering::SeqCst) >= SPARE {
                return;
            }
        }
    }

    fn next(&self) -> Option<Peer> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = self.listener.accept(&self.shutdown);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        peer
    }

    /// Somebody accepts while this member does not.
    fn see_to_the_next(self: &Arc<Self>) {
        if self.waiting.load(Ordering::SeqCst) == 0
            && let Err(e) = self.hire()
        {
            // Requests wait for one of those that there are.
            tracing::warn!("no thread for more requests: {e}");
        }
    }

    /// A request enters its pod's namespace and comes back; one that panicked may not have.
    fn is_home(&self) -> bool {
        NetnsId::own().is_ok_and(|own| own == self.home)
    }
}

/// How many members there are.
#[derive(Default)]
struct Members {
    count: Mutex<usize>,
    fewer: Condvar,
}

impl Members {
    fn are_gone_by(&self, end: Instant) -> bool {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let left = end.saturating_duration_since(Instant::now());
        let waited = self.fewer.wait_timeout_while(count, left, |count| *count > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }
}

/// A member's place in the crew.
struct Place(Arc<Crew>);

impl Place {
    /// `None`: all are taken.
    fn take(crew: &Arc<Crew>) -> Option<Self> {
        let mut count = crew.members.count.lock().unwrap_or_else(PoisonError::into_inner);
        if *count >= MAX_REQUESTS {
            return None;
        }
        *count += 1;
        Some(Self(crew.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.members.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.members.fewer.notify_all();
    }
}
