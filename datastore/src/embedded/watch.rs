//! Watching a store: woken by inotify, told from the log, by comparison after a checkpoint.

use super::slots::{Seen, Slots};
use super::{Embedded, Mode};
use crate::{Deadline, Error, ErrorKind, Event, Watch};
use model::store::{Entry, Revision};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

const OP: &str = "watch store";
/// Changes gather for so long before they are looked at: a commit touches its files several times, and many
/// watches of one process must not look while the call that committed goes on.
const GATHER: Duration = Duration::from_millis(20);

pub(super) struct Watcher {
    store: Embedded,
    prefix: String,
    wakes: OwnedFd,
    queue: VecDeque<Event>,
    told: Told,
    /// Something may have changed since the last look.
    stale: bool,
}

/// What the user of the watch knows: the keys that exist and the revision told of each.
struct Told {
    keys: BTreeMap<String, Revision>,
    /// The log says what is new; otherwise only a comparison of everything does.
    follows_log: bool,
    synced: bool,
}

impl Watcher {
    pub fn new(store: &Embedded, prefix: &str) -> Result<Self, Error> {
        Ok(Self {
            store: Embedded::open_with(&store.dir, Mode::ReadOnly, store.slots().layout)?,
            prefix: prefix.to_owned(),
            wakes: subscribe(store).map_err(|e| store.os(e))?,
            queue: VecDeque::new(),
            told: Told { keys: BTreeMap::new(), follows_log: false, synced: false },
            stale: true,
        })
    }

    fn look(&mut self, deadline: Deadline) -> Result<(), Error> {
        let (told, prefix) = (&mut self.told, &self.prefix);
        let events = self.store.read(deadline, |slots, seen| told.update(slots, seen, prefix))?;
        self.queue.extend(events);
        self.stale = false;
        Ok(())
    }

    /// Waits for a change by anybody; false when none came before the deadline.
    fn wait(&mut self, deadline: Deadline) -> Result<bool, Error> {
        loop {
            let mut fds = [PollFd::new(&self.wakes, PollFlags::IN)];
            match poll(&mut fds, Timespec::try_from(deadline.left()).ok().as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => return self.drain().map(|()| true).map_err(|e| self.store.os(e)),
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.store.os(e)),
            }
        }
    }

    /// Lets what changes together be looked at together.
    fn gather(&self, deadline: Deadline) -> Result<(), Error> {
        std::thread::sleep(GATHER.min(deadline.left()));
        self.drain().map_err(|e| self.store.os(e))
    }

    fn drain(&self) -> rustix::io::Result<()> {
        let mut buf = [MaybeUninit::uninit(); 4096];
        loop {
            match rustix::io::read(&self.wakes, &mut buf) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }
}

fn subscribe(store: &Embedded) -> rustix::io::Result<OwnedFd> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&fd, &store.dir, inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE)?;
    Ok(fd)
}

impl Watch for Watcher {
    fn next(&mut self, deadline: Deadline) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(Some(event));
            }
            if self.stale {
                match self.look(deadline) {
                    Err(e) if e.kind == ErrorKind::Timeout => return Ok(None),
                    other => other?,
                }
            } else if !self.wait(deadline)? {
                return Ok(None);
            } else {
                self.stale = true;
                self.gather(deadline)?;
            }
        }
    }
}

impl Told {
    fn update(&mut self, slots: &mut Slots, seen: Seen, prefix: &str) -> Result<Vec<Event>, Error> {
        let mut events = match seen {
            Seen::Grown(from) if self.follows_log => self.follow(slots, from, prefix)?,
            _ => {
                self.follows_log = false;
                self.compare(slots.list(prefix)?)
            }
        };
        self.follows_log = true;
        if !std::mem::replace(&mut self.synced, true) {
            events.push(Event::Synced);
        }
        Ok(events)
    }

    fn follow(&mut self, slots: &Slots, from: usize, prefix: &str) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        for commit in slots.loaded()?.commits(from) {
            for (key, value) in commit.changes().flatten().filter(|(key, _)| key.starts_with(prefix)) {
                let entry = value.map(|v| Entry {
                    key: key.to_owned(),
                    value: v.to_vec(),
                    revision: commit.revision,
                });
                events.extend(self.change(key, entry));
            }
        }
        Ok(events)
    }

    fn change(&mut self, key: &str, entry: Option<Entry>) -> Option<Event> {
        match entry {
            Some(entry) => {
                self.keys.insert(key.to_owned(), entry.revision);
                Some(Event::Put(entry))
            }
            None => self.keys.remove(key).map(|_| Event::Delete { key: key.to_owned() }),
        }
    }

    /// Deletions first, then what is new or changed in the order in which it was written.
    fn compare(&mut self, mut entries: Vec<Entry>) -> Vec<Event> {
        let before = std::mem::take(&mut self.keys);
        self.keys = entries.iter().map(|e| (e.key.clone(), e.revision)).collect();
        let gone = before.keys().filter(|key| !self.keys.contains_key(*key));
        let mut events: Vec<_> = gone.map(|key| Event::Delete { key: key.clone() }).collect();
        entries.retain(|e| before.get(&e.key) != Some(&e.revision));
        entries.sort_by_key(|e| e.revision);
        events.extend(entries.into_iter().map(Event::Put));
        events
    }
}

impl Embedded {
    fn os(&self, error: Errno) -> Error {
        Error::os(OP, &self.dir, &io::Error::from(error))
    }
}
