//! The pools of a first start.

use super::CALL;
use crate::context::Context;
use anyhow::{Result, anyhow};
use datastore::{CommitError, Deadline};
use model::store::{Expect, Write};
use model::{IpPool, Stored, keys};

/// Creates those that the environment asks for and that no node has made yet.
pub(super) fn ensure(context: &Context) -> Result<()> {
    let stored = context.store.list(&keys::pools(), Deadline::after(CALL))?;
    let existing: Vec<IpPool> =
        stored.iter().filter_map(|entry| IpPool::decode(&entry.key, &entry.value).ok()).collect();
    for pool in policy::pools::defaults(&|name| std::env::var(name).ok(), &existing)? {
        let write =
            Write { key: policy::pools::key(&pool), expect: Expect::Absent, value: Some(pool.encode()) };
        match context.store.commit(&[write], Deadline::after(CALL)) {
            Ok(_) => tracing::info!(pool = pool.name(), cidr = pool.spec.cidr, "pool created"),
            // Another node was first.
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(anyhow!("creating pool {}: {error}", pool.name())),
        }
    }
    Ok(())
}
