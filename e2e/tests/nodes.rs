//! Several nodes with the shipped daemon, an etcd, and pods of the shipped plugin: what goes over the
//! wire, and what happens when nodes, addresses, the store or the kernel change.

#![allow(clippy::unwrap_used)]

use e2e::nodes::{Capture, Cluster, Pod, wait};
use e2e::{bins, probe};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Pools of both families in this VXLAN mode; nothing comes from BGP.
fn env(mode: &str) -> Vec<(&str, &str)> {
    vec![
        ("CALICO_NETWORKING_BACKEND", "vxlan"),
        ("CALICO_IPV4POOL_CIDR", "10.50.0.0/16"),
        ("CALICO_IPV4POOL_VXLAN", mode),
        ("CALICO_IPV6POOL_CIDR", "fd50::/64"),
        ("CALICO_IPV6POOL_VXLAN", mode),
    ]
}

/// The longest that anything may stay changed, with other tests beside; the usual is below a second.
const LONGEST: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(20);

fn reaches(from: &Pod, to: &Pod) {
    for v4 in [true, false] {
        let mtu = usize::try_from(from.mtu.min(to.mtu)).unwrap();
        probe::everything(&from.netns, &to.netns, to.ip(v4), mtu, Some(from.ip(v4)));
    }
}

/// Waits until the nodes know each other's networks.
fn settle(from: &Pod, to: &Pod) {
    for v4 in [true, false] {
        wait("the nodes route to each other", PATIENCE, || {
            probe::tcp(&from.netns, &to.netns, to.ip(v4)).is_ok()
        });
    }
}

/// Packets between two pods as they are, and packets that may hold them, on a link.
fn filters(from: &Pod, to: &Pod) -> [String; 2] {
    let plain = |v4| format!("(host {} and host {})", from.ip(v4), to.ip(v4));
    [format!("{} or {}", plain(true), plain(false)), "udp port 4789".to_owned()]
}

fn on_the_wire(cluster: &Cluster, from: &Pod, to: &Pod) -> Vec<usize> {
    let node = &cluster.nodes[0];
    let file = node.dir.join(format!("wire-{}", to.container));
    let capture = Capture::start(&node.host, "eth0", file);
    reaches(from, to);
    let filters = filters(from, to);
    capture.end(&[&filters[0], &filters[1]])
}

// REQ: D-03
// REQ: D-13
// REQ: D-01
// REQ: C-05
#[test]
fn cross_subnet_pods_are_plain_in_one_subnet_and_encapsulated_to_another() {
    let cluster = Cluster::ready("cross", &[1, 1, 2], &env("CrossSubnet"));
    let [a, b, c] = [0, 1, 2].map(|n| cluster.add(n, &format!("pod{n}")));
    settle(&a, &b);
    settle(&a, &c);
    // eth0 has 1500; VXLAN over IPv6 takes 70.
    assert_eq!([a.mtu, b.mtu, c.mtu], [1430; 3]);
    let near = on_the_wire(&cluster, &a, &b);
    assert!(near[0] > 10 && near[1] == 0, "in one subnet: {near:?} plain, encapsulated");
    let far = on_the_wire(&cluster, &a, &c);
    assert!(far[0] == 0 && far[1] > 10, "to the other subnet: {far:?} plain, encapsulated");
    check_stored(&cluster);
}

