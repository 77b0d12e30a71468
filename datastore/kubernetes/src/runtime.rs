//! The one thread that drives sockets and timers, also while nobody calls: connections are kept, and
//! watches go on in the background.

use crate::error::Failure;
use datastore::Deadline;
use std::{io, thread};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

pub(crate) struct Runtime {
    handle: Handle,
    /// Dropped with the runtime, which ends the thread.
    _alive: oneshot::Sender<()>,
}

impl Runtime {
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("kubernetes".to_owned()).spawn(move || {
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { handle, _alive: alive })
    }

    /// Waits for `call` on this thread, which must be none of a runtime.
    pub fn run<T>(
        &self,
        deadline: Deadline,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.wait(deadline, call).unwrap_or_else(|| Err(Failure::late()))
    }

    /// As `run`; `None` when the deadline passed.
    pub fn wait<T>(&self, deadline: Deadline, call: impl Future<Output = T>) -> Option<T> {
        self.handle.block_on(async { timeout_at(Instant::from_std(deadline.0), call).await.ok() })
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::AbortHandle {
        self.handle.spawn(task).abort_handle()
    }
}
