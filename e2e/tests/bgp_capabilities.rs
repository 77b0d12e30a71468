//! What sessions may do beyond telling one path once: refreshes, several paths, limits, routes that outlive a restart.

#![allow(clippy::unwrap_used)]

use e2e::bgp::{Bird, Fabric, Frr, Node, gateways, soon};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// In the pool: other learnt routes are not passed on.
const NET: &str = "10.91.200.0/26";
const OTHER: &str = "10.91.44.0/26";
const OWN: &str = "10.91.1.0/26";

fn fabric(tag: &str) -> Fabric {
    let fabric = Fabric::new(tag);
    fabric.put("bgpconfigurations", "default", json!({"nodeToNodeMeshEnabled": false}));
    fabric.put("ippools", "v4", json!({"cidr": "10.91.0.0/16"}));
    fabric.put_block(1, OWN);
    fabric
}

fn address(n: u8) -> String {
    format!("10.99.0.{n}")
}

fn peer(fabric: &Fabric, n: u8, asn: u32, annotations: Value) {
    let spec = json!({"peerIP": address(n), "asNumber": asn});
    fabric.put_with("bgppeers", &format!("p{n}"), json!({"annotations": annotations}), spec);
}

/// A BIRD at number `n` whose session with the node is called `p4`.
fn bird(n: u8, asn: u32, more: &str, options: &str, channel: &str) -> String {
    format!(
        "router id 10.99.0.{n};
protocol device {{}}
{more}
protocol bgp p4 {{ local as {asn}; neighbor 10.99.0.1 as 64512; connect delay time 1; connect retry time 1;
  error wait time 1, 2; {options} ipv4 {{ {channel} next hop self; }}; }}
"
    )
}

fn statics(nets: &[&str]) -> String {
    let lines: Vec<String> = nets.iter().map(|net| format!("route {net} unreachable;")).collect();
    format!("protocol static s4 {{ ipv4; {} }}", lines.join(" "))
}

/// How many paths a BIRD has to a network.
fn paths(bird: &Bird, net: &str) -> usize {
    bird.ask(&format!("show route {net} all")).matches("BGP.as_path").count()
}

fn await_paths(bird: &Bird, net: &str, wanted: usize) {
    soon(&format!("{wanted} paths to {net}"), || {
        (paths(bird, net) == wanted, bird.ask(&format!("show route {net} all")))
    });
}

/// A peer that refused a route and wants it now asks again (RFC 2918; BIRD marks begin and end, RFC 7313): it gets it, and
/// what it wants no more goes. No session ends for it.
// REQ: B-07
#[test]
fn who_asks_again_is_told_again() {
    let fabric = fabric("refresh");
    fabric.put_block(1, "10.91.2.0/26");
    peer(&fabric, 101, 65010, json!({}));
    peer(&fabric, 103, 65011, json!({}));
    let node = Node::start(&fabric, 1);
    let but = |net: &str| bird(101, 65010, "", "", &format!("import where net != {net}; export none;"));
    let bird = Bird::start(&fabric, 101, &but(OWN));
    let frr = Frr::start(&fabric, 103, FRR, "");
    node.await_up(&address(101));
    node.await_up(&address(103));
    let since = [101, 103].map(|n| node.since(&address(n)));
    let has = |wanted: &str, other: &str| {
        soon("BIRD has what it wants", || {
            (bird.has(wanted) && !bird.has(other), bird.ask("show protocols all p4"))
        });
    };
    has("10.91.2.0/26", OWN);
    let caps = bird.ask("show protocols all p4");
    assert!(caps.contains("Enhanced refresh"), "{caps}");
    bird.configure(&but("10.91.2.0/26"));
    has(OWN, "10.91.2.0/26");

    soon("FRR has one of both", || (frr.has("10.91.2.0/26") && !frr.has(OWN), String::new()));
    frr.configure(&["no ip prefix-list in", "ip prefix-list in permit 10.91.1.0/26"]);
    frr.ask("clear bgp 10.99.0.1 soft in");
    soon("FRR has the other", || (frr.has(OWN) && !frr.has("10.91.2.0/26"), String::new()));
    assert_eq!([101, 103].map(|n| node.since(&address(n))), since, "no session ended");
}

