//! Joins a planner to a store: fetch what it needs, commit what it plans, plan again on conflict.

use crate::{CommitError, Deadline, Error, Store};
use model::store::{Entry, Plan, Query, Stop, View, Write};

/// How often planning may start over, by conflict or by need, before giving up.
const MAX_ROUNDS: usize = 1000;

/// Blocks that are read at a time where only their room matters: 4 MB with the usual ones.
const ROOMS_AT_ONCE: usize = 256;

/// Why a driven plan failed.
#[derive(Debug, thiserror::Error)]
pub enum DriveError<E> {
    /// The planner refused.
    #[error("{0}")]
    Plan(E),
    #[error(transparent)]
    Store(#[from] Error),
    /// Others won every race until the limit or the deadline.
    #[error("too many concurrent changes: {0}")]
    Contended(Conflicts),
}

/// What a driven plan cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    pub conflicts: u32,
    pub reads: u32,
}

impl std::fmt::Display for Conflicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} conflicts, {} reads", self.conflicts, self.reads)
    }
}

/// Runs `plan` against `store` until it is done or committed.
///
/// `view` may hold earlier knowledge; stale entries cost a conflict, never correctness.
pub fn drive<T, E>(
    store: &dyn Store,
    view: &mut View,
    deadline: Deadline,
    mut plan: impl FnMut(&View) -> Result<Plan<T>, Stop<E>>,
) -> Result<(T, Conflicts), DriveError<E>> {
    let mut cost = Conflicts::default();
    view.begin();
    for _ in 0..MAX_ROUNDS {
        match plan(view) {
            Ok(Plan::Done(out)) => return Ok((out, cost)),
            Ok(Plan::Commit(writes, out)) => {
                let committed = commit(store, writes, deadline)?;
                if committed.conflict {
                    cost.conflicts += 1;
                    view.record(committed.applied, committed.current);
                } else {
                    committed.current.into_iter().for_each(|(key, entry)| view.put(&key, entry));
                    return Ok((out, cost));
                }
            }
            Ok(Plan::Step(writes)) => {
                let committed = commit(store, writes, deadline)?;
                cost.conflicts += u32::from(committed.conflict);
                view.record(committed.applied, committed.current);
            }
            Err(Stop::Need(queries)) => {
                cost.reads += 1;
                fetch(store, view, &queries, deadline)?;
            }
            Err(Stop::Fail(error)) => return Err(DriveError::Plan(error)),
        }
        if deadline.left().is_zero() {
            break;
        }
    }
    Err(DriveError::Contended(cost))
}

/// What became of a commit.
struct Committed {
    conflict: bool,
    /// How many of the writes took effect.
    applied: usize,
    /// What each written key is now.
    current: Vec<(String, Option<Entry>)>,
}

fn commit(store: &dyn Store, writes: Vec<Write>, deadline: Deadline) -> Result<Committed, Error> {
    match store.commit_each(&writes, deadline) {
        Ok(revisions) => {
            let now = |(w, revision): (Write, _)| {
                let entry = w.value.map(|value| Entry { key: w.key.clone(), value, revision });
                (w.key, entry)
            };
            let current: Vec<_> = writes.into_iter().zip(revisions).map(now).collect();
            Ok(Committed { conflict: false, applied: current.len(), current })
        }
        Err(CommitError::Conflict { applied, current }) => Ok(Committed { conflict: true, applied, current }),
        Err(CommitError::Store(error)) => Err(error),
    }
}

/// A few blocks at a time, of which little is kept: there may be many thousands. What was seen
/// before an error stays known.
fn look_for_room(
    store: &dyn Store,
    view: &mut View,
    queries: &[Query],
    deadline: Deadline,
) -> Result<(), Error> {
    let rooms =
        queries.iter().filter_map(|q| if let Query::Room(key) = q { Some(key.as_str()) } else { None });
    for keys in rooms.collect::<Vec<_>>().chunks(ROOMS_AT_ONCE) {
        for (key, entry) in keys.iter().zip(store.get(keys, deadline)?) {
            view.put_room(key, entry);
        }
    }
    Ok(())
}

fn fetch(store: &dyn Store, view: &mut View, queries: &[Query], deadline: Deadline) -> Result<(), Error> {
    let gets: Vec<&str> =
        queries.iter().filter_map(|q| if let Query::Get(k) = q { Some(k.as_str()) } else { None }).collect();
    if !gets.is_empty() {
        for (key, entry) in gets.iter().zip(store.get(&gets, deadline)?) {
            view.put(key, entry);
        }
    }
    for query in queries {
        match query {
            Query::Get(_) | Query::Room(_) => {}
            Query::List(prefix) => view.put_list(prefix, store.list(prefix, deadline)?),
            Query::Keys(prefix) => view.put_keys(prefix, store.revisions(prefix, deadline)?),
        }
    }
    look_for_room(store, view, queries, deadline)
}
