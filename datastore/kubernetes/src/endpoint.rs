//! Writing an endpoint: a patch of its pod's status. There is nothing to create or to delete.

use crate::cluster::Cluster;
use crate::error::{Failure, is_conflict};
use crate::link::Call;
use crate::object::endpoint::{blanked, written};
use crate::place::Place;
use crate::write::Step;
use model::store::Expect;
use serde_json::json;

/// With `Expect::At` the pod must not have changed at all; with `Expect::Any` it must be the one whose UID
/// the value names.
pub(crate) async fn apply(
    cluster: &Cluster,
    place: &Place,
    value: Option<&[u8]>,
    expect: Expect,
) -> Result<Step, Failure> {
    let mut patch = value.map_or_else(|| Ok(blanked()), written)?;
    match expect {
        Expect::At(revision) => patch["metadata"]["resourceVersion"] = json!(revision.to_string()),
        Expect::Any => {}
        Expect::Absent => {
            return Err(Failure::invalid(format!("{}: an endpoint is made with its pod", place.key)));
        }
    }
    let answer = cluster.link.call(&Call::patch(format!("{}/status", place.path()), &patch)).await?;
    match answer.is_success() {
        true => Ok(Step::Done(cluster.remember(place, &answer)?.filter(|_| value.is_some()))),
        // A pod that is gone has given its addresses back.
        false if answer.code == 404 && value.is_none() => Ok(Step::Done(None)),
        false if is_conflict(answer.code, &answer.body) => Ok(Step::Conflict),
        false => Err(answer.failure()),
    }
}
