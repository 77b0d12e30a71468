//! Whatever the order of changes, the wish is the one that follows from what is known at the end, and
//! the deltas name everything that differs on the way.

#![allow(clippy::unwrap_used)]

use ipnet::IpNet;
use model::node::NodeField;
use model::resource::{IpPoolSpec, NodeSpec};
use model::{Attribute, Block, Change, Family, IpPool, Node};
use policy::config::Sources;
use policy::{Graph, Via, Wish};
use proptest::prelude::*;
use std::collections::BTreeMap;

const MODES: [(&str, &str); 5] = [
    ("Never", "Never"),
    ("Always", "Never"),
    ("CrossSubnet", "Never"),
    ("Never", "Always"),
    ("Never", "CrossSubnet"),
];

fn pool(cidr: &str, mode: usize, nat: bool) -> IpPool {
    let (vxlan, ipip) = MODES[mode % MODES.len()];
    let spec = IpPoolSpec {
        cidr: cidr.to_owned(),
        vxlan_mode: vxlan.to_owned(),
        ipip_mode: ipip.to_owned(),
        nat_outgoing: nat,
        ..IpPoolSpec::default()
    };
    IpPool::new(&model::keys::cidr_name(&cidr.parse().unwrap()), spec)
}

/// Nodes 0 to 2 are in one subnet, 3 and 4 in another. `tunnels`: it has its tunnel addresses.
fn node(number: u8, tunnels: bool, keys: bool) -> Node {
    let mut node = Node::new(&format!("n{number}"), NodeSpec::default());
    let subnet = if number < 3 { 1 } else { 2 };
    NodeField::Address(Family::V4).set(&mut node, Some(&format!("192.0.{subnet}.{}/24", number + 1)));
    NodeField::Address(Family::V6).set(&mut node, Some(&format!("2001:db8:{subnet}::{}/64", number + 1)));
    if tunnels {
        NodeField::Vxlan(Family::V4).set(&mut node, Some(&format!("10.0.{number}.0")));
        NodeField::Vxlan(Family::V6).set(&mut node, Some(&format!("fd00::{number}:0")));
        NodeField::Ipip.set(&mut node, Some(&format!("10.0.{number}.1")));
    }
    if keys {
        NodeField::WireguardKey(Family::V4).set(&mut node, Some(&format!("key{}=", number % 4)));
    }
    node
}

fn cidr(number: u8) -> IpNet {
    match number % 4 {
        0 => format!("fd00::{number}:0/122").parse().unwrap(),
        1 => format!("10.1.{number}.7/32").parse().unwrap(),
        _ => format!("10.0.{number}.0/26").parse().unwrap(),
    }
}

fn block(number: u8, owner: Option<u8>, users: &[u8]) -> Block {
    let mut block = Block::new(cidr(number), owner.map(|n| format!("host:n{n}")));
    for (ordinal, user) in users.iter().take(block.size()).enumerate() {
        let attrs = BTreeMap::from([
            ("node".to_owned(), format!("n{user}")),
            ("ifname".to_owned(), "eth0".to_owned()),
        ]);
        block.attributes.push(Attribute::new(Some(&format!("net.c{ordinal}")), attrs));
        block.allocations[ordinal] = Some(ordinal as u32);
        block.unallocated.retain(|free| *free != ordinal as u32);
    }
    block
}

fn change() -> impl Strategy<Value = Change> {
    let pools = (0..3u8, proptest::option::of((0..5usize, any::<bool>()))).prop_map(|(which, content)| {
        let cidr = ["10.0.0.0/16", "10.1.0.0/16", "fd00::/64"][which as usize];
        let pool = content.map(|(mode, nat)| Box::new(pool(cidr, mode, nat)));
        Change::Pool { name: model::keys::cidr_name(&cidr.parse().unwrap()), pool }
    });
    let nodes =
        (0..5u8, proptest::option::of((any::<bool>(), any::<bool>()))).prop_map(|(number, content)| {
            let node = content.map(|(tunnels, keys)| Box::new(node(number, tunnels, keys)));
            Change::Node { name: format!("n{number}"), node }
        });
    let users = proptest::collection::vec(0..5u8, 0..4);
    let blocks = (0..12u8, proptest::option::of((proptest::option::of(0..5u8), users))).prop_map(
        |(number, content)| {
            let block = content.map(|(owner, users)| Box::new(block(number, owner, &users)));
            Change::Block { cidr: cidr(number), block }
        },
    );
    let felix = (0..4u8).prop_map(|n| {
        let settings = match n {
            0 => serde_json::json!({"vxlanEnabled": false}),
            1 => serde_json::json!({"wireguardEnabled": true}),
            2 => serde_json::json!({"vxlanPort": 4790, "allowIPIPPacketsFromWorkloads": true}),
            _ => serde_json::json!({}),
        };
        let spec = model::felix::FelixSpec { settings: settings.as_object().unwrap().clone() };
        let config = model::felix::FelixConfiguration::new("default", spec);
        Change::Felix { name: "default".to_owned(), config: Some(Box::new(config)) }
    });
    prop_oneof![2 => pools, 3 => nodes, 4 => blocks, 1 => felix]
}

