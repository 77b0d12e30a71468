//! BGP resources and Secrets in a Kubernetes cluster, with the rights that the manifests give.

#![allow(clippy::unwrap_used)]

use e2e::bgp::{Bird, Fabric, Node, eventually, soon};
use serde_json::{Value, json};
use std::time::Duration;

const SECRETS: &str = "/api/v1/namespaces/percale-system/secrets";
const STATUSES: &str = "/apis/crd.projectcalico.org/v1/caliconodestatuses";

fn secret(fabric: &Fabric, name: &str, password: &str) {
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"key": password}});
    let cluster = fabric.cluster();
    if cluster.api("POST", SECRETS, Some(&object))["code"] == 409 {
        let changed = cluster.api("PATCH", &format!("{SECRETS}/{name}"), Some(&object));
        assert!(changed["code"].is_null(), "{changed}");
    }
}

fn of_secret(name: &str) -> Value {
    json!({"secretKeyRef": {"name": name, "key": "key"}})
}

fn bird(n: u8, asn: u32, password: &str) -> String {
    format!(
        "router id 10.99.0.{n}; protocol device {{}}
protocol bgp p4 {{ local as {asn}; neighbor 10.99.0.1 as 64512; password \"{password}\"; connect delay time 1;
  connect retry time 1; error wait time 1, 2; ipv4 {{ import all; export all; }}; }}\n"
    )
}

/// When the session with a peer began; the time of a reset would be another.
fn began(node: &Node, peer: &str) -> Value {
    assert!(node.is_up(peer), "{peer}");
    node.peer(peer)["since"].clone()
}

/// Passwords of peers and of the mesh come from Secrets. A Secret that appears or changes concerns its sessions alone.
// REQ: B-03
#[test]
fn passwords_come_from_secrets_and_are_rotated() {
    let fabric = Fabric::kubernetes("secrets");
    secret(&fabric, "mesh", "mesh-one");
    secret(&fabric, "other", "other-one");
    fabric.put("bgpconfigurations", "default", json!({"nodeMeshPassword": of_secret("mesh")}));
    for (name, ip) in [("tor", "10.99.0.101"), ("other", "10.99.0.102")] {
        let spec = json!({"node": "node1", "peerIP": ip, "asNumber": 65010, "password": of_secret(name)});
        fabric.put("bgppeers", name, spec);
    }
    let nodes = [1, 2].map(|n| Node::start(&fabric, n));
    // A node of the cluster whose speaker is BIRD: it shows that the mesh asks for the password.
    fabric.put_node(9, json!({}), json!({}));
    let member = Bird::start(&fabric, 9, &bird(9, 64512, "mesh-one"));
    let tor = Bird::start(&fabric, 101, &bird(101, 65010, "tor-one"));
    let _other = Bird::start(&fabric, 102, &bird(102, 65010, "other-one"));
    for peer in ["10.99.0.102", "10.99.0.2", "fd99::2", "10.99.0.9"] {
        nodes[0].await_up(peer);
    }
    soon("the missing Secret is named", || {
        let status = nodes[0].ask(&["node", "status"]);
        (status["problems"]["bgppeers/tor"].to_string().contains("does not exist"), status.to_string())
    });
    assert!(!nodes[0].is_up("10.99.0.101"));
    assert_eq!(nodes[0].ctl(&["node", "status"]).status.code(), Some(2));

    secret(&fabric, "tor", "tor-one");
    nodes[0].await_up("10.99.0.101");
    assert!(nodes[0].ask(&["node", "status"])["problems"].as_object().unwrap().is_empty());
    let others = ["10.99.0.102", "10.99.0.2", "fd99::2", "10.99.0.9"];
    let before = others.map(|peer| began(&nodes[0], peer));
    secret(&fabric, "tor", "tor-two");
    soon("the old password is no longer good", || {
        (!nodes[0].is_up("10.99.0.101"), tor.ask("show protocols"))
    });
    tor.configure(&bird(101, 65010, "tor-two"));
    nodes[0].await_up("10.99.0.101");
    assert_eq!(others.map(|peer| began(&nodes[0], peer)), before, "other sessions are not touched");

    let peers = ["10.99.0.101", "10.99.0.102"];
    let before = peers.map(|peer| began(&nodes[0], peer));
    secret(&fabric, "mesh", "mesh-two");
    soon("the mesh has another password", || (!nodes[0].is_up("10.99.0.9"), member.ask("show protocols")));
    member.configure(&bird(9, 64512, "mesh-two"));
    for peer in ["10.99.0.2", "fd99::2", "10.99.0.9"] {
        nodes[0].await_up(peer);
    }
    assert_eq!(peers.map(|peer| began(&nodes[0], peer)), before, "peers are not touched");
    for node in &nodes {
        let log = node.log();
        let shown =
            ["mesh-one", "mesh-two", "tor-one", "tor-two", "other-one"].map(|word| log.contains(word));
        assert_eq!(shown, [false; 5], "passwords are never shown");
    }
}

