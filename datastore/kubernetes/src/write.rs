//! A commit: its writes in order, each under its own condition; those of one kind that follow each other
//! at once.

use crate::cluster::Cluster;
use crate::error::{Failure, is_conflict};
use crate::link::{Answer, Call};
use crate::object::{self, Object, body};
use crate::place::{Place, Shape, place};
use crate::{MAX_VALUE, MAX_WRITES, endpoint, node, read};
use datastore::ErrorKind;
use http::Method;
use model::store::{Entry, Expect, Revision, Write};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::JoinSet;

/// How often a write without condition, or one in the way of a deletion, is tried again.
const ATTEMPTS: usize = 20;

/// Writes that are under way at the same time.
const AT_ONCE: usize = 24;

pub(crate) enum Outcome {
    /// The revision of each write's key.
    Done(Vec<Revision>),
    Conflict {
        applied: usize,
        current: Vec<(String, Option<Entry>)>,
    },
}

/// What one write came to.
pub(crate) enum Step {
    /// What is there now; `None` after a deletion.
    Done(Option<Object>),
    Conflict,
}

/// What earlier writes of the same commit left under a key.
type Left = BTreeMap<String, Option<Object>>;

pub(crate) async fn commit(cluster: &Arc<Cluster>, writes: &[Write]) -> Result<Outcome, Failure> {
    let places = check(writes)?;
    let (mut left, mut revisions) = (Left::new(), Vec::with_capacity(writes.len()));
    while revisions.len() < writes.len() {
        let begun = revisions.len();
        let together = begun..begun + together(&writes[begun..], &places[begun..]);
        let steps = apply_all(cluster, &writes[together.clone()], &places[together], &left).await?;
        let mut done = vec![true; begun];
        for (write, step) in writes[begun..].iter().zip(steps) {
            done.push(matches!(step, Step::Done(_)));
            if let Step::Done(object) = step {
                revisions.push(object.as_ref().map_or(1, |object| object.revision));
                left.insert(write.key.clone(), object);
            }
        }
        if done.contains(&false) {
            return conflict(cluster, writes, &left, &done).await;
        }
    }
    Ok(Outcome::Done(revisions))
}

/// How many writes, from the first on, may be sent at once: of one kind, and none of them twice. What must
/// come before what is a matter of kinds: handles that grow before the blocks that they count, claims
/// before and after them. Of handles, blocks or claims by themselves any part is a legal state.
fn together(writes: &[Write], places: &[Place]) -> usize {
    let Some(shape) = places.first().map(|place| place.kind.shape) else { return 0 };
    if !matches!(shape, Shape::Handle | Shape::Block | Shape::Affinity) {
        return 1;
    }
    let mut keys = BTreeSet::new();
    let fits =
        |(write, place): &(&Write, &Place)| place.kind.shape == shape && keys.insert(write.key.clone());
    writes.iter().zip(places).take_while(fits).count().max(1)
}

/// Each write under its own condition; the answers have their order.
async fn apply_all(
    cluster: &Arc<Cluster>,
    writes: &[Write],
    places: &[Place],
    left: &Left,
) -> Result<Vec<Step>, Failure> {
    if let ([write], [place]) = (writes, places) {
        return Ok(vec![apply(cluster, place, write.value.as_deref(), expected(write, left)).await?]);
    }
    let mut steps: Vec<Option<Step>> = writes.iter().map(|_| None).collect();
    let (mut waiting, mut running) = (writes.iter().zip(places).enumerate(), JoinSet::new());
    loop {
        while running.len() < AT_ONCE {
            let Some((n, (write, place))) = waiting.next() else { break };
            let (cluster, place, value) = (cluster.clone(), place.clone(), write.value.clone());
            let expect = expected(write, left);
            running.spawn(async move { (n, apply(&cluster, &place, value.as_deref(), expect).await) });
        }
        match running.join_next().await {
            Some(Ok((n, step))) => steps[n] = Some(step?),
            Some(Err(e)) => return Err(Failure::new(ErrorKind::Io, e.to_string())),
            None => return Ok(steps.into_iter().flatten().collect()),
        }
    }
}

/// What all keys are now: first of the writes that took effect, then of the others. `done` has a word for
/// each write that was tried.
async fn conflict(
    cluster: &Arc<Cluster>,
    writes: &[Write],
    left: &Left,
    done: &[bool],
) -> Result<Outcome, Failure> {
    let current = current(cluster, writes, left, done).await?;
    let is_done = |n: usize| done.get(n).copied().unwrap_or(false);
    let (first, others): (Vec<_>, Vec<_>) = current.into_iter().enumerate().partition(|(n, _)| is_done(*n));
    let applied = first.len();
    Ok(Outcome::Conflict { applied, current: first.into_iter().chain(others).map(|(_, now)| now).collect() })
}

