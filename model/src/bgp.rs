//! BGP resources in their `projectcalico.org/v3` form (reference 4.1; modern data model 5.1 to 5.4).
//!
//! Members that this build does not know are kept in `other` at every level.

use crate::decode::{Problem, bad_value, null_default};
use crate::ip;
use crate::resource::{Node, Resource, Spec};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// An AS number: a JSON number, or text as `64512` or `1.10` (RFC 5396 asdot+).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsNumber(pub u32);

impl FromStr for AsNumber {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some((high, low)) = text.split_once('.') {
            let high: u16 = high.parse().map_err(|_| ())?;
            let low: u16 = low.parse().map_err(|_| ())?;
            return Ok(AsNumber(u32::from(high) << 16 | u32::from(low)));
        }
        text.parse().map(AsNumber).map_err(|_| ())
    }
}

impl<'de> Deserialize<'de> for AsNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u32),
            Text(String),
        }
        let wrong = || serde::de::Error::custom("an AS number is 0 to 4294967295 or HIGH.LOW");
        match Form::deserialize(deserializer).map_err(|_| wrong())? {
            Form::Number(n) => Ok(AsNumber(n)),
            Form::Text(text) => text.parse().map_err(|()| wrong()),
        }
    }
}

impl Serialize for AsNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

/// A network in an object of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Range {
    pub cidr: String,
}

/// A member of a Kubernetes Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretKey {
    pub name: String,
    pub key: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Password {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKey>,
}

/// A community by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamedCommunity {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefixAdvertisement {
    pub cidr: String,
    /// Values, or names of the configuration's `communities`.
    #[serde(deserialize_with = "null_default")]
    pub communities: Vec<String>,
}

/// What holds for all sessions; `default`, or `node.NAME` with a part of it.
pub type BgpConfiguration = Resource<BgpConfigurationSpec>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpConfigurationSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_severity_screen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,
    #[serde(rename = "serviceLoadBalancerIPs", deserialize_with = "null_default")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_load_balancer_ips: Vec<Range>,
    #[serde(rename = "serviceExternalIPs", deserialize_with = "null_default")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_external_ips: Vec<Range>,
    #[serde(rename = "serviceClusterIPs", deserialize_with = "null_default")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_cluster_ips: Vec<Range>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<NamedCommunity>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<Password>,
    /// As Go writes durations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_mesh_max_restart_time: Option<String>,
    /// `None` (also when empty) or `NodeIP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_mode: Option<String>,
    /// `Enabled` (also when empty): load-balancer ranges are advertised whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_load_balancer_aggregation: Option<String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Spec for BgpConfigurationSpec {
    const KIND: &'static str = "BGPConfiguration";
    const PLURAL: &'static str = "bgpconfigurations";

    fn check(&self) -> Result<(), Problem> {
        check_ranges("spec.serviceClusterIPs", &self.service_cluster_ips)?;
        check_ranges("spec.serviceExternalIPs", &self.service_external_ips)?;
        check_ranges("spec.serviceLoadBalancerIPs", &self.service_load_balancer_ips)?;
        for advertisement in &self.prefix_advertisements {
            net("spec.prefixAdvertisements.cidr", &advertisement.cidr)?;
        }
        check_duration("spec.nodeMeshMaxRestartTime", self.node_mesh_max_restart_time.as_deref())?;
        check_word("spec.bindMode", self.bind_mode.as_deref(), &["None", "NodeIP"])?;
        let aggregation = self.service_load_balancer_aggregation.as_deref();
        check_word("spec.serviceLoadBalancerAggregation", aggregation, &["Enabled", "Disabled"])?;
        match self.listen_port {
            Some(0) => Err(bad_value("spec.listenPort", 0)),
            _ => Ok(()),
        }
    }
}

fn check_ranges(field: &'static str, ranges: &[Range]) -> Result<(), Problem> {
    ranges.iter().try_for_each(|range| net(field, &range.cidr).map(drop))
}

