//! The status of a CalicoNodeStatus (modern data model 5.4), from what the speaker answers.

use crate::control::{Peer, Route, Status};
use serde_json::{Map, Value, json};

/// The `status` member for the asked classes. `moment` writes seconds since the Unix epoch as text.
pub fn node_status(
    classes: &[String],
    status: &Status,
    routes: &[Route],
    now: u64,
    moment: impl Fn(u64) -> String,
) -> Value {
    let mut all = Map::new();
    all.insert("lastUpdated".into(), moment(now).into());
    let has = |class: &str| classes.iter().any(|c| c == class);
    if has("Agent") {
        let agent = agent(status, &moment);
        all.insert("agent".into(), json!({"birdV4": agent, "birdV6": agent}));
    }
    if has("BGP") {
        all.insert("bgp".into(), bgp(&status.peers, &moment));
    }
    if has("Routes") {
        let of = |v6| {
            routes
                .iter()
                .filter(|r| r.prefix.contains(':') == v6)
                .map(|r| route(r, status))
                .collect::<Vec<_>>()
        };
        all.insert("routes".into(), json!({"routesV4": of(false), "routesV6": of(true)}));
    }
    Value::Object(all)
}

fn agent(status: &Status, moment: &impl Fn(u64) -> String) -> Value {
    let state = if status.router_id.is_empty() || status.restarting { "NotReady" } else { "Ready" };
    json!({
        "state": state,
        "version": format!("percale {}", status.version),
        "routerID": status.router_id,
        "lastBootTime": moment(status.started),
        "lastReconfigurationTime": moment(status.configured),
    })
}

fn bgp(peers: &[Peer], moment: &impl Fn(u64) -> String) -> Value {
    let mut all = Map::new();
    for (family, v6) in [("V4", false), ("V6", true)] {
        let of: Vec<&Peer> = peers.iter().filter(|p| p.address.contains(':') == v6).collect();
        let up = of.iter().filter(|p| p.state == "Established").count();
        let line = |p: &&Peer| json!({"peerIP": p.address, "type": p.kind, "state": p.state, "since": moment(p.since)});
        all.insert(format!("numberEstablished{family}"), up.into());
        all.insert(format!("numberNotEstablished{family}"), (of.len() - up).into());
        all.insert(format!("peers{family}"), of.iter().map(line).collect());
    }
    Value::Object(all)
}

fn route(r: &Route, status: &Status) -> Value {
    let from = r.paths.first().map(|p| p.from.as_str()).unwrap_or_default();
    let peer = status.peers.iter().find(|p| p.address == from);
    let learned = match peer {
        None => json!({"sourceType": "Static"}),
        Some(p) if p.kind == "NodeMesh" => json!({"sourceType": "NodeMesh", "peerIP": p.address}),
        Some(p) => json!({"sourceType": "BGPPeer", "peerIP": p.address}),
    };
    json!({
        "type": if r.kernel == "installed" { "FIB" } else { "RIB" },
        "destination": r.prefix,
        "gateway": r.next_hops.first().cloned().unwrap_or_default(),
        "interface": "",
        "learnedFrom": learned,
    })
}
