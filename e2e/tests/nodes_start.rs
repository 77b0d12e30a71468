//! How a node of a cluster finds its addresses, the names of others and its settings, and what leaves it.

#![allow(clippy::unwrap_used)]

use e2e::nodes::{Cluster, Node, PATIENCE, wait};
use e2e::{netns, probe};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const ENV: [(&str, &str); 4] = [
    ("CALICO_NETWORKING_BACKEND", "vxlan"),
    ("CALICO_IPV4POOL_CIDR", "10.50.0.0/16"),
    ("CALICO_IPV4POOL_VXLAN", "Always"),
    ("CALICO_IPV6POOL_CIDR", "fd50::/64"),
];
const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";

fn ip(node: &Node, args: &[&str]) {
    netns::must(node.host.command("ip").args(args));
}

fn set(node: &mut Node, name: &str, value: &str) {
    node.env.retain(|(known, _)| known != name);
    node.env.push((name.to_owned(), value.to_owned()));
}

fn restart(cluster: &mut Cluster) {
    cluster.nodes[0].end(Signal::TERM);
    cluster.nodes[0].start();
}

fn stored_address(cluster: &Cluster) -> Option<String> {
    let node = cluster.stored(&format!("{RESOURCES}/nodes/node1"))?;
    node["spec"]["bgp"]["ipv4Address"].as_str().map(str::to_owned)
}

/// `data0` is the later interface, and its subnet has a broadcast address, which the kernel lists among its
/// local routes.
// REQ: D-13
// REQ: D-06
#[test]
fn every_way_of_autodetection_finds_an_address_with_its_subnet_and_follows_it() {
    let mut cluster = Cluster::new("find", &[1], &ENV);
    ip(&cluster.nodes[0], &["link", "add", "data0", "type", "bridge"]);
    ip(&cluster.nodes[0], &["addr", "add", "10.77.0.5/25", "broadcast", "10.77.0.127", "dev", "data0"]);
    ip(&cluster.nodes[0], &["link", "set", "data0", "up"]);
    let (first, other) = ("10.88.1.1/24", "10.77.0.5/25");
    for (address, method, found) in [
        ("autodetect", "first-found", other),
        ("autodetect", "interface=eth.*", first),
        ("autodetect", "skip-interface=eth.*", other),
        ("autodetect", "can-reach=10.88.1.254", first),
        ("autodetect", "cidr=10.77.0.0/16", other),
        ("10.88.1.1", "", first),
    ] {
        let node = &mut cluster.nodes[0];
        set(node, "IP", address);
        set(node, "IP_AUTODETECTION_METHOD", method);
        restart(&mut cluster);
        let what = format!("{method} of {address} finds {found}");
        wait(&what, PATIENCE, || stored_address(&cluster).as_deref() == Some(found));
    }
    set(&mut cluster.nodes[0], "IP", "autodetect");
    set(&mut cluster.nodes[0], "IP_AUTODETECTION_METHOD", "interface=data.*");
    restart(&mut cluster);
    wait("it is found", PATIENCE, || stored_address(&cluster).as_deref() == Some(other));
    ip(&cluster.nodes[0], &["addr", "del", other, "dev", "data0"]);
    ip(&cluster.nodes[0], &["addr", "add", "10.77.0.6/25", "broadcast", "10.77.0.127", "dev", "data0"]);
    wait("it is followed", PATIENCE, || stored_address(&cluster).as_deref() == Some("10.77.0.6/25"));
    a_broadcast_address_is_nobodys(&mut cluster);
}

fn a_broadcast_address_is_nobodys(cluster: &mut Cluster) {
    cluster.nodes[0].end(Signal::TERM);
    cluster.unstore(&format!("{RESOURCES}/nodes/node1"));
    set(&mut cluster.nodes[0], "IP_AUTODETECTION_METHOD", "cidr=10.77.0.127/32");
    set(&mut cluster.nodes[0], "IP6", "none");
    cluster.nodes[0].start();
    wait("it says what is missing", PATIENCE, || {
        cluster.nodes[0].readiness().contains("no address of this node was found")
    });
    assert_eq!(stored_address(cluster), None);
}

// REQ: D-13
#[test]
fn the_log_begins_at_the_level_of_the_environment() {
    let mut cluster = Cluster::new("level", &[1], &ENV);
    for (level, talks) in [("ERROR", false), ("INFO", true)] {
        set(&mut cluster.nodes[0], "CALICO_STARTUP_LOGLEVEL", level);
        let before = cluster.nodes[0].log().len();
        restart(&mut cluster);
        cluster.nodes[0].wait_ready();
        let said = cluster.nodes[0].log().split_off(before);
        assert_eq!(said.contains("the store is read"), talks, "{level}: {said}");
    }
}

/// Answers every question for an IPv4 address with that of the router, where etcd is.
fn name_server(cluster: &Cluster) -> Arc<AtomicUsize> {
    let socket = cluster.router.run(|| UdpSocket::bind((Ipv4Addr::new(10, 88, 1, 254), 53))).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((size, from)) = socket.recv_from(&mut packet) {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = socket.send_to(&answer_to(&packet[..size]), from);
        }
    });
    asked
}

