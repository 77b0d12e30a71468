//! What this host saw of a cluster's store before, kept in files beside the state of the host, so that a
//! process that lives for one call need not look again. It is advice: whatever rests on it is proven
//! by the conditions of a commit, or looked at again.
//!
//! Two things are kept. *Lists*: which keys there were under a prefix; the keys are then read one by one, and
//! what others added since is missed for at most [`BELIEVED`]. *Full blocks*, by revision: of thousands only
//! those are read that changed.

mod file;

use crate::drive::commit;
use crate::{Conflicts, Deadline, DriveError, Error, Store};
use file::{Index, Lists};
use model::store::{Plan, Query, Revision, Stop, View};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[doc(hidden)]
pub use file::{decode_index, decode_lists, frame};

/// How long a list is believed.
pub const BELIEVED: Duration = Duration::from_secs(30);

/// Rounds of a plan over advice; then the store is asked.
const MAX_ROUNDS: usize = 16;

/// Keys of one list that are remembered; a longer one costs less when it is listed.
const MAX_KEYS: usize = 16;

/// Lists remembered: pools, reservations, masquerade records, and claims of both families of a few scopes.
const MAX_LISTS: usize = 32;

/// What was seen of one store. Nothing is read before it is asked for.
pub struct Hints {
    dir: PathBuf,
    store: String,
    boot: String,
    now_ms: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lists: Option<Lists>,
    /// As it is in the file.
    full: Option<BTreeMap<String, Revision>>,
}

impl Hints {
    /// Of the store of this identity, in a directory that is made when there is something to keep. `boot` and
    /// `now_ms` are the boot's id and its clock: what was seen before a reboot is not believed.
    pub fn new(dir: &Path, store: &str, boot: &str, now_ms: u64) -> Self {
        let (store, boot) = (store.to_owned(), boot.to_owned());
        Self { dir: dir.to_owned(), store, boot, now_ms, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks that were seen full.
    fn full(&self) -> BTreeMap<String, Revision> {
        let mut state = self.state();
        state.full.get_or_insert_with(|| file::read_index(&self.dir, &self.store)).clone()
    }

    fn with_lists<T>(&self, use_them: impl FnOnce(&mut Lists) -> T) -> T {
        let mut state = self.state();
        use_them(state.lists.get_or_insert_with(|| file::read_lists(&self.dir, &self.store, &self.boot)))
    }

    /// The keys that a prefix had, if that was seen a moment ago.
    fn keys(&self, prefix: &str) -> Option<Vec<String>> {
        let oldest = self.now_ms.saturating_sub(BELIEVED.as_millis() as u64);
        self.with_lists(|lists| {
            let list = lists.of.get(prefix)?;
            (oldest..=self.now_ms).contains(&list.at_ms).then(|| list.keys.clone())
        })
    }

    /// Keeps what `view` has read of the store itself. That it cannot be written is nobody's harm.
    pub(crate) fn keep(&self, view: &View) {
        self.keep_lists(view);
        self.keep_index(view);
    }

    fn keep_lists(&self, view: &View) {
        let listed = view.lists().filter(|(_, keys)| keys.len() <= MAX_KEYS);
        let own = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
        let seen: Vec<_> = listed.map(|(prefix, keys)| (prefix.to_owned(), own(keys))).collect();
        if seen.is_empty() {
            return;
        }
        self.with_lists(|lists| {
            let since = self.now_ms.saturating_sub(BELIEVED.as_millis() as u64);
            lists.of.retain(|_, list| list.at_ms >= since && list.at_ms <= self.now_ms);
            for (prefix, keys) in seen {
                lists.of.insert(prefix, file::List { at_ms: self.now_ms, keys });
            }
            if lists.of.len() <= MAX_LISTS {
                file::write_lists(&self.dir, lists);
            }
        });
    }

    /// Keeps the index of full blocks, if it changed.
    fn keep_index(&self, view: &View) {
        let mut state = self.state();
        if state.full.as_ref().is_some_and(|before| before != view.full()) {
            file::write_index(&self.dir, &Index { store: self.store.clone(), full: view.full().clone() });
            state.full = Some(view.full().clone());
        }
    }

    /// Before blocks are looked at for room: gives `view` the index, unless it has it. Whether it had anything.
    pub(crate) fn recall(&self, queries: &[Query], view: &mut View) -> bool {
        if !queries.iter().any(|query| matches!(query, Query::Room(_))) {
            return false;
        }
        let index = self.full();
        if index.is_empty() || !view.full().is_empty() {
            return false;
        }
        view.put_full(index);
        !view.full().is_empty()
    }

    /// Plans over the advice. `None`, with a view that holds no advice any more, where that does not do.
    pub(crate) fn advise<T, E>(
        &self,
        store: &dyn Store,
        view: &mut View,
        deadline: Deadline,
        rests: impl Fn(&Plan<T>) -> bool,
        plan: &mut impl FnMut(&View) -> Result<Plan<T>, Stop<E>>,
    ) -> Result<Option<(T, Conflicts)>, DriveError<E>> {
        let (mut cost, mut advised) = (Conflicts::default(), false);
        for _ in 0..MAX_ROUNDS {
            match plan(view) {
                Err(Stop::Need(queries)) => {
                    let Some(reads) = self.reads(&queries) else { break };
                    cost.reads += 1;
                    advised |= !reads.lists.is_empty();
                    reads.answer(store, view, deadline)?;
                }
                Ok(plan) if advised && !rests(&plan) => break,
                Ok(Plan::Done(out)) => return Ok(Some((out, cost))),
                Ok(Plan::Commit(writes, out)) => {
                    let committed = commit(store, writes, deadline, true)?;
                    if !committed.conflict {
                        committed.current.into_iter().for_each(|(key, entry)| view.put(&key, entry));
                        return Ok(Some((out, cost)));
                    }
                    cost.conflicts += 1;
                    view.record(committed.applied, committed.current);
                }
                Ok(Plan::Step(_)) | Err(Stop::Fail(_)) => break,
            }
        }
        if advised {
            view.refresh();
        }
        Ok(None)
    }

    /// What is to be read so that `queries` are answered without a list; `None` if that cannot be.
    fn reads(&self, queries: &[Query]) -> Option<Reads> {
        let mut reads = Reads::default();
        for query in queries {
            match query {
                Query::Get(key) => reads.gets.push(key.clone()),
                Query::List(prefix) => {
                    let keys = self.keys(prefix)?;
                    reads.gets.extend(keys.iter().cloned());
                    reads.lists.push((prefix.clone(), keys));
                }
                Query::Keys(_) | Query::Room(_) => return None,
            }
        }
        Some(reads)
    }
}

/// Keys to read, and the lists that they make.
#[derive(Default)]
struct Reads {
    gets: Vec<String>,
    lists: Vec<(String, Vec<String>)>,
}

impl Reads {
    fn answer(&self, store: &dyn Store, view: &mut View, deadline: Deadline) -> Result<(), Error> {
        let keys: Vec<&str> = self.gets.iter().map(String::as_str).collect();
        let found: BTreeMap<&str, _> = if keys.is_empty() {
            BTreeMap::new()
        } else {
            keys.iter().copied().zip(store.get(&keys, deadline)?).collect()
        };
        for (prefix, keys) in &self.lists {
            let entries = keys.iter().filter_map(|key| found.get(key.as_str()).cloned().flatten());
            view.put_list(prefix, entries.collect());
        }
        found.into_iter().for_each(|(key, entry)| view.put(key, entry));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