/// What others read in the node's object: Calico's members, and tunnel addresses under Calico's handles.
fn check_stored(cluster: &Cluster) {
    let node = cluster.stored("/calico/resources/v3/projectcalico.org/nodes/node3").unwrap();
    assert_eq!(node["spec"]["bgp"]["ipv4Address"], "10.88.2.3/24");
    assert_eq!(node["spec"]["bgp"]["ipv6Address"], "fd00:88:2::3/64");
    for (field, handle, kind) in [
        ("ipv4VXLANTunnelAddr", "vxlan-tunnel-addr-node3", "vxlanTunnelAddress"),
        ("ipv6VXLANTunnelAddr", "vxlan-v6-tunnel-addr-node3", "vxlanV6TunnelAddress"),
    ] {
        assert!(node["spec"][field].is_string(), "{field}: {node}");
        let held = cluster.stored(&format!("/calico/ipam/v2/handle/{handle}")).unwrap();
        let block = held["block"].as_object().unwrap().keys().next().unwrap().replace('/', "-");
        let family = if block.contains(':') { "ipv6" } else { "ipv4" };
        let block = cluster.stored(&format!("/calico/ipam/v2/assignment/{family}/block/{block}")).unwrap();
        let attributes = block["attributes"].as_array().unwrap();
        let own = attributes.iter().find(|a| a["handle_id"] == handle).unwrap();
        assert_eq!(own["secondary"], json!({"node": "node3", "type": kind}));
    }
}

// REQ: D-08
#[test]
fn everything_is_encapsulated_where_asked_and_pods_cannot_do_it_themselves() {
    let cluster = Cluster::ready("always", &[1, 1], &env("Always"));
    let [a, b] = [0, 1].map(|n| cluster.add(n, &format!("pod{n}")));
    settle(&a, &b);
    let seen = on_the_wire(&cluster, &a, &b);
    assert!(seen[0] == 0 && seen[1] > 10, "{seen:?} plain, encapsulated");
    // A pod that sends to the other node's VXLAN port does not get through; to another port it does.
    let node = &cluster.nodes[0];
    let capture = Capture::start(&node.host, "eth0", node.dir.join("forged"));
    let socket = a.netns.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    for port in [4789, 4790] {
        (0..5).for_each(|_| drop(socket.send_to(b"forged", ("10.88.1.2", port))));
    }
    let seen = capture.end(&["udp dst port 4789 and udp[8:4] = 0x666f7267", "udp dst port 4790"]);
    assert_eq!(seen, [0, 5]);
}

/// Everything that somebody else might change under us comes back within a second.
#[test]
fn what_is_tampered_with_comes_back_at_once() {
    let cluster = Cluster::ready("tamper", &[1, 2], &env("Always"));
    let [a, b] = [0, 1].map(|n| cluster.add(n, &format!("pod{n}")));
    settle(&a, &b);
    let host = &cluster.nodes[0].host;
    let routes = |args: &[&str]| host.ip(args);
    let far4 = far_route(&routes(&["-4", "route", "show", "proto", "80"]));
    let far6 = far_route(&routes(&["-6", "route", "show", "proto", "80"]));
    let link = host.link_names("cali").pop().unwrap();
    let pod = a.ip(true).to_string();
    let state = || fingerprint(&cluster, &link);
    let before = state();
    let tampered: Vec<Vec<&str>> = vec![
        vec!["ip", "route", "del", &far4],
        vec!["ip", "-6", "route", "del", &far6],
        vec!["ip", "route", "replace", &far4, "via", "10.88.1.254", "proto", "80", "metric", "2048"],
        vec!["ip", "route", "add", "10.77.0.0/24", "via", "10.88.1.254", "proto", "80", "metric", "2048"],
        vec!["ip", "route", "del", &pod],
        vec!["ip", "addr", "flush", "dev", "vxlan.calico"],
        vec!["ip", "addr", "add", "10.50.99.99/32", "dev", "vxlan.calico"],
        vec!["ip", "link", "set", "vxlan.calico", "down"],
        vec!["ip", "link", "set", "vxlan.calico", "mtu", "1300"],
        vec!["ip", "link", "set", "vxlan.calico", "address", "66:00:00:00:00:01"],
        vec!["ip", "link", "del", "vxlan.calico"],
        vec!["ip", "link", "del", "vxlan-v6.calico"],
        vec!["ip", "neigh", "flush", "nud", "permanent", "dev", "vxlan.calico"],
        vec![
            "sh",
            "-c",
            "bridge fdb show dev vxlan.calico | while read -r mac _; do bridge fdb del \"$mac\" dev vxlan.calico; done",
        ],
        vec!["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"],
        vec!["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding"],
        vec!["sh", "-c", "for f in /proc/sys/net/ipv4/conf/cali*/proxy_arp; do echo 0 > $f; done"],
        vec!["nft", "delete", "table", "inet", "percale-node"],
        vec!["nft", "flush", "ruleset"],
        vec!["nft", "flush", "chain", "inet", "percale-node", "from-pods"],
    ];
    let mut times: Vec<Duration> =
        tampered.iter().map(|args| tamper(&cluster, args, &before, &state)).collect();
    times.sort_unstable();
    println!("restored after {times:?}");
    assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
    settle(&a, &b);
    reaches(&a, &b);
}

