//! Deletes links that are out of use, many at once (decision 16): one deletion costs the kernel 14 to
//! 36 ms, whether of one link or of a hundred.

use crate::context::Context;
use netlink::{Nl, RETIRED_GROUP};
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Links gather until none came for so long: a deletion keeps everybody else from the kernel's links.
const GATHER: Duration = Duration::from_millis(200);
/// Longest time that they gather; with the deletion itself under a second (decision 16).
const MAX_GATHER: Duration = Duration::from_millis(600);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);
const KERNEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Says that there are links to delete. Clones are the same.
#[derive(Clone)]
pub(super) struct Reaper(Arc<Mutex<Option<Worker>>>);

struct Worker {
    wake: Sender<()>,
    thread: JoinHandle<()>,
}

impl Reaper {
    /// What a daemon before this one left is deleted first.
    pub fn start(context: &Arc<Context>) -> io::Result<Self> {
        let (wake, woken) = mpsc::channel();
        let context = context.clone();
        let thread =
            std::thread::Builder::new().name("reaper".into()).spawn(move || work(&context, &woken))?;
        Ok(Self(Arc::new(Mutex::new(Some(Worker { wake, thread })))))
    }

    pub fn wake(&self) {
        if let Some(worker) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // It only ends with the daemon.
            let _ = worker.wake.send(());
        }
    }

    /// Deletes what is left and ends.
    pub fn stop(&self) {
        let worker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Worker { wake, thread }) = worker {
            drop(wake);
            let _ = thread.join();
        }
    }
}

fn work(context: &Context, woken: &Receiver<()>) {
    let deletions = context.metrics.counter(
        "percale_link_deletions_total",
        "Deletions of links out of use; each deletes all there are.",
    );
    delete(context);
    while woken.recv().is_ok() {
        let since = Instant::now();
        let mut more = Ok(());
        while more.is_ok() && since.elapsed() < MAX_GATHER {
            more = woken.recv_timeout(GATHER);
        }
        deletions.inc();
        delete(context);
        if more == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
    delete(context);
}

fn delete(context: &Context) {
    let deleted =
        Nl::here(KERNEL_TIMEOUT).and_then(|mut host| netlink::delete_group(&mut host, RETIRED_GROUP));
    if let Err(e) = deleted {
        tracing::warn!("links out of use cannot be deleted, trying again with the next: {e}");
        context.shutdown.wait(PAUSE);
    }
}