/// RFC 1035: the head with one answer, the question as it came, and its address.
fn answer_to(question: &[u8]) -> Vec<u8> {
    let name_end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap();
    let asked = &question[12..name_end + 5];
    let is_v4 = asked[asked.len() - 4..asked.len() - 2] == [0, 1];
    let mut reply = question[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_v4), 0, 0, 0, 0]);
    reply.extend(asked);
    if is_v4 {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 88, 1, 254]);
    }
    reply
}

/// As kubelet does for `dnsPolicy: ClusterFirstWithHostNet`, which our manifests ask for: the container has the
/// host's network and a `resolv.conf` of its own.
// REQ: D-17
#[test]
fn the_daemon_resolves_names_by_the_resolv_conf_of_its_container() {
    let mut cluster = Cluster::new("dns", &[1], &ENV);
    let asked = name_server(&cluster);
    let node = &mut cluster.nodes[0];
    let conf = node.dir.join("resolv.conf");
    std::fs::write(&conf, "search percale.test\nnameserver 10.88.1.254\n").unwrap();
    let mount = format!("mount --bind '{}' /etc/resolv.conf && exec \"$@\"", conf.display());
    node.wrap = ["unshare", "--mount", "sh", "-c", &mount, "sh"].map(str::to_owned).to_vec();
    set(node, "ETCD_ENDPOINTS", "http://store.percale.test:2379");
    set(node, "IP_AUTODETECTION_METHOD", "can-reach=gateway.percale.test");
    node.start();
    node.wait_ready();
    assert!(asked.load(Ordering::Relaxed) >= 2, "for the store, and for the destination");
    assert_eq!(stored_address(&cluster).as_deref(), Some("10.88.1.1/24"));
    for file in ["manifests/percale.yaml", "charts/percale/templates/daemonset.yaml"] {
        let text = std::fs::read_to_string(e2e::bins::workspace().join("install").join(file)).unwrap();
        assert!(text.contains("hostNetwork: true") && text.contains("dnsPolicy: ClusterFirstWithHostNet"));
    }
}

fn felix(name: &str, port: u16) -> Value {
    json!({"kind": "FelixConfiguration", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name}, "spec": {"vxlanPort": port}})
}

#[test]
fn settings_of_the_node_hold_over_those_of_all_and_the_environment_over_both() {
    let mut cluster = Cluster::ready("prefer", &[1], &ENV);
    let waits_for = |cluster: &Cluster, port: u16| {
        wait(&format!("port {port}"), PATIENCE, || {
            // It is made anew for another port, so it may not be there.
            let link =
                cluster.nodes[0].host.command("ip").args(["-d", "link", "show", "vxlan.calico"]).output();
            String::from_utf8_lossy(&link.unwrap().stdout).contains(&format!("dstport {port} "))
        });
    };
    waits_for(&cluster, 4789);
    cluster.store(&format!("{RESOURCES}/felixconfigurations/default"), &felix("default", 4801));
    waits_for(&cluster, 4801);
    cluster.store(&format!("{RESOURCES}/felixconfigurations/node.node1"), &felix("node.node1", 4802));
    waits_for(&cluster, 4802);
    set(&mut cluster.nodes[0], "FELIX_VXLANPORT", "4803");
    restart(&mut cluster);
    waits_for(&cluster, 4803);
    cluster.nodes[0].env.retain(|(name, _)| name != "FELIX_VXLANPORT");
    restart(&mut cluster);
    waits_for(&cluster, 4802);
    cluster.unstore(&format!("{RESOURCES}/felixconfigurations/node.node1"));
    waits_for(&cluster, 4801);
}

// REQ: D-03
#[test]
fn nat_outgoing_of_a_pool_hides_pods_from_what_is_outside_the_pools_alone() {
    let cluster = Cluster::ready("nat", &[1, 1], &ENV);
    let key = format!("{RESOURCES}/ippools/default-ipv4-ippool");
    let mut pool = cluster.stored(&key).unwrap();
    assert_eq!(pool["spec"]["natOutgoing"], true, "Calico's default for IPv4");
    let [a, b] = [0, 1].map(|n| cluster.add(n, &format!("pod{n}")));
    netns::must(cluster.router.command("ip").args(["route", "add", "10.50.0.0/16", "via", "10.88.1.1"]));
    let outside = "10.88.1.254".parse().unwrap();
    let seen = || probe::tcp(&a.netns, &cluster.router, outside).ok().map(|ip| ip.to_string());
    assert_eq!(seen().as_deref(), Some("10.88.1.1"), "the far side sees the node");
    wait("a pod of the other node sees the pod itself", PATIENCE, || {
        probe::tcp(&a.netns, &b.netns, b.ip(true)).is_ok_and(|seen| seen == a.ip(true))
    });
    pool["spec"]["natOutgoing"] = json!(false);
    cluster.store(&key, &pool);
    let own = a.ip(true).to_string();
    wait("it is seen as it is", PATIENCE, || seen().as_deref() == Some(own.as_str()));
    pool["spec"]["natOutgoing"] = json!(true);
    cluster.store(&key, &pool);
    wait("it is hidden again", PATIENCE, || seen().as_deref() == Some("10.88.1.1"));
}