const FRR: &str = "ip prefix-list in deny 10.91.1.0/26
ip prefix-list in permit any
router bgp 65011
 bgp router-id 10.99.0.103
 no bgp ebgp-requires-policy
 neighbor 10.99.0.1 remote-as 64512
 neighbor 10.99.0.1 timers connect 1
 address-family ipv4 unicast
  neighbor 10.99.0.1 prefix-list in in
 exit-address-family
";

/// Two paths from one peer, both told to another (RFC 7911); one is withdrawn, and one stays.
// REQ: B-07
#[test]
fn several_paths_come_from_one_peer_and_go_to_another() {
    let fabric = fabric("addpath");
    peer(&fabric, 103, 65030, json!({}));
    peer(&fabric, 104, 65040, json!({}));
    peer(&fabric, 105, 65050, json!({}));
    let node = Node::start(&fabric, 1);
    let origin = |n: u8, asn: u32| {
        let conf = format!(
            "router id 10.99.0.{n}; protocol device {{}}\n{}\nprotocol bgp p4 {{ local as {asn}; \
             neighbor 10.99.0.103 as 65030; connect delay time 1; connect retry time 1; \
             ipv4 {{ import none; export all; next hop self; }}; }}",
            statics(&[NET])
        );
        Bird::start(&fabric, n, &conf)
    };
    let origins = [origin(101, 65010), origin(102, 65020)];
    let sources = "template bgp feed { local as 65030; passive; ipv4 { import all; export none; }; }
protocol bgp f1 from feed { neighbor 10.99.0.101 as 65010; }
protocol bgp f2 from feed { neighbor 10.99.0.102 as 65020; }";
    let both = "add paths on; import all; export all;";
    let _middle = Bird::start(&fabric, 103, &bird(103, 65030, sources, "", both));
    let several = Bird::start(&fabric, 104, &bird(104, 65040, "", "", both));
    let single = Bird::start(&fabric, 105, &bird(105, 65050, "", "", "import all; export all;"));
    await_paths(&several, NET, 2);
    await_paths(&single, NET, 1);
    let heard = || node.ask(&["bgp", "explain", NET])["route"]["paths"].clone();
    let from_middle = |n: usize| {
        let all = heard();
        let all: Vec<&Value> =
            all.as_array().unwrap().iter().filter(|p| p["from"] == "10.99.0.103").collect();
        all.len() == n
    };
    assert!(from_middle(2), "{}", heard());
    origins[0].ask("disable s4");
    await_paths(&several, NET, 1);
    assert!(from_middle(1), "{}", heard());
    let left = several.ask(&format!("show route {NET} all"));
    assert!(left.contains("64512 65030 65020"), "{left}");
    soon("the only path is told to the other peer too", || {
        let seen = single.ask(&format!("show route {NET} all"));
        (seen.contains("64512 65030 65020"), seen)
    });
    origins[0].ask("enable s4");
    await_paths(&several, NET, 2);
}

