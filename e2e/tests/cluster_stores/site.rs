//! A node of a cluster with pods of one family, and what the store holds of them.

#![allow(dead_code, reason = "each test program uses some of it")]

use e2e::cluster::{Cluster, Kind, Node, percalectl, soon};
use e2e::{Bed, Network};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

pub const NETWORK: &str = "k8s-pod-network";

/// A node, and its network of one family.
pub struct Site {
    pub bed: Bed,
    pub node: Node,
    pub cluster: Arc<Cluster>,
}

impl Site {
    pub fn new(cluster: &Arc<Cluster>, kind: Kind, tag: &str) -> Self {
        let bed = Bed::new(tag);
        let node = Node::join(cluster, kind, &bed);
        Self { bed, node, cluster: cluster.clone() }
    }

    pub fn network(&self) -> Network<'_> {
        let mut plugin = self.node.plugin(&self.bed);
        plugin["ipam"]["assign_ipv6"] = json!("false");
        Network::new(&self.bed, NETWORK, vec![plugin])
    }

    pub fn put(&self, key: &str, value: Option<Value>) {
        self.cluster.put(self.node.kind, key, value);
    }

    /// Keys and values under a prefix.
    pub fn list(&self, prefix: &str) -> Vec<(String, Value)> {
        let listed = self.cluster.store(self.node.kind).list(prefix, soon()).unwrap();
        listed.into_iter().map(|entry| (entry.key, serde_json::from_slice(&entry.value).unwrap())).collect()
    }

    pub fn block_of(&self, ip: IpAddr) -> (String, Value) {
        let holds = |value: &Value| {
            let cidr: ipnet::IpNet = value["cidr"].as_str().unwrap().parse().unwrap();
            cidr.contains(&ip)
        };
        self.list("/calico/ipam/v2/assignment/").into_iter().find(|(_, value)| holds(value)).unwrap()
    }

    pub fn claims(&self) -> Vec<(String, Value)> {
        self.list(&format!("/calico/ipam/v2/host/{}/", self.node.name))
    }

    /// What the audit finds, and its exit status.
    pub fn check(&self, fix: bool) -> (Value, Option<i32>) {
        let args: &[&str] =
            if fix { &["ipam", "check", "-o", "json", "--fix"] } else { &["ipam", "check", "-o", "json"] };
        let out = percalectl(&self.bed, &self.node, args, "");
        let told = String::from_utf8_lossy(&out.stdout);
        let report = serde_json::from_slice(&out.stdout);
        let report =
            report.unwrap_or_else(|e| panic!("{e}: {told} {}", String::from_utf8_lossy(&out.stderr)));
        (report, out.status.code())
    }
}

/// A block of a host with one address, in the pool of a node that is there.
pub fn block_of_host(cidr: &str, host: &str, handle: &str, attrs: Value) -> Value {
    let mut allocations = vec![Value::Null; 16];
    allocations[0] = json!(0);
    json!({
        "cidr": cidr, "affinity": format!("host:{host}"), "allocations": allocations,
        "unallocated": (1..16).collect::<Vec<_>>(), "deleted": false,
        "attributes": [{"handle_id": handle, "secondary": attrs}],
    })
}

/// The items of a list in a report, by the text of one member.
pub fn items<'r>(report: &'r Value, list: &str, member: &str) -> Vec<&'r str> {
    let all = report[list].as_array().unwrap_or_else(|| panic!("{list}: {report}"));
    all.iter().map(|item| item[member].as_str().unwrap_or_default()).collect()
}
