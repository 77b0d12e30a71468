//! What ends a live session and what must not: silence, BFD, NOTIFICATIONs, TTL, passwords, addresses.

#![allow(clippy::unwrap_used)]

use e2e::bgp::{Bird, Fabric, Frr, Node, gateways, ip, soon};
use serde_json::json;
use std::time::{Duration, Instant};

const NET: &str = "192.0.2.0/24";
const TOR: &str = "10.99.0.101";
const BFD: &str = "interval=50ms,multiplier=3";

fn fabric(tag: &str) -> Fabric {
    let fabric = Fabric::new(tag);
    fabric.put("bgpconfigurations", "default", json!({"nodeToNodeMeshEnabled": false}));
    fabric.put("ippools", "v4", json!({"cidr": "10.91.0.0/16"}));
    fabric.put_block(1, "10.91.1.0/26");
    fabric
}

/// A BIRD at number `n` that announces a network, without graceful restart.
fn bird(n: u8, asn: u32, route: &str, neighbor: &str, options: &str) -> String {
    format!(
        "router id 10.99.0.{n};
protocol device {{}}
protocol bfd {{ multihop {{ interval 50 ms; multiplier 3; }}; interface \"eth0\" {{ interval 50 ms; multiplier 3; }}; }}
protocol static s4 {{ ipv4; route {route} unreachable; }}
protocol bgp p4 {{ local as {asn}; neighbor {neighbor}; graceful restart off; connect delay time 1;
  connect retry time 1; error wait time 1, 2; {options} ipv4 {{ import all; export all; next hop self; }}; }}
"
    )
}

fn plain(options: &str) -> String {
    bird(101, 65010, NET, "10.99.0.1 as 64512", options)
}

fn peer(fabric: &Fabric, more: serde_json::Value) {
    let mut spec = json!({"peerIP": TOR, "asNumber": 65010});
    for (name, value) in more.as_object().unwrap() {
        spec[name] = value.clone();
    }
    fabric.put("bgppeers", "tor", spec);
}

fn routed(node: &Node) -> bool {
    !gateways(&node.ns, NET).is_empty()
}

fn await_route(node: &Node) {
    soon("the route is there", || (routed(node), node.ask(&["bgp", "explain", NET]).to_string()));
}

fn await_said(bird: &Bird, words: &str) {
    soon(&format!("BIRD says {words:?}"), || {
        let seen = bird.ask("show protocols all p4");
        (seen.contains(words), seen)
    });
}

fn await_last_error(node: &Node, words: &str) {
    soon(&format!("the node says {words:?}"), || {
        let seen = node.last_error(TOR);
        (seen.contains(words), seen)
    });
}

/// Nobody closes a connection when a cable is cut: both sides count the seconds that the other is silent.
// REQ: B-07
#[test]
fn silence_ends_a_session_after_the_hold_time() {
    let fabric = fabric("hold");
    peer(&fabric, json!({}));
    let node = Node::start(&fabric, 1);
    let bird = Bird::start(&fabric, 101, &plain("hold time 6;"));
    node.await_up(TOR);
    await_route(&node);
    soon("BIRD is told", || (bird.has("10.91.1.0/26"), bird.ask("show route")));
    fabric.cable(101, false);
    let begun = Instant::now();
    soon("the route goes", || (!routed(&node), String::new()));
    // The last keepalive came at most two seconds, a third of the hold time, before the cut.
    let after = begun.elapsed();
    assert!(after > Duration::from_secs(3) && after < Duration::from_secs(8), "{after:?}");
    await_last_error(&node, "HoldTimerExpired (4/0)");
    soon("BIRD gave the session up too", || (!bird.has("10.91.1.0/26"), bird.ask("show route")));
    await_said(&bird, "Hold timer expired");
    fabric.cable(101, true);
    node.await_up(TOR);
    await_route(&node);
}

/// Three packets of 50 ms are missing: FRR's route is gone in less than 250 ms from the cut, and so is ours at FRR.
// REQ: B-08
#[test]
fn bfd_with_frr_finds_a_cut_cable() {
    let fabric = fabric("bfdfrr");
    let bfd = json!({"annotations": {"percale.io/bfd": BFD}});
    fabric.put_with("bgppeers", "frr", bfd, json!({"peerIP": "10.99.0.103", "asNumber": 65011}));
    let node = Node::start(&fabric, 1);
    let frr = Frr::start(&fabric, 103, FRR, FRR_BFD);
    for _ in 0..3 {
        node.await_up("10.99.0.103");
        soon("BFD is up", || {
            (node.peer("10.99.0.103")["bfd"] == "Up", frr.ask("show bfd peers json").to_string())
        });
        await_route(&node);
        soon("FRR is told", || (frr.has("10.91.1.0/26"), String::new()));
        fabric.cable(103, false);
        let begun = Instant::now();
        // The kernel's route is what packets notice; looking takes a few milliseconds.
        while routed(&node) {
            assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
        }
        soon("FRR noticed it as well", || (!frr.has("10.91.1.0/26"), String::new()));
        assert!(begun.elapsed() < Duration::from_secs(3), "not by the hold time");
        fabric.cable(103, true);
    }
}

const FRR: &str = "router bgp 65011
 bgp router-id 10.99.0.103
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart-disable
 neighbor 10.99.0.1 remote-as 64512
 neighbor 10.99.0.1 timers connect 1
 neighbor 10.99.0.1 bfd
 address-family ipv4 unicast
  network 192.0.2.0/24
 exit-address-family
";

const FRR_BFD: &str = "bfd
 peer 10.99.0.1
  receive-interval 50
  transmit-interval 50
  detect-multiplier 3
 exit
exit
";

/// Over a router's worth of distance (RFC 5883): addresses that are on no link, reached through the bridge.
// REQ: B-08
#[test]
fn bfd_over_several_hops() {
    let fabric = fabric("bfdhops");
    let far = "10.98.0.101";
    let bfd = json!({"annotations": {"percale.io/bfd": format!("{BFD},hops=2,ttl=64")}});
    fabric.put_with("bgppeers", "tor", bfd, json!({"peerIP": far, "asNumber": 65010}));
    let node = Node::start(&fabric, 1);
    ip(&node.ns, &format!("route add {far}/32 via {TOR}"));
    let options = format!("source address {far}; multihop 2; bfd on;");
    let mut bird = Bird::prepare(&fabric, 101, &bird(101, 65010, NET, "10.99.0.1 as 64512", &options));
    ip(&bird.ns, &format!("addr add {far}/32 dev lo"));
    bird.begin();
    node.await_up(far);
    soon("BFD is up", || (node.peer(far)["bfd"] == "Up", bird.ask("show bfd sessions")));
    soon("BIRD says so too", || {
        let seen = bird.ask("show bfd sessions");
        (seen.contains("Up"), seen)
    });
    await_route(&node);
    fabric.cable(101, false);
    let begun = Instant::now();
    while routed(&node) {
        assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
    }
}

/// A node whose address comes after its daemon, as from DHCP: BFD begins when it is there.
// REQ: B-08
#[test]
fn bfd_waits_for_the_nodes_address() {
    let fabric = fabric("bfdlate");
    let bfd = json!({"annotations": {"percale.io/bfd": BFD}});
    fabric.put_with("bgppeers", "tor", bfd, json!({"peerIP": TOR, "asNumber": 65010}));
    fabric.put_node(1, json!({}), json!({}));
    let mut node = Node::prepare(&fabric, 1);
    // The store is reached from another one.
    ip(&node.ns, "addr add 10.99.0.201/16 dev eth0");
    ip(&node.ns, "addr del 10.99.0.1/24 dev eth0");
    node.run();
    let bird = Bird::start(&fabric, 101, &plain("bfd on;"));
    soon("the daemon says why there is none", || (node.log().contains("no BFD session yet"), node.log()));
    ip(&node.ns, "addr add 10.99.0.1/24 dev eth0");
    node.await_up(TOR);
    soon("BFD is up", || (node.peer(TOR)["bfd"] == "Up", bird.ask("show bfd sessions")));
}

/// What operators and speakers tell each other at the end of a session is shown at both ends.
// REQ: B-07
#[test]
fn the_reason_of_an_end_is_told_and_shown() {
    let fabric = fabric("notify");
    peer(&fabric, json!({}));
    fabric.put("bgppeers", "frr", json!({"peerIP": "10.99.0.103", "asNumber": 65011}));
    let node = Node::start(&fabric, 1);
    let bird = Bird::start(&fabric, 101, &plain(""));
    let frr = Frr::start(&fabric, 103, FRR, "");
    node.await_up(TOR);
    node.await_up("10.99.0.103");
    await_route(&node);

    bird.ask("disable p4 \"moving-to-rack-7\"");
    await_last_error(&node, r#"Cease(Shutdown) (6/2): "moving-to-rack-7""#);
    soon("its route goes at once", || {
        (gateways(&node.ns, NET) == ["10.99.0.103"], format!("{:?}", gateways(&node.ns, NET)))
    });
    bird.ask("enable p4");
    frr.configure(&["router bgp 65011", "neighbor 10.99.0.1 shutdown message moving to rack 8"]);
    soon("FRR's words are shown", || {
        let seen = node.last_error("10.99.0.103");
        (seen.contains("moving to rack 8"), seen)
    });
    node.await_up(TOR);

    fabric.delete("bgppeers", "tor");
    await_said(&bird, "Received: Peer de-configured");
    peer(&fabric, json!({}));
    node.await_up(TOR);
    // Both sides expect another AS than the other has.
    peer(&fabric, json!({"asNumber": 65099}));
    await_said(&bird, "Received: Bad peer AS");
    await_last_error(&node, "sent Open(PeerAs) (2/2)");
    peer(&fabric, json!({}));
    node.await_up(TOR);
    bird.configure(&bird_of(64999));
    await_last_error(&node, "received Open(PeerAs) (2/2)");
    bird.configure(&plain(""));
    node.await_up(TOR);
}

fn bird_of(node_as: u32) -> String {
    bird(101, 65010, NET, &format!("10.99.0.1 as {node_as}"), "")
}

/// RFC 5082: a packet that crossed a router does not reach the session, whoever connects; BIRD sends with a TTL of 1
/// unless it is told otherwise.
// REQ: B-08
#[test]
fn ttl_security_keeps_the_distant_out() {
    let fabric = fabric("gtsm");
    peer(&fabric, json!({"ttlSecurity": 1}));
    let node = Node::start(&fabric, 1);
    let bird = Bird::start(&fabric, 101, &plain(""));
    soon("a connection from afar is refused", || {
        (node.log().contains("it came with a TTL of 1"), node.log())
    });
    for _ in 0..60 {
        assert!(!node.is_up(TOR) && !bird.is_up("p4"), "packets with a TTL of 1 are not taken");
        std::thread::sleep(Duration::from_millis(50));
    }
    bird.configure(&plain("ttl security on;"));
    node.await_up(TOR);
    await_route(&node);
    // A peer that wants 255 gets it from a node that wants nothing.
    peer(&fabric, json!({}));
    soon("the session is made anew", || (node.is_up(TOR) && bird.is_up("p4"), bird.ask("show protocols")));
}

/// The node's address, or the one that the kernel prefers on the way.
// REQ: B-03
#[test]
fn connections_come_from_the_wanted_address() {
    let fabric = fabric("source");
    peer(&fabric, json!({}));
    let node = Node::start(&fabric, 1);
    ip(&node.ns, "addr add 10.99.0.201/24 dev eth0");
    ip(&node.ns, "route replace 10.99.0.0/24 dev eth0 src 10.99.0.201");
    let conf = |neighbor: &str| bird(101, 65010, NET, neighbor, "passive;");
    let bird = Bird::start(&fabric, 101, &conf("10.99.0.1 as 64512"));
    node.await_up(TOR);
    peer(&fabric, json!({"sourceAddress": "None"}));
    bird.configure(&conf("10.99.0.201 as 64512"));
    soon("the session is up from the other address", || {
        (bird.is_up("p4"), bird.ask("show protocols all p4"))
    });
    node.await_up(TOR);
    soon("the next hop is that address", || {
        let seen = bird.ask("show route 10.91.1.0/26 all");
        (seen.contains("10.99.0.201"), seen)
    });
}

/// A new password for one peer, and nobody else's session ends.
// REQ: B-03
#[test]
fn a_new_password_concerns_its_peer_alone() {
    let fabric = fabric("newkey");
    let password = |key: &str| json!({"password": {"secretKeyRef": {"name": "bgp", "key": key}}});
    peer(&fabric, password("old"));
    let other =
        json!({"peerIP": "10.99.0.102", "asNumber": 65020, "password": password("other")["password"]});
    fabric.put("bgppeers", "other", other);
    fabric.put_node(1, json!({}), json!({}));
    let mut node = Node::prepare(&fabric, 1);
    for key in ["old", "new", "other"] {
        node.secret("bgp", key, &format!("the {key} one"));
    }
    node.run();
    let bird_with = |key: &str| plain(&format!("password \"the {key} one\";"));
    let first = Bird::start(&fabric, 101, &bird_with("old"));
    let options = "password \"the other one\";";
    let _second =
        Bird::start(&fabric, 102, &bird(102, 65020, "198.51.100.0/24", "10.99.0.1 as 64512", options));
    node.await_up(TOR);
    node.await_up("10.99.0.102");
    let since = node.since("10.99.0.102");
    peer(&fabric, password("new"));
    soon("the old password is not taken any more", || (!node.is_up(TOR), String::new()));
    first.configure(&bird_with("new"));
    node.await_up(TOR);
    assert_eq!(node.since("10.99.0.102"), since, "not concerned");
}
