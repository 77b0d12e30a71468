//! Whether Calico's v1 resources are the ones that count. A newer Calico can keep the same data in
//! resources of `projectcalico.org/v3` (modern data model 6): from then on what v1 says is history,
//! and writing it would give addresses out twice (decision 22).

use crate::error::Failure;
use crate::link::{Call, Link};
use datastore::ErrorKind;
use serde_json::Value;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What was found good holds for so long: a migration locks the data store before it begins to copy.
const HOLDS: Duration = Duration::from_secs(30);

const SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v3.projectcalico.org";
const NATIVE: &str = "projectcalico.org/v3";
const MIGRATION: &str = "/apis/migration.projectcalico.org";

/// Asked before every commit, of the server at most every 30 seconds.
#[derive(Default)]
pub(crate) struct Generation {
    good: Mutex<Option<Instant>>,
}

impl Generation {
    /// # Errors
    /// `Unreachable`: v1 must not be written, now or any more.
    pub async fn check(&self, link: &Link) -> Result<(), Failure> {
        let good = *self.good.lock().expect("nobody panics while holding it");
        if good.is_some_and(|at| at.elapsed() < HOLDS) {
            return Ok(());
        }
        if is_native(link).await? {
            return Err(refusal(
                "this cluster keeps Calico's data in resources of projectcalico.org/v3, and this build writes \
                 those of crd.projectcalico.org/v1 only",
            ));
        }
        if let Some(phase) = migration(link).await? {
            let text =
                format!("a migration to resources of projectcalico.org/v3 is under way or done ({phase})");
            return Err(refusal(&text));
        }
        *self.good.lock().expect("nobody panics while holding it") = Some(Instant::now());
        Ok(())
    }
}

fn refusal(text: &str) -> Failure {
    Failure::new(ErrorKind::Unreachable, text)
}

/// An aggregated API server is a service; without one the version is that of custom resources.
async fn is_native(link: &Link) -> Result<bool, Failure> {
    match link.call(&Call::get(SERVICE.to_owned())).await {
        Ok(answer) if answer.code == 404 => Ok(false),
        Ok(answer) if answer.is_success() => {
            let service = answer.json()?.pointer("/spec/service").cloned();
            Ok(service.unwrap_or_default().is_null())
        }
        Ok(answer) => Err(answer.failure()),
        Err(failure) if failure.kind == ErrorKind::Denied => serves_blocks(link).await,
        Err(failure) => Err(failure),
    }
}

/// For an account that may not look at services, such as that of Calico's plugin: discovery is
/// everybody's. An aggregated API server serves no blocks, and where it is down the answer is 5xx.
async fn serves_blocks(link: &Link) -> Result<bool, Failure> {
    let (code, names) = link.resources(NATIVE).await?;
    Ok(code == 200 && names.iter().any(|name| name == "ipamblocks"))
}

/// The phase of a migration that is past its beginning and has not failed.
async fn migration(link: &Link) -> Result<Option<String>, Failure> {
    let group = link.call(&Call::get(MIGRATION.to_owned())).await?;
    if group.code == 404 {
        return Ok(None);
    }
    if !group.is_success() {
        return Err(group.failure());
    }
    let group = group.json()?;
    let version = group.pointer("/preferredVersion/groupVersion").and_then(Value::as_str);
    let Some(version) = version else { return Ok(None) };
    let answer = link.call(&Call::get(format!("/apis/{version}/datastoremigrations"))).await?;
    match answer.code {
        404 => Ok(None),
        _ if answer.is_success() => Ok(begun(&answer.json()?)),
        _ => Err(answer.failure()),
    }
}

fn begun(list: &Value) -> Option<String> {
    let phases = list.get("items").and_then(Value::as_array).into_iter().flatten();
    let phases = phases.filter_map(|item| item.pointer("/status/phase").and_then(Value::as_str));
    phases.into_iter().find(|phase| !["", "Pending", "Failed"].contains(phase)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_migration_counts_from_its_first_copy_on() {
        let of = |phase: &str| begun(&json!({"items": [{"status": {"phase": phase}}]}));
        assert_eq!((of("Pending"), of("Failed"), begun(&json!({"items": [{}]}))), (None, None, None));
        for phase in ["Migrating", "WaitingForConflictResolution", "Converged", "Complete"] {
            assert_eq!(of(phase).as_deref(), Some(phase));
        }
    }
}
