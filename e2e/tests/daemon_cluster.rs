//! The plugin served by `percaled` on a real etcd and a real API server.

#![allow(clippy::unwrap_used)]

use e2e::bed::wait_for;
use e2e::clean::kernel_is_clean;
use e2e::cluster::{Cluster, Kind, Node};
use e2e::cnirun::addresses;
use e2e::daemon::{Daemon, asking};
use e2e::{Attachment, Bed, Netns, Network};
use serde_json::Value;
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

fn node(kind: Kind, tag: &str) -> (Bed, Node) {
    let bed = Bed::new(tag);
    let node = Node::join(&Cluster::shared(), kind, &bed);
    (bed, node)
}

fn network<'a>(bed: &'a Bed, node: &Node) -> Network<'a> {
    Network::new(bed, "k8s-pod-network", vec![asking(bed, node.plugin(bed))])
}

fn pods(bed: &Bed, count: usize) -> (Vec<Netns>, Vec<Attachment>) {
    let spaces: Vec<Netns> = (0..count).map(|i| bed.netns(&format!("p{i}"))).collect();
    let pods = spaces.iter().map(|ns| Attachment::new(ns.name(), ns)).collect();
    (spaces, pods)
}

fn at_once<T: Send>(pods: &[Attachment], f: impl Fn(&Attachment) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let running: Vec<_> = pods.iter().map(|pod| scope.spawn(|| f(pod))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    (f(), begun.elapsed())
}

/// Calls in the plugin's log that had to do with an address that a failure names.
fn calls_about(bed: &Bed, failure: &e2e::Failure) -> String {
    let told = failure.to_string();
    let address = told.split(' ').find(|word| word.parse::<std::net::IpAddr>().is_ok()).unwrap_or("none");
    let log = std::fs::read_to_string(bed.path("log/cni.log")).unwrap_or_default();
    log.lines().filter(|line| line.contains(address)).collect::<Vec<_>>().join("\n")
}

// REQ: A-15
#[test]
fn pods_at_once_share_commits_on_a_slow_store() {
    for kind in Kind::BOTH {
        let (bed, node) = node(kind, "dslow");
        node.use_usual_blocks();
        let daemon = Daemon::of_node(&bed, &node, &[]);
        daemon.wait_watched();
        let network = network(&bed, &node);
        let (_spaces, pods) = pods(&bed, 110);
        network.add(&pods[0]).unwrap();
        node.bridge.delay(20);
        let (_, lone) = timed(|| network.add(&pods[1]).unwrap());
        let counts =
            ["percale_ipam_commits_total", "percale_ipam_block_writes_total", "percale_store_reads_total"];
        let before = counts.map(|name| daemon.metric(name));
        let (results, all) = timed(|| {
            at_once(&pods[2..], |pod| {
                timed(|| {
                    network.add(pod).unwrap_or_else(|e| panic!("{kind:?}: {e}; {}", calls_about(&bed, &e)))
                })
            })
        });
        let now = counts.map(|name| daemon.metric(name));
        let [commits, blocks, reads] = [0, 1, 2].map(|at| now[at] - before[at]);
        let slowest = results.iter().map(|(_, took)| *took).max().unwrap();
        println!(
            "{kind:?} at 20 ms: 108 ADDs in {commits} commits with {blocks} writes of blocks, {reads} reads, {all:?} \
             in all, the slowest {slowest:?}, a lone one {lone:?}"
        );
        let given: BTreeSet<_> =
            results.iter().flat_map(|(result, _): &(Value, _)| addresses(result)).collect();
        assert_eq!(given.len(), 2 * 108, "an address was given twice");
        // At most ten of each family.
        assert!(commits <= 10.0 && blocks <= 20.0, "{commits} commits, {blocks} writes of blocks");
        // New blocks are looked for, a pod does not read.
        assert!(reads <= 10.0, "{reads} reads");
        let (_, all) = timed(|| at_once(&pods, |pod| network.del(pod).unwrap()));
        println!("{kind:?} at 20 ms: 110 DELs in {all:?}");
        node.bridge.delay(0);
        assert_eq!(node.given(), 0);
        kernel_is_clean(&bed.host);
    }
}

/// DEL succeeds while the store is away; the daemon pays the debt once it is back, unasked.
// REQ: C-08
#[test]
fn owed_releases_are_finished_in_the_background() {
    for kind in Kind::BOTH {
        let (bed, node) = node(kind, "dowed");
        let daemon = Daemon::of_node(&bed, &node, &[]);
        let mut network = network(&bed, &node);
        network.plugins[0]["del_timeout"] = serde_json::json!(6);
        let (_spaces, pods) = pods(&bed, 4);
        pods.iter().for_each(|pod| drop(network.add(pod).unwrap()));
        node.bridge.refuse(true);
        at_once(&pods[..3], |pod| network.del(pod).unwrap());
        assert_eq!(node.given(), 8, "{kind:?}: the releases are owed");
        // The same container again, before its debt is paid: it keeps its addresses.
        node.bridge.refuse(false);
        let kept = network.add(&pods[0]).unwrap();
        wait_for("the debts are paid", || node.given() == 4);
        network.check(&pods[0]).unwrap_or_else(|e| panic!("{kind:?} {kept}: {e}"));
        wait_for("nothing is owed", || daemon.metric("percale_journal_pending") == 0.0);
        network.del(&pods[0]).unwrap();
        network.del(&pods[3]).unwrap();
        assert_eq!(node.given(), 0);
        kernel_is_clean(&bed.host);
    }
}

// REQ: C-16
// REQ: A-16
#[test]
fn pods_start_while_the_daemon_is_killed() {
    let kills = if e2e::bins::full() { 50 } else { 4 };
    for kind in Kind::BOTH {
        let (bed, node) = node(kind, "dkill");
        let network = network(&bed, &node);
        let (_spaces, pods) = pods(&bed, 6);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let _last = thread::scope(|scope| {
            for pod in &pods {
                let (network, stop) = (&network, &stop);
                scope.spawn(move || {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        network.add(pod).unwrap_or_else(|e| panic!("{kind:?}: ADD: {e}"));
                        network.del(pod).unwrap_or_else(|e| panic!("{kind:?}: DEL: {e}"));
                    }
                });
            }
            for _ in 0..kills {
                let daemon = Daemon::of_node(&bed, &node, &[]);
                thread::sleep(Duration::from_millis(300));
                daemon.kill();
            }
            let last = Daemon::of_node(&bed, &node, &[]);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            last
        });
        wait_for("everything is given back", || node.given() == 0);
        kernel_is_clean(&bed.host);
    }
}
