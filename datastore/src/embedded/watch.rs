//! Watching a store: told from the log, by comparison after a checkpoint.

use super::frame::Seed;
use super::lookout::Lookout;
use super::slots::Slots;
use super::{Embedded, Mode};
use crate::{Deadline, Error, ErrorKind, Event, Watch};
use model::store::{Entry, Revision};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};

pub(super) const OP: &str = "watch store";

pub(super) struct Watcher {
    lookout: Arc<Lookout>,
    prefix: String,
    queue: VecDeque<Event>,
    told: Told,
    /// How many changes there were at the last look.
    looked: Option<u64>,
}

/// What the user of the watch knows: the keys that exist and the revision told of each.
struct Told {
    keys: BTreeMap<String, Revision>,
    /// Everything before this place of a slot's log was told.
    place: Option<(Seed, usize)>,
    synced: bool,
}

impl Watcher {
    pub fn new(store: &Embedded, prefix: &str) -> Result<Self, Error> {
        Ok(Self {
            lookout: lookout(store)?,
            prefix: prefix.to_owned(),
            queue: VecDeque::new(),
            told: Told { keys: BTreeMap::new(), place: None, synced: false },
            looked: None,
        })
    }

    fn look(&mut self, deadline: Deadline) -> Result<(), Error> {
        let (told, prefix) = (&mut self.told, &self.prefix);
        let changes = self.lookout.changes();
        self.lookout.catch_up(changes, deadline)?;
        let events = match self.lookout.glance(|slots| told.follow(slots, prefix)) {
            Some(events) => events,
            None => self.lookout.look(deadline, |slots| told.update(slots, prefix))?,
        };
        self.queue.extend(events);
        self.looked = Some(changes);
        Ok(())
    }
}

/// That of this store's watches, or a new one for the first.
fn lookout(store: &Embedded) -> Result<Arc<Lookout>, Error> {
    let mut known = store.lookout.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(lookout) = known.upgrade().filter(|lookout| !lookout.is_deaf()) {
        return Ok(lookout);
    }
    let layout = store.slots().layout;
    let lookout = Arc::new(Lookout::start(Embedded::open_with(&store.dir, Mode::ReadOnly, layout)?)?);
    *known = Arc::downgrade(&lookout);
    Ok(lookout)
}

impl Watch for Watcher {
    fn next(&mut self, deadline: Deadline) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(Some(event));
            }
            match self.looked.filter(|looked| *looked == self.lookout.changes()) {
                _ if self.lookout.is_deaf() => return Err(self.lookout.gone()),
                None => match self.look(deadline) {
                    Err(e) if e.kind == ErrorKind::Timeout => return Ok(None),
                    other => other?,
                },
                Some(looked) if !self.lookout.wait(looked, deadline) => return Ok(None),
                Some(_) => {}
            }
        }
    }
}

impl Told {
    fn update(&mut self, slots: &mut Slots, prefix: &str) -> Result<Vec<Event>, Error> {
        if let Some(events) = self.follow(slots, prefix) {
            return Ok(events);
        }
        self.place = None;
        let mut events = self.compare(slots.list(prefix)?);
        self.place = Some(slots.loaded()?.place());
        if !std::mem::replace(&mut self.synced, true) {
            events.push(Event::Synced);
        }
        Ok(events)
    }

    /// What the log has since; `None` where only a comparison of everything tells.
    fn follow(&mut self, slots: &Slots, prefix: &str) -> Option<Vec<Event>> {
        let loaded = slots.loaded().ok()?;
        let (seed, from) = self.place?;
        let (now, end) = loaded.place();
        if now != seed || end < from {
            return None;
        }
        let mut events = Vec::new();
        for commit in loaded.commits(from) {
            for (key, value) in commit.changes().flatten().filter(|(key, _)| key.starts_with(prefix)) {
                let entry = value.map(|v| Entry {
                    key: key.to_owned(),
                    value: v.to_vec(),
                    revision: commit.revision,
                });
                events.extend(self.change(key, entry));
            }
        }
        self.place = Some((now, end));
        Some(events)
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