/// All that can be refused without asking the server, before anything is written.
fn check(writes: &[Write]) -> Result<Vec<Place>, Failure> {
    if writes.len() > MAX_WRITES {
        return Err(Failure::invalid(format!("{} writes in one commit, at most {MAX_WRITES}", writes.len())));
    }
    writes.iter().map(check_one).collect()
}

fn check_one(write: &Write) -> Result<Place, Failure> {
    let place = place(&write.key)?;
    let invalid = |why: &str| Err(Failure::invalid(format!("{}: {why}", write.key)));
    if place.kind.shape == Shape::Native {
        return invalid("is read-only in Kubernetes");
    }
    let Some(value) = &write.value else { return Ok(place) };
    if !place.legal {
        return invalid("Kubernetes takes no object of that name");
    }
    if value.len() > MAX_VALUE {
        return invalid(&format!("a value of {} bytes, at most {MAX_VALUE}", value.len()));
    }
    match place.kind.shape {
        Shape::Endpoint => drop(object::endpoint::written(value)?),
        Shape::Node => drop(object::node::written(value)?),
        _ => drop(body(&place, value, None)?),
    }
    Ok(place)
}

/// A later write of a key without condition means: as the earlier one left it.
fn expected(write: &Write, left: &Left) -> Expect {
    match (write.expect, left.get(&write.key)) {
        (Expect::Any, Some(Some(object))) => Expect::At(object.revision),
        (Expect::Any, Some(None)) if write.value.is_some() => Expect::Absent,
        (expect, _) => expect,
    }
}

/// What every written key is now.
async fn current(
    cluster: &Arc<Cluster>,
    writes: &[Write],
    left: &Left,
    done: &[bool],
) -> Result<Vec<(String, Option<Entry>)>, Failure> {
    let failed: BTreeSet<&str> =
        writes.iter().zip(done).filter(|(_, done)| !**done).map(|(write, _)| write.key.as_str()).collect();
    let known = |key: &str| left.get(key).filter(|_| !failed.contains(key));
    let asked: Vec<&str> = writes.iter().map(|w| w.key.as_str()).filter(|key| known(key).is_none()).collect();
    let found = read::get(cluster, &asked).await?;
    let found: BTreeMap<&str, Option<Entry>> = asked.into_iter().zip(found).collect();
    let now = |key: &str| match known(key) {
        Some(object) => object.as_ref().map(Object::entry),
        None => found.get(key).cloned().flatten(),
    };
    Ok(writes.iter().map(|write| (write.key.clone(), now(&write.key))).collect())
}

async fn apply(
    cluster: &Cluster,
    place: &Place,
    value: Option<&[u8]>,
    expect: Expect,
) -> Result<Step, Failure> {
    if place.kind.shape == Shape::Endpoint {
        return endpoint::apply(cluster, place, value, expect).await;
    }
    if place.kind.shape == Shape::Node {
        return node::apply(cluster, place, value, expect).await;
    }
    match (expect, value) {
        (Expect::Absent, Some(value)) => create(cluster, place, value).await,
        (Expect::Absent, None) => Ok(match read::get_one(cluster, place).await? {
            None => Step::Done(None),
            Some(_) => Step::Conflict,
        }),
        (Expect::At(revision), Some(value)) => match at(cluster, place, revision).await? {
            Some(before) => replace(cluster, place, value, &before).await,
            None => Ok(Step::Conflict),
        },
        (Expect::At(revision), None) => match at(cluster, place, revision).await? {
            Some(object) => delete(cluster, place, &object).await,
            None => Ok(Step::Conflict),
        },
        (Expect::Any, value) => apply_any(cluster, place, value).await,
    }
}

/// Whatever is there: read, then written at that revision, until nobody is faster.
async fn apply_any(cluster: &Cluster, place: &Place, value: Option<&[u8]>) -> Result<Step, Failure> {
    for _ in 0..ATTEMPTS {
        let found = cluster.fetch(place).await?.filter(|object| !object.is_deleted());
        let step = match (found, value) {
            (Some(before), Some(value)) => replace(cluster, place, value, &before).await?,
            (Some(object), None) => delete(cluster, place, &object).await?,
            (None, Some(value)) => create(cluster, place, value).await?,
            (None, None) => Step::Done(None),
        };
        if let Step::Done(_) = step {
            return Ok(step);
        }
    }
    Err(contended(place))
}

