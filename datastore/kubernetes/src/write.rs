//! A commit: its writes in order, each under its own condition.

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
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often a write without condition, or one in the way of a deletion, is tried again.
const ATTEMPTS: usize = 20;

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
    for (applied, (write, place)) in writes.iter().zip(&places).enumerate() {
        let expect = expected(write, &left);
        match apply(cluster, place, write.value.as_deref(), expect).await? {
            Step::Done(object) => {
                revisions.push(object.as_ref().map_or(1, |object| object.revision));
                left.insert(write.key.clone(), object);
            }
            Step::Conflict => {
                let current = current(cluster, writes, &left, applied).await?;
                return Ok(Outcome::Conflict { applied, current });
            }
        }
    }
    Ok(Outcome::Done(revisions))
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
    failed: usize,
) -> Result<Vec<(String, Option<Entry>)>, Failure> {
    let known = |key: &str| left.get(key).filter(|_| writes[failed].key != key);
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
