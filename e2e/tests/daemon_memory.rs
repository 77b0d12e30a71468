//! What the daemon keeps in memory of a cluster's store: what a pod costs the store, and that nothing
//! that is out of date does harm.

#![allow(clippy::unwrap_used)]

use e2e::bed::wait_for;
use e2e::clean::kernel_is_clean;
use e2e::cluster::{Cluster, Kind, Node, key, resource};
use e2e::cnirun::addresses;
use e2e::daemon::{Daemon, asking};
use e2e::{Attachment, Bed, Netns, Network};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

fn network<'a>(bed: &'a Bed, node: &Node) -> Network<'a> {
    Network::new(bed, "k8s-pod-network", vec![asking(bed, node.plugin(bed))])
}

fn node(cluster: &Arc<Cluster>, kind: Kind, tag: &str) -> (Bed, Node) {
    let bed = Bed::new(tag);
    let node = Node::join(cluster, kind, &bed);
    (bed, node)
}

/// Calls of the store that `act` costs: reads, commits.
fn cost(daemon: &Daemon, act: impl FnOnce()) -> (f64, f64) {
    let counts =
        || ["percale_store_reads_total", "percale_store_commits_total"].map(|name| daemon.metric(name));
    let before = counts();
    act();
    let after = counts();
    (after[0] - before[0], after[1] - before[1])
}

// REQ: A-15
#[test]
fn a_pod_costs_the_store_its_writes_alone_and_status_nothing() {
    for kind in Kind::BOTH {
        let (bed, node) = node(&Cluster::shared(), kind, "dcalls");
        let daemon = Daemon::of_node(&bed, &node, &[]);
        daemon.wait_watched();
        let network = network(&bed, &node);
        let spaces: Vec<Netns> = (0..3).map(|i| bed.netns(&format!("p{i}"))).collect();
        let args = |name: &str| match kind {
            Kind::Etcd => String::new(),
            Kind::Kubernetes => node.make_pod(name),
        };
        let pods: Vec<_> =
            spaces.iter().map(|ns| Attachment::new(ns.name(), ns).with_args(&args(ns.name()))).collect();
        // The first finds out which blocks there are, and claims some.
        network.add(&pods[0]).unwrap();
        let add = cost(&daemon, || drop(network.add(&pods[1]).unwrap()));
        let again = cost(&daemon, || drop(network.add(&pods[1]).unwrap()));
        let status = cost(&daemon, || network.status().unwrap());
        let del = cost(&daemon, || network.del(&pods[1]).unwrap());
        println!(
            "{kind:?}: reads and commits of ADD {add:?}, repeated {again:?}, STATUS {status:?}, DEL {del:?}"
        );
        // The lease, and the endpoint. In Kubernetes the pod is read: it may be another one by now.
        assert_eq!(add, if kind == Kind::Etcd { (0.0, 2.0) } else { (1.0, 2.0) }, "{kind:?}");
        assert_eq!(status, (0.0, 0.0), "{kind:?}");
        network.add(&pods[2]).unwrap();
        network.check(&pods[2]).unwrap();
        for pod in &pods {
            network.del(pod).unwrap();
        }
        assert_eq!(node.given(), 0);
        kernel_is_clean(&bed.host);
    }
}

/// Locked, broken, and back.
// REQ: K-04
#[test]
fn a_locked_store_is_seen_at_once_and_a_lost_watch_asks_the_store() {
    let cluster = Cluster::own();
    for kind in Kind::BOTH {
        let (bed, node) = node(&cluster, kind, "dlock");
        let daemon = Daemon::of_node(&bed, &node, &[]);
        daemon.wait_watched();
        let mut network = network(&bed, &node);
        network.plugins[0]["add_timeout"] = json!(10);
        let ns = bed.netns("pod");
        let pod = Attachment::new("c1", &ns);
        network.add(&pod).unwrap();
        network.del(&pod).unwrap();
        cluster.set_ready(kind, Some(false));
        wait_for("the lock is seen", || network.status().is_err());
        assert_eq!(network.add(&pod).unwrap_err().code(), Some(11));
        cluster.set_ready(kind, Some(true));
        // Nothing is refused because of what was: the store itself is asked first.
        network.status().unwrap();
        network.add(&pod).unwrap();
        // Locked while nobody tells it.
        node.bridge.refuse(true);
        wait_for("the loss is noticed", || daemon.metric("percale_store_unwatched") > 0.0);
        cluster.set_ready(kind, Some(false));
        node.bridge.refuse(false);
        network.del(&pod).unwrap();
        let refused = network.add(&pod).unwrap_err();
        assert_eq!(refused.code(), Some(11), "{refused}");
        cluster.set_ready(kind, Some(true));
        daemon.wait_watched();
        network.add(&pod).unwrap();
        network.del(&pod).unwrap();
        wait_for("everything is given back", || node.given() == 0);
    }
}

