//! Nodes of a real Kubernetes API server: the daemon starts up, says what it has to say, and joins its pods,
//! with the rights that `install/manifests` give its account and no others.

#![allow(clippy::unwrap_used)]

use e2e::cluster::{self, Kind};
use e2e::nodes::{Capture, Cluster, Node, PATIENCE, reaches, settle, wait};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

const ENV: [(&str, &str); 9] = [
    ("CALICO_NETWORKING_BACKEND", "vxlan"),
    ("CALICO_IPV4POOL_CIDR", "10.50.0.0/16"),
    ("CALICO_IPV4POOL_VXLAN", "CrossSubnet"),
    ("CALICO_IPV6POOL_CIDR", "fd50::/64"),
    ("CALICO_IPV6POOL_VXLAN", "CrossSubnet"),
    ("IP_AUTODETECTION_METHOD", "kubernetes-internal-ip"),
    ("IP6_AUTODETECTION_METHOD", "kubernetes-internal-ip"),
    ("PUBLISH_CONF", "daemon"),
    ("CNI_CONF_NAME", "10-percale.conflist"),
];
const CONFLIST: &str = "{\"cniVersion\": \"1.0.0\", \"name\": \"pods\", \"plugins\": []}\n";

/// The node as kubelet, the cloud and the init container leave it for the daemon.
fn prepare(node: &mut Node, api: &cluster::Cluster, addresses: &[&str]) {
    // A second address, which autodetection by interfaces would take first.
    let decoy = format!("192.0.2.{}/24", &node.name["node".len()..]);
    e2e::netns::must(node.host.command("ip").args(["link", "add", "decoy", "type", "bridge"]));
    e2e::netns::must(node.host.command("ip").args(["addr", "add", &decoy, "dev", "decoy"]));
    e2e::netns::must(node.host.command("ip").args(["link", "set", "decoy", "up"]));
    api.report_node(&node.name, addresses);
    let staged = node.dir.join("state/conflist/10-percale.conflist");
    for dir in [staged.parent().unwrap(), &net_d(node)] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(&staged, CONFLIST).unwrap();
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o600)).unwrap();
    node.env.push(("CNI_CONF_DIR".to_owned(), net_d(node).display().to_string()));
}

fn net_d(node: &Node) -> std::path::PathBuf {
    node.dir.join("net.d")
}

fn is_published(node: &Node) -> bool {
    net_d(node).join("10-percale.conflist").exists()
}

fn annotation(node: &Value, name: &str) -> Option<String> {
    node["metadata"]["annotations"][format!("projectcalico.org/{name}")].as_str().map(str::to_owned)
}

// REQ: D-13
// REQ: A-02
#[test]
fn nodes_join_a_kubernetes_cluster_with_the_rights_of_the_manifests() {
    let api = cluster::Cluster::own();
    let mut cluster = Cluster::on_kubernetes("kube", &api, &[1, 2], &ENV);
    prepare(&mut cluster.nodes[0], &api, &["10.88.1.1", "fd00:88:1::1"]);
    prepare(&mut cluster.nodes[1], &api, &["10.88.2.2", "fd00:88:2::2"]);
    // On the first node networking cannot work yet: somebody else's link has the tunnel's name.
    let host = cluster.nodes[0].host.path().to_owned();
    let ip = |args: &[&str]| {
        e2e::netns::within(&host, || e2e::netns::must(std::process::Command::new("ip").args(args)))
    };
    ip(&["link", "add", "vxlan.calico", "type", "bridge"]);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.nodes[1].wait_ready();
    wait("the second node is announced", PATIENCE, || api.network_unavailable("node2") == "False");
    let told = cluster.nodes[0].readiness();
    assert!(told.contains("plane: ") && told.contains("vxlan.calico"), "{told}");
    assert_eq!(api.network_unavailable("node1"), "True", "it is not cleared before networking works");
    assert!(!is_published(&cluster.nodes[0]), "nor does the runtime get its configuration");
    ip(&["link", "del", "vxlan.calico"]);
    cluster.nodes[0].wait_ready();
    wait("the first node is announced", PATIENCE, || api.network_unavailable("node1") == "False");
    for node in &cluster.nodes {
        wait("the conflist is published", PATIENCE, || is_published(node));
        check_files(node);
    }
    check_objects(&api);
    check_pods(&cluster, "vxlan");
    check_bgp(&mut cluster, &api);
    for node in &mut cluster.nodes {
        let log = node.log();
        let refused = ["orbidden", "403", "nauthorized"].iter().any(|word| log.contains(word));
        assert!(!refused, "the account lacks a right: {log}");
        node.end(rustix::process::Signal::TERM);
        assert!(is_published(node), "a stop is a restart");
    }
    assert_eq!(api.network_unavailable("node1"), "False");
}

