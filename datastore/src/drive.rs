//! Joins a planner to a store: fetch what it needs, commit what it plans, plan again on conflict.

use crate::hints::Hints;
use crate::{Age, CommitError, Deadline, Error, Store};
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

/// How a plan is driven.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// How old the first reading may be. Those that follow may add what was known then; after a conflict
    /// they are as of now.
    pub age: Age,
    /// Committed by [`Store::commit_each`]; otherwise by [`Store::commit_soon`], and the caller answers
    /// only after a [`Store::settle`].
    pub durable: bool,
}

impl How {
    /// Durable, after a first reading of that age.
    pub fn of(age: Age) -> Self {
        Self { age, durable: true }
    }
}

/// Runs `plan` against `store` until it is done or committed, from a reading as of now.
///
/// `view` may hold earlier knowledge; stale entries cost a conflict, never correctness.
pub fn drive<T, E>(
    store: &dyn Store,
    view: &mut View,
    deadline: Deadline,
    plan: impl FnMut(&View) -> Result<Plan<T>, Stop<E>>,
) -> Result<(T, Conflicts), DriveError<E>> {
    drive_as(How::of(Age::Now), store, view, deadline, plan)
}

/// As [`drive`], with the advice of what this host saw before. A plan that rests on advice counts only if
/// `rests` says that no newer list could make it wrong; else it is made again from what the store lists.
pub fn drive_hinted<T, E>(
    store: &dyn Store,
    view: &mut View,
    deadline: Deadline,
    hints: &Hints,
    rests: impl Fn(&Plan<T>) -> bool,
    mut plan: impl FnMut(&View) -> Result<Plan<T>, Stop<E>>,
) -> Result<(T, Conflicts), DriveError<E>> {
    view.begin();
    if let Some(done) = hints.advise(store, view, deadline, rests, &mut plan)? {
        return Ok(done);
    }
    let outcome = go_on(How::of(Age::Now), store, view, deadline, Some(hints), plan);
    hints.keep(view);
    outcome
}

/// As [`drive`], in another way.
pub fn drive_as<T, E>(
    how: How,
    store: &dyn Store,
    view: &mut View,
    deadline: Deadline,
    plan: impl FnMut(&View) -> Result<Plan<T>, Stop<E>>,
) -> Result<(T, Conflicts), DriveError<E>> {
    view.begin();
    go_on(how, store, view, deadline, None, plan)
}

fn go_on<T, E>(
    how: How,
    store: &dyn Store,
    view: &mut View,
    deadline: Deadline,
    hints: Option<&Hints>,
    mut plan: impl FnMut(&View) -> Result<Plan<T>, Stop<E>>,
) -> Result<(T, Conflicts), DriveError<E>> {
    let How { mut age, durable } = how;
    let mut cost = Conflicts::default();
    for _ in 0..MAX_ROUNDS {
        match plan(view) {
            Ok(Plan::Done(out)) => return Ok((out, cost)),
            Ok(Plan::Commit(writes, out)) => {
                let committed = commit(store, writes, deadline, durable)?;
                if committed.conflict {
                    cost.conflicts += 1;
                    age = Age::Now;
                    view.record(committed.applied, committed.current);
                } else {
                    committed.current.into_iter().for_each(|(key, entry)| view.put(&key, entry));
                    return Ok((out, cost));
                }
            }
            Ok(Plan::Step(writes)) => {
                let committed = commit(store, writes, deadline, durable)?;
                cost.conflicts += u32::from(committed.conflict);
                age = Age::Now;
                view.record(committed.applied, committed.current);
            }
            Err(Stop::Need(queries)) if hints.is_some_and(|hints| hints.recall(&queries, view)) => {}
            Err(Stop::Need(queries)) => {
                cost.reads += 1;
                store.fetch(&queries, std::mem::replace(&mut age, Age::Before), view, deadline)?;
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
pub(crate) struct Committed {
    pub conflict: bool,
    /// How many of the writes took effect.
    pub applied: usize,
    /// What each written key is now.
    pub current: Vec<(String, Option<Entry>)>,
}

pub(crate) fn commit(
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
