//! What stored resources ask for and this build does not do. Nothing is passed over in silence.

use crate::cluster::Cluster;
use crate::policy::Community;
use model::bgp::{BgpConfigurationSpec, BgpPeer, PrefixAdvertisement};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// No network of an interface is ever told, and all of the host's routes may lead to next hops.
const HARMLESS: &str = "ignoredInterfaces";

/// Names the members in the configurations that concern this node and have no effect.
pub(crate) fn configurations(cluster: &Cluster, problems: &mut BTreeMap<String, String>) {
    let own = format!("node.{}", cluster.me.node);
    for (name, spec) in &cluster.configs {
        let what = match name.as_str() {
            "default" => unknown(&spec.other),
            name if name == own => of_node(spec),
            name if name.starts_with("node.") => continue,
            _ => Some("is neither \"default\" nor \"node.\" and a node's name; it has no effect".to_owned()),
        };
        let unnamed = unnamed_community(cluster, &spec.prefix_advertisements);
        if let Some(what) = what.or(unnamed) {
            problems.entry(format!("bgpconfigurations/{name}")).or_insert(what);
        }
    }
}

/// The same of a peer.
pub(crate) fn peer(peer: &BgpPeer) -> Option<String> {
    unknown(&peer.spec.other)
}

fn unknown(other: &Map<String, Value>) -> Option<String> {
    let is_said = |value: &Value| !matches!(value, Value::Null) && *value != "";
    let said = other.iter().filter(|(name, value)| *name != HARMLESS && is_said(value));
    nothing_of(said.map(|(name, _)| name.as_str()).collect())
}

fn nothing_of(names: Vec<&str>) -> Option<String> {
    (!names.is_empty()).then(|| format!("spec.{} has no effect: not supported", names.join(", spec.")))
}

/// A node's own configuration has effect in three members only (reference 4.1).
fn of_node(spec: &BgpConfigurationSpec) -> Option<String> {
    let members = [
        ("nodeToNodeMeshEnabled", spec.node_to_node_mesh_enabled.is_some()),
        ("asNumber", spec.as_number.is_some()),
        ("serviceLoadBalancerIPs", !spec.service_load_balancer_ips.is_empty()),
        ("serviceExternalIPs", !spec.service_external_ips.is_empty()),
        ("serviceClusterIPs", !spec.service_cluster_ips.is_empty()),
        ("nodeMeshPassword", spec.node_mesh_password.is_some()),
        ("nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time.is_some()),
        ("bindMode", spec.bind_mode.is_some()),
        ("serviceLoadBalancerAggregation", spec.service_load_balancer_aggregation.is_some()),
    ];
    let said: Vec<&str> = members.iter().filter(|(_, is_said)| *is_said).map(|(name, _)| *name).collect();
    let global =
        (!said.is_empty()).then(|| format!("spec.{} counts in \"default\" only", said.join(", spec.")));
    global.or_else(|| unknown(&spec.other))
}

fn unnamed_community(cluster: &Cluster, list: &[PrefixAdvertisement]) -> Option<String> {
    let mut used = list.iter().flat_map(|a| &a.communities);
    let is_known = |text: &str| Community::named(cluster, text).is_some();
    let found = used.find(|text| !is_known(text))?;
    Some(format!("spec.prefixAdvertisements: community {found:?} is neither a value nor a name of one"))
}
