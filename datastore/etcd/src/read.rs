//! Reading: several keys, or all under a prefix, from one moment.

use crate::MAX_WRITES;
use crate::cluster::Cluster;
use crate::error::Failure;
use etcd_client::{GetOptions, GetResponse, KeyValue, Txn, TxnOp, TxnOpResponse};
use model::store::{Entry, Revision};

/// Entries of one page. The largest block is under 1 MiB, so an answer stays under 500 MiB at the
/// very worst, and under 1 MiB with the usual blocks of 64 addresses.
const PAGE: i64 = 500;
/// Keys of one page, each about 100 bytes.
const PAGE_OF_KEYS: i64 = 10_000;

pub(crate) async fn get(cluster: &Cluster, keys: &[&str]) -> Result<Vec<Option<Entry>>, Failure> {
    let mut found = Vec::with_capacity(keys.len());
    let mut revision = 0;
    for part in keys.chunks(MAX_WRITES) {
        let reads: Vec<TxnOp> = part.iter().map(|key| read_at(key, revision)).collect();
        let answer = cluster
            .read(|mut kv| {
                let txn = Txn::new().and_then(reads.clone());
                async move { kv.txn(txn).await }
            })
            .await?;
        revision = answer.header().map_or(0, |header| header.revision());
        found.extend(answer.op_responses().into_iter().map(first));
    }
    Ok(found)
}

fn read_at(key: &str, revision: i64) -> TxnOp {
    TxnOp::get(key, Some(GetOptions::new().with_revision(revision)))
}

/// The answer to the read of one key.
pub(crate) fn first(answer: TxnOpResponse) -> Option<Entry> {
    match answer {
        TxnOpResponse::Get(mut answer) => answer.take_kvs().into_iter().find_map(entry),
        _ => None,
    }
}

/// Keys that are no text are not ours.
pub(crate) fn entry(kv: KeyValue) -> Option<Entry> {
    let revision = Revision::try_from(kv.mod_revision()).ok()?;
    let (key, value) = kv.into_key_value();
    Some(Entry { key: String::from_utf8(key).ok()?, value, revision })
}

pub(crate) async fn list(cluster: &Cluster, prefix: &str) -> Result<Vec<Entry>, Failure> {
    let found = all(cluster, prefix, &GetOptions::new().with_limit(PAGE)).await?;
    Ok(found.into_iter().filter_map(entry).collect())
}

pub(crate) async fn revisions(cluster: &Cluster, prefix: &str) -> Result<Vec<(String, Revision)>, Failure> {
    let options = GetOptions::new().with_limit(PAGE_OF_KEYS).with_keys_only();
    let found = all(cluster, prefix, &options).await?;
    Ok(found.into_iter().filter_map(entry).map(|entry| (entry.key, entry.revision)).collect())
}

/// All pages. After a compaction that passed between two of them, from the beginning.
async fn all(cluster: &Cluster, prefix: &str, options: &GetOptions) -> Result<Vec<KeyValue>, Failure> {
    'again: loop {
        let mut pages = Pages::new(prefix, options.clone());
        let mut found = Vec::new();
        loop {
            match pages.next(cluster).await {
                Ok(Some(page)) => found.extend(page),
                Ok(None) => return Ok(found),
                Err(failure) if failure.compacted => continue 'again,
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// The entries under a prefix in pages, all of the moment of the first.
pub(crate) struct Pages {
    /// Where the next page begins; `None` after the last.
    from: Option<Vec<u8>>,
    end: Vec<u8>,
    /// 0 until the first page.
    pub revision: i64,
    options: GetOptions,
}

impl Pages {
    pub fn new(prefix: &str, options: GetOptions) -> Self {
        let (from, end) = range(prefix);
        Self { from: Some(from), end, revision: 0, options }
    }

    /// For a watch.
    pub fn of_entries(prefix: &str) -> Self {
        Self::new(prefix, GetOptions::new().with_limit(PAGE))
    }

    /// The next page, `None` after the last.
    ///
    /// Fails with `compacted` when a compaction passed since the first.
    pub async fn next(&mut self, cluster: &Cluster) -> Result<Option<Vec<KeyValue>>, Failure> {
        let Some(from) = self.from.take() else { return Ok(None) };
        let options = self.options.clone().with_range(self.end.clone()).with_revision(self.revision);
        let mut answer = cluster
            .read(|mut kv| {
                let (from, options) = (from.clone(), options.clone());
                async move { kv.get(from, Some(options)).await }
            })
            .await?;
        self.note(&answer);
        Ok(Some(answer.take_kvs()))
    }

    fn note(&mut self, answer: &GetResponse) {
        if self.revision == 0 {
            self.revision = answer.header().map_or(0, |header| header.revision());
        }
        let last = answer.kvs().last().filter(|_| answer.more());
        self.from = last.map(|kv| [kv.key(), &[0]].concat());
    }
}

/// The first key of a prefix, and the first one behind it; of nothing, all keys (etcd's `\0`, `\0`).
pub(crate) fn range(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let mut end = prefix.as_bytes().to_vec();
    // Text has no byte 0xff, so the last byte can always grow.
    match end.last_mut() {
        Some(last) => *last += 1,
        None => return (vec![0], vec![0]),
    }
    (prefix.as_bytes().to_vec(), end)
}