/// A peer that tells more than it may loses its session and its routes, and is told why; a higher limit lets it back.
// REQ: B-08
#[test]
fn more_prefixes_than_allowed_end_the_session() {
    let fabric = fabric("limit");
    let limit = |text: &str| peer(&fabric, 101, 65010, json!({"percale.io/max-prefixes": text}));
    limit("2");
    let node = Node::start(&fabric, 1);
    let nets = [NET, OTHER, "203.0.113.0/24"];
    let conf = |nets: &[&str]| bird(101, 65010, &statics(nets), "", "import all; export all;");
    let bird = Bird::start(&fabric, 101, &conf(&nets[..2]));
    let routed = |net: &str| gateways(&node.ns, net) == [address(101)];
    soon("as many as allowed", || {
        (routed(nets[0]) && routed(nets[1]), node.ask(&["bgp", "peers"]).to_string())
    });
    bird.configure(&conf(&nets));
    soon("one more ends the session", || {
        let seen = node.last_error(&address(101));
        (seen.contains("Cease(MaxPrefixes) (6/1)"), seen)
    });
    soon("BIRD is told why", || {
        let seen = bird.ask("show protocols all p4");
        (seen.contains("Maximum number of prefixes reached"), seen)
    });
    soon("its routes are gone", || (!nets.iter().any(|net| routed(net)), String::new()));
    limit("many");
    soon("a limit that is no number is named", || {
        let status = node.ask(&["node", "status"]);
        (status["problems"]["bgppeers/p101"].to_string().contains("max-prefixes"), status.to_string())
    });
    limit("3");
    soon("all three", || (nets.iter().all(|net| routed(net)), node.ask(&["bgp", "peers"]).to_string()));
}

/// A peer that stays away longer than its restart time: its routes stay if both sides do long-lived restarts (RFC 9494), and
/// only peers that do so too are told of them, with the mark; they go where it does not. Both ways.
// REQ: B-08
#[test]
fn routes_outlive_a_long_absence_where_both_sides_agreed() {
    let fabric = fabric("llgr");
    for (n, asn) in [(101, 65010), (102, 65020), (103, 65030), (104, 65040)] {
        let annotations = if n == 104 { json!({}) } else { json!({"percale.io/long-lived-restart": "10m"}) };
        let spec = json!({"peerIP": address(n), "asNumber": asn, "maxRestartTime": "2s"});
        fabric.put_with("bgppeers", &format!("p{n}"), json!({"annotations": annotations}), spec);
    }
    let mut node = Node::start(&fabric, 1);
    let short = "graceful restart on; graceful restart time 2;";
    let long = &format!("{short} long lived graceful restart on; long lived stale time 600;");
    let open = "import all; export all;";
    let start = |n: u8, asn: u32, nets: &str, options: &str| {
        Bird::start(&fabric, n, &bird(n, asn, nets, options, open))
    };
    let mut kept = start(101, 65010, &statics(&[NET]), long);
    let mut lost = start(102, 65020, &statics(&[OTHER]), short);
    let knows = start(103, 65030, "", long);
    let knows_not = start(104, 65040, "", short);
    let routed = |n: u8, net: &str| gateways(&node.ns, net) == [address(n)];
    for bird in [&knows, &knows_not] {
        await_paths(bird, NET, 1);
        await_paths(bird, OTHER, 1);
        await_paths(bird, OWN, 1);
    }
    assert!(routed(101, NET) && routed(102, OTHER));
    kept.stop(Signal::KILL);
    lost.stop(Signal::KILL);
    let begun = Instant::now();
    soon("without long-lived restarts it goes", || (!routed(102, OTHER), String::new()));
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}: not before the restart time", begun.elapsed());
    soon("the mark is told", || {
        let seen = knows.ask(&format!("show route {NET} all"));
        (seen.contains("(65535,6)"), seen)
    });
    await_paths(&knows_not, NET, 0);
    assert!(routed(101, NET), "the kernel keeps it");
    kept.run();
    soon("the peer is back and nothing is stale", || {
        let path = node.ask(&["bgp", "explain", NET])["route"]["paths"][0].clone();
        (path["stale"] == false && routed(101, NET), path.to_string())
    });
    await_paths(&knows_not, NET, 1);

    // The other way round: the daemon is away for longer than its restart time.
    node.stop(Signal::KILL);
    soon("BIRD keeps the block, marked", || {
        let seen = knows.ask(&format!("show route {OWN} all"));
        (seen.contains("(65535,6)"), seen)
    });
    await_paths(&knows_not, OWN, 0);
    node.run();
    soon("the mark goes", || {
        let seen = knows.ask(&format!("show route {OWN} all"));
        (seen.contains(OWN) && !seen.contains("(65535,6)"), seen)
    });
    await_paths(&knows_not, OWN, 1);
}
