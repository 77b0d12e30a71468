//! Services of a real cluster: what a router outside is told of them, and connections that come from there.

#![allow(clippy::unwrap_used)]

use e2e::bgp::{Bird, Fabric, Node, Process, gateways, ip, soon};
use e2e::netns::Netns;
use e2e::probe;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const WHOLE: [&str; 4] = ["10.96.0.0/16", "203.0.113.0/24", "198.51.100.0/24", "fd00:10:96::/112"];
const CLUSTER_IP: &str = "10.96.7.7/32";
const EXTERNAL_IP: &str = "203.0.113.7/32";
const BALANCER_IP: &str = "198.51.100.7/32";
const HOSTS: [&str; 3] = [CLUSTER_IP, EXTERNAL_IP, BALANCER_IP];

/// BIRD takes several paths to a network from two nodes.
const ROUTER: &str = "router id 10.99.0.101;
protocol device {}
protocol kernel { ipv4 { export where source = RTS_BGP; }; merge paths on; }
template bgp node { local as 65010; connect delay time 1; connect retry time 1; error wait time 1, 2; }
protocol bgp n1 from node { neighbor 10.99.0.1 as 64512; ipv4 { import all; export none; }; }
protocol bgp n2 from node { neighbor 10.99.0.2 as 64512; ipv4 { import all; export none; }; }
protocol bgp m1 from node { neighbor fd99::1 as 64512; ipv6 { import all; export none; }; }
protocol bgp m2 from node { neighbor fd99::2 as 64512; ipv6 { import all; export none; }; }
";

struct Bed {
    fabric: Fabric,
    nodes: [Node; 2],
    router: Bird,
}

fn bed(tag: &str) -> Bed {
    let fabric = Fabric::kubernetes(tag);
    configure(&fabric, json!({}));
    for (name, ip) in [("v4", "10.99.0.101"), ("v6", "fd99::65")] {
        fabric.put("bgppeers", name, json!({"peerIP": ip, "asNumber": 65010}));
    }
    let nodes = [1, 2].map(|n| Node::start(&fabric, n));
    let router = Bird::start(&fabric, 101, ROUTER);
    for node in &nodes {
        node.await_up("10.99.0.101");
        node.await_up("fd99::65");
    }
    Bed { fabric, nodes, router }
}

fn configure(fabric: &Fabric, more: Value) {
    let mut spec = json!({"nodeToNodeMeshEnabled": false,
        "serviceClusterIPs": [{"cidr": "10.96.0.0/16"}, {"cidr": "fd00:10:96::/112"}],
        "serviceExternalIPs": [{"cidr": "203.0.113.0/24"}],
        "serviceLoadBalancerIPs": [{"cidr": "198.51.100.0/24"}]});
    for (name, value) in more.as_object().unwrap() {
        spec[name] = value.clone();
    }
    fabric.put("bgpconfigurations", "default", spec);
}

impl Bed {
    /// A service for port 80 with an address of each kind.
    fn service(&self, policy: &str) {
        let spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.7.7", "externalIPs": ["203.0.113.7"],
            "externalTrafficPolicy": policy, "ports": [{"port": 80, "targetPort": 8080}]});
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
        self.must("POST", "/api/v1/namespaces/default/services", &service);
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}});
        self.must("PATCH", "/api/v1/namespaces/default/services/web/status", &status);
    }

    fn policy(&self, policy: &str) {
        let spec = json!({"spec": {"externalTrafficPolicy": policy}});
        self.must("PATCH", "/api/v1/namespaces/default/services/web", &spec);
    }

    /// The service's one endpoint.
    fn endpoint(&self, pod: &str, node: &str, ready: bool) {
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"port": 8080, "protocol": "TCP", "name": ""}],
            "endpoints": [{"addresses": [pod], "nodeName": node, "conditions": {"ready": ready}}]});
        if self.fabric.cluster().api("POST", slices, Some(&slice))["code"] == 409 {
            self.must("PATCH", &format!("{slices}/web-1"), &slice);
        }
    }

    fn delete_endpoint(&self) {
        let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web-1";
        self.fabric.cluster().api("DELETE", path, None);
    }

    fn must(&self, method: &str, path: &str, body: &Value) {
        let answer = self.fabric.cluster().api(method, path, Some(body));
        assert!(answer["code"].is_null(), "{path}: {answer}");
    }

    /// The router's kernel leads to these nodes, and to no other.
    fn leads(&self, net: &str, nodes: &[u8]) {
        let base = if net.contains(':') { "fd99::" } else { "10.99.0." };
        let wanted: Vec<String> = nodes.iter().map(|n| format!("{base}{n}")).collect();
        soon(&format!("the router has {net} by {wanted:?}"), || {
            let told = self.router.ask(&format!("show route {net} all"));
            let mut seen: Vec<&str> = told
                .lines()
                .filter_map(|l| l.trim().strip_prefix("BGP.next_hop: ")?.split(' ').next())
                .collect();
            seen.sort_unstable();
            let exact = told.contains(&format!("{net} "));
            let seen = if exact { seen } else { Vec::new() };
            (seen == wanted, format!("{seen:?} {told} {}", self.nodes[0].ask(&["bgp", "explain", net])))
        });
    }
}

