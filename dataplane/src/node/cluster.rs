//! The ClusterInformation object: the first node of a cluster makes it, as Calico's does; without it no
//! plugin takes the store for ready.

use super::CALL;
use super::settings::random;
use crate::context::Context;
use anyhow::{Result, anyhow};
use datastore::{CommitError, Deadline};
use model::resource::ClusterInformationSpec;
use model::store::{Expect, Write};
use model::{ClusterInformation, Stored, keys};

/// Makes it where there is none. One that says "not ready" is left: somebody has locked the store.
pub(super) fn ensure(context: &Context) -> Result<()> {
    let identity = context.store.identity();
    let key = keys::cluster_information();
    let deadline = Deadline::after(CALL);
    if identity.starts_with("embedded:") || context.store.get(&[&key], deadline)?.pop().flatten().is_some() {
        return Ok(());
    }
    let spec = ClusterInformationSpec {
        cluster_guid: format!("{:016x}{:016x}", random(), random()),
        cluster_type: cluster_type(&identity),
        datastore_ready: Some(true),
        ..ClusterInformationSpec::default()
    };
    let value = ClusterInformation::new("default", spec).encode();
    let write = Write { key, expect: Expect::Absent, value: Some(value) };
    match context.store.commit(&[write], deadline) {
        // Another node was first.
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(error) => Err(anyhow!("creating ClusterInformation default: {error}")),
    }
}

/// `CLUSTER_TYPE`, and that the objects are Kubernetes' where they are.
fn cluster_type(identity: &str) -> String {
    let named = std::env::var("CLUSTER_TYPE").unwrap_or_default();
    let kubernetes = identity.starts_with("kubernetes:").then_some("kdd");
    let parts = named.split(',').map(str::trim).chain(kubernetes).filter(|part| !part.is_empty());
    let mut all: Vec<&str> = Vec::new();
    parts.for_each(|part| {
        if !all.contains(&part) {
            all.push(part)
        }
    });
    all.join(",")
}
