//! Which of a node's addresses peers are told of, and what resources say of sessions and routes.

#![allow(clippy::unwrap_used)]

use e2e::bgp::{Bird, Fabric, Node, gateways, ip, soon};
use serde_json::{Value, json};

fn bird(n: u8, asn: u32, node_as: u32, more: &str, export: &str) -> String {
    format!(
        "router id 10.99.0.{n}; protocol device {{}}
{more}
protocol bgp p4 {{ local as {asn}; neighbor 10.99.0.1 as {node_as}; connect delay time 1; connect retry time 1;
  error wait time 1, 2; ipv4 {{ import all; {export} next hop self; }}; }}
"
    )
}

fn statics(routes: &[&str]) -> String {
    let lines: Vec<String> = routes.iter().map(|net| format!("route {net} unreachable;")).collect();
    format!("protocol static s4 {{ ipv4; {} }}", lines.join(" "))
}

fn no_mesh(fabric: &Fabric) {
    fabric.put("bgpconfigurations", "default", json!({"nodeToNodeMeshEnabled": false}));
}

fn await_told(bird: &Bird, net: &str, wanted: bool) {
    soon(&format!("{net} is told: {wanted}"), || (bird.has(net) == wanted, bird.ask("show route")));
}

fn await_in_kernel(node: &Node, net: &str, gateway: Option<&str>) {
    soon(&format!("the kernel's way to {net} is {gateway:?}"), || {
        let seen = gateways(&node.ns, net);
        (
            seen.iter().map(String::as_str).eq(gateway),
            format!("{seen:?} {}", node.ask(&["bgp", "explain", net])),
        )
    });
}

/// A line of what BIRD knows of a route, such as `BGP.community`.
fn await_attribute(bird: &Bird, net: &str, name: &str, wanted: &str) {
    soon(&format!("{name} of {net} is {wanted:?}"), || {
        let all = bird.ask(&format!("show route {net} all"));
        let found = all.lines().find_map(|l| l.trim().strip_prefix(name)?.strip_prefix(": "));
        (found.map(str::trim) == Some(wanted), all)
    });
}

/// Blocks are told whole, those of one address too; an address that was borrowed from another node's block by itself, and
/// the other node's kernel leads to it; nothing of a pool that is not to be exported.
// REQ: B-04
#[test]
fn blocks_borrowed_addresses_and_quiet_pools() {
    let fabric = Fabric::new("routes");
    fabric.put("ippools", "v4", json!({"cidr": "10.91.0.0/16"}));
    fabric.put("ippools", "quiet", json!({"cidr": "10.92.0.0/16", "disableBGPExport": true}));
    fabric.put("bgppeers", "tor", json!({"node": "node1", "peerIP": "10.99.0.101", "asNumber": 65010}));
    for net in ["10.91.1.0/26", "10.91.200.7/32", "10.92.1.0/26"] {
        fabric.put_block(1, net);
    }
    fabric.put_block(2, "10.91.2.0/26");
    let nodes = [1, 2].map(|n| Node::start(&fabric, n));
    let tor = Bird::start(&fabric, 101, &bird(101, 65010, 64512, "", "export none;"));
    nodes[0].await_up("10.99.0.101");
    nodes[0].await_up("10.99.0.2");
    for net in ["10.91.1.0/26", "10.91.200.7/32", "10.91.2.0/26"] {
        await_told(&tor, net, true);
    }
    let pods = ["10.91.1.5", "10.91.200.7", "10.92.1.5", "172.30.0.5", "10.91.2.9"];
    let pods = pods.map(|addr| fabric.pod(&nodes[0], addr.parse().unwrap()));
    await_told(&tor, "10.91.2.9/32", true);
    await_in_kernel(&nodes[1], "10.91.2.9/32", Some("10.99.0.1"));
    await_in_kernel(&nodes[1], "10.91.200.7/32", Some("10.99.0.1"));
    // Told at the same time as the borrowed one, had it been.
    for net in ["10.91.1.5/32", "10.92.1.5/32", "10.92.1.0/26", "172.30.0.5/32"] {
        assert!(!tor.has(net), "{net}: {}", tor.ask("show route"));
    }
    // No dead end stands beside the pod's own route.
    let main = nodes[0].ns.ip(&["route", "get", "10.91.200.7"]);
    assert_eq!(main[0]["dev"], "cali0a5bc807", "{main:?}");
    let reached = nodes[1].ns.command("ping").args(["-c", "1", "-W", "5", "10.91.2.9"]).output().unwrap();
    assert!(reached.status.success(), "{reached:?}");
    fabric.put("ippools", "quiet", json!({"cidr": "10.92.0.0/16", "disableBGPExport": false}));
    await_told(&tor, "10.92.1.0/26", true);
    fabric.put("ippools", "quiet", json!({"cidr": "10.92.0.0/16", "disableBGPExport": true}));
    await_told(&tor, "10.92.1.0/26", false);
    drop(pods);
    await_told(&tor, "10.91.2.9/32", false);
    await_told(&tor, "10.91.200.7/32", true);
}