fn contended(place: &Place) -> Failure {
    Failure::new(ErrorKind::Timeout, format!("{}: others were faster {ATTEMPTS} times", place.key))
}

/// The living object at this revision: as it was seen, or as it is.
async fn at(cluster: &Cluster, place: &Place, revision: Revision) -> Result<Option<Object>, Failure> {
    if let Some(object) = cluster.seen_at(&place.key, revision) {
        return Ok(Some(object).filter(|object| !object.is_deleted()));
    }
    let found = cluster.fetch(place).await?;
    Ok(found.filter(|object| object.revision == revision && !object.is_deleted()))
}

async fn create(cluster: &Cluster, place: &Place, value: &[u8]) -> Result<Step, Failure> {
    let sent = body(place, value, None)?;
    let call = Call::with(Method::POST, place.kind.collection(place.namespace.as_deref()), &sent);
    for _ in 0..ATTEMPTS {
        let answer = cluster.link.call(&call).await?;
        if answer.is_success() {
            return written(cluster, place, &answer);
        }
        if answer.code != 409 {
            return Err(answer.failure());
        }
        match in_the_way(cluster, place).await? {
            Some(object) if answer.repeated && object.holds(&sent) => return Ok(Step::Done(Some(object))),
            Some(object) if !object.is_deleted() => return Ok(Step::Conflict),
            Some(object) => read::finish(cluster, place, &object).await,
            None => {}
        }
    }
    Err(contended(place))
}

/// The object under the name that is wanted.
///
/// # Errors
/// `Invalid`: it belongs to another key, as that of a handle in other letters.
async fn in_the_way(cluster: &Cluster, place: &Place) -> Result<Option<Object>, Failure> {
    let answer = cluster.link.call(&Call::get(place.path())).await?;
    match answer.code {
        404 => return Ok(None),
        _ if !answer.is_success() => return Err(answer.failure()),
        _ => {}
    }
    match cluster.remember(place, &answer)? {
        Some(object) => Ok(Some(object)),
        None => Err(Failure::invalid(format!("{}: the name {} is another object's", place.key, place.name))),
    }
}

async fn replace(cluster: &Cluster, place: &Place, value: &[u8], before: &Object) -> Result<Step, Failure> {
    put(cluster, place, &body(place, value, Some(before))?).await
}

async fn put(cluster: &Cluster, place: &Place, sent: &Value) -> Result<Step, Failure> {
    let answer = cluster.link.call(&Call::with(Method::PUT, place.path(), sent)).await?;
    if answer.is_success() {
        return written(cluster, place, &answer);
    }
    if !is_conflict(answer.code, &answer.body) {
        return Err(answer.failure());
    }
    cluster.forget(&place.key);
    if answer.repeated {
        let found = cluster.fetch(place).await?.filter(|object| object.holds(sent));
        return Ok(found.map_or(Step::Conflict, |object| Step::Done(Some(object))));
    }
    Ok(Step::Conflict)
}

fn written(cluster: &Cluster, place: &Place, answer: &Answer) -> Result<Step, Failure> {
    match cluster.remember(place, answer)? {
        Some(object) => Ok(Step::Done(Some(object))),
        None => Err(Failure::corrupt(format!("{}: the server answers with another object", place.key))),
    }
}

/// In two steps where Calico does so: announced under the revision, then removed. What is announced
/// counts as deleted, whoever removes it.
async fn delete(cluster: &Cluster, place: &Place, object: &Object) -> Result<Step, Failure> {
    if !place.kind.shape.announces_deletion() {
        let answer = cluster.delete_exactly(place, object).await?;
        return match answer.is_success() || (answer.repeated && answer.code == 404) {
            true => Ok(Step::Done(None)),
            false if is_conflict(answer.code, &answer.body) => Ok(Step::Conflict),
            false => Err(answer.failure()),
        };
    }
    let Step::Done(Some(announced)) = put(cluster, place, &object.announcing_deletion()).await? else {
        return Ok(Step::Conflict);
    };
    let answer = cluster.delete_exactly(place, &announced).await?;
    match answer.is_success() || is_conflict(answer.code, &answer.body) {
        true => Ok(Step::Done(None)),
        false => Err(answer.failure()),
    }
}
