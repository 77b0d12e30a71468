//! IPIP and WireGuard between nodes. The kernel of a test machine may have neither, so `scripts/vm-tests`
//! runs these with a distribution's kernel in a virtual machine.

#![allow(clippy::unwrap_used)]

use e2e::netns::Netns;
use e2e::nodes::{Capture, Cluster, Pod, wait};
use e2e::probe;
use serde_json::json;
use std::time::Duration;

/// Emulated processors are slow.
const PATIENCE: Duration = Duration::from_secs(90);

fn pools(ipip: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![
        ("CALICO_NETWORKING_BACKEND", "vxlan"),
        ("CALICO_IPV4POOL_CIDR", "10.50.0.0/16"),
        ("CALICO_IPV4POOL_IPIP", ipip),
        ("CALICO_IPV6POOL_CIDR", "fd50::/64"),
    ]
}

fn settle(from: &Pod, to: &Pod) {
    let ip = to.ip(true);
    wait("the nodes route to each other", PATIENCE, || probe::tcp(&from.netns, &to.netns, ip).is_ok());
}

/// How many packets between pods pass the first node's link as they are, and how many by this filter.
fn wire(cluster: &Cluster, from: &Pod, to: &Pod, filter: &str) -> [usize; 2] {
    let node = &cluster.nodes[0];
    let capture = Capture::start(&node.host, "eth0", node.dir.join(format!("wire-{}", to.container)));
    let mtu = usize::try_from(from.mtu).unwrap();
    probe::everything(&from.netns, &to.netns, to.ip(true), mtu, Some(from.ip(true)));
    let plain = format!("not ip proto 4 and host {} and host {}", from.ip(true), to.ip(true));
    let seen = capture.end(&[&plain, filter]);
    [seen[0], seen[1]]
}

// REQ: D-03
#[test]
#[ignore = "needs a kernel with IPIP: scripts/vm-tests runs it in a virtual machine"]
fn ipip_goes_across_subnets_and_not_within_one() {
    let cluster = Cluster::ready("ipip", &[1, 1, 2], &pools("CrossSubnet"));
    let [a, b, c] = [0, 1, 2].map(|n| cluster.add(n, &format!("pod{n}")));
    settle(&a, &b);
    settle(&a, &c);
    assert_eq!(a.mtu, 1480);
    let near = wire(&cluster, &a, &b, "ip proto 4");
    assert!(near[0] > 5 && near[1] == 0, "in one subnet: {near:?} plain, encapsulated");
    let far = wire(&cluster, &a, &c, "ip proto 4");
    assert!(far[0] == 0 && far[1] > 5, "to the other subnet: {far:?} plain, encapsulated");
    let host = &cluster.nodes[0].host;
    e2e::netns::must(host.command("ip").args(["addr", "flush", "dev", "tunl0"]));
    e2e::netns::must(host.command("ip").args(["link", "set", "tunl0", "down"]));
    settle(&a, &c);
    let node = cluster.stored("/calico/resources/v3/projectcalico.org/nodes/node1").unwrap();
    let inner = node["spec"]["bgp"]["ipv4IPIPTunnelAddr"].as_str().unwrap();
    wait("the tunnel has its address", PATIENCE, || {
        host.ip(&["addr", "show", "tunl0"])[0]["addr_info"][0]["local"] == inner
    });
}

/// Whether what passes between the pods is seen only by this filter. A tunnel that is being changed drops packets.
fn only_as(cluster: &Cluster, from: &Pod, to: &Pod, filter: &str) -> bool {
    let room = usize::try_from(from.mtu).unwrap() - probe::udp_overhead(to.ip(true));
    let passes = |size| probe::udp(&from.netns, &to.netns, to.ip(true), size).is_ok();
    if probe::tcp(&from.netns, &to.netns, to.ip(true)).is_err() || !passes(room) {
        return false;
    }
    let seen = wire(cluster, from, to, filter);
    seen[0] == 0 && seen[1] > 5
}

