//! Watching: the whole list, then what changes; after a lost connection from where it was, after a
//! compaction from the beginning.

use crate::cluster::{ANSWER, Cluster, Link};
use crate::error::Failure;
use crate::read::{Pages, entry, range};
use crate::runtime::Runtime;
use datastore::{Deadline, Error, ErrorKind, Event, Watch};
use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// Events that may wait for a slow user; then the server waits.
const QUEUE: usize = 1024;
/// Pauses after failures, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A silent watch is asked for a sign of life after this. A dead connection is found out sooner, by
/// its pings.
const SILENCE: Duration = Duration::from_secs(30);

/// A watch whose work goes on in the background. While the cluster cannot be reached, `next` gives
/// one error for each outage, and the watch goes on trying.
pub(crate) struct Watcher {
    runtime: Arc<Runtime>,
    events: mpsc::Receiver<Result<Event, Error>>,
    task: AbortHandle,
}

impl Watcher {
    pub fn start(runtime: &Arc<Runtime>, cluster: &Arc<Cluster>, prefix: &str) -> Self {
        let (sender, events) = mpsc::channel(QUEUE);
        let teller = Teller {
            cluster: cluster.clone(),
            prefix: prefix.to_owned(),
            events: sender,
            next: None,
            told: false,
            healthy: true,
            pause: FIRST_PAUSE,
        };
        Self { runtime: runtime.clone(), events, task: runtime.spawn(teller.run()) }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch for Watcher {
    fn next(&mut self, deadline: Deadline) -> Result<Option<Event>, Error> {
        if let Ok(event) = self.events.try_recv() {
            return event.map(Some);
        }
        let event = self.runtime.wait(deadline, self.events.recv());
        // The sender lives as long as the task, which ends with `self` only.
        event.flatten().transpose()
    }
}

/// Why telling stopped.
enum Stop {
    /// Nobody listens any more.
    Unheard,
    /// History was lost.
    Compacted,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        match failure.compacted {
            true => Stop::Compacted,
            false => Stop::Failed(failure),
        }
    }
}

impl From<etcd_client::Error> for Stop {
    fn from(error: etcd_client::Error) -> Self {
        Failure::from(error).into()
    }
}

struct Teller {
    cluster: Arc<Cluster>,
    prefix: String,
    events: mpsc::Sender<Result<Event, Error>>,
    /// The first revision that was not told; `None` before a list.
    next: Option<i64>,
    /// Something was told that a new list must take back.
    told: bool,
    /// No error was told since the last success.
    healthy: bool,
    pause: Duration,
}

impl Teller {
    async fn run(mut self) {
        loop {
            match self.tell().await {
                Err(Stop::Unheard) => return,
                Err(Stop::Compacted) => self.next = None,
                Err(Stop::Failed(failure)) => {
                    if self.complain(failure).await.is_err() {
                        return;
                    }
                    sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
                Ok(never) => match never {},
            }
        }
    }

    async fn tell(&mut self) -> Result<std::convert::Infallible, Stop> {
        let from = match self.next {
            Some(next) => next,
            None => self.list().await?,
        };
        let link = self.cluster.link().await?;
        let followed = self.follow(&link, from).await;
        if let Err(Stop::Failed(_)) = &followed {
            self.cluster.give_up(&link).await;
        }
        followed
    }

    /// Tells everything there is, and where following begins.
    async fn list(&mut self) -> Result<i64, Stop> {
        if std::mem::replace(&mut self.told, true) {
            self.say(Event::Reset).await?;
        }
        let mut pages = Pages::of_entries(&self.prefix);
        while let Some(page) = pages.next(&self.cluster).await? {
            for found in page.into_iter().filter_map(entry) {
                self.say(Event::Put(found)).await?;
            }
        }
        self.say(Event::Synced).await?;
        self.next = Some(pages.revision + 1);
        Ok(pages.revision + 1)
    }

    async fn follow(&mut self, link: &Link, from: i64) -> Result<std::convert::Infallible, Stop> {
        let (key, end) = range(&self.prefix);
        let options = WatchOptions::new().with_range(end).with_start_revision(from);
        let mut client = link.watch.clone();
        let opened = timeout(ANSWER, client.watch(key, Some(options))).await;
        let mut stream = opened.map_err(|_| Failure::silent())??;
        loop {
            let message = hear(&mut stream).await?;
            self.healthy = true;
            self.pause = FIRST_PAUSE;
            self.pass_on(&message).await?;
        }
    }

    async fn pass_on(&mut self, message: &WatchResponse) -> Result<(), Stop> {
        if message.compact_revision() != 0 || self.went_back(message) {
            return Err(Stop::Compacted);
        }
        if message.canceled() {
            let reason = message.cancel_reason();
            let kind = if reason.contains("permission") { ErrorKind::Denied } else { ErrorKind::Unreachable };
            return Err(Failure::new(kind, format!("the watch was ended: {reason}")).into());
        }
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            let revision = kv.mod_revision();
            match (event.event_type(), std::str::from_utf8(kv.key())) {
                (_, Err(_)) => {}
                (EventType::Delete, Ok(key)) => self.say(Event::Delete { key: key.to_owned() }).await?,
                (EventType::Put, Ok(_)) => {
                    if let Some(entry) = entry(kv.clone()) {
                        self.say(Event::Put(entry)).await?;
                    }
                }
            }
            // Messages never split a revision, so the next one begins behind the last event.
            self.next = Some(revision + 1);
        }
        Ok(())
    }

    /// The cluster is older than what was told: restored from a backup. It would be silent until it
    /// has caught up, and then tell other changes under the same revisions.
    fn went_back(&self, message: &WatchResponse) -> bool {
        let revision = message.header().map_or(i64::MAX, |header| header.revision());
        message.created() && self.next.is_some_and(|next| revision + 1 < next)
    }

    async fn say(&self, event: Event) -> Result<(), Stop> {
        self.events.send(Ok(event)).await.map_err(|_| Stop::Unheard)
    }

    async fn complain(&mut self, failure: Failure) -> Result<(), Stop> {
        if !std::mem::replace(&mut self.healthy, false) {
            return Ok(());
        }
        let error = failure.about(&self.prefix).into_error("watch", self.cluster.subject());
        self.events.send(Err(error)).await.map_err(|_| Stop::Unheard)
    }
}

/// The next message. A watch that the server forgot is silent for ever, an idle one answers when asked.
async fn hear(stream: &mut WatchStream) -> Result<WatchResponse, Stop> {
    let message = match timeout(SILENCE, stream.message()).await {
        Ok(message) => message?,
        Err(_) => {
            let asked = async {
                stream.request_progress().await?;
                stream.message().await
            };
            timeout(ANSWER, asked).await.map_err(|_| Failure::silent())??
        }
    };
    message.ok_or_else(|| Failure::unreachable("the watch was closed").into())
}