/// Whole ranges from every node; single addresses from where a ready endpoint is, as long as it is; nothing from a node
/// with the label. What nodes are told of each other's services stays out of their kernels.
// REQ: B-01, B-02
#[test]
fn ranges_from_all_and_addresses_from_where_endpoints_are_ready() {
    let bed = bed("services");
    WHOLE.iter().for_each(|net| bed.leads(net, &[1, 2]));
    bed.service("Cluster");
    bed.endpoint("10.91.1.5", "node1", true);
    bed.policy("Local");
    HOSTS.iter().for_each(|net| bed.leads(net, &[1]));
    bed.endpoint("10.91.1.5", "node1", false);
    HOSTS.iter().for_each(|net| bed.leads(net, &[]));
    bed.endpoint("10.91.2.5", "node2", true);
    HOSTS.iter().for_each(|net| bed.leads(net, &[2]));
    // Not inside of its range any more; of the cluster's addresses none is told without a range.
    configure(
        &bed.fabric,
        json!({"serviceLoadBalancerIPs": [{"cidr": "192.0.2.0/24"}], "serviceClusterIPs": []}),
    );
    bed.leads(BALANCER_IP, &[]);
    bed.leads(CLUSTER_IP, &[]);
    bed.leads("10.96.0.0/16", &[]);
    bed.leads(EXTERNAL_IP, &[2]);
    // Without aggregation an address of a load balancer is told by itself, by every node unless it is local.
    configure(&bed.fabric, json!({"serviceLoadBalancerAggregation": "Disabled"}));
    bed.leads("198.51.100.0/24", &[]);
    bed.leads(BALANCER_IP, &[2]);
    bed.policy("Cluster");
    bed.leads(BALANCER_IP, &[1, 2]);
    bed.leads(EXTERNAL_IP, &[]);
    bed.leads(CLUSTER_IP, &[]);
    bed.policy("Local");
    configure(&bed.fabric, json!({}));
    HOSTS.iter().for_each(|net| bed.leads(net, &[2]));

    let label = |value: Value| {
        let labels = json!({"metadata": {"labels": {EXCLUDE: value}}});
        bed.must("PATCH", "/api/v1/nodes/node2", &labels);
    };
    label("true".into());
    WHOLE.iter().for_each(|net| bed.leads(net, &[1]));
    HOSTS.iter().for_each(|net| bed.leads(net, &[]));
    label("false".into());
    WHOLE.iter().for_each(|net| bed.leads(net, &[1, 2]));
    label(Value::Null);
    HOSTS.iter().for_each(|net| bed.leads(net, &[2]));

    // The mesh: node 1 hears of node 2's addresses, and its kernel does not.
    configure(&bed.fabric, json!({"nodeToNodeMeshEnabled": true}));
    bed.nodes[0].await_up("10.99.0.2");
    soon("node 1 has heard of the address and keeps it out of the kernel", || {
        let found = bed.nodes[0].ask(&["bgp", "routes", CLUSTER_IP]);
        let kernel = found["routes"][0]["kernel"].as_str().unwrap_or_default().to_owned();
        (kernel.contains("in an own service range"), found.to_string())
    });
    assert_eq!(gateways(&bed.nodes[0].ns, CLUSTER_IP), Vec::<String>::new());
    bed.delete_endpoint();
    HOSTS.iter().for_each(|net| bed.leads(net, &[]));
}

