//! What sessions are made of: the mesh, reflectors, passwords, several paths, BFD, messages that are wrong.

#![allow(clippy::unwrap_used)]

use e2e::bgp::{Bird, Fabric, Node, Process, gateways, ip, soon};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn no_mesh(fabric: &Fabric) {
    fabric.put("bgpconfigurations", "default", json!({"nodeToNodeMeshEnabled": false}));
}

fn bird(n: u8, asn: u32, route: &str, options: &str) -> String {
    format!(
        "router id 10.99.0.{n};
protocol device {{}}
protocol bfd {{ interface \"eth0\" {{ interval 50 ms; multiplier 3; }}; }}
protocol static s4 {{ ipv4; route {route} unreachable; }}
protocol bgp p4 {{ local as {asn}; neighbor 10.99.0.1 as 64512; connect delay time 1; connect retry time 1;
  error wait time 1, 2; {options} ipv4 {{ import all; export all; next hop self; }}; }}
"
    )
}

fn await_gateways(node: &Node, net: &str, wanted: &[&str]) {
    soon(&format!("{} routes {net} to {wanted:?}", node.name), || {
        let seen = gateways(&node.ns, net);
        (seen == wanted, format!("{seen:?} {}", node.ask(&["bgp", "explain", net])))
    });
}

/// Nodes find each other from their objects alone. A change that does not concern a session leaves it alone;
/// a node that becomes a reflector leaves the mesh, and its clients hear of each other through it.
// REQ: B-03, B-04
#[test]
fn the_mesh_and_then_a_reflector() {
    let fabric = Fabric::new("mesh");
    fabric.put("ippools", "v4", json!({"cidr": "10.91.0.0/16"}));
    fabric.put("ippools", "v6", json!({"cidr": "fd91::/48"}));
    for n in [1, 2, 3] {
        fabric.put_block(n, &format!("10.91.{n}.0/26"));
        fabric.put_block(n, &format!("fd91::{n}:0/122"));
    }
    fabric.put_block(2, "10.91.200.7/32");
    let nodes = [1, 2, 3].map(|n| Node::start(&fabric, n));
    let all_routed = || {
        for (node, n) in nodes.iter().zip(1..) {
            for m in (1..=3).filter(|m| *m != n) {
                await_gateways(node, &format!("10.91.{m}.0/26"), &[&format!("10.99.0.{m}")]);
                await_gateways(node, &format!("fd91::{m}:0/122"), &[&format!("fd99::{m}")]);
            }
        }
        await_gateways(&nodes[0], "10.91.200.7/32", &["10.99.0.2"]);
    };
    all_routed();
    let since = nodes[0].peer("10.99.0.2")["since"].clone();
    fabric.put("bgppeers", "elsewhere", json!({"peerIP": "10.99.0.77", "asNumber": 65077}));
    fabric.put_block(3, "10.91.33.0/26");
    await_gateways(&nodes[0], "10.91.33.0/26", &["10.99.0.3"]);
    fabric.delete_block(3, "10.91.33.0/26");
    await_gateways(&nodes[0], "10.91.33.0/26", &[]);
    assert_eq!(nodes[0].peer("10.99.0.2")["since"], since, "not concerned");
    fabric.delete("bgppeers", "elsewhere");

    fabric.put_node(1, json!({"rr": "yes"}), json!({"routeReflectorClusterID": "1.0.0.1"}));
    no_mesh(&fabric);
    fabric.put("bgppeers", "rr", json!({"nodeSelector": "!has(rr)", "peerSelector": "has(rr)"}));
    soon("only the reflector is a peer", || {
        let peers = nodes[1].ask(&["bgp", "peers"]);
        let addresses: Vec<&Value> = peers.as_array().unwrap().iter().map(|p| &p["address"]).collect();
        (addresses == ["10.99.0.1", "fd99::1"], peers.to_string())
    });
    all_routed();
    let explained = nodes[1].ask(&["bgp", "explain", "10.91.3.1"]);
    assert_eq!(explained["route"]["paths"][0]["from"], "10.99.0.1", "{explained}");
}

/// The same password on both sides, a wrong one, and the right one again.
// REQ: B-03
#[test]
fn a_password_is_needed_and_must_be_the_right_one() {
    let fabric = Fabric::new("md5");
    no_mesh(&fabric);
    let password = json!({"secretKeyRef": {"name": "bgp", "key": "tor"}});
    fabric.put("bgppeers", "tor", json!({"peerIP": "10.99.0.101", "asNumber": 65010, "password": password}));
    fabric.put_node(1, json!({}), json!({}));
    let mut node = Node::prepare(&fabric, 1);
    node.secret("bgp", "tor", "right\n");
    node.run();
    let conf = |key: &str| bird(101, 65010, "192.0.2.0/24", &format!("password \"{key}\";"));
    let bird = Bird::start(&fabric, 101, &conf("right"));
    node.await_up("10.99.0.101");
    await_gateways(&node, "192.0.2.0/24", &["10.99.0.101"]);
    bird.configure(&conf("wrong"));
    soon("the session is lost", || (!node.is_up("10.99.0.101"), String::new()));
    std::thread::sleep(Duration::from_secs(4));
    assert!(!node.is_up("10.99.0.101") && !bird.is_up("p4"), "without the right password nothing is up");
    bird.configure(&conf("right"));
    node.await_up("10.99.0.101");
    std::fs::set_permissions(
        node.path("secrets/bgp/tor"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    soon("the reason is shown", || {
        let status = node.ask(&["node", "status"]);
        (status["problems"]["bgppeers/tor"].to_string().contains("0600"), status.to_string())
    });
}

/// Equal paths become one route with several next hops, which shrinks and grows; outside changes are undone.
// REQ: D-04
#[test]
fn equal_paths_share_the_traffic() {
    let fabric = Fabric::new("ecmp");
    no_mesh(&fabric);
    for n in [101, 102] {
        fabric.put(
            "bgppeers",
            &format!("tor{n}"),
            json!({"peerIP": format!("10.99.0.{n}"), "asNumber": 65010}),
        );
    }
    let node = Node::start(&fabric, 1);
    let birds = [101, 102].map(|n| Bird::start(&fabric, n, &bird(n, 65010, "192.0.2.0/24", "")));
    await_gateways(&node, "192.0.2.0/24", &["10.99.0.101", "10.99.0.102"]);
    birds[0].ask("disable s4");
    await_gateways(&node, "192.0.2.0/24", &["10.99.0.102"]);
    birds[0].ask("enable s4");
    await_gateways(&node, "192.0.2.0/24", &["10.99.0.101", "10.99.0.102"]);
    for tampering in
        ["route del 192.0.2.0/24 proto 179", "route replace 192.0.2.0/24 via 10.99.0.77 proto 179 metric 32"]
    {
        ip(&node.ns, tampering);
        let begun = Instant::now();
        await_gateways(&node, "192.0.2.0/24", &["10.99.0.101", "10.99.0.102"]);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}

/// Three packets of 50 ms are missing: the session is down in less than 250 ms from the cut.
// REQ: B-08
#[test]
fn bfd_finds_a_cut_cable() {
    let fabric = Fabric::new("bfd");
    no_mesh(&fabric);
    let bfd = json!({"annotations": {"percale.io/bfd": "interval=50ms,multiplier=3"}});
    fabric.put_with("bgppeers", "tor", bfd, json!({"peerIP": "10.99.0.101", "asNumber": 65010}));
    let node = Node::start(&fabric, 1);
    let bird = Bird::start(&fabric, 101, &bird(101, 65010, "192.0.2.0/24", "graceful restart off; bfd on;"));
    for _ in 0..3 {
        node.await_up("10.99.0.101");
        soon("BFD is up", || (node.peer("10.99.0.101")["bfd"] == "Up", bird.ask("show bfd sessions")));
        soon("the route is there", || (!gateways(&node.ns, "192.0.2.0/24").is_empty(), String::new()));
        fabric.cable(101, false);
        let begun = Instant::now();
        // The kernel's route is what packets notice; looking takes a few milliseconds.
        while !gateways(&node.ns, "192.0.2.0/24").is_empty() {
            assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
        }
        fabric.cable(101, true);
    }
}

/// What a script of exabgp sends: a malformed attribute costs its route, not the session; a broken header ends it
/// with the right NOTIFICATION, and the next session is as good as the first.
// REQ: B-07
#[test]
fn malformed_messages_cost_what_they_must_and_no_more() {
    let fabric = Fabric::new("exabgp");
    no_mesh(&fabric);
    fabric.put("bgppeers", "exabgp", json!({"peerIP": "10.99.0.105", "asNumber": 65013}));
    let node = Node::start(&fabric, 1);
    let ns = fabric.host(105);
    let conf = fabric.path("exabgp.conf");
    std::fs::write(&conf, EXABGP).unwrap();
    let mut command = ns.command("exabgp");
    command.arg(&conf).env("exabgp.daemon.user", "root").env("exabgp.api.cli", "false");
    command.env("exabgp.daemon.drop", "false");
    let _exabgp = Process::start(&mut command, &fabric.path("exabgp.log"));
    node.await_up("10.99.0.105");
    await_gateways(&node, "192.0.2.0/24", &["10.99.0.105"]);
    soon("the malformed route is logged", || (node.log().contains("malformed BGP UPDATE"), node.log()));
    assert!(gateways(&node.ns, "198.51.100.0/24").is_empty(), "its routes are taken for withdrawn");
    assert!(node.is_up("10.99.0.105"), "the session lives (RFC 7606)");
}

/// AIGP with a length that does not fit, and ORIGIN with an unknown value.
const EXABGP: &str = "neighbor 10.99.0.1 {
  router-id 10.99.0.105;
  local-address 10.99.0.105;
  local-as 65013;
  peer-as 64512;
  family { ipv4 unicast; }
  static {
    route 192.0.2.0/24 next-hop 10.99.0.105;
    route 198.51.100.0/24 next-hop 10.99.0.105 attribute [ 0x08 0xc0 0x010203 ];
  }
}
";
