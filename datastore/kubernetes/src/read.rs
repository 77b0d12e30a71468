//! Reading: several keys, or all under a prefix.

use crate::blocks;
use crate::cluster::Cluster;
use crate::error::Failure;
use crate::link::Call;
use crate::object::Object;
use crate::place::{Place, Shape, Source, place, sources_once};
use datastore::ErrorKind;
use model::keys;
use model::store::{Entry, Revision};
use serde_json::Value;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Objects of one page, as other clients have it.
const PAGE: usize = 500;
/// A full block of 64 addresses is 20 kB, and costs the server several milliseconds, more with every one on a page.
const PAGE_OF_BLOCKS: usize = 100;
/// Requests of one `get` at a time.
const AT_ONCE: usize = 8;
/// Deletions that one list finishes for others.
const FINISHED: usize = 16;
/// Objects of one list that are remembered for writes.
const NOTED: usize = 256;
/// How often a list begins again because its pages became too old.
const LISTS: usize = 3;

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
        let mut noted = 0;
        let found = collect(cluster, &source, |raw| {
            let object = Object::read(source.kind, raw).filter(|object| object.key.starts_with(prefix))?;
            if noted < NOTED {
                cluster.note(&object);
                noted += 1;
            }
            Some(if object.is_deleted() { Err(object) } else { Ok(object.entry()) })
        });
        let (living, deleted): (Vec<_>, Vec<_>) = found.await?.into_iter().partition(Result::is_ok);
        for object in deleted.into_iter().filter_map(Result::err).take(FINISHED) {
            finish(cluster, &place(&object.key)?, &object).await;
        }
        entries.extend(living.into_iter().flatten());
    }
    // Of an entry that was seen twice the newer one.
    entries.sort_by(|a, b| a.key.cmp(&b.key).then(b.revision.cmp(&a.revision)));
    entries.dedup_by(|a, b| a.key == b.key);
    Ok(entries)
}

/// All under a prefix, told page by page.
pub(crate) async fn pages(
    cluster: &Cluster,
    prefix: &str,
    tell: &mut dyn FnMut(Entry),
) -> Result<(), Failure> {
    for source in sources_once(prefix)? {
        collect(cluster, &source, |raw| {
            let object = Object::read(source.kind, raw)?;
            if object.key.starts_with(prefix) && !object.is_deleted() {
                tell(object.entry());
            }
            None::<()>
        })
        .await?;
    }
    Ok(())
}

/// Of blocks only the names are asked for, in which their CIDRs stand.
pub(crate) async fn revisions(cluster: &Cluster, prefix: &str) -> Result<Vec<(String, Revision)>, Failure> {
    let mut keys = Vec::new();
    for source in sources_once(prefix)? {
        keys.extend(match source.kind.shape {
            Shape::Block => blocks::names(cluster, &source).await?,
            _ => {
                let key = |raw| {
                    let object = Object::read(source.kind, raw).filter(|object| !object.is_deleted());
                    object.map(|object| (object.key, object.revision))
                };
                collect(cluster, &source, key).await?
            }
        });
    }
    keys.retain(|(key, _)| key.starts_with(prefix));
    // Of a key that was seen twice the newer revision.
    keys.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    keys.dedup_by(|a, b| a.0 == b.0);
    Ok(keys)
}

/// What `make` makes of all items of a source, from one moment.
async fn collect<T>(
    cluster: &Cluster,
    source: &Source,
    mut make: impl FnMut(Value) -> Option<T>,
) -> Result<Vec<T>, Failure> {
    for _ in 0..LISTS {
        let (mut pages, mut made) = (Pages::new(source), Vec::new());
        loop {
            match pages.next(cluster).await {
                Ok(Page::Items(items)) => made.extend(items.into_iter().filter_map(&mut make)),
                Ok(Page::End) => return Ok(made),
                Ok(Page::Expired) => break,
                Err(failure) if cluster.lacks(source.kind, &failure).await? => return Ok(Vec::new()),
                Err(failure) => return Err(failure),
            }
        }
    }
    Err(Failure::new(ErrorKind::Unreachable, "the pages of a list became too old while they were read"))
}

pub(crate) enum Page {
    Items(Vec<Value>),
    End,
    /// The rest of that moment is not to be had any more (410).
    Expired,
}

/// The items of a source in pages, all of the moment of the first.
pub(crate) struct Pages {
    first: String,
    /// `None` after the last.
    next: Option<String>,
    /// The moment; empty until the first page.
    pub revision: String,
}

impl Pages {
    pub fn new(source: &Source) -> Self {
        let page = if source.kind.shape == Shape::Block { PAGE_OF_BLOCKS } else { PAGE };
        let first = format!("{}?limit={page}{}", source.path(), source.selectors());
        Self { next: Some(first.clone()), first, revision: String::new() }
    }

    pub async fn next(&mut self, cluster: &Cluster) -> Result<Page, Failure> {
        let Some(path) = self.next.take() else { return Ok(Page::End) };
        let answer = cluster.link.call(&Call::get(path)).await?;
        match answer.code {
            410 => return Ok(Page::Expired),
            _ if answer.is_success() => {}
            _ => return Err(answer.failure()),
        }
        let mut list = answer.json()?;
        let text = |name: &str| list.pointer(name).and_then(Value::as_str).unwrap_or_default();
        self.revision = text("/metadata/resourceVersion").to_owned();
        let rest = Some(text("/metadata/continue")).filter(|rest| !rest.is_empty());
        self.next = rest.map(|rest| format!("{}&continue={}", self.first, query(rest)));
        match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(Page::Items(items)),
            _ => Ok(Page::Items(Vec::new())),
        }
    }
}

/// Text as it may stand in a query.
pub(crate) fn query(text: &str) -> String {
    keys::escape(text)
}