/// One node reflects, another has an AS of its own; both are members of node objects and may change.
fn reflector_and_own_as(fabric: &Fabric, look: impl Fn()) {
    fabric.put("ippools", "v4", json!({"cidr": "10.91.0.0/16"}));
    fabric.put("bgpconfigurations", "default", json!({"nodeToNodeMeshEnabled": false}));
    fabric.put("bgppeers", "rr", json!({"nodeSelector": "!has(rr)", "peerSelector": "has(rr)"}));
    fabric.put_node(1, json!({"rr": "yes"}), json!({"routeReflectorClusterID": "1.0.0.1"}));
    fabric.put_node(2, json!({}), json!({}));
    fabric.put_node(3, json!({}), json!({"asNumber": 65003}));
    let nodes = [1, 2, 3].map(|n| {
        fabric.put_block(n, &format!("10.91.{n}.0/26"));
        let mut node = Node::prepare(fabric, n);
        node.run();
        node
    });
    let path_at = |at: usize, net: &str, wanted: &str, from: &str| {
        soon(&format!("node {} has {net} by {wanted:?}", at + 1), || {
            let found = nodes[at].ask(&["bgp", "explain", net]);
            let best = &found["route"]["paths"][0];
            let is_in_kernel = found["route"]["kernel"] == "installed";
            (is_in_kernel && best["as_path"] == wanted && best["from"] == from, found.to_string())
        });
    };
    path_at(1, "10.91.3.0/26", "65003", "10.99.0.1");
    path_at(2, "10.91.2.0/26", "64512", "10.99.0.1");
    path_at(0, "10.91.3.0/26", "65003", "10.99.0.3");
    let status = nodes[2].ask(&["node", "status"]);
    assert_eq!(
        (&status["local_as"], status["peers"].as_array().unwrap().len()),
        (&json!(65003), 2),
        "{status}"
    );
    look();
    // The same AS as the others: its routes are reflected.
    fabric.put_node(3, json!({}), json!({"asNumber": 64512}));
    path_at(1, "10.91.3.0/26", "", "10.99.0.1");
    path_at(2, "10.91.2.0/26", "", "10.99.0.1");
    // A client of two reflectors hears of each other client by both.
    fabric.put_node(2, json!({"rr": "yes"}), json!({"routeReflectorClusterID": "1.0.0.1"}));
    path_at(2, "10.91.2.0/26", "", "10.99.0.2");
}

// REQ: B-03
#[test]
fn reflectors_and_own_as_numbers_on_etcd() {
    reflector_and_own_as(&Fabric::new("rr"), || {});
}

/// The same on Kubernetes, and what a CalicoNodeStatus tells of it.
// REQ: B-03
#[test]
fn reflectors_and_own_as_numbers_and_status_objects_on_kubernetes() {
    let fabric = Fabric::kubernetes("rr");
    let object = |name: &str, spec: Value| {
        let object = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "CalicoNodeStatus",
            "metadata": {"name": name}, "spec": spec});
        let made = fabric.cluster().api("POST", STATUSES, Some(&object));
        assert!(made["code"].is_null(), "{made}");
    };
    object("all", json!({"node": "node2", "classes": ["Agent", "BGP", "Routes"], "updatePeriodSeconds": 1}));
    object("some", json!({"node": "node2", "classes": ["BGP"]}));
    object("never", json!({"node": "node2", "classes": ["BGP"], "updatePeriodSeconds": 0}));
    object("nobody", json!({"node": "node77", "classes": ["BGP"]}));
    let stored =
        |name: &str| fabric.cluster().api("GET", &format!("{STATUSES}/{name}"), None)["status"].clone();
    reflector_and_own_as(&fabric, || {
        let status = eventually("the status is filled", Duration::from_secs(40), || {
            let status = stored("all");
            let has_route = learnt(&status).is_some_and(|route| route["type"] == "FIB");
            if has_route { Ok(status) } else { Err(status.to_string()) }
        });
        judge_status(&status);
    });
    let some = stored("some");
    assert!(some["bgp"].is_object() && some["routes"].is_null() && some["agent"].is_null(), "{some}");
    assert_eq!((stored("never"), stored("nobody")), (Value::Null, Value::Null));
}

/// The route to node 3's block.
fn learnt(status: &Value) -> Option<&Value> {
    status["routes"]["routesV4"].as_array()?.iter().find(|route| route["destination"] == "10.91.3.0/26")
}

fn judge_status(status: &Value) {
    let bgp = &status["bgp"];
    assert_eq!(
        (&bgp["numberEstablishedV4"], &bgp["numberNotEstablishedV4"]),
        (&json!(1), &json!(0)),
        "{status}"
    );
    let mut peer = bgp["peersV4"][0].clone();
    assert!(peer["since"].take().as_str().unwrap().ends_with('Z'), "{status}");
    let wanted = json!({"peerIP": "10.99.0.1", "type": "NodePeer", "state": "Established", "since": null});
    assert_eq!(peer, wanted);
    assert_eq!(status["agent"]["birdV4"]["state"], "Ready", "{status}");
    assert_eq!(status["agent"]["birdV4"]["routerID"], "10.99.0.2", "{status}");
    let from = &learnt(status).unwrap()["learnedFrom"];
    assert_eq!(*from, json!({"sourceType": "BGPPeer", "peerIP": "10.99.0.1"}), "{status}");
    assert!(status["lastUpdated"].as_str().unwrap().ends_with('Z'), "{status}");
}
