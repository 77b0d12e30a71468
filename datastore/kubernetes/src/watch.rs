//! Watching: the whole list, then what changes; after a lost connection from where it was, after the
//! server forgot that place from the beginning.
//!
//! ```text
//!   Watcher ── events ── Teller: list all ── Follower of each resource: changes ── stream: lines of JSON
//! ```

mod stream;

use crate::cluster::Cluster;
use crate::error::Failure;
use crate::object::Object;
use crate::place::{Source, source_of_key, sources};
use crate::read::{Page, Pages};
use crate::runtime::Runtime;
use datastore::{Deadline, Error, Event, Watch};
use serde_json::Value;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
pub(crate) use stream::{Kind, Stream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

/// Events that may wait for a slow user; then the server waits.
const QUEUE: usize = 1024;
/// Pauses after failures, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A watch whose work goes on in the background. While the cluster cannot be reached, `next` gives
/// one error for each outage, and the watch goes on trying.
pub(crate) struct Watcher {
    runtime: Arc<Runtime>,
    events: mpsc::Receiver<Result<Event, Error>>,
    task: AbortHandle,
}

impl Watcher {
    pub fn start(runtime: &Arc<Runtime>, cluster: &Arc<Cluster>, prefix: &str) -> Result<Self, Failure> {
        Ok(Self::of(runtime, cluster, prefix, sources(prefix)?))
    }

    /// Of one object.
    pub fn of_key(runtime: &Arc<Runtime>, cluster: &Arc<Cluster>, key: &str) -> Result<Self, Failure> {
        Ok(Self::of(runtime, cluster, key, vec![source_of_key(key)?]))
    }

    fn of(runtime: &Arc<Runtime>, cluster: &Arc<Cluster>, prefix: &str, sources: Vec<Source>) -> Self {
        let (sender, events) = mpsc::channel(QUEUE);
        let speaker = Speaker {
            subject: cluster.subject().to_owned(),
            events: sender,
            healthy: true,
            pause: FIRST_PAUSE,
        };
        let teller =
            Teller { cluster: cluster.clone(), prefix: prefix.into(), sources, speaker, told: false };
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
pub(crate) enum Stop {
    /// Nobody listens any more.
    Unheard,
    /// The server has forgotten what happened since.
    Expired,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

/// Passes on events, and one complaint for each outage.
#[derive(Clone)]
struct Speaker {
    subject: String,
    events: mpsc::Sender<Result<Event, Error>>,
    /// No error was told since the last success.
    healthy: bool,
    pause: Duration,
}

impl Speaker {
    async fn say(&self, event: Event) -> Result<(), Stop> {
        self.events.send(Ok(event)).await.map_err(|_| Stop::Unheard)
    }

    async fn complain(&mut self, failure: Failure) -> Result<(), Stop> {
        if std::mem::replace(&mut self.healthy, false) {
            let error = failure.into_error("watch", &self.subject);
            self.events.send(Err(error)).await.map_err(|_| Stop::Unheard)?;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    fn recover(&mut self) {
        self.healthy = true;
        self.pause = FIRST_PAUSE;
    }
}

struct Teller {
    cluster: Arc<Cluster>,
    prefix: Arc<str>,
    sources: Vec<Source>,
    speaker: Speaker,
    /// Something was told that a new list must take back.
    told: bool,
}

impl Teller {
    async fn run(mut self) {
        loop {
            let told = match self.tell().await {
                Err(Stop::Unheard) => return,
                // A server whose history is that short must not be asked in a tight loop.
                Err(Stop::Expired) => {
                    sleep(FIRST_PAUSE).await;
                    Ok(())
                }
                Err(Stop::Failed(failure)) => self.speaker.complain(failure).await,
                Ok(never) => match never {},
            };
            if told.is_err() {
                return;
            }
        }
    }

    async fn tell(&mut self) -> Result<Infallible, Stop> {
        let (mut listed, mut begun) = (Vec::new(), false);
        for source in self.sources.clone() {
            let mut pages = Pages::new(&source);
            let mut follower = self.follower(source);
            loop {
                let items = match pages.next(&self.cluster).await? {
                    Page::Items(items) => items,
                    Page::End => break,
                    Page::Expired => return Err(Stop::Expired),
                };
                if !std::mem::replace(&mut begun, true) {
                    self.begin().await?;
                }
                for raw in items {
                    follower.tell_present(raw).await?;
                }
            }
            listed.push(Follower { from: pages.revision, ..follower });
        }
        self.speaker.say(Event::Synced).await?;
        let mut followers: JoinSet<Stop> = listed.into_iter().map(Follower::run).collect();
        Err(match followers.join_next().await {
            Some(Ok(stop)) => stop,
            Some(Err(_)) | None => Stop::Unheard,
        })
    }

    /// There is something to tell again.
    async fn begin(&mut self) -> Result<(), Stop> {
        self.speaker.recover();
        match std::mem::replace(&mut self.told, true) {
            true => self.speaker.say(Event::Reset).await,
            false => Ok(()),
        }
    }

    fn follower(&self, source: Source) -> Follower {
        Follower {
            cluster: self.cluster.clone(),
            prefix: self.prefix.clone(),
            source,
            speaker: Speaker { healthy: true, pause: FIRST_PAUSE, ..self.speaker.clone() },
            from: String::new(),
            known: BTreeSet::new(),
        }
    }
}

/// Tells the changes of one resource.
struct Follower {
    cluster: Arc<Cluster>,
    prefix: Arc<str>,
    source: Source,
    speaker: Speaker,
    /// The revision up to which everything was told.
    from: String,
    /// Keys that were told and not taken back: an announced deletion and the removal are one event.
    known: BTreeSet<String>,
}

impl Follower {
    async fn run(mut self) -> Stop {
        loop {
            let stopped = match self.follow().await {
                Ok(()) => {
                    sleep(FIRST_PAUSE).await;
                    Ok(())
                }
                Err(Stop::Failed(failure)) => self.speaker.complain(failure).await,
                Err(stop) => return stop,
            };
            if let Err(stop) = stopped {
                return stop;
            }
        }
    }

    /// Until the stream ends or is silent: then it is opened again. That this fails is an outage.
    async fn follow(&mut self) -> Result<(), Stop> {
        let mut stream = Stream::open(&self.cluster, &self.source, &self.from).await?;
        self.speaker.recover();
        while let Some((kind, object)) = stream.next().await? {
            let revision = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
            let revision = revision.map(str::to_owned);
            match kind {
                Kind::Bookmark => {}
                Kind::Present => self.tell_present(object).await?,
                Kind::Removed => self.tell_removed(object).await?,
            }
            if let Some(revision) = revision {
                self.from = revision;
            }
        }
        Ok(())
    }

    fn object(&self, raw: Value) -> Option<Object> {
        Object::read(self.source.kind, raw).filter(|object| object.key.starts_with(&*self.prefix))
    }

    async fn tell_present(&mut self, raw: Value) -> Result<(), Stop> {
        let Some(object) = self.object(raw) else { return Ok(()) };
        if object.is_deleted() {
            return self.take_back(&object.key).await;
        }
        self.known.insert(object.key.clone());
        self.speaker.say(Event::Put(object.entry())).await
    }

    async fn tell_removed(&mut self, raw: Value) -> Result<(), Stop> {
        match self.object(raw) {
            Some(object) => self.take_back(&object.key).await,
            None => Ok(()),
        }
    }

    async fn take_back(&mut self, key: &str) -> Result<(), Stop> {
        if !self.known.remove(key) {
            return Ok(());
        }
        self.speaker.say(Event::Delete { key: key.to_owned() }).await
    }
}
