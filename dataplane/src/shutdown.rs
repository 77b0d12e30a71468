//! The one signal to stop, for threads that block, that poll descriptors, and for tasks.

use rustix::event::{EventfdFlags, eventfd};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Set once; clones are the same.
#[derive(Clone)]
pub struct Shutdown(Arc<Inner>);

struct Inner {
    is_set: Mutex<bool>,
    changed: Condvar,
    /// Readable for good once set.
    fd: OwnedFd,
    tasks: watch::Sender<bool>,
}

impl Shutdown {
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (is_set, changed) = (Mutex::new(false), Condvar::new());
        Ok(Self(Arc::new(Inner { is_set, changed, fd, tasks: watch::Sender::new(false) })))
    }

    /// Asks all parts to stop.
    pub fn set(&self) {
        *self.0.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
        self.0.tasks.send_replace(true);
        // It can only fail when the counter is at its end, and then it is readable.
        let _ = rustix::io::write(&self.0.fd, &1u64.to_ne_bytes());
    }

    pub fn is_set(&self) -> bool {
        *self.0.is_set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, at most until it is set. Whether it is.
    pub fn wait(&self, limit: Duration) -> bool {
        let guard = self.0.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.changed.wait_timeout_while(guard, limit, |set| !*set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Resolves once it is set.
    pub async fn wait_async(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.tasks.subscribe().wait_for(|set| *set).await;
    }

    /// Becomes readable, and stays so, once it is set: for a thread that polls. Never to be read.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    /// SIGTERM and SIGINT set it.
    pub(crate) fn on_signals(&self) -> io::Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let shutdown = self.clone();
        let wait = move || {
            for signal in signals.forever() {
                tracing::info!(signal, "stopping; pods keep their network");
                shutdown.set();
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn readable(shutdown: &Shutdown) -> bool {
        let fd = shutdown.fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn threads_pollers_and_tasks_all_learn_of_it() {
        let shutdown = Shutdown::new().unwrap();
        assert!(!shutdown.wait(Duration::ZERO) && !readable(&shutdown));
        let other = shutdown.clone();
        let waiter = std::thread::spawn(move || other.wait(Duration::from_secs(60)));
        shutdown.set();
        assert!(waiter.join().unwrap() && readable(&shutdown) && shutdown.is_set());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(shutdown.wait_async());
    }
}
