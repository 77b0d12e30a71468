//! Reading: several keys, or all under a prefix.

use crate::cluster::Cluster;
use crate::error::Failure;
use crate::link::{Call, JSON};
use crate::object::Object;
use crate::place::{Place, Shape, Source, place, sources_once};
use datastore::ErrorKind;
use model::keys;
use model::store::Entry;
use serde_json::Value;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Objects of one page, as other clients have it; the usual block is 10 kB.
const PAGE: usize = 500;
/// Objects without content of one page.
const PAGE_OF_NAMES: usize = 5000;
/// Requests of one `get` at a time.
const AT_ONCE: usize = 8;
/// Deletions that one list finishes for others.
const FINISHED: usize = 16;
/// How often a list begins again because its pages became too old.
const LISTS: usize = 3;

const NAMES: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

pub(crate) async fn get(cluster: &Arc<Cluster>, keys: &[&str]) -> Result<Vec<Option<Entry>>, Failure> {
    let places = keys.iter().map(|key| place(key)).collect::<Result<Vec<Place>, Failure>>()?;
    if let [place] = places.as_slice() {
        return Ok(vec![get_one(cluster, place).await?]);
    }
    let mut found = vec![None; places.len()];
    let (mut waiting, mut running) = (places.into_iter().enumerate(), JoinSet::new());
    loop {
        while running.len() < AT_ONCE {
            let Some((n, place)) = waiting.next() else { break };
            let cluster = cluster.clone();
            running.spawn(async move { (n, get_one(&cluster, &place).await) });
        }
        match running.join_next().await {
            Some(Ok((n, answer))) => found[n] = answer?,
            Some(Err(e)) => return Err(Failure::new(ErrorKind::Io, e.to_string())),
            None => return Ok(found),
        }
    }
}

pub(crate) async fn get_one(cluster: &Cluster, place: &Place) -> Result<Option<Entry>, Failure> {
    match cluster.fetch(place).await? {
        Some(object) if object.is_deleted() => {
            finish(cluster, place, &object).await;
            Ok(None)
        }
        found => Ok(found.map(|object| object.entry())),
    }
}

/// Ends a deletion that somebody announced. That it fails is nobody's harm: the object counts as absent.
pub(crate) async fn finish(cluster: &Cluster, place: &Place, object: &Object) {
    let _ = cluster.delete_exactly(place, object).await;
}

pub(crate) async fn list(cluster: &Cluster, prefix: &str) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for source in sources_once(prefix)? {
        let objects = all(cluster, &source).await?;
        if objects.len() < PAGE / 2 {
            objects.iter().for_each(|object| cluster.note(object));
        }
        let (deleted, living): (Vec<_>, Vec<_>) = objects.into_iter().partition(Object::is_deleted);
        for object in deleted.iter().take(FINISHED) {
            finish(cluster, &place(&object.key)?, object).await;
        }
        entries.extend(living.iter().filter(|o| o.key.starts_with(prefix)).map(Object::entry));
    }
    // Of an entry that was seen twice the newer one.
    entries.sort_by(|a, b| a.key.cmp(&b.key).then(b.revision.cmp(&a.revision)));
    entries.dedup_by(|a, b| a.key == b.key);
    Ok(entries)
}

async fn all(cluster: &Cluster, source: &Source) -> Result<Vec<Object>, Failure> {
    let (items, _) = items(cluster, source, PAGE, JSON).await?;
    Ok(items.into_iter().filter_map(|raw| Object::read(source.kind, raw)).collect())
}

/// Of blocks only the names are asked for, in which their CIDRs stand.
pub(crate) async fn keys(cluster: &Cluster, prefix: &str) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    for source in sources_once(prefix)? {
        match source.kind.shape {
            Shape::Block => keys.extend(block_keys(cluster, &source).await?),
            _ => {
                let objects = all(cluster, &source).await?;
                keys.extend(objects.into_iter().filter(|o| !o.is_deleted()).map(|object| object.key));
            }
        }
    }
    keys.retain(|key| key.starts_with(prefix));
    keys.sort();
    keys.dedup();
    Ok(keys)
}

async fn block_keys(cluster: &Cluster, source: &Source) -> Result<Vec<String>, Failure> {
    let (items, _) = items(cluster, source, PAGE_OF_NAMES, NAMES).await?;
    let cidrs = items
        .iter()
        .filter_map(|item| crate::name::block_cidr(item.pointer("/metadata/name").and_then(Value::as_str)?));
    Ok(cidrs.map(|cidr| keys::block(&keys::Scope::Cluster, &cidr)).collect())
}

/// All items of a source from one moment, and the revision of that moment.
pub(crate) async fn items(
    cluster: &Cluster,
    source: &Source,
    page: usize,
    accept: &'static str,
) -> Result<(Vec<Value>, String), Failure> {
    for _ in 0..LISTS {
        if let Some(found) = pages(cluster, source, page, accept).await? {
            return Ok(found);
        }
    }
    Err(Failure::new(ErrorKind::Unreachable, "the pages of a list became too old while they were read"))
}

/// `None`: a later page was not to be had any more (410).
async fn pages(
    cluster: &Cluster,
    source: &Source,
    page: usize,
    accept: &'static str,
) -> Result<Option<(Vec<Value>, String)>, Failure> {
    let selector = source.selector.as_ref().map(|s| format!("&labelSelector={}", query(s)));
    let first = format!("{}?limit={page}{}", source.path(), selector.unwrap_or_default());
    let (mut items, mut path) = (Vec::new(), first.clone());
    loop {
        let answer = cluster.link.call(&Call { accept, ..Call::get(path) }).await?;
        match answer.code {
            410 => return Ok(None),
            _ if answer.is_success() => {}
            _ => return Err(answer.failure()),
        }
        let mut list = answer.json()?;
        if let Some(Value::Array(more)) = list.get_mut("items").map(Value::take) {
            items.extend(more);
        }
        let text = |name: &str| list.pointer(name).and_then(Value::as_str).unwrap_or_default();
        match text("/metadata/continue") {
            "" => return Ok(Some((items, text("/metadata/resourceVersion").to_owned()))),
            next => path = format!("{first}&continue={}", query(next)),
        }
    }
}

/// Text as it may stand in a query.
pub(crate) fn query(text: &str) -> String {
    keys::escape(text)
}