fn key(change: &Change) -> String {
    match change {
        Change::Pool { name, .. } => format!("p{name}"),
        Change::Node { name, .. } => format!("n{name}"),
        Change::Block { cidr, .. } => format!("b{cidr}"),
        Change::Felix { name, .. } => format!("f{name}"),
        Change::Masquerade { network, .. } => format!("m{network}"),
    }
}

fn graph(bgp: bool) -> Graph {
    Graph::new("n0", bgp, Sources::default())
}

/// Everything that differs between two wishes is named by the delta between them.
fn check_delta(before: &Wish, graph: &Graph, delta: &policy::Delta) {
    let after = graph.wish();
    let routes = before.routes.keys().chain(after.routes.keys());
    for dst in routes.filter(|dst| before.routes.get(dst) != after.routes.get(dst)) {
        assert!(delta.routes.contains(dst), "route {dst}");
    }
    for key in before.vteps.keys().chain(after.vteps.keys()) {
        assert!(before.vteps.get(key) == after.vteps.get(key) || delta.vteps.contains(key), "VTEP {key:?}");
    }
    for ip in before.workloads.keys().chain(after.workloads.keys()) {
        assert!(before.workloads.get(ip) == after.workloads.get(ip) || delta.workloads.contains(ip), "{ip}");
    }
    assert!(delta.links || (before.vxlan == after.vxlan && before.ipip == after.ipip));
    assert!(delta.wireguard || before.wireguard == after.wireguard);
    assert!(delta.rules || before.rules == after.rules);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_wish_does_not_depend_on_the_way(changes in proptest::collection::vec((change(), any::<bool>()), 1..40), bgp: bool) {
        let mut stepwise = graph(bgp);
        stepwise.flush();
        let mut before = stepwise.wish().clone();
        let mut last = BTreeMap::new();
        for (change, flush) in changes {
            last.insert(key(&change), change.clone());
            stepwise.apply(change);
            if flush {
                let delta = stepwise.flush();
                check_delta(&before, &stepwise, &delta);
                before = stepwise.wish().clone();
            }
        }
        stepwise.flush();
        let mut at_once = graph(bgp);
        last.into_values().rev().for_each(|change| at_once.apply(change));
        at_once.flush();
        prop_assert_eq!(stepwise.wish(), at_once.wish());
        prop_assert!(stepwise.flush().is_empty());
    }
}

fn known(changes: Vec<Change>, bgp: bool) -> Graph {
    let mut graph = graph(bgp);
    changes.into_iter().for_each(|change| graph.apply(change));
    graph.flush();
    graph
}

fn cluster(mode: usize, bgp: bool) -> Graph {
    let pool = pool("10.0.0.0/16", mode, true);
    let mut changes = vec![Change::Pool { name: pool.name().to_owned(), pool: Some(Box::new(pool)) }];
    changes.extend(
        (0..5).map(|n| Change::Node { name: format!("n{n}"), node: Some(Box::new(node(n, true, false))) }),
    );
    // Block 2 is ours with an address lent to n3; 3 is n1's with one of ours and one of n4's; 6 is n3's.
    for (number, owner, users) in [(2, 0, vec![0, 3]), (3, 1, vec![1, 0, 4]), (6, 3, vec![3])] {
        let block = Some(Box::new(block(number, Some(owner), &users)));
        changes.push(Change::Block { cidr: cidr(number), block });
    }
    known(changes, bgp)
}

fn route(graph: &Graph, dst: &str) -> Option<Via> {
    graph.wish().routes.get(&dst.parse::<IpNet>().unwrap()).copied()
}

