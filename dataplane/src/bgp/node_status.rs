//! Fills the CalicoNodeStatus objects that ask about this node.

use super::control::ask;
use super::engine::{Message, unix_now};
use super::poller::Waker;
use super::source::Source;
use super::watch::{Heard, Watched, start};
use crate::context::Context;
use anyhow::Result;
use datastore::{Deadline, Event};
use model::bgp::{CalicoNodeStatus, CalicoNodeStatusSpec};
use model::resource::Spec as _;
use model::store::{Entry, Expect, Write};
use model::{Stored, keys, time};
use peering::control::{Request, Response};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Where the object does not say how often.
const DEFAULT_PERIOD: u32 = 10;
/// Kubernetes refuses objects that are much larger.
const MOST_ROUTES: usize = 2000;
const TURN: Duration = Duration::from_secs(1);

struct Asked {
    object: CalicoNodeStatus,
    revision: u64,
    due: Instant,
}

/// Until the daemon stops.
pub(super) fn run(context: &Arc<Context>, inbox: &Sender<Message>, waker: &Waker) -> Result<()> {
    let (heard, hear) = channel();
    let prefix = keys::resources(CalicoNodeStatusSpec::PLURAL);
    start(context, &[Watched { prefix, store: Source::of(context.store.clone()) }], &heard)?;
    drop(heard);
    let mut asked = BTreeMap::new();
    while !context.shutdown.is_set() {
        match hear.recv_timeout(TURN) {
            Ok(Heard::Store(_, event)) => take(&mut asked, event, &context.node_name),
            Ok(Heard::Secret(_) | Heard::Drain(_)) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        for a in asked.values_mut().filter(|a| a.due <= Instant::now()) {
            a.due = Instant::now() + period(&a.object);
            if let Some(write) = answer(a, inbox, waker)
                && let Err(error) = context.store.commit(&[write], Deadline::after(TURN * 5))
            {
                tracing::warn!(%error, "a CalicoNodeStatus was not written");
            }
        }
    }
    Ok(())
}

fn take(asked: &mut BTreeMap<String, Asked>, event: Event, node: &str) {
    match event {
        Event::Put(entry) => put(asked, &entry, node),
        Event::Delete { key } => drop(asked.remove(&key)),
        Event::Reset => asked.clear(),
        Event::Synced => {}
    }
}

fn put(asked: &mut BTreeMap<String, Asked>, entry: &Entry, node: &str) {
    let before = asked.remove(&entry.key);
    let Ok(object) = CalicoNodeStatus::decode(&entry.key, &entry.value) else { return };
    if object.spec.node != node || object.spec.update_period_seconds == Some(0) {
        return;
    }
    // What was written comes back; only another wish is answered at once.
    let same = before.filter(|b| b.object.spec == object.spec);
    let due = same.map_or_else(Instant::now, |b| b.due);
    asked.insert(entry.key.clone(), Asked { object, revision: entry.revision, due });
}

fn period(object: &CalicoNodeStatus) -> Duration {
    Duration::from_secs(object.spec.update_period_seconds.unwrap_or(DEFAULT_PERIOD).into())
}

fn answer(a: &Asked, inbox: &Sender<Message>, waker: &Waker) -> Option<Write> {
    let Response::Status(status) = ask(inbox, waker, Request::Status) else { return None };
    let request = Request::Routes { within: None, limit: MOST_ROUTES };
    let Response::Routes(routes) = ask(inbox, waker, request) else { return None };
    let moment = |seconds: u64| time::rfc3339(seconds.saturating_mul(1_000_000_000));
    let classes = &a.object.spec.classes;
    let mut object = a.object.clone();
    let told = peering::node_status(classes, &status, &routes.routes, unix_now(), moment);
    object.other.insert("status".into(), told);
    Some(Write { key: object.key(), expect: Expect::At(a.revision), value: Some(object.encode()) })
}
