//! Several nodes with the shipped daemon, an etcd, and pods of the shipped plugin: what goes over the
//! wire, and what happens when nodes, addresses, the store or the kernel change.

#![allow(clippy::unwrap_used)]

use e2e::nodes::{Capture, Cluster, Node, PATIENCE, Pod, Stream, reaches, settle, wait};
use e2e::{bins, probe};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::UdpSocket;
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
    cluster.nodes.iter().for_each(check_privileges);
}

/// Every thread of the daemon has the capabilities that it needs, and can get no others, nor can what it runs.
fn check_privileges(node: &Node) {
    // NET_BIND_SERVICE, NET_ADMIN, SYS_PTRACE, SYS_ADMIN, DAC_OVERRIDE of capabilities(7).
    let kept = [10, 12, 19, 21, 1].iter().fold(0u64, |all, bit| all | 1 << bit);
    let expected = [("CapInh", 0), ("CapPrm", kept), ("CapEff", kept), ("CapBnd", kept), ("CapAmb", 0)];
    let threads = std::fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap();
    for thread in threads {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        for (name, bits) in expected {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            assert_eq!(line, Some(format!("{bits:016x}").as_str()), "{name}");
        }
    }
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
    // What a pod encapsulates itself does not get through, what it sends to another port does.
    assert_eq!(forged(&cluster, &a), [0, 0, 5]);
    let allowed = json!({"allowVXLANPacketsFromWorkloads": true, "allowIPIPPacketsFromWorkloads": true});
    cluster.store(FELIX, &felix(allowed));
    let (begun, mut seen) = (Instant::now(), forged(&cluster, &a));
    while seen != [5, 5, 5] && begun.elapsed() < PATIENCE {
        seen = forged(&cluster, &a);
    }
    assert_eq!(seen, [5, 5, 5], "they are allowed");
}

/// How many of five packets of VXLAN, of IPIP and of neither, all made by the pod, leave its node.
fn forged(cluster: &Cluster, pod: &Pod) -> Vec<usize> {
    let node = &cluster.nodes[0];
    let capture = Capture::start(&node.host, "eth0", node.dir.join("forged"));
    let socket = pod.netns.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    for port in [4789, 4790] {
        (0..5).for_each(|_| drop(socket.send_to(b"forged", ("10.88.1.2", port))));
    }
    let raw = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_RAW, 4)\n\
               for _ in range(5): s.sendto(b'forged', ('10.88.1.2', 0))";
    e2e::netns::must(pod.netns.command("python3").args(["-c", raw]));
    capture.end(&[
        "udp dst port 4789 and udp[8:4] = 0x666f7267",
        "ip proto 4 and ip[20:4] = 0x666f7267",
        "udp dst port 4790",
    ])
}

const FELIX: &str = "/calico/resources/v3/projectcalico.org/felixconfigurations/default";

fn felix(spec: Value) -> Value {
    json!({"kind": "FelixConfiguration", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "default"}, "spec": spec})
}

// REQ: A-03
#[test]
fn blocks_of_one_address_are_routed_and_not_blackholed() {
    let mut env = env("CrossSubnet");
    env.extend([("CALICO_IPV4POOL_BLOCK_SIZE", "32"), ("CALICO_IPV6POOL_BLOCK_SIZE", "128")]);
    let cluster = Cluster::ready("single", &[1, 1, 2], &env);
    let [a, b, c] = [0, 1, 2].map(|n| cluster.add(n, &format!("pod{n}")));
    settle(&a, &b);
    settle(&a, &c);
    reaches(&a, &b);
    reaches(&c, &a);
    for family in ["-4", "-6"] {
        let routes =
            cluster.nodes[0].host.ip(&[family, "route", "show", "table", "main", "type", "blackhole"]);
        assert_eq!(routes, Vec::<Value>::new());
    }
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
    let in_place = "nft replace rule inet percale-node from-pods handle $(nft -a list table inet percale-node | \
        sed -n 's/.*dport 4789 counter.*iifname.*# handle //p; s/.*iifname.*dport 4789.*# handle //p') counter accept"
        .to_owned();
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
        // As many rules as before.
        vec!["sh", "-c", &in_place],
        vec!["nft", "add chain inet percale pod-guard { policy drop; }"],
        vec!["nft", "add table inet percale-node { flags dormant; }"],
    ];
    let mut times: Vec<Duration> =
        tampered.iter().map(|args| tamper(&cluster, args, &before, &state)).collect();
    let flush = ["nft", "flush", "ruleset"];
    let flushes = (0..5).map(|_| tamper(&cluster, &flush, &before, &state)).min().unwrap();
    assert!(flushes < Duration::from_secs(1), "our rules were back after {flushes:?}");
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
        "nft --stateless list table inet percale",
        "nft --stateless list table inet percale-node",
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
    assert!(sent > 100 * rounds as u32, "only {sent} packets in all");
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
    // An ADD is told to come again, and leaves nothing.
    let told = cluster.try_add(1, "early").map(|pod| pod.addresses);
    assert!(told.as_ref().is_err_and(|told| told["code"] == 11), "{told:?}");
    assert_eq!(cluster.nodes[1].host.link_names("cali").len(), 1);
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
// REQ: D-02
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
    // An interface of a less common name counts as well.
    let ip = |args: &[&str]| e2e::netns::must(cluster.nodes[0].host.command("ip").args(args));
    ip(&["link", "add", "ibp5s0", "mtu", "1380", "type", "veth", "peer", "name", "far"]);
    ip(&["link", "set", "ibp5s0", "up"]);
    wait("the smaller MTU holds", PATIENCE, || mtu(&a) == 1310);
}

