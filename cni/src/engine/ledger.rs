//! Who commits the changes of leases: the call itself, or a host that commits those of many calls
//! together.

use super::{failure, ready};
use cni_protocol::CniError;
use datastore::hints::Hints;
use datastore::lock::{Kind, Lock};
use datastore::{Age, Deadline, DriveError, ErrorKind, How, Store, drive_as, drive_hinted};
use ipam::{Answer, BatchItem, Context, IpamError};
use model::Scope;
use model::store::{Plan, Stop, View};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One change of the leases, with all that whoever commits it must know.
#[derive(Clone)]
pub struct Change {
    pub store: Arc<dyn Store>,
    pub scope: Scope,
    /// The node's name.
    pub host: String,
    pub moment: Moment,
    pub item: BatchItem,
    /// The host's IPAM lock, and the bound on the wait for it.
    pub lock_file: PathBuf,
    pub lock_limit: Duration,
    pub deadline: Deadline,
    /// A cluster that was never initialised is not ready; a host's own store is.
    pub is_cluster: bool,
    /// What was read of the store a moment ago.
    pub known: View,
    /// What this host saw of it before, where no daemon remembers that.
    pub hints: Option<Arc<Hints>>,
}

/// When a change was asked for, and random bits.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    pub wall_ns: u64,
    pub boot_id: String,
    pub boottime_ms: u64,
    pub chance: u64,
}

impl Change {
    pub fn context(&self) -> Context<'_> {
        let Moment { wall_ns, boot_id, boottime_ms, chance } = &self.moment;
        Context {
            scope: &self.scope,
            host: &self.host,
            now: ipam::Now { wall_ns: *wall_ns, boot_id, boottime_ms: *boottime_ms },
            chance: *chance,
            transactional: self.store.is_transactional(),
        }
    }

    /// The host's IPAM lock (decision 6).
    ///
    /// # Errors
    /// Code 11 when others kept it.
    pub fn lock(&self) -> Result<Lock, CniError> {
        let limit = self.lock_limit.min(self.deadline.left());
        Lock::acquire(&self.lock_file, Kind::Exclusive, Deadline::after(limit)).map_err(|e| match e.kind {
            ErrorKind::Timeout => {
                CniError::try_again("the host's IPAM lock is held by another process; try again")
                    .caused_by(&e)
            }
            _ => failure::store(&e),
        })
    }
}

/// Commits changes of leases.
pub trait Ledger: Send + Sync {
    /// Carries out `change`; durable after the next [`Store::settle`]. The answer is never
    /// [`Answer::Deferred`].
    ///
    /// # Errors
    /// A refusal of the allocator, a store that does not answer, a lock that others keep.
    fn change(&self, change: Change) -> Result<Answer, CniError>;

    /// Whether `change` could be carried out, as far as is known; commits nothing.
    ///
    /// # Errors
    /// As [`Ledger::change`].
    fn probe(&self, change: Change) -> Result<(), CniError>;
}

/// Each call commits for itself: the ledger of a process that serves one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct;

impl Ledger for Direct {
    fn change(&self, mut change: Change) -> Result<Answer, CniError> {
        let lock = change.lock()?;
        let mut known = std::mem::take(&mut change.known);
        let items = [change.item.clone()];
        // Who had not to wait is most often the only one: what this call read a moment ago will do, and
        // where it does not, the commit tells.
        let age = if change.is_cluster || lock.waited() { Age::Now } else { Age::Before };
        commit(&mut known, &change, &items, age, change.deadline).remove(0)
    }

    fn probe(&self, change: Change) -> Result<(), CniError> {
        probe(&mut View::new(), &change, Age::Now)
    }
}

/// Plans `change` over `view` and drops the plan.
///
/// # Errors
/// As [`Ledger::probe`].
pub fn probe(view: &mut View, change: &Change, age: Age) -> Result<(), CniError> {
    let (cx, item) = (change.context(), std::slice::from_ref(&change.item));
    let planned = drive_as(How::of(age), change.store.as_ref(), view, change.deadline, |view| {
        match ready::gated(change.is_cluster, view, ipam::plan_batch(view, &cx, item))? {
            Plan::Commit(_, answers) | Plan::Done(answers) => {
                answers.into_iter().collect::<Result<Vec<_>, _>>().map_err(Stop::Fail).map(Plan::Done)
            }
            // A plan that takes several commits is one that can be made.
            Plan::Step(_) => Ok(Plan::Done(Vec::new())),
        }
    });
    planned.map(drop).map_err(failure::drive)
}