fn tamper(cluster: &Cluster, args: &[&str], before: &[String], state: &dyn Fn() -> Vec<String>) -> Duration {
    let host = &cluster.nodes[0].host;
    e2e::netns::must(host.command(args[0]).args(&args[1..]));
    let begun = Instant::now();
    let mut last = state();
    while last != before {
        if begun.elapsed() > LONGEST {
            let lost: Vec<_> = before.iter().filter(|line| !last.contains(line)).collect();
            let extra: Vec<_> = last.iter().filter(|line| !before.contains(line)).collect();
            panic!("{args:?}: lost {lost:#?}, extra {extra:#?}\n{}", cluster.nodes[0].log());
        }
        thread::sleep(Duration::from_millis(20));
        last = state();
    }
    begun.elapsed()
}

fn far_route(routes: &[Value]) -> String {
    let far =
        routes.iter().find(|r| r["gateway"].is_string() && r["dev"].as_str().unwrap().starts_with("vxlan"));
    far.unwrap()["dst"].as_str().unwrap().to_owned()
}

/// Everything of the first node that is ours, as text.
fn fingerprint(cluster: &Cluster, link: &str) -> Vec<String> {
    let host = &cluster.nodes[0].host;
    let text = |line: &str| {
        let out = host.command("sh").args(["-c", line]).output().unwrap();
        String::from_utf8_lossy(&out.stdout)
            .lines()
            .map(|l| format!("{line}: {}", l.trim()))
            .collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for line in [
        "ip route show proto 80",
        "ip -6 route show proto 80",
        "ip route | grep ' cali'",
        "ip -br -o addr show dev vxlan.calico",
        "ip -br -o addr show dev vxlan-v6.calico",
        "ip -d -o link show vxlan.calico | grep -o 'mtu [0-9]*\\|id [0-9]*\\|local [^ ]*\\|UP,LOWER_UP\\|ether [^ ]*'",
        "ip neigh show dev vxlan.calico nud permanent | sort",
        "bridge fdb show dev vxlan.calico | sort",
        "bridge fdb show dev vxlan-v6.calico | sort",
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding",
        &format!("cat /proc/sys/net/ipv4/conf/{link}/forwarding /proc/sys/net/ipv4/conf/{link}/proxy_arp"),
        "nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'",
    ] {
        all.extend(text(line));
    }
    all
}

// REQ: D-16
#[test]
fn no_packet_is_lost_while_the_daemon_is_killed_stopped_and_restarted() {
    let mut cluster = Cluster::ready("restart", &[1, 2], &env("Always"));
    let [a, b] = [0, 1].map(|n| cluster.add(n, &format!("pod{n}")));
    settle(&a, &b);
    let stream = Stream::start(&a, &b);
    let rounds = if bins::full() { 10 } else { 2 };
    for signal in [Signal::KILL, Signal::TERM].into_iter().cycle().take(rounds) {
        for node in &mut cluster.nodes {
            node.end(signal);
            thread::sleep(Duration::from_millis(300));
            node.start();
            node.wait_ready();
        }
    }
    let (sent, lost) = stream.end();
    assert!(sent > 500, "only {sent} packets in all");
    assert_eq!(lost, 0, "of {sent}");
}

#[test]
fn the_store_may_be_away_while_pods_run_start_and_stop() {
    let cluster = Cluster::ready("away", &[1, 2], &env("Always"));
    let [a, b] = [0, 1].map(|n| cluster.add(n, &format!("pod{n}")));
    let leaving = cluster.add(0, "leaving");
    settle(&a, &b);
    let stream = Stream::start(&a, &b);
    cluster.pause_etcd(true);
    let begun = Instant::now();
    // DEL succeeds from the journal; it takes its time to find out that the store is away.
    cluster.del(0, &leaving).unwrap();
    assert_eq!(cluster.nodes[0].host.link_names("cali").len(), 1);
    let away = Duration::from_secs(if bins::full() { 60 } else { 8 });
    thread::sleep(away.saturating_sub(begun.elapsed()));
    cluster.pause_etcd(false);
    let (sent, lost) = stream.end();
    assert_eq!(lost, 0, "of {sent}");
    let mut late = None;
    wait("pods start again", PATIENCE * 2, || {
        late = cluster.try_add(1, &format!("late{}", begun.elapsed().as_millis())).ok();
        late.is_some()
    });
    let late = late.unwrap();
    settle(&a, &late);
    reaches(&a, &late);
}

#[test]
fn a_node_leaves_returns_and_changes_its_address() {
    let mut cluster = Cluster::ready("leaves", &[1, 1, 2], &env("Always"));
    let [a, b, c] = [0, 1, 2].map(|n| cluster.add(n, &format!("pod{n}")));
    settle(&a, &b);
    settle(&a, &c);
    let fdb = |ip: &str| {
        let out =
            cluster.nodes[0].host.command("bridge").args(["fdb", "show", "dev", "vxlan.calico"]).output();
        String::from_utf8_lossy(&out.unwrap().stdout).contains(ip)
    };
    assert!(fdb("10.88.2.3"));
    // It changes its address: the others follow.
    cluster.nodes[2].give_addresses(2, 33);
    wait("the others know the new address", PATIENCE, || fdb("10.88.2.33") && !fdb("10.88.2.3 "));
    settle(&a, &c);
    reaches(&a, &c);
    // It leaves: its routes and its VTEP go, those of others stay.
    cluster.nodes[2].end(Signal::TERM);
    let key = "/calico/resources/v3/projectcalico.org/nodes/node3";
    let node = cluster.stored(key).unwrap();
    cluster.unstore(key);
    let fdb = |ip: &str| {
        let out =
            cluster.nodes[0].host.command("bridge").args(["fdb", "show", "dev", "vxlan.calico"]).output();
        String::from_utf8_lossy(&out.unwrap().stdout).contains(ip)
    };
    wait("the VTEP is gone", PATIENCE, || !fdb("10.88.2.33"));
    assert!(probe::tcp(&a.netns, &c.netns, c.ip(true)).is_err());
    reaches(&a, &b);
    // It returns with its old object.
    cluster.store(key, &node);
    cluster.nodes[2].start();
    settle(&a, &c);
    reaches(&a, &c);
}

// REQ: D-01
// REQ: C-05
#[test]
fn the_mtu_follows_the_hosts_and_running_pods_follow_it() {
    let cluster = Cluster::ready("mtu", &[1, 2], &env("Always"));
    let [a, b] = [0, 1].map(|n| cluster.add(n, &format!("pod{n}")));
    settle(&a, &b);
    assert_eq!((a.mtu, b.mtu), (1430, 1430));
    for node in &cluster.nodes {
        e2e::netns::must(node.host.command("ip").args(["link", "set", "eth0", "mtu", "1400"]));
    }
    let mtu = |pod: &Pod| pod.netns.ip(&["link", "show", "eth0"])[0]["mtu"].as_u64().unwrap();
    wait("pods have the new MTU", PATIENCE, || mtu(&a) == 1330 && mtu(&b) == 1330);
    for node in &cluster.nodes {
        assert_eq!(std::fs::read_to_string(node.dir.join("state/mtu")).unwrap(), "1330");
        let host = node.host.links();
        let end = host.iter().find(|l| l["ifname"].as_str().unwrap().starts_with("cali")).unwrap();
        assert_eq!(end["mtu"], 1330);
    }
    let [a, b] = [a, b].map(|pod| Pod { mtu: 1330, ..pod });
    reaches(&a, &b);
    assert_eq!(cluster.add(0, "new").mtu, 1330);
}

#[test]
fn settings_are_taken_from_the_store_and_bad_ones_are_told() {
    let cluster = Cluster::ready("felix", &[1, 2], &env("Always"));
    let [a, b] = [0, 1].map(|n| cluster.add(n, &format!("pod{n}")));
    settle(&a, &b);
    let settings = |spec: Value| {
        let key = "/calico/resources/v3/projectcalico.org/felixconfigurations/default";
        let object = json!({"kind": "FelixConfiguration", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "default"}, "spec": spec});
        cluster.store(key, &object);
    };
    settings(json!({"vxlanPort": 8472, "vxlanVNI": 77, "ipipMTU": "many", "colour": "red"}));
    let device = || {
        let out = cluster.nodes[0]
            .host
            .command("ip")
            .args(["-d", "link", "show", "vxlan.calico"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    wait("the settings hold", PATIENCE, || device().contains("id 77 ") && device().contains("dstport 8472"));
    settle(&a, &b);
    reaches(&a, &b);
    wait("bad settings are in the log", PATIENCE, || {
        let log = cluster.nodes[0].log();
        log.contains("ipipMTU in FelixConfiguration default")
            && log.contains("colour in FelixConfiguration default")
    });
    assert!(cluster.nodes[0].readiness().ends_with("204"));
}

/// Numbered datagrams every few milliseconds, each sent back; how many did not come back.
struct Stream {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<u32>>,
    echo: thread::JoinHandle<()>,
}

impl Stream {
    fn start(from: &Pod, to: &Pod) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ip = to.ip(true);
        let server = to.netns.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        let port = server.local_addr().unwrap().port();
        let client = from.netns.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        }
        let ended = stop.clone();
        let echo = thread::spawn(move || echo(&server, &ended));
        let sending = client.try_clone().unwrap();
        let ended = stop.clone();
        let sent = thread::spawn(move || send(&sending, ip, port, &ended));
        let ended = stop.clone();
        let received = thread::spawn(move || receive(&client, &ended));
        Self { stop, threads: vec![sent, received], echo }
    }

    /// Sent and lost.
    fn end(self) -> (u32, u32) {
        thread::sleep(Duration::from_millis(300));
        self.stop.store(true, Ordering::Relaxed);
        let counts: Vec<u32> = self.threads.into_iter().map(|t| t.join().unwrap()).collect();
        self.echo.join().unwrap();
        (counts[0], counts[0] - counts[1])
    }
}

fn send(socket: &UdpSocket, ip: IpAddr, port: u16, stop: &AtomicBool) -> u32 {
    let mut number = 0u32;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        socket.send_to(&number.to_be_bytes(), (ip, port)).unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    number
}

/// Ends when nothing came for a while after the stop.
fn receive(socket: &UdpSocket, stop: &AtomicBool) -> u32 {
    let (mut buf, mut count) = ([0; 8], 0);
    loop {
        match socket.recv(&mut buf) {
            Ok(_) => count += 1,
            Err(_) if stop.load(Ordering::Relaxed) => return count,
            Err(_) => {}
        }
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buf = [0; 8];
    loop {
        match socket.recv_from(&mut buf) {
            Ok((len, peer)) => drop(socket.send_to(&buf[..len], peer)),
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(_) => {}
        }
    }
}
