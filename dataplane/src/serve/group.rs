//! Group commit: changes of leases that wait while a commit is in flight go into the next one.
//!
//! Whoever finds nobody committing leads: it commits what waits, itself first of all, hands out the
//! answers, and passes the lead to the next in the queue. So a lone request pays for no other thread,
//! and the queue is served in its order. Where several wait when a commit ends, more are on their way: the
//! next leader waits a moment for them (never the first, so a lone request does not wait either).

use cni::engine::Ledger;
use cni::engine::ledger::{self, Change};
use cni_protocol::CniError;
use datastore::{Age, Deadline};
use ipam::{Answer, BatchItem};
use model::affinity::handle_key;
use model::keys;
use model::store::View;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most changes of one batch (decision 26); `ipam` bounds its writes and bytes.
const MAX_BATCH: usize = 100;
/// What was read of this host's blocks, claims and handles is believed for this long: nearly all changes of
/// them go through here. Older knowledge costs a conflict, never correctness, but too many of those.
const BELIEVE: Duration = Duration::from_secs(60);
/// The same of the names of all blocks, which other hosts make and remove all the time.
const BELIEVE_NAMES: Duration = Duration::from_secs(5);

/// The moment for which a leader waits is twice that of the last commit, and at most this.
const MAX_GATHER: Duration = Duration::from_millis(50);

type Outcome = Result<Answer, CniError>;

pub(crate) struct Group {
    state: Mutex<State>,
    /// Held by whoever leads.
    known: Mutex<Known>,
    commits: prometheus::IntCounter,
    changes: prometheus::IntCounter,
}

#[derive(Default)]
struct State {
    led: bool,
    last: u64,
    /// How long the last commit took.
    took: Duration,
    queue: VecDeque<Waiting>,
}

struct Waiting {
    number: u64,
    change: Change,
    tell: SyncSender<Told>,
}

enum Told {
    Answer(Outcome),
    Lead,
}

struct Known {
    view: View,
    since: Instant,
    names_since: Instant,
}

impl Group {
    pub fn new(metrics: &crate::metrics::Metrics) -> Self {
        Self {
            state: Mutex::default(),
            known: Mutex::new(Known::nothing()),
            commits: metrics.counter("percale_ipam_commits_total", "Batches of changes of leases."),
            changes: metrics.counter("percale_ipam_changes_total", "Changes of leases."),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a change at the end of the queue. Whether its owner leads.
    fn enqueue(&self, change: Change) -> (u64, Receiver<Told>, bool) {
        // Room for one word: nobody is ever told two things.
        let (tell, told) = sync_channel(1);
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        state.queue.push_back(Waiting { number, change, tell });
        let leads = !state.led;
        state.led = true;
        (number, told, leads)
    }

    fn gather(&self) {
        let (waiting, took) = {
            let state = self.state();
            (state.queue.len(), state.took)
        };
        if (2..MAX_BATCH).contains(&waiting) {
            std::thread::sleep((took * 2).min(MAX_GATHER));
        }
    }

    /// Commits what waits, and passes the lead on.
    fn lead(&self) {
        let pass_on = PassOn(self);
        let batch = take_batch(&mut self.state().queue);
        let begun = Instant::now();
        let answers = self.commit(&batch);
        self.state().took = begun.elapsed();
        for (waiting, answer) in batch.into_iter().zip(answers) {
            let _ = waiting.tell.try_send(Told::Answer(answer));
        }
        drop(pass_on);
    }

    fn commit(&self, batch: &[Waiting]) -> Vec<Outcome> {
        let Some(first) = batch.first() else { return Vec::new() };
        let _lock = match first.change.lock() {
            Ok(lock) => lock,
            Err(error) => return batch.iter().map(|_| Err(error.clone())).collect(),
        };
        self.commits.inc();
        self.changes.inc_by(batch.len() as u64);
        let latest =
            batch.iter().map(|waiting| waiting.change.deadline.0).max().unwrap_or(first.change.deadline.0);
        let items: Vec<BatchItem> = batch.iter().map(|waiting| waiting.change.item.clone()).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.commit(&first.change, &items, Deadline(latest))
    }

    /// The deadline passed. A change that is still in the queue was not begun.
    fn give_up(&self, number: u64, told: &Receiver<Told>) -> Outcome {
        let mut state = self.state();
        let place = state.queue.iter().position(|waiting| waiting.number == number);
        if let Some(place) = place {
            state.queue.remove(place);
        }
        drop(state);
        match told.try_recv() {
            Ok(Told::Answer(answer)) => return answer,
            // The lead came too late to be wanted.
            Ok(Told::Lead) => drop(PassOn(self)),
            Err(_) => {}
        }
        Err(CniError::try_again("the store is slow; try again"))
    }
}

impl Ledger for Group {
    fn change(&self, change: Change) -> Outcome {
        let deadline = change.deadline;
        let (number, told, leads) = self.enqueue(change);
        if leads {
            self.lead();
        }
        loop {
            match told.recv_timeout(deadline.left()) {
                Ok(Told::Answer(answer)) => return answer,
                Ok(Told::Lead) => {
                    self.gather();
                    self.lead();
                }
                Err(RecvTimeoutError::Timeout) => return self.give_up(number, &told),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(CniError::internal("a commit of several changes panicked; this is a bug"));
                }
            }
        }
    }

    /// From memory, if no commit is in flight.
    fn probe(&self, change: Change) -> Result<(), CniError> {
        let probed = match self.known.try_lock() {
            Ok(mut known) => {
                let view = known.fresh(&change, std::slice::from_ref(&change.item));
                ledger::probe(view, &change, Age::Watched)
            }
            Err(_) => ledger::probe(&mut View::new(), &change, Age::Watched),
        };
        probed.or_else(|_| ledger::probe(&mut View::new(), &change, Age::Now))
    }
}

/// Passes the lead on, also when a commit panics.
struct PassOn<'a>(&'a Group);