/// As the manifests start it, with BGP: the nodes peer, and what is asked of them in objects is answered.
fn check_bgp(cluster: &mut Cluster, api: &cluster::Cluster) {
    let path = "/apis/crd.projectcalico.org/v1/caliconodestatuses";
    let asked = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "CalicoNodeStatus",
        "metadata": {"name": "node1"}, "spec": {"node": "node1", "classes": ["BGP"], "updatePeriodSeconds": 1}});
    api.api("POST", path, Some(&asked));
    for node in &mut cluster.nodes {
        node.end(rustix::process::Signal::TERM);
        node.env.retain(|(name, _)| name != "CALICO_NETWORKING_BACKEND");
        node.start();
    }
    cluster.nodes.iter().for_each(Node::wait_ready);
    wait("the nodes are peers, and say so", PATIENCE * 2, || {
        let told = api.api("GET", &format!("{path}/node1"), None);
        told["status"]["bgp"]["numberEstablishedV4"] == 1
    });
    check_pods(cluster, "bgp");
}

fn check_files(node: &Node) {
    let read = |path: &str| fs::read_to_string(node.dir.join(path)).unwrap();
    assert_eq!(read("net.d/10-percale.conflist"), CONFLIST);
    let mode = fs::metadata(net_d(node).join("10-percale.conflist")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "it may hold credentials");
    assert_eq!(fs::read_dir(net_d(node)).unwrap().count(), 1, "no temporary file stays");
    assert_eq!(read("state/nodename").trim(), node.name);
    assert_eq!(read("state/mtu"), "1430");
}

/// What others read of the nodes: addresses that the cloud told, tunnel addresses, pools of the environment.
fn check_objects(api: &cluster::Cluster) {
    for (name, v4, v6) in
        [("node1", "10.88.1.1/24", "fd00:88:1::1/64"), ("node2", "10.88.2.2/24", "fd00:88:2::2/64")]
    {
        let node = api.node(name);
        assert_eq!(annotation(&node, "IPv4Address").as_deref(), Some(v4));
        assert_eq!(annotation(&node, "IPv6Address").as_deref(), Some(v6));
        let inner = annotation(&node, "IPv4VXLANTunnelAddr").unwrap();
        assert!(inner.starts_with("10.50."), "{inner}");
        let handle = format!("vxlan-tunnel-addr-{name}");
        let path = format!("/apis/crd.projectcalico.org/v1/ipamhandles/{handle}");
        assert_eq!(api.api("GET", &path, None)["spec"]["handleID"], handle.as_str());
    }
    for (name, cidr) in [("default-ipv4-ippool", "10.50.0.0/16"), ("default-ipv6-ippool", "fd50::/64")] {
        let pool = api.api("GET", &format!("/apis/crd.projectcalico.org/v1/ippools/{name}"), None);
        assert_eq!(
            (&pool["spec"]["cidr"], &pool["spec"]["vxlanMode"]),
            (&cidr.into(), &"CrossSubnet".into())
        );
    }
    let info = api
        .store(Kind::Kubernetes)
        .get(&["/calico/resources/v3/projectcalico.org/clusterinformations/default"], cluster::soon());
    assert!(info.unwrap()[0].is_some());
}

fn check_pods(cluster: &Cluster, tag: &str) {
    let [a, b] = [0, 1].map(|n| cluster.add(n, &format!("{tag}{n}")));
    settle(&a, &b);
    let node = &cluster.nodes[0];
    let capture = Capture::start(&node.host, "eth0", node.dir.join(tag));
    reaches(&a, &b);
    let plain = format!("host {} and host {}", a.ip(true), b.ip(true));
    let seen = capture.end(&[&plain, "udp port 4789"]);
    assert!(seen[0] == 0 && seen[1] > 10, "{seen:?} plain, encapsulated");
    for (at, pod) in [&a, &b].into_iter().enumerate() {
        cluster.del(at, pod).unwrap();
        assert_eq!(cluster.nodes[at].host.link_names("cali"), Vec::<String>::new());
    }
}
