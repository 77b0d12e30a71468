//! From the store to the engine: watches on threads of their own, and one thread that makes the wish.

use super::engine::Message;
use super::poller::Waker;
use super::secrets::Secrets;
use super::source::Source;
use crate::context::Context;
use datastore::{Deadline, Event};
use peering::{Cluster, Wish};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Pause before a watch that failed is begun again.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait of a watch. Its thread ends with the process.
const QUIET: Duration = Duration::from_secs(60);
/// Changes that come together make one wish.
const GATHER: Duration = Duration::from_millis(20);
/// Secrets in files are looked at again that often.
const SECRETS: Duration = Duration::from_secs(5);

/// What the maker of the wish hears.
pub(super) enum Heard {
    /// From the watch of this number.
    Store(usize, Event),
    /// From the watch of Secrets.
    Secret(Event),
    Drain(bool),
}

/// A prefix, and the store that has it.
#[derive(Clone)]
pub(super) struct Watched {
    pub prefix: String,
    pub store: Source,
}

/// Starts each watch.
pub(super) fn start(context: &Arc<Context>, watches: &[Watched], to: &Sender<Heard>) -> std::io::Result<()> {
    for (number, watched) in watches.iter().enumerate() {
        let to = to.clone();
        start_one(context, watched.clone(), move |event| to.send(Heard::Store(number, event)).is_ok())?;
    }
    Ok(())
}

/// Tells every event under a prefix, on a thread of its own, until the daemon stops or nobody listens.
pub(super) fn start_one(
    context: &Arc<Context>,
    watched: Watched,
    tell: impl FnMut(Event) -> bool + Send + 'static,
) -> std::io::Result<()> {
    let context = context.clone();
    let body = move || watch(&context, &watched, tell);
    std::thread::Builder::new().name("bgp-watch".into()).spawn(body).map(drop)
}

fn watch(context: &Context, watched: &Watched, mut tell: impl FnMut(Event) -> bool) {
    let prefix = &watched.prefix;
    while !context.shutdown.is_set() {
        match watched.store.get().and_then(|store| store.watch(prefix)) {
            Ok(mut watch) => {
                if !tell(Event::Reset) || !follow(context, prefix, watch.as_mut(), &mut tell) {
                    return;
                }
            }
            Err(error) => tracing::warn!(prefix, %error, "cannot watch the store; trying again"),
        }
        context.shutdown.wait(PAUSE);
    }
}

/// False: it is over for good.
fn follow(
    context: &Context,
    prefix: &str,
    watch: &mut dyn datastore::Watch,
    tell: &mut impl FnMut(Event) -> bool,
) -> bool {
    let mut synced = false;
    while !context.shutdown.is_set() {
        match watch.next(Deadline::after(QUIET)) {
            Ok(Some(event)) => {
                synced |= event == Event::Synced;
                if !tell(event) {
                    return false;
                }
            }
            Ok(None) => {}
            Err(error) if error.kind == datastore::ErrorKind::Timeout => {}
            // A cluster of an older release has fewer kinds of resources. The watch goes on trying.
            Err(error) if error.kind == datastore::ErrorKind::Missing && !synced => {
                tracing::warn!(prefix, %error, "counts as empty until it is there");
                synced = true;
                if !tell(Event::Synced) {
                    return false;
                }
            }
            Err(error) => {
                tracing::warn!(prefix, %error, "a watch of the store ended; what is known stays in force");
                return true;
            }
        }
    }
    false
}

/// Makes the wish whenever something changes, once everything was told.
pub(super) struct Maker {
    cluster: Cluster,
    prefixes: Vec<String>,
    secrets: Secrets,
    /// Starts the watch of Secrets: not before one is named.
    watch_secrets: Option<Box<dyn FnOnce(Watched) + Send>>,
    to: Sender<Message>,
    waker: Waker,
    /// By watch: its list is complete, and what it has named since it began anew.
    synced: Vec<bool>,
    named: Vec<Option<BTreeSet<String>>>,
    last: Option<Option<Wish>>,
}

impl Maker {
    pub fn new(
        cluster: Cluster,
        watches: &[Watched],
        secrets: Secrets,
        watch_secrets: Box<dyn FnOnce(Watched) + Send>,
        to: Sender<Message>,
        waker: Waker,
    ) -> Self {
        let count = watches.len();
        Maker {
            cluster,
            prefixes: watches.iter().map(|w| w.prefix.clone()).collect(),
            secrets,
            watch_secrets: Some(watch_secrets),
            to,
            waker,
            synced: vec![false; count],
            named: vec![None; count],
            last: None,
        }
    }

    /// Until every sender is gone.
    pub fn run(&mut self, heard: &Receiver<Heard>) {
        let mut looked = Instant::now();
        loop {
            match heard.recv_timeout(SECRETS) {
                Ok(first) => {
                    self.take(first);
                    self.gather(heard);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if looked.elapsed() >= SECRETS {
                self.secrets.forget();
                looked = Instant::now();
            }
            self.make();
        }
    }

    fn gather(&mut self, heard: &Receiver<Heard>) {
        let until = Instant::now() + GATHER;
        while let Ok(next) = heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.take(next);
        }
    }

    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Store(number, event) => self.stored(number, event),
            Heard::Secret(Event::Put(entry)) => self.secrets.changed(&entry.key),
            Heard::Secret(Event::Delete { key }) => self.secrets.changed(&key),
            Heard::Secret(Event::Reset | Event::Synced) => {}
            Heard::Drain(drained) => self.cluster.set_drained(drained),
        }
    }

    fn stored(&mut self, number: usize, event: Event) {
        match event {
            Event::Put(entry) => {
                if let Some(named) = &mut self.named[number] {
                    named.insert(entry.key.clone());
                }
                self.cluster.put(&entry.key, &entry.value);
            }
            Event::Delete { key } => self.cluster.delete(&key),
            Event::Reset => {
                self.synced[number] = false;
                self.named[number] = Some(BTreeSet::new());
            }
            Event::Synced => {
                self.synced[number] = true;
                if let Some(named) = self.named[number].take() {
                    self.cluster.forget(&self.prefixes[number], &named);
                }
            }
        }
    }

    fn make(&mut self) {
        if self.synced.iter().any(|synced| !synced) {
            return;
        }
        let wanted = self.cluster.secrets_wanted();
        if !wanted.is_empty()
            && let Some(watched) = self.secrets.watched()
            && let Some(start) = self.watch_secrets.take()
        {
            start(watched);
        }
        for key in wanted {
            let value = self.secrets.read(&key);
            self.cluster.set_secret(key, value);
        }
        let wish = self.cluster.wish();
        if self.last.as_ref() == Some(&wish) {
            return;
        }
        let message = wish.clone().map_or(Message::Idle, |wish| Message::Wish(Box::new(wish)));
        self.last = Some(wish);
        // The engine's end ends this thread.
        let _ = self.to.send(message);
        self.waker.wake();
    }
}
