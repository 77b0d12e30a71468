//! The second proof (decision 23): the container runtime does not know the sandbox; or, where no runtime
//! answers and the store is Kubernetes, the API server does not know the pod of the recorded UID.

use super::leases::Forgotten;
use super::runtime;
use crate::config::StoreChoice;
use crate::context::Context;
use anyhow::{Result, anyhow};
use datastore::Deadline;
use model::Pod;
use std::collections::BTreeSet;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// Who is asked.
pub(super) enum Witness<'a> {
    /// The runtime's sandboxes, all of them.
    Runtime(BTreeSet<String>),
    ApiServer(&'a Context),
}

impl<'a> Witness<'a> {
    /// Asks the runtime, now.
    ///
    /// # Errors
    /// It does not answer, and there is no API server to ask.
    pub fn find(context: &'a Context) -> Result<Self> {
        match runtime::sandboxes(context.config.cri_socket.as_deref()) {
            Ok(sandboxes) => Ok(Self::Runtime(sandboxes)),
            Err(_) if matches!(context.config.store, StoreChoice::Kubernetes(_)) => {
                Ok(Self::ApiServer(context))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it is sure that the lease's pod is gone.
    ///
    /// # Errors
    /// No answer: then nothing is known.
    pub fn is_gone(&self, lease: &Forgotten) -> Result<bool> {
        match self {
            Self::Runtime(sandboxes) => Ok(!sandboxes.contains(&lease.at.container_id)),
            Self::ApiServer(context) => is_pod_gone(context, lease),
        }
    }
}

/// A lease that does not say which pod it is of is not judged.
fn is_pod_gone(context: &Context, lease: &Forgotten) -> Result<bool> {
    let Some((key, uid)) = lease.pod() else { return Ok(false) };
    let found = context.store.get(&[&key], Deadline::after(LIMIT))?.pop().flatten();
    let Some(entry) = found else { return Ok(true) };
    let pod = Pod::decode(&entry.key, &entry.value).map_err(|e| anyhow!("{e}"))?;
    Ok(!pod.has_uid(uid))
}