const SENDER: &str = "filter tell {
  if net = 192.0.2.0/24 then bgp_community.add((65010,7));
  if net = 198.51.100.0/24 then bgp_path.prepend(65020);
  if source = RTS_STATIC then accept; reject; }
";

/// A filter's conditions and operations, both ways. One that cannot be carried out exchanges nothing and says so; a change of
/// filters leaves the session alone.
// REQ: B-08
#[test]
fn filters_refuse_mark_and_prepend() {
    let fabric = Fabric::new("filters");
    no_mesh(&fabric);
    fabric.put("ippools", "v4", json!({"cidr": "10.91.0.0/16"}));
    for net in ["10.91.1.0/26", "10.91.7.0/26"] {
        fabric.put_block(1, net);
    }
    let community = |value: &str| json!({"addCommunity": {"value": value}});
    let prepend = |asns: Value| json!({"prependASPath": {"prefix": asns}});
    let import = json!([
        {"communities": {"values": ["65010:7"]}, "action": "Accept", "operations": [community("65000:1")]},
        {"asPathPrefix": [65010, 65020], "action": "Reject"},
        {"cidr": "10.50.0.0/16", "matchOperator": "In", "prefixLength": {"min": 20, "max": 26}, "action": "Accept",
         "operations": [prepend(json!([65001, 65002]))]},
        {"cidr": "203.0.113.0/24", "matchOperator": "Equal", "peerType": "iBGP", "action": "Accept"},
        {"cidr": "10.60.0.0/16", "matchOperator": "NotIn", "action": "Reject"}]);
    let export = json!([
        {"cidr": "10.91.200.0/24", "matchOperator": "In", "source": "RemotePeers", "action": "Reject"},
        {"cidr": "10.91.1.0/26", "matchOperator": "Equal", "action": "Accept",
         "operations": [community("65000:9"), community("65000:1:2"), prepend(json!([65001]))]},
        {"cidr": "10.91.7.0/24", "matchOperator": "In", "action": "Reject"}]);
    let spec = json!({"importV4": import, "exportV4": export});
    fabric.put("bgpfilters", "f", spec.clone());
    fabric.put("bgppeers", "a", json!({"peerIP": "10.99.0.101", "asNumber": 65010, "filters": ["f"]}));
    fabric.put("bgppeers", "b", json!({"peerIP": "10.99.0.102", "asNumber": 65011}));
    let node = Node::start(&fabric, 1);
    let nets = [
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "10.50.0.0/16",
        "10.50.1.0/24",
        "10.50.2.0/28",
        "10.60.1.0/24",
    ];
    let more = SENDER.to_owned() + &statics(&nets);
    let a = Bird::start(&fabric, 101, &bird(101, 65010, 64512, &more, "export filter tell;"));
    let b = Bird::start(
        &fabric,
        102,
        &bird(102, 65011, 64512, &statics(&["10.91.200.0/26", "10.91.44.0/26"]), "export all;"),
    );
    node.await_up("10.99.0.101");
    node.await_up("10.99.0.102");
    for net in ["192.0.2.0/24", "10.50.1.0/24", "10.60.1.0/24"] {
        await_in_kernel(&node, net, Some("10.99.0.101"));
    }
    for net in ["198.51.100.0/24", "203.0.113.0/24", "10.50.0.0/16", "10.50.2.0/28"] {
        let found = node.ask(&["bgp", "explain", net]);
        assert!(
            found["route"]["paths"][0]["fate"].as_str().unwrap_or_default().starts_with("refused"),
            "{found}"
        );
    }
    let best = |net: &str| node.ask(&["bgp", "explain", net])["route"]["paths"][0].clone();
    assert_eq!(best("192.0.2.0/24")["communities"], json!(["65000:1", "65010:7"]));
    assert_eq!(best("10.50.1.0/24")["as_path"], "65001 65002 65010");
    await_attribute(&a, "10.91.1.0/26", "BGP.community", "(65000,9)");
    await_attribute(&a, "10.91.1.0/26", "BGP.large_community", "(65000, 1, 2)");
    await_attribute(&a, "10.91.1.0/26", "BGP.as_path", "64512 65001");
    await_attribute(&b, "10.91.1.0/26", "BGP.as_path", "64512");
    await_told(&b, "10.91.7.0/26", true);
    await_told(&a, "10.91.44.0/26", true);
    await_told(&a, "10.91.7.0/26", false);
    await_told(&a, "10.91.200.0/26", false);

    let since = node.peer("10.99.0.101")["since"].clone();
    let problem = |what: &str| {
        soon(&format!("the problem is named: {what}"), || {
            let status = node.ask(&["node", "status"]);
            (status["problems"]["bgppeers/a"].to_string().contains(what), status.to_string())
        });
    };
    let mut unknown = spec.clone();
    unknown["exportV4"][0]["phaseOfTheMoon"] = "full".into();
    fabric.put("bgpfilters", "f", unknown);
    problem("phaseOfTheMoon");
    await_told(&a, "10.91.1.0/26", false);
    await_in_kernel(&node, "10.60.1.0/24", None);
    soon("the problem is in the log", || (node.log().contains("phaseOfTheMoon"), node.log()));
    fabric.put("bgpfilters", "f", spec);
    await_told(&a, "10.91.1.0/26", true);
    fabric.delete("bgpfilters", "f");
    problem("does not exist");
    await_told(&a, "10.91.1.0/26", false);
    fabric.put("bgppeers", "a", json!({"peerIP": "10.99.0.101", "asNumber": 65010}));
    await_told(&a, "10.91.7.0/26", true);
    await_in_kernel(&node, "10.50.2.0/28", Some("10.99.0.101"));
    assert_eq!(node.peer("10.99.0.101")["since"], since, "the session was never touched");
}

