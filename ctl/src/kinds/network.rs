//! Members of BGP's resources and of the settings of Calico's components (reference 4.5, modern data model 5).

use super::schema::{Member, Problem, Shape, member};
use super::{Kind, Names};
use serde_json::Value;

const CIDRS: Shape = Shape::List(&Shape::Object(&[member("cidr", Shape::Net)]));
const ON_OFF: Shape = Shape::OneOf(&["Enabled", "Disabled"]);

const BGP_CONFIGURATION: &[Member] = &[
    member(
        "logSeverityScreen",
        Shape::OneOf(&["Trace", "Debug", "Info", "Warning", "Error", "Fatal", "None"]),
    ),
    member("nodeToNodeMeshEnabled", Shape::Bool),
    member("asNumber", Shape::AsNumber),
    member("serviceClusterIPs", CIDRS),
    member("serviceExternalIPs", CIDRS),
    member("serviceLoadBalancerIPs", CIDRS),
    member("serviceLoadBalancerAggregation", ON_OFF),
    member("listenPort", Shape::Int(1, 65_535)),
    member(
        "communities",
        Shape::List(&Shape::Object(&[member("name", Shape::Text), member("value", Shape::Text)])),
    ),
    member(
        "prefixAdvertisements",
        Shape::List(&Shape::Object(&[
            member("cidr", Shape::Net),
            member("communities", Shape::List(&Shape::Text)),
        ])),
    ),
    member("nodeMeshPassword", Shape::Any),
    member("nodeMeshMaxRestartTime", Shape::Text),
    member("bindMode", Shape::OneOf(&["None", "NodeIP"])),
    member("ignoredInterfaces", Shape::List(&Shape::Text)),
    member("localWorkloadPeeringIPV4", Shape::Ip),
    member("localWorkloadPeeringIPV6", Shape::Ip),
    member("programClusterRoutes", ON_OFF),
    member("ipv4NormalRoutePriority", Shape::Int(1, 2_147_483_646)),
    member("ipv4ElevatedRoutePriority", Shape::Int(1, 2_147_483_646)),
    member("ipv6NormalRoutePriority", Shape::Int(1, 2_147_483_646)),
    member("ipv6ElevatedRoutePriority", Shape::Int(1, 2_147_483_646)),
];

const BGP_PEER: &[Member] = &[
    member("node", Shape::Text),
    member("nodeSelector", Shape::Selector),
    member("peerIP", Shape::Text),
    member("peerSelector", Shape::Selector),
    member("localWorkloadSelector", Shape::Selector),
    member("asNumber", Shape::AsNumber),
    member("localASNumber", Shape::AsNumber),
    member("keepOriginalNextHop", Shape::Bool),
    member("nextHopMode", Shape::OneOf(&["Auto", "Self", "Keep"])),
    member("password", Shape::Any),
    member("sourceAddress", Shape::OneOf(&["UseNodeIP", "None"])),
    member("maxRestartTime", Shape::Text),
    member("numAllowedLocalASNumbers", Shape::Int(0, 255)),
    member("ttlSecurity", Shape::Int(0, 255)),
    member("reachableBy", Shape::Ip),
    member("filters", Shape::List(&Shape::Text)),
    member("failureDetectionMode", Shape::Text),
    member("restartMode", Shape::Text),
    member("reversePeering", Shape::Text),
    member("birdGatewayMode", Shape::Text),
];

const FILTER_RULE: Shape = Shape::Object(&[
    member("cidr", Shape::Net),
    member(
        "prefixLength",
        Shape::Object(&[member("min", Shape::Int(0, 128)), member("max", Shape::Int(0, 128))]),
    ),
    member("source", Shape::Text),
    member("interface", Shape::Text),
    member("peerType", Shape::Text),
    member("communities", Shape::Any),
    member("asPathPrefix", Shape::Any),
    member("priority", Shape::Any),
    member("operations", Shape::Any),
    member("matchOperator", Shape::OneOf(&["Equal", "NotEqual", "In", "NotIn"])),
    member("action", Shape::OneOf(&["Accept", "Reject"])),
]);

pub const BGP_CONFIGURATIONS: Kind = Kind {
    name: "BGPConfiguration",
    plural: "bgpconfigurations",
    aliases: &["bgpconfig", "bgpconfigs"],
    names: Names::DefaultOrNode,
    spec: BGP_CONFIGURATION,
    columns: &[
        ("LOGSEVERITY", "/spec/logSeverityScreen", false),
        ("MESHENABLED", "/spec/nodeToNodeMeshEnabled", false),
        ("ASNUMBER", "/spec/asNumber", false),
    ],
    rule: bgp_configuration,
    ..Kind::PLAIN
};

pub const BGP_PEERS: Kind = Kind {
    name: "BGPPeer",
    plural: "bgppeers",
    aliases: &["bgpp", "bgpps", "bp"],
    spec: BGP_PEER,
    columns: &[
        ("PEERIP", "/spec/peerIP", false),
        ("NODE", "/spec/node", false),
        ("NODESELECTOR", "/spec/nodeSelector", true),
        ("PEERSELECTOR", "/spec/peerSelector", true),
        ("ASN", "/spec/asNumber", false),
    ],
    rule: bgp_peer,
    ..Kind::PLAIN
};