/// Others change what the daemon knows of its own blocks, claims and handles: it costs a conflict.
// REQ: A-02
#[test]
fn what_others_did_meanwhile_costs_a_conflict_and_no_address_twice() {
    for kind in Kind::BOTH {
        let (bed, node) = node(&Cluster::shared(), kind, "dstale");
        let daemon = Daemon::of_node(&bed, &node, &[]);
        daemon.wait_watched();
        let by_daemon = network(&bed, &node);
        let alone = Network::new(&bed, "k8s-pod-network", vec![node.plugin(&bed)]);
        let spaces: Vec<Netns> = (0..4).map(|i| bed.netns(&format!("p{i}"))).collect();
        let pods: Vec<_> = spaces.iter().map(|ns| Attachment::new(ns.name(), ns)).collect();
        let first = by_daemon.add(&pods[0]).unwrap();
        // The plugin itself takes from the same blocks, and gives back what the daemon gave.
        let second = alone.add(&pods[1]).unwrap();
        let third = by_daemon.add(&pods[2]).unwrap();
        let mut all: Vec<_> = [&first, &second, &third].into_iter().flat_map(addresses).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6, "{kind:?}: an address was given twice");
        assert_eq!(by_daemon.add(&pods[1]).unwrap(), second, "{kind:?}: what the plugin did is found done");
        alone.del(&pods[0]).unwrap();
        by_daemon.del(&pods[0]).unwrap();
        by_daemon.del(&pods[1]).unwrap();
        alone.del(&pods[2]).unwrap();
        assert_eq!(node.given(), 0, "{kind:?}");
        // A pool that is switched off gives nothing from then on.
        let pool = node.pool("v4");
        let before = addresses(&by_daemon.add(&pods[3]).unwrap());
        by_daemon.del(&pods[3]).unwrap();
        let cidr = match before.iter().find(|ip| ip.is_ipv4()).unwrap() {
            std::net::IpAddr::V4(ip) => format!("{}.{}.0.0/24", ip.octets()[0], ip.octets()[1]),
            std::net::IpAddr::V6(_) => unreachable!("it is an IPv4 address"),
        };
        let off = json!({"cidr": cidr, "blockSize": 28, "nodeSelector": "all()", "disabled": true});
        node.cluster.put(kind, &key("ippools", &pool), Some(resource("IPPool", &pool, off)));
        wait_for("the pool is off", || match by_daemon.add(&pods[3]) {
            Ok(_) => {
                by_daemon.del(&pods[3]).unwrap();
                false
            }
            Err(_) => true,
        });
        by_daemon.del(&pods[3]).unwrap();
        wait_for("everything is given back", || node.given() == 0);
        kernel_is_clean(&bed.host);
    }
}

/// Pods with addresses of one pool.
fn sharing<'a>(bed: &'a Bed, node: &Node, pool: &str) -> Network<'a> {
    let mut network = network(bed, node);
    network.plugins[0]["ipam"] = json!({"type": "percale-ipam", "ipv4_pools": [pool]});
    network
}

/// Without a runtime to ask the API server's word is the second proof; borrowed addresses count too.
// REQ: A-16
#[test]
fn without_a_runtime_the_api_server_tells_which_pods_are_gone() {
    let cluster = Cluster::shared();
    let (owner_bed, owner) = node(&cluster, Kind::Kubernetes, "dgco");
    let (bed, node) = node(&cluster, Kind::Kubernetes, "dgcb");
    let none = bed.path("none.sock").display().to_string();
    let daemon =
        Daemon::of_node(&bed, &node, &["--gc-interval", "1", "--gc-grace", "2", "--cri-socket", &none]);
    daemon.wait_watched();
    // The only block of this pool is the other node's.
    let spec = json!({"cidr": format!("10.99.{}.0/28", std::process::id() % 250), "blockSize": 28, "nodeSelector": "all()"});
    let pool = format!("{}-shared", node.name);
    cluster.put(Kind::Kubernetes, &key("ippools", &pool), Some(resource("IPPool", &pool, spec)));
    let owners = owner_bed.netns("own");
    let owners_pod = Attachment::new(owners.name(), &owners).with_args(&owner.make_pod("own"));
    let of_owner = sharing(&owner_bed, &owner, &pool);
    of_owner.add(&owners_pod).unwrap();
    let (own, borrowed) = (bed.netns("own"), bed.netns("borrowed"));
    let pods = [&own, &borrowed].map(|ns| Attachment::new(ns.name(), ns));
    let pods = [
        pods[0].clone().with_args(&node.make_pod("own")),
        pods[1].clone().with_args(&node.make_pod("borrowed")),
    ];
    network(&bed, &node).add(&pods[0]).unwrap();
    sharing(&bed, &node, &pool).add(&pods[1]).unwrap();
    drop(own);
    drop(borrowed);
    // The pods are still there: only one proof.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(daemon.metric("percale_ipam_gc_freed_total"), 0.0, "{}", daemon.log());
    assert_eq!(node.given(), 2);
    node.delete_pod("own");
    wait_for("its own addresses are freed", || node.given() == 0);
    node.delete_pod("borrowed");
    wait_for("the borrowed one too", || daemon.metric("percale_ipam_gc_freed_total") == 3.0);
    of_owner.check(&owners_pod).unwrap();
    of_owner.del(&owners_pod).unwrap();
    cluster.put(Kind::Kubernetes, &key("ippools", &pool), None);
}
