//! The members of each kind.

use super::schema::{Member, Shape, member};
use super::{Kind, Names, Place, check, network, policy};

const MODE: Shape = Shape::OneOf(&["Never", "Always", "CrossSubnet"]);

/// Every kind, in the order in which help and errors list them.
pub static KINDS: [Kind; 18] = [
    Kind {
        name: "IPPool",
        plural: "ippools",
        aliases: &["pool", "pools"],
        spec: IP_POOL,
        status: &[member("conditions", Shape::Any)],
        columns: &[
            ("CIDR", "/spec/cidr", false),
            ("BLOCKSIZE", "/spec/blockSize", true),
            ("NAT", "/spec/natOutgoing", false),
            ("IPIPMODE", "/spec/ipipMode", true),
            ("VXLANMODE", "/spec/vxlanMode", true),
            ("DISABLED", "/spec/disabled", false),
            ("USES", "/spec/allowedUses", true),
            ("SELECTOR", "/spec/nodeSelector", false),
        ],
        rule: check::pool,
        ..Kind::PLAIN
    },
    Kind {
        name: "Node",
        plural: "nodes",
        aliases: &["no"],
        names: Names::Hosts,
        spec: NODE,
        status: &[
            member("wireguardPublicKey", Shape::Text),
            member("wireguardPublicKeyV6", Shape::Text),
            member("podCIDRs", Shape::List(&Shape::Net)),
        ],
        columns: &[
            ("ASN", "/spec/bgp/asNumber", true),
            ("IPV4", "/spec/bgp/ipv4Address", true),
            ("IPV6", "/spec/bgp/ipv6Address", true),
            ("LABELS", "/metadata/labels", true),
            ("CREATED", "/metadata/creationTimestamp", false),
        ],
        ..Kind::PLAIN
    },
    Kind {
        name: "IPReservation",
        plural: "ipreservations",
        aliases: &["reservation", "reservations"],
        spec: &[member("reservedCIDRs", Shape::List(&Shape::NetOrIp))],
        columns: &[("RESERVED", "/spec/reservedCIDRs", false)],
        ..Kind::PLAIN
    },
    Kind {
        name: "ClusterInformation",
        plural: "clusterinformations",
        aliases: &["clusterinfo"],
        spec: &[
            member("clusterGUID", Shape::Text),
            member("clusterType", Shape::Text),
            member("calicoVersion", Shape::Text),
            member("datastoreReady", Shape::Bool),
            member("variant", Shape::Text),
        ],
        names: Names::Only("default"),
        columns: &[
            ("GUID", "/spec/clusterGUID", false),
            ("TYPE", "/spec/clusterType", false),
            ("VERSION", "/spec/calicoVersion", true),
            ("READY", "/spec/datastoreReady", false),
        ],
        ..Kind::PLAIN
    },
    Kind {
        name: "IPAMConfiguration",
        plural: "ipamconfigurations",
        aliases: &["ipamconfig", "ipamconfigs"],
        spec: &[
            member("strictAffinity", Shape::Bool),
            member("autoAllocateBlocks", Shape::Bool),
            member("maxBlocksPerHost", Shape::Int(0, 1_000_000)),
        ],
        names: Names::Only("default"),
        columns: &[
            ("STRICTAFFINITY", "/spec/strictAffinity", false),
            ("AUTOALLOCATEBLOCKS", "/spec/autoAllocateBlocks", false),
            ("MAXBLOCKSPERHOST", "/spec/maxBlocksPerHost", false),
        ],
        place: Place::IpamConfig,
        rule: check::ipam_config,
        ..Kind::PLAIN
    },
    policy::BLOCK_AFFINITIES,
    network::BGP_CONFIGURATIONS,
    network::BGP_PEERS,
    network::BGP_FILTERS,
    network::FELIX_CONFIGURATIONS,
    network::KUBE_CONTROLLERS_CONFIGURATIONS,
    policy::WORKLOAD_ENDPOINTS,
    policy::PROFILES,
    policy::HOST_ENDPOINTS,
    policy::NETWORK_SETS,
    policy::GLOBAL_NETWORK_SETS,
    policy::NETWORK_POLICIES,
    policy::GLOBAL_NETWORK_POLICIES,
];

const IP_POOL: &[Member] = &[
    member("cidr", Shape::Net),
    member("vxlanMode", MODE),
    member("ipipMode", MODE),
    member("natOutgoing", Shape::Bool),
    member("disabled", Shape::Bool),
    member("disableBGPExport", Shape::Bool),
    member("blockSize", Shape::Int(0, 128)),
    member("nodeSelector", Shape::Selector),
    member("namespaceSelector", Shape::Selector),
    member("allowedUses", Shape::List(&Shape::OneOf(&["Workload", "Tunnel", "LoadBalancer"]))),
    member("assignmentMode", Shape::OneOf(&["Automatic", "Manual"])),
];

const NODE: &[Member] = &[
    member("bgp", Shape::Object(NODE_BGP)),
    member("ipv4VXLANTunnelAddr", Shape::Ip),
    member("ipv6VXLANTunnelAddr", Shape::Ip),
    member("vxlanTunnelMACAddr", Shape::Text),
    member("vxlanTunnelMACAddrV6", Shape::Text),
    member(
        "orchRefs",
        Shape::List(&Shape::Object(&[member("nodeName", Shape::Text), member("orchestrator", Shape::Text)])),
    ),
    member(
        "wireguard",
        Shape::Object(&[
            member("interfaceIPv4Address", Shape::Ip),
            member("interfaceIPv6Address", Shape::Ip),
        ]),
    ),
    member(
        "addresses",
        Shape::List(&Shape::Object(&[
            member("address", Shape::Interface),
            member("type", Shape::OneOf(&["CalicoNodeIP", "InternalIP", "ExternalIP"])),
        ])),
    ),
    member(
        "interfaces",
        Shape::List(&Shape::Object(&[
            member("name", Shape::Text),
            member("addresses", Shape::List(&Shape::Interface)),
        ])),
    ),
];

const NODE_BGP: &[Member] = &[
    member("asNumber", Shape::AsNumber),
    member("ipv4Address", Shape::Interface),
    member("ipv6Address", Shape::Interface),
    member("ipv4IPIPTunnelAddr", Shape::Ip),
    member("routeReflectorClusterID", Shape::Ip),
];
