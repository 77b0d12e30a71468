//! A commit as one transaction.

use crate::error::Failure;
use crate::{MAX_COMMIT, MAX_WRITES, read};
use datastore::CommitError;
use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnResponse};
use model::store::{Entry, Expect, Revision, Write};
use std::collections::BTreeMap;

/// All conditions, then all writes; or else, the present values.
pub(crate) fn of(writes: &[Write]) -> Result<Txn, Failure> {
    check(writes)?;
    let merged = merge(writes);
    let compares: Vec<Compare> = merged.iter().filter_map(|(key, m)| compare(key, m)).collect();
    let changes: Vec<TxnOp> = merged.iter().map(|(key, m)| change(key, m.value)).collect();
    let reads: Vec<TxnOp> = merged.keys().map(|key| TxnOp::get(*key, None)).collect();
    Ok(Txn::new().when(compares).and_then(changes).or_else(reads))
}

fn check(writes: &[Write]) -> Result<(), Failure> {
    if writes.len() > MAX_WRITES {
        return Err(Failure::invalid(format!("{} writes in one commit, at most {MAX_WRITES}", writes.len())));
    }
    // A key is sent in its condition, its change and its read.
    let size: usize = writes.iter().map(|w| 3 * w.key.len() + w.value.as_ref().map_or(0, Vec::len)).sum();
    if size > MAX_COMMIT {
        return Err(Failure::invalid(format!("a commit of {size} bytes, at most {MAX_COMMIT}")));
    }
    match writes.iter().any(|w| w.key.is_empty()) {
        true => Err(Failure::invalid("a key is empty")),
        false => Ok(()),
    }
}

/// What all writes to one key amount to: etcd refuses the same key twice.
struct Merged<'a> {
    /// The condition of the first.
    expect: Expect,
    /// The value of the last.
    value: Option<&'a [u8]>,
    /// The condition of a later one contradicts an earlier one.
    impossible: bool,
}

fn merge(writes: &[Write]) -> BTreeMap<&str, Merged<'_>> {
    let mut merged: BTreeMap<&str, Merged> = BTreeMap::new();
    for write in writes {
        let value = write.value.as_deref();
        match merged.get_mut(write.key.as_str()) {
            Some(before) => {
                before.impossible |= match write.expect {
                    Expect::Any => false,
                    Expect::Absent => before.value.is_some(),
                    Expect::At(_) => true,
                };
                before.value = value;
            }
            None => {
                merged.insert(&write.key, Merged { expect: write.expect, value, impossible: false });
            }
        }
    }
    merged
}

fn compare(key: &str, merged: &Merged) -> Option<Compare> {
    match merged.expect {
        // No key has a version below 0: the commit is a conflict, and the present values come back.
        _ if merged.impossible => Some(Compare::version(key, CompareOp::Less, 0)),
        Expect::Absent => Some(Compare::version(key, CompareOp::Equal, 0)),
        // A revision that etcd cannot have matches nothing.
        Expect::At(at) => {
            Some(Compare::mod_revision(key, CompareOp::Equal, i64::try_from(at).unwrap_or(i64::MAX)))
        }
        Expect::Any => None,
    }
}

fn change(key: &str, value: Option<&[u8]>) -> TxnOp {
    match value {
        Some(value) => TxnOp::put(key, value, None),
        None => TxnOp::delete(key, None),
    }
}

/// The revision of the commit, or what stands in its way.
pub(crate) fn outcome(writes: &[Write], answer: &TxnResponse) -> Result<Revision, CommitError> {
    if answer.succeeded() {
        let revision = answer.header().map_or(0, |header| header.revision());
        return Ok(Revision::try_from(revision).unwrap_or_default());
    }
    let found = answer.op_responses().into_iter().filter_map(read::first);
    let found: BTreeMap<String, Entry> = found.map(|entry| (entry.key.clone(), entry)).collect();
    let current = writes.iter().map(|w| (w.key.clone(), found.get(&w.key).cloned())).collect();
    Err(CommitError::Conflict { applied: 0, current })
}