/// Commits `items` together as far as one commit takes them, the others after them; each has an answer
/// of its own. `of` says for whom, and where; its host's IPAM lock is held by the caller. `view` may hold
/// earlier knowledge.
///
/// `age` is how old the first reading may be. What conflicts again and again becomes smaller (decision 26), and what the store refuses as a whole
/// is split, so that one change does not hold up or fail the others.
pub fn commit(
    view: &mut View,
    of: &Change,
    items: &[BatchItem],
    age: Age,
    deadline: Deadline,
) -> Vec<Result<Answer, CniError>> {
    let (store, planner, how) = (of.store.as_ref(), planner(of, items), How { age, durable: false });
    let driven = match &of.hints {
        Some(hints) => drive_hinted(store, view, deadline, hints, is_of_a_kept_block, planner),
        None => drive_as(how, store, view, deadline, planner),
    };
    match driven {
        Ok((answers, _)) => settle(view, of, items, answers, age, deadline),
        Err(error) if items.len() > 1 && may_be_one_items(&error) => {
            let (first, second) = items.split_at(items.len() / 2);
            let mut answers = commit(view, of, first, age, deadline);
            answers.extend(commit(view, of, second, age, deadline));
            answers
        }
        Err(error) => {
            let error = failure::drive(error);
            items.iter().map(|_| Err(error.clone())).collect()
        }
    }
}

/// Whether a plan over remembered lists would be as good over newer ones.
fn is_of_a_kept_block(plan: &Plan<Answers>) -> bool {
    matches!(plan, Plan::Commit(writes, _) if ipam::is_within_kept_blocks(writes))
}

/// Commits of one batch that may fail before it becomes smaller.
const MAX_TRIES: usize = 2;

type Answers = Vec<Result<Answer, IpamError>>;

fn planner<'a>(
    of: &'a Change,
    items: &'a [BatchItem],
) -> impl FnMut(&View) -> Result<Plan<Answers>, Stop<IpamError>> + 'a {
    let mut tries = 0;
    move |view| {
        let halvings = (tries + 1usize).saturating_sub(MAX_TRIES);
        let count = (items.len() >> halvings.min(16)).max(1).min(items.len());
        let now = items.get(..count).unwrap_or(items);
        let mut plan = ready::gated(of.is_cluster, view, ipam::plan_batch(view, &of.context(), now))?;
        if let Plan::Commit(_, answers) | Plan::Done(answers) = &mut plan {
            answers.resize(items.len(), Ok(Answer::Deferred));
        }
        tries += usize::from(matches!(plan, Plan::Commit(..)));
        Ok(plan)
    }
}

/// A value that the store refuses is one item's alone; a refusal of the allocator may be.
fn may_be_one_items(error: &DriveError<IpamError>) -> bool {
    match error {
        DriveError::Plan(IpamError::NotReady) | DriveError::Contended(_) => false,
        DriveError::Plan(_) => true,
        DriveError::Store(error) => error.kind == ErrorKind::Invalid,
    }
}

/// From the plan's answers to the callers': what was deferred is committed now, and what was found done
/// is made durable, since whoever wrote it may have died before its sync.
fn settle(
    view: &mut View,
    of: &Change,
    items: &[BatchItem],
    answers: Answers,
    age: Age,
    deadline: Deadline,
) -> Vec<Result<Answer, CniError>> {
    let repeated = |a: &Result<Answer, IpamError>| matches!(a, Ok(Answer::Assigned(a)) if a.repeated);
    let barrier = match answers.iter().any(repeated) {
        true => of.store.barrier(deadline).map_err(|e| failure::store(&e)),
        false => Ok(()),
    };
    let is_deferred = |answer: &Result<Answer, IpamError>| matches!(answer, Ok(Answer::Deferred));
    let left: Vec<BatchItem> =
        items.iter().zip(&answers).filter(|(_, a)| is_deferred(a)).map(|(item, _)| item.clone()).collect();
    let later = if left.is_empty() { Vec::new() } else { commit(view, of, &left, age, deadline) };
    let mut later = later.into_iter();
    let answer = |answer: Result<Answer, IpamError>| match answer {
        Ok(Answer::Deferred) => later.next().expect("each deferred item was committed again"),
        Ok(Answer::Assigned(assigned)) if assigned.repeated => {
            barrier.clone().map(|()| Answer::Assigned(assigned))
        }
        Ok(done) => Ok(done),
        Err(error) => Err(failure::ipam(&error)),
    };
    answers.into_iter().map(answer).collect()
}
