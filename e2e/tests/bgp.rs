//! BGP sessions with the speakers of others, and the kernel's routes that follow from them.

#![allow(clippy::unwrap_used)]

use e2e::bgp::{Bird, Fabric, Frr, Gobgp, Node, gateways, soon};
use serde_json::json;

const NO_MESH: &str = r#"{"nodeToNodeMeshEnabled": false, "asNumber": 64512}"#;

fn no_mesh(fabric: &Fabric) {
    fabric.put("bgpconfigurations", "default", serde_json::from_str(NO_MESH).unwrap());
}

fn pools(fabric: &Fabric) {
    fabric.put("ippools", "v4", json!({"cidr": "10.91.0.0/16"}));
    fabric.put("ippools", "v6", json!({"cidr": "fd91::/48"}));
}

fn blocks(fabric: &Fabric, n: u8) {
    fabric.put_block(n, &format!("10.91.{n}.0/26"));
    fabric.put_block(n, &format!("fd91::{n:x}:0/122"));
}

fn peer_with(fabric: &Fabric, name: &str, n: u8, asn: u32) {
    for (suffix, ip) in [("v4", format!("10.99.0.{n}")), ("v6", format!("fd99::{n:x}"))] {
        fabric.put("bgppeers", &format!("{name}-{suffix}"), json!({"peerIP": ip, "asNumber": asn}));
    }
}

fn bird_conf(n: u8, asn: u32, node_as: u32) -> String {
    format!(
        "router id 10.99.0.{n};
protocol device {{}}
protocol static s4 {{ ipv4; route 192.0.2.0/24 unreachable; }}
protocol static s6 {{ ipv6; route 2001:db8:2::/48 unreachable; }}
protocol bgp p4 {{ local as {asn}; neighbor 10.99.0.1 as {node_as}; graceful restart on; connect delay time 1; connect retry time 1;
  ipv4 {{ import all; export all; next hop self; }}; }}
protocol bgp p6 {{ local as {asn}; neighbor fd99::1 as {node_as}; graceful restart on; connect delay time 1; connect retry time 1;
  ipv6 {{ import all; export all; next hop self; }}; }}
"
    )
}

/// Both families, internal and external; what the peer tells enters the kernel, what the node has is told.
// REQ: B-07
#[test]
fn bird_internal_and_external() {
    let fabric = Fabric::new("bird");
    no_mesh(&fabric);
    pools(&fabric);
    blocks(&fabric, 1);
    peer_with(&fabric, "internal", 101, 64512);
    peer_with(&fabric, "external", 102, 65010);
    let node = Node::start(&fabric, 1);
    let internal = Bird::start(&fabric, 101, &bird_conf(101, 64512, 64512));
    let external = Bird::start(&fabric, 102, &bird_conf(102, 65010, 64512));
    for peer in ["10.99.0.101", "fd99::65", "10.99.0.102", "fd99::66"] {
        node.await_up(peer);
    }
    for bird in [&internal, &external] {
        for net in ["10.91.1.0/26", "fd91::1:0/122"] {
            soon("BIRD is told of the node's blocks", || (bird.has(net), bird.ask("show route")));
        }
    }
    let leads_to = |net: &str, gateway: &str| {
        soon("the kernel has the route", || {
            let seen = gateways(&node.ns, net);
            (seen == [gateway], format!("{seen:?} {}", node.ask(&["bgp", "explain", net])))
        });
    };
    fabric.put(
        "caliconodestatuses",
        "mine",
        json!({"node": "node1", "classes": ["Agent", "BGP", "Routes"], "updatePeriodSeconds": 1}),
    );
    soon("the node's status object is filled", || {
        let status = fabric.get("caliconodestatuses", "mine")["status"].clone();
        let up = (&status["bgp"]["numberEstablishedV4"], &status["bgp"]["numberEstablishedV6"]);
        let is_ready = status["agent"]["birdV4"]["state"] == "Ready";
        (is_ready && up == (&json!(2), &json!(2)), status.to_string())
    });
    // The shorter path.
    leads_to("192.0.2.0/24", "10.99.0.101");
    leads_to("2001:db8:2::/48", "fd99::65");
    internal.ask("disable p4");
    leads_to("192.0.2.0/24", "10.99.0.102");
    leads_to("2001:db8:2::/48", "fd99::65");
    internal.ask("enable p4");
    leads_to("192.0.2.0/24", "10.99.0.101");
}

// REQ: B-07
#[test]
fn frr_and_gobgp() {
    let fabric = Fabric::new("frr");
    no_mesh(&fabric);
    pools(&fabric);
    blocks(&fabric, 1);
    peer_with(&fabric, "frr", 103, 65011);
    peer_with(&fabric, "gobgp", 104, 65012);
    let node = Node::start(&fabric, 1);
    let frr = Frr::start(&fabric, 103, FRR, "");
    let gobgp = Gobgp::start(&fabric, 104, GOBGP);
    for peer in ["10.99.0.103", "fd99::67", "10.99.0.104", "fd99::68"] {
        node.await_up(peer);
    }
    gobgp.must("global rib add 198.51.100.0/24 -a ipv4");
    gobgp.must("global rib add 2001:db8:4::/48 nexthop fd99::68 -a ipv6");
    for net in ["10.91.1.0/26", "fd91::1:0/122"] {
        soon("FRR is told", || (frr.has(net), frr.ask("show bgp ipv4 unicast json").to_string()));
        soon("GoBGP is told", || (gobgp.has(net), gobgp.run("global rib").unwrap_or_default()));
    }
    for (net, gateway) in [
        ("192.0.2.0/24", "10.99.0.103"),
        ("2001:db8:2::/48", "fd99::67"),
        ("198.51.100.0/24", "10.99.0.104"),
        ("2001:db8:4::/48", "fd99::68"),
    ] {
        soon("the kernel has the route", || {
            let seen = gateways(&node.ns, net);
            (seen == [gateway], format!("{net}: {seen:?} {}", node.ask(&["bgp", "explain", net])))
        });
    }
    gobgp.must("global rib del 198.51.100.0/24 -a ipv4");
    soon("a withdrawn route leaves the kernel", || {
        (gateways(&node.ns, "198.51.100.0/24").is_empty(), String::new())
    });
}

const FRR: &str = "router bgp 65011
 bgp router-id 10.99.0.103
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 10.99.0.1 remote-as 64512
 neighbor 10.99.0.1 timers connect 2
 neighbor fd99::1 remote-as 64512
 neighbor fd99::1 timers connect 2
 address-family ipv4 unicast
  network 192.0.2.0/24
  no neighbor fd99::1 activate
 exit-address-family
 address-family ipv6 unicast
  network 2001:db8:2::/48
  neighbor fd99::1 activate
 exit-address-family
";

const GOBGP: &str = r#"
[global.config]
  as = 65012
  router-id = "10.99.0.104"
[[neighbors]]
  [neighbors.config]
    neighbor-address = "10.99.0.1"
    peer-as = 64512
  [neighbors.timers.config]
    connect-retry = 2
[[neighbors]]
  [neighbors.config]
    neighbor-address = "fd99::1"
    peer-as = 64512
  [neighbors.timers.config]
    connect-retry = 2
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv6-unicast"
"#;
