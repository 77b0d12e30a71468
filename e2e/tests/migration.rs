//! From host-local to pools of the cluster, on a node whose pods go on running.

#![allow(clippy::unwrap_used)]

use e2e::cluster::{Cluster, Kind, Node, key, soon};
use e2e::cnirun::finish;
use e2e::{Attachment, Bed, Network};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

const NETWORK: &str = "k8s-pod-network";
/// Pods that run when the change begins.
const RUNNING: usize = 20;

struct Change {
    bed: Bed,
    node: Node,
    /// Addresses that host-local gave, by container.
    leases: BTreeMap<String, String>,
}

impl Change {
    /// A node with host-local's directory.
    fn on(cluster: &Arc<Cluster>, kind: Kind, tag: &str) -> Self {
        let bed = Bed::new(tag);
        let node = Node::join(cluster, kind, &bed);
        let pool = value(&node, &key("ippools", &node.pool("v4")));
        let base = pool["spec"]["cidr"].as_str().unwrap().replace(".0/24", "");
        let leases: BTreeMap<String, String> =
            (0..RUNNING).map(|n| (format!("running-{n}"), format!("{base}.{}", 10 + n * 3))).collect();
        for (container, ip) in &leases {
            bed.write(&format!("hostlocal/{NETWORK}/{ip}"), format!("{container}\r\neth0"));
        }
        bed.write(&format!("hostlocal/{NETWORK}/last_reserved_ip.0"), "10.0.0.1");
        bed.write(&format!("hostlocal/{NETWORK}/lock"), "");
        Self { bed, node, leases }
    }

    fn network(&self) -> Network<'_> {
        let mut plugin = self.node.plugin(&self.bed);
        plugin["ipam"]["dataDir"] = json!(self.bed.path("hostlocal"));
        plugin["ipam"]["assign_ipv6"] = json!("false");
        Network::new(&self.bed, NETWORK, vec![plugin])
    }

    fn info(&self) -> Value {
        value(&self.node, &key("clusterinformations", "default"))
    }

    fn is_ready(&self) -> bool {
        let info = self.info();
        info["spec"]["datastoreReady"] == true && !info.to_string().contains("percale.io/migration")
    }

    /// Each running container has the address that it had, under its own handle.
    fn assert_taken_over(&self) {
        let store = self.node.cluster.store(self.node.kind);
        let blocks = store.list("/calico/ipam/v2/assignment/ipv4/", soon()).unwrap();
        let blocks: Vec<Value> = blocks.iter().map(|e| serde_json::from_slice(&e.value).unwrap()).collect();
        for (container, ip) in &self.leases {
            let handle = format!("{NETWORK}.{container}");
            let held: Vec<String> = blocks.iter().flat_map(|block| held_by(block, &handle)).collect();
            assert_eq!(held, [ip.as_str()], "{container}");
        }
        assert!(self.is_ready(), "{}", self.info());
        let left = fs::read_dir(self.bed.path("hostlocal").join(NETWORK)).unwrap();
        let names: Vec<_> = left.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        assert!(!names.iter().any(|name| name.parse::<std::net::IpAddr>().is_ok()), "{names:?}");
    }
}

fn value(node: &Node, key: &str) -> Value {
    let found = node.cluster.store(node.kind).get(&[key], soon()).unwrap().remove(0);
    serde_json::from_slice(&found.unwrap().value).unwrap()
}

/// Addresses of a block that a handle holds.
fn held_by(block: &Value, handle: &str) -> Vec<String> {
    let cidr = block["cidr"].as_str().unwrap();
    let base: std::net::Ipv4Addr = cidr.split('/').next().unwrap().parse().unwrap();
    let slots = block["allocations"].as_array().unwrap().iter().enumerate();
    let own = slots.filter(|(_, slot)| {
        slot.as_u64().is_some_and(|index| block["attributes"][index as usize]["handle_id"] == handle)
    });
    own.map(|(n, _)| std::net::Ipv4Addr::from(u32::from(base) + n as u32).to_string()).collect()
}

/// A cluster whose plugin may lock the store.
fn cluster() -> Arc<Cluster> {
    let cluster = Cluster::own();
    let file = e2e::bins::workspace().join("install/manifests/rbac-migration.yaml");
    cluster.apply(&std::fs::read_to_string(file).unwrap());
    cluster
}