pub const BGP_FILTERS: Kind = Kind {
    name: "BGPFilter",
    plural: "bgpfilters",
    aliases: &[],
    spec: &[
        member("exportV4", Shape::List(&FILTER_RULE)),
        member("importV4", Shape::List(&FILTER_RULE)),
        member("exportV6", Shape::List(&FILTER_RULE)),
        member("importV6", Shape::List(&FILTER_RULE)),
    ],
    rule: bgp_filter,
    ..Kind::PLAIN
};

/// Its members are many, and change with every release: their form is the daemon's business.
pub const FELIX_CONFIGURATIONS: Kind = Kind {
    name: "FelixConfiguration",
    plural: "felixconfigurations",
    aliases: &["felixconfig", "felixconfigs"],
    names: Names::DefaultOrNode,
    is_open: true,
    columns: &[
        ("LOGSEVERITY", "/spec/logSeverityScreen", false),
        ("IPIPENABLED", "/spec/ipipEnabled", true),
        ("VXLANENABLED", "/spec/vxlanEnabled", true),
        ("BPFENABLED", "/spec/bpfEnabled", true),
    ],
    ..Kind::PLAIN
};

pub const KUBE_CONTROLLERS_CONFIGURATIONS: Kind = Kind {
    name: "KubeControllersConfiguration",
    plural: "kubecontrollersconfigurations",
    aliases: &["kcc", "kubecontrollersconfig"],
    names: Names::Only("default"),
    spec: &[
        member("logSeverityScreen", Shape::Text),
        member("healthChecks", ON_OFF),
        member("etcdV3CompactionPeriod", Shape::Any),
        member("prometheusMetricsPort", Shape::Int(0, 65_535)),
        member("debugProfilePort", Shape::Int(0, 65_535)),
        member("controllers", Shape::Any),
    ],
    status: &[member("runningConfig", Shape::Any), member("environmentVars", Shape::Texts)],
    columns: &[("METRICSPORT", "/spec/prometheusMetricsPort", false)],
    ..Kind::PLAIN
};

fn bgp_configuration(spec: &Value, problems: &mut Vec<Problem>) {
    let named = |name: &Value| {
        let communities = spec["communities"].as_array();
        communities.is_some_and(|all| all.iter().any(|community| community["name"] == *name))
    };
    let is_value = |text: &str| {
        let parts = text.split(':').map(str::parse::<u32>).collect::<Result<Vec<_>, _>>();
        parts.is_ok_and(|parts| [2, 3].contains(&parts.len()))
    };
    for (at, advertised) in spec["prefixAdvertisements"].as_array().into_iter().flatten().enumerate() {
        for name in advertised["communities"].as_array().into_iter().flatten() {
            if !named(name) && !name.as_str().is_some_and(is_value) {
                let field = format!("spec.prefixAdvertisements[{at}].communities");
                problems.push(Problem::new(
                    field,
                    format!("{name} is neither a community such as 64512:1 nor one of spec.communities"),
                ));
            }
        }
    }
}

/// What excludes each other (Calico's validation of BGPPeer).
fn bgp_peer(spec: &Value, problems: &mut Vec<Problem>) {
    let given = |name: &str| match &spec[name] {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_u64() != Some(0),
        _ => true,
    };
    let exclusive = [
        ("node", "nodeSelector"),
        ("peerIP", "peerSelector"),
        ("asNumber", "peerSelector"),
        ("peerIP", "localWorkloadSelector"),
        ("peerSelector", "localWorkloadSelector"),
        ("keepOriginalNextHop", "nextHopMode"),
    ];
    for (one, other) in exclusive {
        if given(one) && given(other) {
            problems.push(Problem::new(format!("spec.{other}"), format!("goes not together with {one}")));
        }
    }
    if let Some(text) = spec["peerIP"].as_str().filter(|text| !is_peer_ip(text)) {
        let text = format!(
            "{text:?} is neither an address nor one with a port such as 10.0.0.1:179 or [fd00::1]:179"
        );
        problems.push(Problem::new("spec.peerIP", text));
    }
}

fn is_peer_ip(text: &str) -> bool {
    text.is_empty()
        || text.parse::<std::net::IpAddr>().is_ok()
        || text.parse::<std::net::SocketAddr>().is_ok()
}

fn bgp_filter(spec: &Value, problems: &mut Vec<Problem>) {
    for list in ["exportV4", "importV4", "exportV6", "importV6"] {
        for (at, rule) in spec[list].as_array().into_iter().flatten().enumerate() {
            let field = |name: &str| format!("spec.{list}[{at}].{name}");
            if rule["action"].is_null() {
                problems.push(Problem::new(field("action"), "Accept or Reject is needed"));
            }
            if rule["cidr"].is_null() != rule["matchOperator"].is_null() {
                problems.push(Problem::new(field("matchOperator"), "cidr and matchOperator go together"));
            }
            let is_v4 = rule["cidr"].as_str().map(|cidr| !cidr.contains(':'));
            if is_v4.is_some_and(|is_v4| is_v4 != list.ends_with("V4")) {
                problems.push(Problem::new(field("cidr"), "is of the other family"));
            }
        }
    }
}
