//! Writing a node: a patch of its annotations, and of its condition. The node itself is the kubelet's.

use crate::cluster::Cluster;
use crate::error::{Failure, is_conflict};
use crate::link::Call;
use crate::object::node::written;
use crate::place::Place;
use crate::write::Step;
use model::store::Expect;
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// With `Expect::At` the node must not have changed at all.
pub(crate) async fn apply(
    cluster: &Cluster,
    place: &Place,
    value: Option<&[u8]>,
    expect: Expect,
) -> Result<Step, Failure> {
    let (Some(value), false) = (value, expect == Expect::Absent) else {
        return Err(Failure::invalid(format!("{}: nodes are made and deleted by Kubernetes", place.key)));
    };
    let mut patch = written(value)?;
    if let Expect::At(revision) = expect {
        patch["metadata"]["resourceVersion"] = json!(revision.to_string());
    }
    let answer = cluster.link.call(&Call::patch(place.path(), &patch)).await?;
    match answer.is_success() {
        true => Ok(Step::Done(cluster.remember(place, &answer)?)),
        false if is_conflict(answer.code, &answer.body) => Ok(Step::Conflict),
        false => Err(answer.failure()),
    }
}

/// Says that the node's network works, as Calico's node does.
pub(crate) async fn set_network_available(cluster: &Cluster, node: &str) -> Result<(), Failure> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = model::time::rfc3339(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    let condition = json!({
        "type": "NetworkUnavailable", "status": "False", "reason": "CalicoIsUp",
        "message": "Calico is running on this node", "lastHeartbeatTime": now, "lastTransitionTime": now,
    });
    let patch = json!({"status": {"conditions": [condition]}});
    let answer = cluster.link.call(&Call::patch(format!("/api/v1/nodes/{node}/status"), &patch)).await?;
    if answer.is_success() { Ok(()) } else { Err(answer.failure()) }
}