#[test]
fn vxlan_always_goes_through_the_tunnel_and_across_subnets_only_where_asked() {
    let always = cluster(1, false);
    assert_eq!(route(&always, "10.0.2.0/26"), Some(Via::Blackhole));
    assert_eq!(route(&always, "10.0.3.0/26"), Some(Via::Vxlan("10.0.1.0".parse().unwrap())));
    assert_eq!(route(&always, "10.0.6.0/26"), Some(Via::Vxlan("10.0.3.0".parse().unwrap())));
    let cross = cluster(2, true);
    assert_eq!(route(&cross, "10.0.3.0/26"), Some(Via::Direct("192.0.1.2".parse().unwrap())));
    assert_eq!(route(&cross, "10.0.6.0/26"), Some(Via::Vxlan("10.0.3.0".parse().unwrap())));
}

#[test]
fn borrowed_addresses_have_routes_of_their_own_and_ours_none() {
    let graph = cluster(1, false);
    assert_eq!(route(&graph, "10.0.2.1/32"), Some(Via::Vxlan("10.0.3.0".parse().unwrap())));
    assert_eq!(route(&graph, "10.0.3.2/32"), Some(Via::Vxlan("10.0.4.0".parse().unwrap())));
    assert_eq!(route(&graph, "10.0.3.1/32"), None);
    let held: Vec<String> = graph.wish().workloads.keys().map(ToString::to_string).collect();
    assert_eq!(held, ["10.0.2.0", "10.0.3.1"]);
}

#[test]
fn without_a_tunnel_only_the_own_subnet_is_routed_unless_bgp_does_it() {
    let plain = cluster(0, false);
    assert_eq!(route(&plain, "10.0.3.0/26"), Some(Via::Direct("192.0.1.2".parse().unwrap())));
    assert_eq!(route(&plain, "10.0.6.0/26"), None);
    let bgp = cluster(0, true);
    assert_eq!((route(&bgp, "10.0.3.0/26"), route(&bgp, "10.0.2.0/26")), (None, Some(Via::Blackhole)));
}

#[test]
fn ipip_goes_to_the_node_itself() {
    let ipip = cluster(3, false);
    assert_eq!(route(&ipip, "10.0.3.0/26"), Some(Via::Ipip("192.0.1.2".parse().unwrap())));
    let cross = cluster(4, false);
    assert_eq!(route(&cross, "10.0.3.0/26"), Some(Via::Direct("192.0.1.2".parse().unwrap())));
    assert_eq!(route(&cross, "10.0.6.0/26"), Some(Via::Ipip("192.0.2.4".parse().unwrap())));
}

#[test]
fn a_change_of_one_block_touches_that_block_alone() {
    let mut graph = cluster(1, false);
    graph.apply(Change::Block { cidr: cidr(6), block: Some(Box::new(block(6, Some(4), &[]))) });
    let delta = graph.flush();
    assert_eq!(delta.routes.into_iter().collect::<Vec<_>>(), [cidr(6)]);
    assert!(!delta.rules && !delta.links && delta.vteps.is_empty() && !delta.mtu);
}

/// A route of a block of one address is that address's, not a blackhole (blocks of /32 and /128).
#[test]
fn an_own_block_of_one_address_is_no_blackhole() {
    let graph =
        known(vec![Change::Block { cidr: cidr(1), block: Some(Box::new(block(1, Some(0), &[0]))) }], false);
    assert_eq!(graph.wish().routes.len(), 0);
    assert_eq!(graph.wish().workloads.len(), 1);
}

/// A key that two nodes claim is used by none (as Felix's).
#[test]
fn wireguard_peers_have_keys_of_their_own() {
    let felix = |on: bool| {
        let spec = model::felix::FelixSpec {
            settings: serde_json::json!({"wireguardEnabled": on}).as_object().unwrap().clone(),
        };
        let config = model::felix::FelixConfiguration::new("default", spec);
        Change::Felix { name: "default".into(), config: Some(Box::new(config)) }
    };
    let mut changes = vec![felix(true)];
    // n0 and n4 have one key.
    changes.extend(
        [0, 1, 2, 4]
            .map(|n| Change::Node { name: format!("n{n}"), node: Some(Box::new(node(n, true, n != 2))) }),
    );
    changes.extend([(2, 0), (3, 1), (6, 2), (7, 4)].map(|(number, owner)| Change::Block {
        cidr: cidr(number),
        block: Some(Box::new(block(number, Some(owner), &[]))),
    }));
    let mut graph = known(changes, true);
    let wish = &graph.wish().wireguard[&Family::V4];
    assert_eq!(wish.peers.keys().collect::<Vec<_>>(), ["key1="]);
    assert_eq!(wish.peers["key1="].allowed, [cidr(3)].into());
    assert_eq!(wish.throw, [cidr(2), cidr(6), cidr(7)].into());
    graph.apply(felix(false));
    assert!(graph.flush().wireguard && graph.wish().wireguard.is_empty());
}