/// Every member of a peer's resource, seen from the other side.
// REQ: B-03
#[test]
fn what_a_peer_resource_says() {
    let fabric = Fabric::new("peers");
    no_mesh(&fabric);
    fabric.put("ippools", "v4", json!({"cidr": "10.91.0.0/16"}));
    fabric.put_block(1, "10.91.1.0/26");
    let mut spec = json!({"peerIP": "10.99.0.103", "asNumber": 65013, "localASNumber": 65099, "maxRestartTime": "1m17s",
        "ttlSecurity": 1, "sourceAddress": "None"});
    fabric.put("bgppeers", "tor", spec.clone());
    fabric.put("bgppeers", "source", json!({"peerIP": "10.99.0.101", "asNumber": 64512}));
    let far =
        json!({"peerIP": "10.77.0.1", "asNumber": 65014, "reachableBy": "10.99.0.104", "futureMember": 7});
    fabric.put("bgppeers", "far", far);
    let node = Node::start(&fabric, 1);
    let _source =
        Bird::start(&fabric, 101, &bird(101, 64512, 64512, &statics(&["10.91.200.0/26"]), "export all;"));
    // Our own number is in the path of one of its routes.
    let loop_filter = "filter looped { if net = 192.0.2.0/24 then bgp_path.prepend(65099); if source = RTS_STATIC then accept; reject; }\n";
    let more = loop_filter.to_owned() + &statics(&["192.0.2.0/24", "198.51.100.0/24"]);
    let options = bird(103, 65013, 65099, &more, "export filter looped;");
    let tor =
        Bird::start(&fabric, 103, &options.replace("local as 65013;", "local as 65013; ttl security on;"));
    node.await_up("10.99.0.103");
    node.await_up("10.99.0.101");
    await_in_kernel(&node, "198.51.100.0/24", Some("10.99.0.103"));
    let caps = tor.ask("show protocols all p4");
    assert!(caps.contains("Restart time: 77"), "{caps}");
    await_attribute(&tor, "10.91.1.0/26", "BGP.as_path", "65099");
    await_attribute(&tor, "10.91.200.0/26", "BGP.next_hop", "10.99.0.1");
    let since = node.peer("10.99.0.103")["since"].clone();
    soon("our own number in a path refuses it", || {
        let found = node.ask(&["bgp", "explain", "192.0.2.0/24"]);
        (found["route"]["paths"][0]["fate"].to_string().contains("AsLoop"), found.to_string())
    });
    let mut change = |name: &str, value: Value| {
        spec[name] = value;
        fabric.put("bgppeers", "tor", spec.clone());
    };
    change("numAllowedLocalASNumbers", 1.into());
    await_in_kernel(&node, "192.0.2.0/24", Some("10.99.0.103"));
    change("keepOriginalNextHop", true.into());
    await_attribute(&tor, "10.91.200.0/26", "BGP.next_hop", "10.99.0.101");
    change("nextHopMode", "Auto".into());
    await_attribute(&tor, "10.91.200.0/26", "BGP.next_hop", "10.99.0.1");
    change("nextHopMode", "Keep".into());
    await_attribute(&tor, "10.91.200.0/26", "BGP.next_hop", "10.99.0.101");
    change("nextHopMode", "Self".into());
    await_attribute(&tor, "10.91.200.0/26", "BGP.next_hop", "10.99.0.1");
    assert_eq!(node.peer("10.99.0.103")["since"], since, "none of that concerns the session");

    let conf = "router id 10.99.0.104; protocol device {}
protocol bgp p4 { local 10.77.0.1 as 65014; neighbor 10.99.0.1 as 64512; multihop; connect delay time 1; connect retry time 1;
  error wait time 1, 2; ipv4 { import all; export none; }; }\n";
    let far = Bird::start(&fabric, 105, conf);
    ip(&far.ns, "addr add 10.77.0.1/32 dev lo");
    ip(&far.ns, "addr add 10.99.0.104/24 dev eth0");
    await_in_kernel(&node, "10.77.0.1/32", Some("10.99.0.104"));
    node.await_up("10.77.0.1");
    await_told(&far, "10.91.1.0/26", true);
    let status = node.ask(&["node", "status"]);
    assert!(status["problems"]["bgppeers/far"].to_string().contains("futureMember"), "{status}");
}