/// From outside of the cluster to a pod: the router sends packets where BGP says, Kubernetes' own proxy there turns the
/// address into the pod's. The pod sees who connects.
// REQ: B-01
#[test]
fn a_connection_from_outside_reaches_the_pod() {
    let bed = bed("connect");
    bed.fabric.put("ippools", "pods", json!({"cidr": "10.91.0.0/16"}));
    let pods: [Netns; 2] = [1, 2].map(|n| {
        bed.fabric.put_block(n, &format!("10.91.{n}.0/26"));
        bed.fabric.pod(&bed.nodes[usize::from(n) - 1], Ipv4Addr::new(10, 91, n, 5).into())
    });
    let _proxies: [Process; 2] = [0, 1].map(|at| bed.fabric.kube_proxy(&bed.nodes[at]));
    bed.service("Local");
    for n in [1_u8, 2] {
        bed.endpoint(&format!("10.91.{n}.5"), &format!("node{n}"), true);
        HOSTS.iter().for_each(|net| bed.leads(net, &[n]));
        let server = pods[usize::from(n) - 1].run(|| TcpListener::bind("0.0.0.0:8080")).unwrap();
        for net in HOSTS {
            let goal = SocketAddr::new(net.trim_end_matches("/32").parse().unwrap(), 80);
            soon(&format!("a connection to {goal}"), || match probe::tcp_to(&bed.router.ns, goal, &server) {
                Ok(seen) => (seen.to_string() == "10.99.0.101", format!("the pod saw {seen}")),
                Err(e) => (false, e.to_string()),
            });
        }
    }
}

/// The node's default route leads to the router, and the router's way to service addresses to the node: a client's packet
/// for an address that nobody has would go back and forth until its time is over. It is dropped, or refused, or (the control) it loops.
// REQ: D-05
#[test]
fn an_unused_service_address_causes_no_loop() {
    let bed = bed("loop");
    let node = &bed.nodes[0];
    bed.leads("203.0.113.0/24", &[1, 2]);
    bed.router.ask("disable n2");
    bed.leads("203.0.113.0/24", &[1]);
    ip(&node.ns, "route add default via 10.99.0.101");
    let client = bed.fabric.host(150);
    ip(&client, "route add default via 10.99.0.101");
    let ping = || {
        let mut command = client.command("ping");
        command.args(["-c", "1", "-W", "1", "-t", "40", "203.0.113.200"]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let entered =
        || node.ns.ip(&["-s", "link", "show", "eth0"])[0]["stats64"]["rx"]["packets"].as_u64().unwrap();
    let prevention = |word: &str| {
        bed.fabric.put("felixconfigurations", "default", json!({"serviceLoopPrevention": word}));
    };
    let loops = |word: &str, said: &str, least: u64| {
        soon(&format!("{word}: the packet's fate"), || {
            let before = entered();
            let told = ping();
            let packets = entered() - before;
            let looped = packets >= 20;
            (looped == (least > 0) && told.contains(said), format!("{packets} packets; {told}"))
        });
    };
    loops("the default", "100% packet loss", 0);
    prevention("Reject");
    loops("Reject", "Packet filtered", 0);
    prevention("Disabled");
    loops("Disabled", "Time to live exceeded", 20);
    prevention("Drop");
    loops("Drop", "100% packet loss", 0);
    // The host's own reach service addresses: the table is for packets that pass through.
    let own = node.ns.command("ip").args(["route", "get", "203.0.113.200"]).output().unwrap();
    assert!(String::from_utf8(own.stdout).unwrap().contains("via 10.99.0.101"));
}