#[test]
fn settings_are_taken_from_the_store_and_bad_ones_are_told() {
    let cluster = Cluster::ready("felix", &[1, 2], &env("Always"));
    let [a, b] = [0, 1].map(|n| cluster.add(n, &format!("pod{n}")));
    settle(&a, &b);
    let spec = json!({"vxlanPort": 8472, "vxlanVNI": 77, "ipipMTU": "many", "colour": "red"});
    cluster.store(FELIX, &felix(spec));
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
    assert!(cluster.nodes[0].readiness().ends_with("204"), "bad settings do not make a node unready");
    let (code, told) = node_status(&cluster.nodes[0]);
    assert!(code == 2 && told.contains("ready\nwrong: "), "{code}: {told}");
    assert!(told.contains("ipipMTU") && told.contains("colour") && told.contains("BGP: off"), "{told}");
    cluster.store(FELIX, &felix(json!({"vxlanPort": 8472, "vxlanVNI": 77})));
    wait("nothing is wrong any more", PATIENCE, || node_status(&cluster.nodes[0]).0 == 0);
}

/// `percalectl node status`, as an administrator on the node sees it.
fn node_status(node: &Node) -> (i32, String) {
    let mut command = node.host.command(e2e::nodes::bin("percalectl"));
    let out =
        command.args(["node", "status", "--bgp-socket"]).arg(node.dir.join("bgp.sock")).output().unwrap();
    (out.status.code().unwrap(), String::from_utf8_lossy(&out.stdout).into_owned())
}

// REQ: D-12
#[test]
fn background_work_is_one_line_a_minute() {
    let cluster = Cluster::ready("summary", &[1], &env("Always"));
    let node = &cluster.nodes[0];
    let lines = || node.log().lines().filter(|line| line.contains("Summarising ")).count();
    // Work that comes back again and again.
    wait("the first line", Duration::from_secs(80), || {
        e2e::netns::must(node.host.command("ip").args(["link", "set", "vxlan.calico", "down"]));
        thread::sleep(Duration::from_millis(900));
        lines() > 0
    });
    assert_eq!(lines(), 1);
    let log = node.log();
    let line = log.lines().find(|line| line.contains("Summarising ")).unwrap();
    let rounds = line.split("Summarising ").nth(1).and_then(|rest| rest.split(' ').next());
    assert!(rounds.unwrap().parse::<u32>().unwrap() > 10, "{line}");
    assert!(line.contains(" dataplane reconciliation loops over ") && line.contains("(resync"), "{line}");
    let others = log.lines().filter(|line| line.contains("INFO") && line.contains("resync")).count();
    assert_eq!(others, 1, "no line for each round");
}

/// What Prometheus reads, under Calico's names where it has the metric; and the page is as it should be.
#[test]
fn metrics_tell_of_the_kernel_and_the_pods() {
    let cluster = Cluster::ready("metrics", &[1], &env("Always"));
    cluster.add(0, "pod");
    let text = cluster.nodes[0].metrics();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    };
    assert!(value("felix_int_dataplane_apply_time_seconds_count") >= 1.0);
    assert!(value("percale_node_routes") >= 2.0, "the blocks of both families");
    assert!(value("percale_cni_requests_total") == 1.0 && value("percale_cni_errors_total") == 0.0);
    assert!(value("percale_ipam_commits_total") >= 1.0);
    let readme = std::fs::read_to_string(bins::workspace().join("dataplane/README.md")).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let untold: Vec<&str> = names.filter(|name| !readme.contains(&format!("`{name}`"))).collect();
    assert_eq!(untold, Vec::<&str>::new(), "metrics that dataplane/README.md does not explain");
}