/// What the configuration says: ports, places, communities, the mesh's restart time, the log; and what it says in vain.
// REQ: B-08
#[test]
fn what_the_configuration_says() {
    let fabric = Fabric::new("config");
    fabric.put("ippools", "v4", json!({"cidr": "10.91.0.0/16"}));
    let mut spec = json!({"asNumber": "1.10", "listenPort": 1790, "bindMode": "NodeIP", "nodeMeshMaxRestartTime": "66s",
        "communities": [{"name": "blue", "value": "65000:7"}],
        "prefixAdvertisements": [{"cidr": "10.91.0.0/16", "communities": ["blue", "1:2:3"]}]});
    fabric.put("bgpconfigurations", "default", spec.clone());
    fabric.put(
        "bgpconfigurations",
        "node.node2",
        json!({"listenPort": 1791,
        "prefixAdvertisements": [{"cidr": "10.91.2.0/24", "communities": ["65000:22"]}]}),
    );
    let nodes = [1, 2].map(|n| {
        fabric.put_block(n, &format!("10.91.{n}.0/26"));
        Node::start(&fabric, n)
    });
    // A member of the mesh whose speaker is BIRD.
    fabric.put_node(9, json!({}), json!({}));
    let of = |n: u8, port: u16| {
        format!("protocol bgp p{n} {{ local as 65546; neighbor 10.99.0.{n} port {port} as 65546; connect delay time 1;
  connect retry time 1; error wait time 1, 2; ipv4 {{ import all; export none; }}; }}\n")
    };
    let conf = format!("router id 10.99.0.9; protocol device {{}}\n{}{}", of(1, 1790), of(2, 1791));
    let member = Bird::start(&fabric, 9, &conf);
    nodes[0].await_up("10.99.0.2");
    nodes[0].await_up("10.99.0.9");
    nodes[1].await_up("10.99.0.9");
    let status = nodes[1].ask(&["node", "status"]);
    assert_eq!(status["listening"], json!(["10.99.0.2:1791", "[fd99::2]:1791"]), "{status}");
    assert_eq!(status["local_as"], 65546, "{status}");
    assert!(member.ask("show protocols all p1").contains("Restart time: 66"));
    await_attribute(&member, "10.91.1.0/26", "BGP.community", "(65000,7)");
    await_attribute(&member, "10.91.1.0/26", "BGP.large_community", "(1, 2, 3)");
    await_attribute(&member, "10.91.2.0/26", "BGP.community", "(65000,22)");

    let since = nodes[0].peer("10.99.0.9")["since"].clone();
    assert!(!nodes[0].log().contains("from no peer"));
    spec["logSeverityScreen"] = "Debug".into();
    spec["programClusterRoutes"] = "Disabled".into();
    spec["prefixAdvertisements"][0]["communities"] = json!(["blue", "green"]);
    fabric.put("bgpconfigurations", "default", spec);
    fabric.put("bgpconfigurations", "node.node1", json!({"asNumber": 65001}));
    fabric.put("bgpconfigurations", "elsewhere", json!({"listenPort": 5}));
    soon("what has no effect is named", || {
        let status = nodes[0].ask(&["node", "status"]);
        let problem = |name: &str| status["problems"][format!("bgpconfigurations/{name}")].to_string();
        let all = problem("default").contains("programClusterRoutes")
            && problem("node.node1").contains("asNumber")
            && problem("elsewhere").contains("no effect");
        (all, status.to_string())
    });
    await_attribute(&member, "10.91.1.0/26", "BGP.community", "(65000,7)");
    let stranger = fabric.host(120);
    soon("the log says more", || {
        let _ = stranger.run(|| std::net::TcpStream::connect("10.99.0.1:1790"));
        (nodes[0].log().contains("from no peer"), String::new())
    });
    assert_eq!(nodes[0].peer("10.99.0.9")["since"], since, "no session is concerned");
}
