//! Joins a planner to a store: fetch what it needs, commit what it plans, plan again on conflict.

use crate::{CommitError, Deadline, Error, Store};
use model::store::{Entry, Plan, Stop, View, Write};

/// How often planning may start over, by conflict or by need, before giving up.
const MAX_ROUNDS: usize = 1000;

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
    plan: impl FnMut(&View) -> Result<Plan<T>, Stop<E>>,
) -> Result<(T, Conflicts), DriveError<E>> {
    run(store, view, deadline, How { fresh: true, durable: true }, plan)
}

/// As [`drive`], with `Store::commit_soon`: the caller answers only after a `Store::settle`.
pub fn drive_soon<T, E>(
    store: &dyn Store,
    view: &mut View,
    deadline: Deadline,
    plan: impl FnMut(&View) -> Result<Plan<T>, Stop<E>>,
) -> Result<(T, Conflicts), DriveError<E>> {
    run(store, view, deadline, How { fresh: true, durable: false }, plan)
}

/// As [`drive`], for a plan that may begin with what `store` has read before: it followed another one
/// at once, and what others did since then would cost it a conflict or nothing.
pub fn drive_on<T, E>(
    store: &dyn Store,
    view: &mut View,
    deadline: Deadline,
    plan: impl FnMut(&View) -> Result<Plan<T>, Stop<E>>,
) -> Result<(T, Conflicts), DriveError<E>> {
    run(store, view, deadline, How { fresh: false, durable: true }, plan)
}

#[derive(Clone, Copy)]
struct How {
    /// The first reading is fresh; those that follow may add what was known then.
    fresh: bool,
    /// The commit is durable when it returns.
    durable: bool,
}

fn run<T, E>(
    store: &dyn Store,
    view: &mut View,
    deadline: Deadline,
    how: How,
    mut plan: impl FnMut(&View) -> Result<Plan<T>, Stop<E>>,
) -> Result<(T, Conflicts), DriveError<E>> {
    let How { mut fresh, durable } = how;
    let mut cost = Conflicts::default();
    view.begin();
    for _ in 0..MAX_ROUNDS {
        match plan(view) {
            Ok(Plan::Done(out)) => return Ok((out, cost)),
            Ok(Plan::Commit(writes, out)) => {
                let committed = commit(store, writes, deadline, durable)?;
                if committed.conflict {
                    cost.conflicts += 1;
                    fresh = true;
                    view.record(committed.applied, committed.current);
                } else {
                    committed.current.into_iter().for_each(|(key, entry)| view.put(&key, entry));
                    return Ok((out, cost));
                }
            }
            Ok(Plan::Step(writes)) => {
                let committed = commit(store, writes, deadline, durable)?;
                cost.conflicts += u32::from(committed.conflict);
                fresh = true;
                view.record(committed.applied, committed.current);
            }
            Err(Stop::Need(queries)) => {
                cost.reads += 1;
                store.fetch(&queries, std::mem::take(&mut fresh), view, deadline)?;
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

fn commit(
    store: &dyn Store,
    writes: Vec<Write>,
    deadline: Deadline,
    durable: bool,
) -> Result<Committed, Error> {
    let committed = match durable {
        true => store.commit_each(&writes, deadline),
        false => store.commit_soon(&writes, deadline),
    };
    match committed {
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
