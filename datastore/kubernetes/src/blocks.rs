//! All blocks of a pool at a time. A server reads custom resources from its etcd at about 2 ms of processor time
//! for each, and from its cache at a hundredth of that, so their names and contents come from the cache: the
//! answer may be a moment old, but never older than what this process saw or did. Whoever writes by it
//! does so under a revision.

use crate::cluster::Cluster;
use crate::error::Failure;
use crate::link::Call;
use crate::object::Object;
use crate::place::{Shape, Source, sources_once};
use crate::watch::{Kind, Stream};
use crate::{name, read};
use datastore::ErrorKind;
use model::keys;
use model::store::{Entry, Revision};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const NAMES: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// The cache tells all it has without a pause; after so long it has told it.
const QUIET: Duration = Duration::from_secs(2);
/// A busy server pauses too, and to list what is left costs it far more.
const BUSY: Duration = Duration::from_secs(10);
/// How often the cache is asked.
const STREAMS: usize = 3;
/// So many blocks that the stream did not tell are asked for one by one, more are listed.
const FEW: usize = 64;
/// Deletions remembered. Without one a block that is gone may be named once more.
const REMEMBERED: usize = 512;

/// What this process knows of the age of blocks.
#[derive(Default)]
pub(crate) struct Seen {
    newest: Revision,
    /// Deleted blocks, and the revision at which the deletion was announced.
    deleted: HashMap<String, Revision>,
}

impl Seen {
    pub fn note(&mut self, object: &Object) {
        if object.kind.shape == Shape::Block {
            self.newest = self.newest.max(object.revision);
        }
    }

    pub fn forget(&mut self, announced: &Object) {
        if announced.kind.shape != Shape::Block {
            return;
        }
        if self.deleted.len() >= REMEMBERED {
            self.deleted.clear();
        }
        self.deleted.insert(announced.key.clone(), announced.revision);
    }

    fn is_gone(&self, key: &str, revision: Revision) -> bool {
        self.deleted.get(key).is_some_and(|announced| revision <= *announced)
    }
}

#[derive(Deserialize)]
struct Names {
    /// A cache that has none says `null`.
    items: Option<Vec<Named>>,
}

#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    resource_version: String,
}

/// Keys and revisions of all blocks. Of one whose deletion is announced the name still tells.
pub(crate) async fn names(cluster: &Cluster, source: &Source) -> Result<Vec<(String, Revision)>, Failure> {
    let newest = cluster.blocks().newest;
    let age = if newest == 0 { String::new() } else { "&resourceVersionMatch=NotOlderThan".to_owned() };
    let path = format!("{}?resourceVersion={newest}{age}", source.path());
    let answer = cluster.link.call(&Call { accept: NAMES, ..Call::get(path) }).await?;
    if !answer.is_success() {
        return Err(answer.failure());
    }
    let names: Names = serde_json::from_slice(&answer.body)
        .map_err(|e| Failure::new(ErrorKind::Io, format!("the answer is no list: {e}")))?;
    let seen = cluster.blocks();
    let known = |item: Named| {
        let key = keys::block(&keys::Scope::Cluster, &name::block_cidr(&item.metadata.name)?);
        let revision = item.metadata.resource_version.parse().ok()?;
        (!seen.is_gone(&key, revision)).then_some((key, revision))
    };
    Ok(names.items.into_iter().flatten().filter_map(known).collect())
}

/// Contents of these blocks and of others beside them, told as they come. Nothing is remembered of them: they are
/// too many.
pub(crate) async fn contents(
    cluster: &Arc<Cluster>,
    keys: &[&str],
    tell: &mut dyn FnMut(&str, Option<Entry>),
) -> Result<(), Failure> {
    let mut left: BTreeSet<&str> = keys.iter().copied().collect();
    let parents: BTreeSet<&str> = keys.iter().filter_map(|key| key.get(..key.rfind('/')? + 1)).collect();
    for source in parents.iter().map(|parent| sources_once(parent)).collect::<Result<Vec<_>, _>>()?.concat() {
        // A cache that falls behind ends its streams. An account that may not watch leaves all to be listed.
        for _ in 0..STREAMS {
            let before = left.len();
            stream(cluster, &source, &mut left, tell).await;
            if left.len() <= FEW || left.len() == before {
                break;
            }
        }
    }
    if left.len() > FEW {
        for parent in parents {
            read::pages(cluster, parent, &mut |entry| {
                left.remove(entry.key.as_str());
                let key = entry.key.clone();
                tell(&key, Some(entry));
            })
            .await?;
        }
    }
    let rest: Vec<&str> = left.into_iter().collect();
    for (key, entry) in rest.iter().zip(read::get(cluster, &rest).await?) {
        tell(key, entry);
    }
    Ok(())
}

/// A watch from anywhere begins with all that the cache has.
async fn stream(
    cluster: &Cluster,
    source: &Source,
    left: &mut BTreeSet<&str>,
    tell: &mut dyn FnMut(&str, Option<Entry>),
) {
    let Ok(mut stream) = Stream::open(cluster, source, "0").await else { return };
    while !left.is_empty() {
        let quiet = if left.len() > FEW { BUSY } else { QUIET };
        let Ok(Ok(Some((kind, raw)))) = timeout(quiet, stream.next()).await else { return };
        let object = Object::read(source.kind, raw).filter(|_| matches!(kind, Kind::Present));
        if let Some(object) = object.filter(|object| !object.is_deleted()) {
            left.remove(object.key.as_str());
            tell(&object.key, Some(object.entry()));
        }
    }
}