// REQ: C-10
#[test]
fn running_pods_keep_their_addresses_and_the_store_opens_again() {
    let cluster = cluster();
    for kind in Kind::BOTH {
        let change = Change::on(&cluster, kind, "migrate");
        let network = change.network();
        let space = change.bed.netns("new");
        let new = Attachment::new("new", &space);
        network.add(&new).unwrap();
        change.assert_taken_over();
        assert_eq!(change.node.given(), RUNNING + 1, "{kind:?}");
        network.add(&new).unwrap();
        change.assert_taken_over();
        let old = Attachment::new("running-3", &space).without_netns();
        network.del(&old).unwrap();
        assert_eq!(change.node.given(), RUNNING, "{kind:?}: an old pod gives its address back");
    }
}

// REQ: C-10
#[test]
fn a_change_that_is_killed_at_any_point_is_gone_on_with() {
    let cluster = cluster();
    for kind in Kind::BOTH {
        let change = Change::on(&cluster, kind, "migkill");
        let mut network = change.network();
        let space = change.bed.netns("new");
        let new = Attachment::new("new", &space);
        let (mut kills, mut locked, mut limit) = (0, 0, 10);
        loop {
            network.wrap = ["timeout", "-s", "KILL", &format!("{:.3}", f64::from(limit) / 1000.0)]
                .map(Into::into)
                .into();
            let added = network.add(&new);
            locked += usize::from(!change.is_ready());
            if added.is_ok() {
                break;
            }
            kills += 1;
            assert!(kills < 1000, "{kind:?}: {added:?}");
            limit += 5;
        }
        network.wrap.clear();
        println!("{kind:?}: {kills} kills, {locked} of them left the store locked");
        assert!(kills > 3 && locked > 0, "{kind:?}: {kills} kills, {locked} in the middle");
        network.add(&new).unwrap();
        change.assert_taken_over();
        assert_eq!(change.node.given(), RUNNING + 1, "{kind:?}");
    }
}

/// Whatever stops it, the other nodes of the cluster do not wait for this one.
// REQ: C-10
#[test]
fn a_change_that_fails_leaves_the_store_open() {
    let cluster = cluster();
    for kind in Kind::BOTH {
        let change = Change::on(&cluster, kind, "migfail");
        let space = change.bed.netns("new");
        let new = Attachment::new("new", &space);
        // A lease of no pool's address: the administrator must say what shall become of it.
        let odd = change.bed.write(&format!("hostlocal/{NETWORK}/192.0.2.5"), "odd\r\neth0");
        let refused = change.network().add(&new).unwrap_err();
        assert!(refused.to_string().contains("192.0.2.5"), "{kind:?}: {refused}");
        assert!(change.is_ready(), "{kind:?}: {}", change.info());
        fs::remove_file(odd).unwrap();
        // The way to the store is cut at some moment of it, for a while.
        let mut cut_within = 0;
        for pause in [20, 60, 100, 140, 180] {
            let network = change.network();
            let plugin = network.config(&network.plugins[0], None);
            let running = network.start("ADD", &plugin, &new);
            std::thread::sleep(Duration::from_millis(pause));
            change.node.bridge.refuse(true);
            cut_within += usize::from(!change.is_ready());
            std::thread::sleep(Duration::from_secs(1));
            change.node.bridge.refuse(false);
            let answer = finish(running).result();
            assert!(change.is_ready(), "{kind:?} after {pause} ms: {answer:?}: {}", change.info());
        }
        println!("{kind:?}: the way was cut {cut_within} times while the store was locked");
        change.network().add(&new).unwrap();
        change.assert_taken_over();
        assert_eq!(change.node.given(), RUNNING + 1, "{kind:?}");
    }
}

#[test]
fn somebody_elses_lock_is_waited_for() {
    let cluster = cluster();
    let change = Change::on(&cluster, Kind::Etcd, "miglock");
    cluster.set_ready(Kind::Etcd, Some(false));
    let space = change.bed.netns("new");
    let new = Attachment::new("new", &space);
    let refused = change.network().add(&new).unwrap_err();
    assert_eq!(refused.code(), Some(11), "{refused:?}");
    assert_eq!(change.node.given(), 0);
    // A migration of a node that is gone.
    let mut info = change.info();
    info["metadata"]["annotations"]["percale.io/migration"] = json!("1700000000000000000 gone-node");
    cluster.put(Kind::Etcd, &key("clusterinformations", "default"), Some(info));
    change.network().add(&new).unwrap();
    change.assert_taken_over();
}