/// What a WireGuard link is set to: its port and mark, and of each peer the endpoint and the networks.
fn settings(host: &Netns, link: &str) -> Vec<String> {
    let out = e2e::netns::must(host.command("wg").args(["show", link, "dump"]));
    let text = String::from_utf8(out).unwrap();
    let columns = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let mut lines = text.lines().map(columns);
    let own = lines.next().unwrap();
    let mut all: Vec<String> = lines.map(|peer| format!("{} {} {}", peer[0], peer[2], peer[3])).collect();
    all.sort();
    all.push(format!("{} {}", own[2], own[3]));
    all
}

/// When each peer was last heard, in seconds since the Unix epoch: a peer that is made anew was not.
fn handshakes(host: &Netns) -> String {
    let out = e2e::netns::must(host.command("wg").args(["show", "wireguard.cali", "latest-handshakes"]));
    String::from_utf8(out).unwrap()
}

// REQ: D-03
// REQ: D-07
#[test]
#[ignore = "needs a kernel with WireGuard: scripts/vm-tests runs it in a virtual machine"]
fn wireguard_carries_pods_between_nodes_that_have_keys() {
    let mut env = pools("Never");
    env.extend([("FELIX_WIREGUARDENABLED", "true"), ("FELIX_ROUTEREFRESHINTERVAL", "3")]);
    let cluster = Cluster::ready("wg", &[1, 1], &env);
    let [a, b] = [0, 1].map(|n| cluster.add(n, &format!("pod{n}")));
    assert_eq!(a.mtu, 1440);
    let own = |node: &str| cluster.stored(&format!("/calico/resources/v3/projectcalico.org/nodes/{node}"));
    wait("both nodes have keys and addresses", PATIENCE, || {
        ["node1", "node2"].iter().filter_map(|name| own(name)).all(|node| {
            node["status"]["wireguardPublicKey"].is_string()
                && node["spec"]["wireguard"]["interfaceIPv4Address"].is_string()
        })
    });
    let encrypted = |port: u16| only_as(&cluster, &a, &b, &format!("udp port {port}"));
    wait("everything between the pods is encrypted", PATIENCE, || encrypted(51820));
    // What is taken away comes back: the rule, and the routes of the table.
    let host = &cluster.nodes[0].host;
    e2e::netns::must(host.command("ip").args(["rule", "del", "priority", "99"]));
    e2e::netns::must(host.command("ip").args(["route", "flush", "table", "1"]));
    wait("the rule and the routes are back", PATIENCE, || encrypted(51820));
    resync(host);
    wait("it is encrypted after all that", PATIENCE, || encrypted(51820));
    // A link that is made anew has another key, which the other node learns.
    e2e::netns::must(host.command("ip").args(["link", "del", "wireguard.cali"]));
    wait("the new link carries", PATIENCE, || encrypted(51820));
    let felix = json!({"kind": "FelixConfiguration", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "default"}, "spec": {"wireguardListeningPort": 51900}});
    cluster.store("/calico/resources/v3/projectcalico.org/felixconfigurations/default", &felix);
    wait("another port is followed", PATIENCE, || encrypted(51900));
}

/// What others change of the link is put back by the next comparison, and nothing else is touched by it.
fn resync(host: &Netns) {
    let before = settings(host, "wireguard.cali");
    let heard = handshakes(host);
    assert!(!heard.contains("\t0\n"), "every peer was heard: {heard}");
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(handshakes(host), heard, "three comparisons with nothing to do leave the peer alone");
    let peer = before[0].split(' ').next().unwrap();
    let stranger = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=";
    for change in [
        vec!["peer", peer, "remove"],
        vec!["peer", peer, "allowed-ips", "10.99.0.0/16"],
        vec!["peer", peer, "endpoint", "192.0.2.1:1"],
        vec!["peer", stranger, "allowed-ips", "10.98.0.0/16"],
        vec!["listen-port", "5000"],
        vec!["fwmark", "0"],
    ] {
        e2e::netns::must(host.command("wg").args(["set", "wireguard.cali"]).args(&change));
        wait(&format!("{change:?} is undone"), PATIENCE, || settings(host, "wireguard.cali") == before);
    }
}
