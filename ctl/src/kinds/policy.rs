//! Members of policies, sets, host endpoints and what is only read (reference 4; Calico's API pages).

use super::Kind;
use super::schema::{Member, Problem, Shape, member};
use super::{Names, Place};
use serde_json::Value;

const ACTION: Shape = Shape::OneOf(&["Allow", "Deny", "Log", "Pass"]);
const TYPES: Shape = Shape::List(&Shape::OneOf(&["Ingress", "Egress"]));
const NETS: Shape = Shape::List(&Shape::NetOrIp);

const ENTITY: &[Member] = &[
    member("nets", NETS),
    member("notNets", NETS),
    member("selector", Shape::Selector),
    member("notSelector", Shape::Selector),
    member("namespaceSelector", Shape::Text),
    member("ports", Shape::List(&Shape::Any)),
    member("notPorts", Shape::List(&Shape::Any)),
    member("domains", Shape::List(&Shape::Text)),
    member("services", Shape::Any),
    member(
        "serviceAccounts",
        Shape::Object(&[member("names", Shape::List(&Shape::Text)), member("selector", Shape::Selector)]),
    ),
];

const RULE: Shape = Shape::Object(&[
    member("action", ACTION),
    member("ipVersion", Shape::Int(4, 6)),
    member("protocol", Shape::Any),
    member("notProtocol", Shape::Any),
    member("icmp", Shape::Any),
    member("notICMP", Shape::Any),
    member("source", Shape::Object(ENTITY)),
    member("destination", Shape::Object(ENTITY)),
    member("http", Shape::Any),
    member("metadata", Shape::Any),
]);

const NETWORK_POLICY: &[Member] = &[
    member("tier", Shape::Text),
    member("order", Shape::Any),
    member("selector", Shape::Selector),
    member("serviceAccountSelector", Shape::Selector),
    member("types", TYPES),
    member("ingress", Shape::List(&RULE)),
    member("egress", Shape::List(&RULE)),
    member("performanceHints", Shape::List(&Shape::Text)),
];

const GLOBAL_NETWORK_POLICY: &[Member] = &[
    member("tier", Shape::Text),
    member("order", Shape::Any),
    member("selector", Shape::Selector),
    member("namespaceSelector", Shape::Text),
    member("serviceAccountSelector", Shape::Selector),
    member("types", TYPES),
    member("ingress", Shape::List(&RULE)),
    member("egress", Shape::List(&RULE)),
    member("doNotTrack", Shape::Bool),
    member("preDNAT", Shape::Bool),
    member("applyOnForward", Shape::Bool),
    member("performanceHints", Shape::List(&Shape::Text)),
];

const SET: &[Member] = &[member("nets", NETS), member("allowedEgressDomains", Shape::List(&Shape::Text))];

const HOST_ENDPOINT: &[Member] = &[
    member("node", Shape::Text),
    member("interfaceName", Shape::Text),
    member("expectedIPs", Shape::List(&Shape::Ip)),
    member("profiles", Shape::List(&Shape::Text)),
    member(
        "ports",
        Shape::List(&Shape::Object(&[
            member("name", Shape::Text),
            member("protocol", Shape::Any),
            member("port", Shape::Int(1, 65_535)),
        ])),
    ),
];

pub const NETWORK_POLICIES: Kind = Kind {
    name: "NetworkPolicy",
    plural: "networkpolicies",
    aliases: &["np", "policy", "policies"],
    place: Place::Namespaced,
    spec: NETWORK_POLICY,
    columns: &[
        ("NAMESPACE", "/metadata/namespace", false),
        ("ORDER", "/spec/order", true),
        ("SELECTOR", "/spec/selector", true),
    ],
    ..Kind::PLAIN
};

pub const GLOBAL_NETWORK_POLICIES: Kind = Kind {
    name: "GlobalNetworkPolicy",
    plural: "globalnetworkpolicies",
    aliases: &["gnp"],
    spec: GLOBAL_NETWORK_POLICY,
    columns: &[("ORDER", "/spec/order", true), ("SELECTOR", "/spec/selector", true)],
    rule: global_policy,
    ..Kind::PLAIN
};

pub const NETWORK_SETS: Kind = Kind {
    name: "NetworkSet",
    plural: "networksets",
    aliases: &["netsets", "netset"],
    place: Place::Namespaced,
    spec: SET,
    columns: &[("NAMESPACE", "/metadata/namespace", false), ("NETS", "/spec/nets", false)],
    ..Kind::PLAIN
};

pub const GLOBAL_NETWORK_SETS: Kind = Kind {
    name: "GlobalNetworkSet",
    plural: "globalnetworksets",
    aliases: &["gns"],
    spec: SET,
    columns: &[("NETS", "/spec/nets", false)],
    ..Kind::PLAIN
};

pub const HOST_ENDPOINTS: Kind = Kind {
    name: "HostEndpoint",
    plural: "hostendpoints",
    aliases: &["hep", "heps"],
    spec: HOST_ENDPOINT,
    columns: &[
        ("NODE", "/spec/node", false),
        ("INTERFACE", "/spec/interfaceName", true),
        ("IPS", "/spec/expectedIPs", true),
        ("PROFILES", "/spec/profiles", true),
    ],
    rule: host_endpoint,
    ..Kind::PLAIN
};

pub const WORKLOAD_ENDPOINTS: Kind = Kind {
    name: "WorkloadEndpoint",
    plural: "workloadendpoints",
    aliases: &["wep", "weps"],
    place: Place::Namespaced,
    is_read_only: true,
    columns: &[
        ("NAMESPACE", "/metadata/namespace", false),
        ("WORKLOAD", "/spec/pod", false),
        ("NODE", "/spec/node", false),
        ("NETWORKS", "/spec/ipNetworks", false),
        ("INTERFACE", "/spec/interfaceName", false),
    ],
    ..Kind::PLAIN
};

pub const PROFILES: Kind = Kind {
    name: "Profile",
    plural: "profiles",
    aliases: &["pro"],
    is_read_only: true,
    columns: &[("LABELS", "/spec/labelsToApply", true)],
    ..Kind::PLAIN
};

pub const BLOCK_AFFINITIES: Kind = Kind {
    name: "BlockAffinity",
    plural: "blockaffinities",
    aliases: &["affinity", "affinities"],
    names: Names::Any,
    place: Place::Affinities,
    is_read_only: true,
    columns: &[
        ("CIDR", "/spec/cidr", false),
        ("NODE", "/spec/node", false),
        ("STATE", "/spec/state", false),
        ("TYPE", "/spec/type", true),
    ],
    ..Kind::PLAIN
};

fn global_policy(spec: &Value, problems: &mut Vec<Problem>) {
    let on = |name: &str| spec[name] == true;
    if on("doNotTrack") && on("preDNAT") {
        problems.push(Problem::new("spec.preDNAT", "preDNAT and doNotTrack cannot both be true"));
    }
    for name in ["doNotTrack", "preDNAT"] {
        if on(name) && !on("applyOnForward") {
            problems.push(Problem::new("spec.applyOnForward", format!("must be true where {name} is")));
        }
    }
    let has_egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty())
        || spec["types"].as_array().is_some_and(|types| types.iter().any(|t| t == "Egress"));
    if on("preDNAT") && has_egress {
        problems.push(Problem::new("spec.egress", "a policy before DNAT has no egress rules"));
    }
}

fn host_endpoint(spec: &Value, problems: &mut Vec<Problem>) {
    let given = |name: &str| match &spec[name] {
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if !given("interfaceName") && !given("expectedIPs") {
        problems.push(Problem::new("spec", "interfaceName or expectedIPs is needed"));
    }
}
