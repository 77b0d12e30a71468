//! Serves the plugin's requests.
//!
//! ```text
//!   accept ─► a thread per connection ─► Service::answer ─► cni::Engine ─┬─► group: commits of many calls together
//!     │        (at most MAX_REQUESTS)                                    └─► links out of use ─► reaper: by group
//!     └ stops at shutdown: the socket goes, who waits is refused, what runs is finished
//! ```

mod group;
mod reaper;
mod service;
mod socket;

pub(crate) use group::Group;

use crate::context::Context;
use anyhow::{Context as _, Result};
use reaper::Reaper;
use service::Service;
use socket::{Listener, Peer};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests served at once; more wait in the socket's backlog.
const MAX_REQUESTS: usize = 160;
/// How long requests that run are waited for at the end.
const FINISH: Duration = Duration::from_secs(20);

/// Serves until the shutdown is set.
///
/// # Errors
/// Where the socket cannot be made.
pub(crate) fn run(context: &Arc<Context>) -> Result<()> {
    let ready = context.health.condition("socket");
    let reaper = Reaper::start(context).context("starting the deletion of links")?;
    let service = Arc::new(Service::new(context.clone(), reaper.clone()));
    let listener = Listener::bind(&context.config.socket).context("--socket")?;
    ready.ready();
    let running = Arc::new(Running::default());
    while let Some(peer) = listener.accept(&context.shutdown) {
        running.wait_until(MAX_REQUESTS - 1, Instant::now() + Duration::from_secs(3600));
        begin(&service, &running, peer);
    }
    listener.close_and_refuse("percaled is stopping");
    if !running.wait_until(0, Instant::now() + FINISH) {
        tracing::warn!("requests still run; their plugins will ask the next daemon");
    }
    reaper.stop();
    Ok(())
}

fn begin(service: &Arc<Service>, running: &Arc<Running>, peer: Peer) {
    let place = Place::take(running);
    let service = service.clone();
    let serve = move || {
        service.serve(peer);
        drop(place);
    };
    if let Err(e) = std::thread::Builder::new().name("request".into()).spawn(serve) {
        // The plugin finds the connection closed and asks again.
        tracing::warn!("no thread for a request: {e}");
    }
}

/// How many requests are being served.
#[derive(Default)]
struct Running {
    count: Mutex<usize>,
    fewer: Condvar,
}

impl Running {
    /// Whether there were at most `most` before `end`.
    fn wait_until(&self, most: usize, end: Instant) -> bool {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let left = end.saturating_duration_since(Instant::now());
        let waited = self.fewer.wait_timeout_while(count, left, |count| *count > most);
        *waited.unwrap_or_else(PoisonError::into_inner).0 <= most
    }

    fn change(&self, f: impl FnOnce(&mut usize)) {
        f(&mut self.count.lock().unwrap_or_else(PoisonError::into_inner));
        self.fewer.notify_all();
    }
}

/// One request's place among those that run.
struct Place(Arc<Running>);

impl Place {
    fn take(running: &Arc<Running>) -> Self {
        running.change(|count| *count += 1);
        Self(running.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.change(|count| *count -= 1);
    }
}
