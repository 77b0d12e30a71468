//! What the loop hears: the store's watches and the kernel's reports, each from a thread of its own.

use crate::context::Context;
use crate::shutdown::Shutdown;
use anyhow::Result;
use datastore::{Deadline, Event as StoreEvent, Store, Watch};
use model::keys::{self, Scope};
use model::{Family, keys::MASQUERADE};
use netlink::{Monitor, Seen};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// One thing heard.
pub(super) enum Event {
    /// What stands under a key now; `None`: nothing.
    Stored {
        key: String,
        value: Option<Vec<u8>>,
    },
    /// A watch has told all that there is.
    InSync(usize),
    Kernel(Vec<Seen>),
}

/// How many watches there are.
pub(super) const PREFIXES: usize = 6;

/// Events that wait at most; then the sources wait.
const QUEUE: usize = 4096;
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for something to hear. The threads end with the process.
const QUIET: Duration = Duration::from_secs(60);

fn prefixes() -> [String; PREFIXES] {
    let blocks = |family| keys::blocks(&Scope::Cluster, family);
    [
        keys::pools(),
        keys::nodes(),
        keys::resources("felixconfigurations"),
        blocks(Family::V4),
        blocks(Family::V6),
        MASQUERADE.to_owned(),
    ]
}

/// Starts all sources.
///
/// # Errors
/// When the kernel cannot be listened to, or there is no thread to be had.
pub(super) fn start(context: &Arc<Context>) -> Result<Receiver<Event>> {
    let (sender, events) = sync_channel(QUEUE);
    for (number, prefix) in prefixes().into_iter().enumerate() {
        let (context, sender) = (context.clone(), sender.clone());
        spawn(move || follow(&context.store, &prefix, number, &sender, &context.shutdown))?;
    }
    for monitor in [Monitor::routes()?, Monitor::nftables()?] {
        let (context, sender) = (context.clone(), sender.clone());
        spawn(move || listen(monitor, &sender, &context.shutdown))?;
    }
    Ok(events)
}

fn spawn(body: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name("plane-watch".into()).spawn(body)?;
    Ok(())
}

fn listen(mut monitor: Monitor, sender: &SyncSender<Event>, shutdown: &Shutdown) {
    while !shutdown.is_set() {
        let seen = monitor.next(QUIET).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            shutdown.wait(PAUSE);
            vec![Seen::Lost]
        });
        if !seen.is_empty() && sender.send(Event::Kernel(seen)).is_err() {
            return;
        }
    }
}

/// Follows a prefix for good: a watch that fails is started again, and what went meanwhile is told.
fn follow(
    store: &Arc<dyn Store>,
    prefix: &str,
    number: usize,
    sender: &SyncSender<Event>,
    shutdown: &Shutdown,
) {
    let mut mirror = Mirror::default();
    while !shutdown.is_set() {
        let ended = match store.watch(prefix) {
            Ok(watch) => mirror.follow(watch, number, sender, shutdown),
            Err(error) => Some(error),
        };
        let Some(error) = ended else { return };
        tracing::warn!(prefix, "watching: {error}");
        shutdown.wait(PAUSE);
    }
}

/// Which keys were told, so that after a gap those that are gone can be told too.
#[derive(Default)]
struct Mirror {
    told: BTreeSet<String>,
    /// Told before the list that is under way, and not in it so far.
    doubtful: BTreeSet<String>,
}

impl Mirror {
    /// `None`: nobody listens any more, or asked to stop.
    fn follow(
        &mut self,
        mut watch: Box<dyn Watch>,
        number: usize,
        sender: &SyncSender<Event>,
        shutdown: &Shutdown,
    ) -> Option<datastore::Error> {
        self.doubtful = self.told.clone();
        while !shutdown.is_set() {
            let event = match watch.next(Deadline::after(QUIET)) {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                Err(error) => return Some(error),
            };
            for event in self.take(event, number) {
                sender.send(event).ok()?;
            }
        }
        None
    }

    fn take(&mut self, event: StoreEvent, number: usize) -> Vec<Event> {
        match event {
            StoreEvent::Put(entry) => {
                self.doubtful.remove(&entry.key);
                self.told.insert(entry.key.clone());
                vec![Event::Stored { key: entry.key, value: Some(entry.value) }]
            }
            StoreEvent::Delete { key } => {
                self.doubtful.remove(&key);
                self.told.remove(&key);
                vec![Event::Stored { key, value: None }]
            }
            StoreEvent::Reset => {
                self.doubtful = self.told.clone();
                Vec::new()
            }
            StoreEvent::Synced => {
                let gone = std::mem::take(&mut self.doubtful);
                self.told.retain(|key| !gone.contains(key));
                let gone = gone.into_iter().map(|key| Event::Stored { key, value: None });
                gone.chain([Event::InSync(number)]).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::store::Entry;

    fn put(key: &str) -> StoreEvent {
        StoreEvent::Put(Entry { key: key.into(), value: b"{}".to_vec(), revision: 1 })
    }

    fn told(mirror: &mut Mirror, event: StoreEvent) -> Vec<String> {
        let text = |event| match event {
            Event::Stored { key, value } => format!("{}{key}", if value.is_some() { "+" } else { "-" }),
            Event::InSync(number) => format!("sync {number}"),
            Event::Kernel(_) => unreachable!("the mirror hears the store alone"),
        };
        mirror.take(event, 3).into_iter().map(text).collect()
    }

    #[test]
    fn what_went_during_a_gap_is_told_when_the_list_is_whole() {
        let mut mirror = Mirror::default();
        assert_eq!(told(&mut mirror, put("a")), ["+a"]);
        assert_eq!(told(&mut mirror, put("b")), ["+b"]);
        assert_eq!(told(&mut mirror, StoreEvent::Synced), ["sync 3"]);
        assert_eq!(told(&mut mirror, StoreEvent::Reset), Vec::<String>::new());
        assert_eq!(told(&mut mirror, put("b")), ["+b"]);
        assert_eq!(told(&mut mirror, StoreEvent::Synced), ["-a", "sync 3"]);
        assert_eq!(told(&mut mirror, StoreEvent::Delete { key: "b".into() }), ["-b"]);
        assert_eq!(told(&mut mirror, StoreEvent::Synced), ["sync 3"]);
    }
}