fn net(field: &'static str, text: &str) -> Result<IpNet, Problem> {
    ip::parse_net_or_ip(text).map_err(|_| bad_value(field, text))
}

fn check_duration(field: &'static str, text: Option<&str>) -> Result<(), Problem> {
    match text {
        Some(text) if go_duration(text).is_none() => Err(bad_value(field, text)),
        _ => Ok(()),
    }
}

/// One of some words, or nothing.
fn check_word(field: &'static str, word: Option<&str>, words: &[&str]) -> Result<(), Problem> {
    match word {
        Some(word) if !word.is_empty() && !words.contains(&word) => Err(bad_value(field, word)),
        _ => Ok(()),
    }
}

/// Who peers with whom.
pub type BgpPeer = Resource<BgpPeerSpec>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpPeerSpec {
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub node: String,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub node_selector: String,
    /// `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`.
    #[serde(rename = "peerIP", deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub peer_ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub peer_selector: String,
    /// Nothing is stored where nothing was said.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "std::ops::Not::not")]
    pub keep_original_next_hop: bool,
    /// `Auto`, `Self` or `Keep`; stands above `keepOriginalNextHop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// `UseNodeIP` (also when empty) or `None`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub source_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restart_time: Option<String>,
    #[serde(rename = "numAllowedLocalASNumbers", skip_serializing_if = "Option::is_none")]
    pub num_allowed_local_as_numbers: Option<u8>,
    /// Hops; 1 is a neighbour on the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<u8>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub reachable_by: String,
    #[serde(rename = "localASNumber", skip_serializing_if = "Option::is_none")]
    pub local_as_number: Option<AsNumber>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub local_workload_selector: String,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl BgpPeerSpec {
    /// The peer's address, and its port where one is named.
    pub fn peer(&self) -> Option<(IpAddr, Option<u16>)> {
        if let Ok(addr) = ip::parse_ip(&self.peer_ip) {
            return Some((addr, None));
        }
        let both: SocketAddr = self.peer_ip.parse().ok()?;
        Some((both.ip(), Some(both.port())))
    }
}

impl Spec for BgpPeerSpec {
    const KIND: &'static str = "BGPPeer";
    const PLURAL: &'static str = "bgppeers";

    fn check(&self) -> Result<(), Problem> {
        if !self.peer_ip.is_empty() && self.peer().is_none() {
            return Err(bad_value("spec.peerIP", &self.peer_ip));
        }
        if !self.reachable_by.is_empty() && ip::parse_ip(&self.reachable_by).is_err() {
            return Err(bad_value("spec.reachableBy", &self.reachable_by));
        }
        if self.ttl_security == Some(0) {
            return Err(bad_value("spec.ttlSecurity", 0));
        }
        check_word("spec.sourceAddress", Some(&self.source_address), &["UseNodeIP", "None"])?;
        check_word("spec.nextHopMode", self.next_hop_mode.as_deref(), &["Auto", "Self", "Keep"])?;
        check_duration("spec.maxRestartTime", self.max_restart_time.as_deref())
    }
}

/// Rules that peers name.
pub type BgpFilter = Resource<BgpFilterSpec>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BgpFilterSpec {
    #[serde(rename = "exportV4", deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub export_v4: Vec<BgpFilterRule>,
    #[serde(rename = "importV4", deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub import_v4: Vec<BgpFilterRule>,
    #[serde(rename = "exportV6", deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub export_v6: Vec<BgpFilterRule>,
    #[serde(rename = "importV6", deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub import_v6: Vec<BgpFilterRule>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefixLength {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommunityMatch {
    #[serde(deserialize_with = "null_default")]
    pub values: Vec<String>,
}

/// One rule; all that it names must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpFilterRule {
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub cidr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLength>,
    /// `RemotePeers`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub source: String,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// `Equal`, `NotEqual`, `In`, `NotIn`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub match_operator: String,
    /// `eBGP` or `iBGP`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub peer_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communities: Option<CommunityMatch>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub as_path_prefix: Vec<AsNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// `Accept` or `Reject`.
    pub action: String,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<BgpFilterOperation>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Exactly one of its members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpFilterOperation {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_community: Option<AddCommunity>,
    #[serde(rename = "prependASPath", skip_serializing_if = "Option::is_none")]
    pub prepend_as_path: Option<PrependAsPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_priority: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddCommunity {
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrependAsPath {
    #[serde(deserialize_with = "null_default")]
    pub prefix: Vec<AsNumber>,
}

impl Spec for BgpFilterSpec {
    const KIND: &'static str = "BGPFilter";
    const PLURAL: &'static str = "bgpfilters";

    fn check(&self) -> Result<(), Problem> {
        let all = [&self.export_v4, &self.import_v4, &self.export_v6, &self.import_v6];
        all.into_iter().flatten().try_for_each(BgpFilterRule::check)
    }
}

impl BgpFilterRule {
    fn check(&self) -> Result<(), Problem> {
        if !self.cidr.is_empty() {
            net("rule.cidr", &self.cidr)?;
        }
        let operators = ["Equal", "NotEqual", "In", "NotIn"];
        if self.cidr.is_empty() != self.match_operator.is_empty()
            || !(self.match_operator.is_empty() || operators.contains(&self.match_operator.as_str()))
        {
            return Err(bad_value("rule.matchOperator", &self.match_operator));
        }
        check_word("rule.source", Some(&self.source), &["RemotePeers"])?;
        check_word("rule.peerType", Some(&self.peer_type), &["eBGP", "iBGP"])?;
        let length = self.prefix_length.unwrap_or_default();
        if length.min.max(length.max) > Some(128) || length.max.is_some_and(|max| length.min > Some(max)) {
            return Err(bad_value("rule.prefixLength", format!("{:?} to {:?}", length.min, length.max)));
        }
        match self.action.as_str() {
            "Accept" | "Reject" => Ok(()),
            other => Err(bad_value("rule.action", other)),
        }
    }
}

/// What a node is asked to tell of itself, and what it told.
pub type CalicoNodeStatus = Resource<CalicoNodeStatusSpec>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CalicoNodeStatusSpec {
    pub node: String,
    /// `Agent`, `BGP`, `Routes`.
    #[serde(deserialize_with = "null_default")]
    pub classes: Vec<String>,
    /// 0: never. Absent: 10.
    pub update_period_seconds: Option<u32>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Spec for CalicoNodeStatusSpec {
    const KIND: &'static str = "CalicoNodeStatus";
    const PLURAL: &'static str = "caliconodestatuses";
}

/// A node's part in BGP: `spec.bgp`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeBgp {
    /// Address and its subnet.
    pub v4: Option<IpNet>,
    pub v6: Option<IpNet>,
    pub as_number: Option<AsNumber>,
    /// An IPv4 address as text.
    pub cluster_id: Option<std::net::Ipv4Addr>,
}

impl NodeBgp {
    /// What the node says; members that cannot be read count as absent.
    pub fn of(node: &Node) -> NodeBgp {
        let member = |name: &str| node.spec.other.get("bgp").and_then(|bgp| bgp.get(name));
        let text = |name: &str| member(name).and_then(Value::as_str);
        let net = |name: &str| {
            text(name)
                .and_then(|t| ip::parse_interface(t).ok().or_else(|| ip::parse_ip(t).ok().map(IpNet::from)))
        };
        NodeBgp {
            v4: net("ipv4Address").filter(|n| n.addr().is_ipv4()),
            v6: net("ipv6Address").filter(|n| n.addr().is_ipv6()),
            as_number: member("asNumber").and_then(|v| serde_json::from_value(v.clone()).ok()),
            cluster_id: text("routeReflectorClusterID").and_then(|t| t.parse().ok()),
        }
    }
}

/// A duration as Go writes it, such as `2m0s` or `1.5h`; not negative.
pub fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(end);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        total += number.parse::<f64>().ok()? * seconds_in(unit)?;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

fn seconds_in(unit: &str) -> Option<f64> {
    Some(match unit {
        "h" => 3600.0,
        "m" => 60.0,
        "s" => 1.0,
        "ms" => 1e-3,
        "us" | "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Stored;

    fn decode<S: Spec>(name: &str, spec: Value) -> Result<Resource<S>, String> {
        let key = crate::keys::resource(S::PLURAL, name);
        let object = serde_json::json!({"metadata": {"name": name}, "spec": spec});
        Resource::decode(&key, object.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn durations_are_gos() {
        let of = |text| go_duration(text).map(|d| d.as_millis());
        assert_eq!(of("2m0s"), Some(120_000));
        assert_eq!(of("1h1.5s300ms"), Some(3_601_800));
        assert_eq!((of("0"), of("0s")), (Some(0), Some(0)));
        for bad in ["", "5", "s", "-1s", "1x", "1..2s", "99999999999999999999999h"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn as_numbers_come_in_three_forms() {
        for (form, number) in [("64512", 64512), ("\"64512\"", 64512), ("\"1.10\"", 65546)] {
            assert_eq!(serde_json::from_str::<AsNumber>(form).unwrap().0, number);
        }
        for bad in ["-1", "4294967296", "\"1.65536\"", "\"a\"", "true"] {
            assert!(serde_json::from_str::<AsNumber>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn peers_name_an_address_and_maybe_a_port() {
        let peer = |ip: &str| {
            decode::<BgpPeerSpec>("p", serde_json::json!({"peerIP": ip})).map(|p| p.spec.peer().unwrap())
        };
        assert_eq!(peer("10.0.0.1"), Ok(("10.0.0.1".parse().unwrap(), None)));
        assert_eq!(peer("10.0.0.1:1790"), Ok(("10.0.0.1".parse().unwrap(), Some(1790))));
        assert_eq!(peer("[fd00::1]:179"), Ok(("fd00::1".parse().unwrap(), Some(179))));
        assert_eq!(peer("fd00:0::1"), Ok(("fd00::1".parse().unwrap(), None)));
        assert!(peer("10.0.0.1/24").unwrap_err().contains("spec.peerIP"));
    }

    #[test]
    fn bad_members_are_named() {
        let config = |spec| decode::<BgpConfigurationSpec>("default", spec).map(drop).unwrap_err();
        assert!(
            config(serde_json::json!({"serviceClusterIPs": [{"cidr": "10.0.0"}]}))
                .contains("spec.serviceClusterIPs")
        );
        assert!(config(serde_json::json!({"listenPort": 0})).contains("spec.listenPort"));
        let filter = |rule: Value| {
            decode::<BgpFilterSpec>("f", serde_json::json!({"exportV4": [rule]})).map(drop).unwrap_err()
        };
        assert!(filter(serde_json::json!({"action": "Maybe"})).contains("rule.action"));
        assert!(
            filter(serde_json::json!({"cidr": "10.0.0.0/8", "action": "Accept"}))
                .contains("rule.matchOperator")
        );
    }

    /// Nothing that was not said is stored (Calico pull request 1353 of its library).
    #[test]
    fn an_empty_peer_stays_empty() {
        let peer = decode::<BgpPeerSpec>("p", serde_json::json!({"futureField": 7})).unwrap();
        assert_eq!(serde_json::to_value(&peer.spec).unwrap(), serde_json::json!({"futureField": 7}));
    }

    #[test]
    fn a_nodes_address_keeps_its_host_part() {
        let node: Node = decode(
            "n",
            serde_json::json!({"bgp": {
                "ipv4Address": "10.0.0.7/24", "asNumber": "65001", "routeReflectorClusterID": "1.0.0.1"
            }}),
        )
        .unwrap();
        let bgp = NodeBgp::of(&node);
        assert_eq!(bgp.v4.unwrap().to_string(), "10.0.0.7/24");
        assert_eq!((bgp.as_number, bgp.v6), (Some(AsNumber(65001)), None));
        assert_eq!(bgp.cluster_id, Some([1, 0, 0, 1].into()));
    }
}
