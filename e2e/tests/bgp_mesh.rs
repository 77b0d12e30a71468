//! Nodes among each other and beside Calico's BIRD: the mesh, restarts, and what a change costs.

#![allow(clippy::unwrap_used)]

use e2e::bgp::scripted::{Heard, Scripted, UPDATE};
use e2e::bgp::{Bird, Fabric, Monitor, Node, gateways, soon};
use rustix::process::Signal;
use serde_json::json;
use std::time::Duration;

fn block(n: u8) -> String {
    format!("10.91.{n}.0/26")
}

fn fabric(tag: &str, nodes: &[u8]) -> Fabric {
    let fabric = Fabric::new(tag);
    fabric.put("ippools", "v4", json!({"cidr": "10.91.0.0/16"}));
    nodes.iter().for_each(|n| fabric.put_block(*n, &block(*n)));
    fabric
}

fn await_routes(node: &Node, others: &[u8]) {
    for n in others {
        let (net, gateway) = (block(*n), format!("10.99.0.{n}"));
        soon(&format!("{} routes {net}", node.name), || {
            let seen = gateways(&node.ns, &net);
            (seen == [gateway.clone()], format!("{seen:?} {}", node.ask(&["bgp", "explain", &net])))
        });
    }
}

/// A BIRD as Calico's templates configure it for a node of the mesh: passive towards the addresses that are greater
/// as text.
fn calico_bird(n: u8, others: &[u8]) -> String {
    let own = format!("10.99.0.{n}");
    let mesh: String = others
        .iter()
        .map(|other| {
            let addr = format!("10.99.0.{other}");
            let passive = if addr > own { "passive on;" } else { "" };
            format!("protocol bgp Mesh_{other} from bgp_template {{ neighbor {addr} as 64512; {passive} }}\n")
        })
        .collect();
    format!(
        "router id {own};
protocol direct {{ ipv4; interface \"lo\", \"eth0\"; }}
protocol device {{ scan time 2; }}
protocol static {{ ipv4; route {} blackhole; }}
protocol kernel {{ persist; merge paths on; ipv4 {{ import none; export where source = RTS_BGP; }}; }}
template bgp bgp_template {{
  local as 64512; multihop; source address {own}; graceful restart;
  connect delay time 2; connect retry time 5; error wait time 5, 30;
  ipv4 {{ gateway recursive; import all; export where source = RTS_STATIC; add paths on; }};
}}
{mesh}",
        block(n)
    )
}

/// A cluster in the middle of a take-over: some nodes run Percale, one still Calico's BIRD. Everybody reaches
/// everybody, sessions come up at the first attempt, and a daemon that restarts disturbs nobody.
// REQ: B-03, B-05, B-07
#[test]
fn a_mesh_of_ours_and_bird() {
    let fabric = fabric("mixed", &[1, 2, 3]);
    // In the middle of the order: it connects to one of ours and waits for the other.
    fabric.put_node(2, json!({}), json!({}));
    let mut nodes = [1, 3].map(|n| Node::start(&fabric, n));
    let bird = Bird::start(&fabric, 2, &calico_bird(2, &[1, 3]));
    await_routes(&nodes[0], &[2, 3]);
    await_routes(&nodes[1], &[1, 2]);
    for n in [1, 3] {
        soon("BIRD's kernel has the route", || {
            let seen = gateways(&bird.ns, &block(n));
            (seen == [format!("10.99.0.{n}")], format!("{seen:?} {}", bird.ask("show protocols")))
        });
    }
    let monitors = [&nodes[0].ns, &nodes[1].ns, &bird.ns].map(|ns| Monitor::start(&fabric, ns, ns.name()));
    nodes[0].stop(Signal::KILL);
    nodes[0].run();
    nodes[0].await_up("10.99.0.2");
    nodes[0].await_up("10.99.0.3");
    // Longer than the wait for a peer that restarts.
    std::thread::sleep(Duration::from_secs(7));
    for monitor in &monitors {
        assert_eq!(monitor.changes(), Vec::<String>::new());
    }
    for (node, net) in [(&nodes[0], 3), (&nodes[1], 1)] {
        assert!(node.is_up("10.99.0.2"), "{}", node.ask(&["node", "status"]));
        await_routes(node, &[2, net]);
    }
}

/// An upgrade that takes two nodes at once: each waits for the other, and no route goes on any node meanwhile.
// REQ: B-05
#[test]
fn two_nodes_that_restart_together_change_no_route() {
    let fabric = fabric("together", &[1, 2, 3]);
    let mut nodes = [1, 2, 3].map(|n| Node::start(&fabric, n));
    await_routes(&nodes[0], &[2, 3]);
    await_routes(&nodes[1], &[1, 3]);
    await_routes(&nodes[2], &[1, 2]);
    let namespaces = [0, 1, 2].map(|i| nodes[i].ns.name().to_owned());
    let monitors = [0, 1, 2].map(|i| Monitor::start(&fabric, &nodes[i].ns, &namespaces[i]));
    for (first, second, signal) in [(0, 1, Signal::KILL), (1, 0, Signal::TERM)] {
        nodes[first].stop(signal);
        nodes[second].stop(signal);
        nodes[first].run();
        nodes[second].run();
        for (node, peer) in [(0, "10.99.0.2"), (0, "10.99.0.3"), (1, "10.99.0.1"), (1, "10.99.0.3")] {
            nodes[node].await_up(peer);
        }
        for i in [first, second] {
            soon("the wait is over", || {
                let status = nodes[i].ask(&["node", "status"]);
                (status["restarting"] == false, status.to_string())
            });
        }
        for monitor in &monitors {
            assert_eq!(monitor.changes(), Vec::<String>::new(), "{signal:?}");
        }
    }
}

/// Without graceful restart a peer's routes go with its session, and come back with it.
// REQ: B-07
#[test]
fn a_peer_without_graceful_restart_takes_its_routes_along() {
    let fabric = fabric("plain", &[1]);
    fabric.put("bgpconfigurations", "default", json!({"nodeToNodeMeshEnabled": false}));
    fabric.put("bgppeers", "tor", json!({"peerIP": "10.99.0.101", "asNumber": 65010}));
    let node = Node::start(&fabric, 1);
    let mut bird = Bird::start(&fabric, 101, PLAIN_BIRD);
    let routed = || gateways(&node.ns, "192.0.2.0/24") == ["10.99.0.101"];
    for signal in [Signal::KILL, Signal::TERM] {
        soon("the route is there", || (routed(), node.ask(&["bgp", "peers"]).to_string()));
        bird.stop(signal);
        soon("the route is gone", || (!routed(), node.ask(&["bgp", "peers"]).to_string()));
        bird.run();
    }
    soon("the route is back", || (routed(), node.ask(&["bgp", "peers"]).to_string()));
}

const PLAIN_BIRD: &str = "router id 10.99.0.101;
protocol device {}
protocol static s4 { ipv4; route 192.0.2.0/24 unreachable; }
protocol bgp p4 { local as 65010; neighbor 10.99.0.1 as 64512; graceful restart off; connect delay time 1;
  connect retry time 1; error wait time 1, 2; ipv4 { import all; export all; next hop self; }; }
";

/// Octets that a peer hears after a change: of the changed prefix, and nothing else.
// REQ: B-04
#[test]
fn a_change_tells_only_what_changed() {
    let fabric = fabric("diff", &[1]);
    fabric.put("bgpconfigurations", "default", json!({"nodeToNodeMeshEnabled": false}));
    (10..60).for_each(|n| fabric.put_block(1, &block(n)));
    fabric.put("bgppeers", "scripted", json!({"peerIP": "10.99.0.107", "asNumber": 65017}));
    let node = Node::start(&fabric, 1);
    let ns = fabric.host(107);
    soon("it listens", || {
        (!node.ask(&["node", "status"])["listening"].as_array().is_none_or(Vec::is_empty), String::new())
    });
    let mut peer = Scripted::connect(&ns, [10, 99, 0, 107].into(), 65017, [10, 99, 0, 1].into()).unwrap();
    let told = heard(&mut peer, Duration::from_secs(3));
    assert_eq!(told.iter().map(|(announced, _)| *announced).sum::<usize>(), 51, "all blocks at first");
    fabric.put_block(1, &block(77));
    assert_eq!(heard(&mut peer, Duration::from_secs(2)), [(1, 0)], "one block more");
    fabric.delete_block(1, &block(20));
    assert_eq!(heard(&mut peer, Duration::from_secs(2)), [(0, 1)], "one block less");
    // A resource that says nothing about routes, and a session that is none of this peer's business.
    fabric.put("bgppeers", "elsewhere", json!({"peerIP": "10.99.0.77", "asNumber": 65077}));
    assert_eq!(heard(&mut peer, Duration::from_secs(2)), []);
    // A filter takes one prefix away, without a new session.
    fabric.put(
        "bgpfilters",
        "no30",
        json!({"exportV4": [{"action": "Reject", "matchOperator": "Equal", "cidr": block(30)}]}),
    );
    let spec = json!({"peerIP": "10.99.0.107", "asNumber": 65017, "filters": ["no30"]});
    fabric.put("bgppeers", "scripted", spec);
    assert_eq!(heard(&mut peer, Duration::from_secs(2)), [(0, 1)], "what the filter refuses");
}

/// Announced and withdrawn /26s of each UPDATE, until it is quiet for so long.
fn heard(peer: &mut Scripted, quiet: Duration) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    loop {
        match peer.hear(quiet) {
            Heard::Message(UPDATE, body) => {
                let withdrawn = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let attributes = usize::from(u16::from_be_bytes([body[withdrawn + 2], body[withdrawn + 3]]));
                let announced = body.len() - 4 - withdrawn - attributes;
                // A /26 takes five octets; an End-of-RIB has none.
                all.extend((announced + withdrawn > 0).then_some((announced / 5, withdrawn / 5)));
            }
            Heard::Message(..) => {}
            Heard::Silence => return all,
            Heard::End => panic!("the session ended"),
        }
    }
}