impl Drop for PassOn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        match state.queue.front() {
            // There is room: it was told nothing yet.
            Some(next) => drop(next.tell.try_send(Told::Lead)),
            None => state.led = false,
        }
    }
}

/// From the front on, those that one plan takes: of one scope, under one lock.
fn take_batch(queue: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let Some(first) = queue.front() else { return Vec::new() };
    let (scope, lock) = (first.change.scope.clone(), first.change.lock_file.clone());
    let (mut batch, mut left) = (Vec::new(), VecDeque::new());
    for waiting in queue.drain(..) {
        let fits = waiting.change.scope == scope && waiting.change.lock_file == lock;
        if fits && batch.len() < MAX_BATCH { batch.push(waiting) } else { left.push_back(waiting) }
    }
    *queue = left;
    batch
}

impl Known {
    fn nothing() -> Self {
        let now = Instant::now();
        Self { view: View::new(), since: now, names_since: now }
    }

    /// What is known and young enough. Settings of the cluster, and whether the store takes changes at all,
    /// are asked each time (of [`crate::memory`]). A container that is new has no handle.
    fn fresh(&mut self, of: &Change, items: &[BatchItem]) -> &mut View {
        if self.since.elapsed() > BELIEVE {
            self.forget();
        }
        if self.names_since.elapsed() > BELIEVE_NAMES {
            self.view.forget_key_lists();
            self.names_since = Instant::now();
        }
        let settings = [keys::pools(), keys::ip_reservations(), keys::ipam_config(&of.scope)];
        let single = [keys::cluster_information(), keys::node(&of.host)];
        settings.iter().chain(&single).for_each(|key| self.view.forget(key));
        for item in items {
            if let BatchItem::Assign(assign) = item {
                self.view.assume_absent(&handle_key(&of.scope, &assign.handle));
            }
        }
        &mut self.view
    }

    /// All but the index of full blocks, which is compared with what is listed.
    fn forget(&mut self) {
        let now = Instant::now();
        self.view.refresh();
        (self.since, self.names_since) = (now, now);
    }

    /// Commits over what is known. A conclusion that wrote nothing may rest on what is no longer so: it
    /// is drawn again from the store.
    fn commit(&mut self, of: &Change, items: &[BatchItem], deadline: Deadline) -> Vec<Outcome> {
        let mut answers = ledger::commit(self.fresh(of, items), of, items, Age::Watched, deadline);
        let doubtful: Vec<usize> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| wrote_nothing(answer))
            .map(|(at, _)| at)
            .collect();
        if doubtful.is_empty() {
            return answers;
        }
        self.forget();
        let again: Vec<BatchItem> = doubtful.iter().filter_map(|at| items.get(*at).cloned()).collect();
        let second = ledger::commit(&mut self.view, of, &again, Age::Now, deadline);
        for (at, answer) in doubtful.into_iter().zip(second) {
            if let Some(place) = answers.get_mut(at) {
                *place = answer;
            }
        }
        answers
    }
}

fn wrote_nothing(answer: &Outcome) -> bool {
    match answer {
        Ok(Answer::Assigned(assigned)) => assigned.repeated,
        Ok(Answer::Released(released)) => released.freed.is_empty(),
        Ok(Answer::Deferred) | Err(_) => true,
    }
}
