//! 110 pods at once on a cluster's store that answers late.

use super::super::calls::ms;
use super::super::report::{Case, Report};
use crate::cluster::{Cluster, Kind, Node};
use crate::daemon::{Daemon, asking};
use crate::netns::Netns;
use crate::{Attachment, Bed, Network};
use serde_json::json;
use std::thread;
use std::time::Instant;

const PODS: usize = 110;
/// The goal for all of them together, and for each.
const LIMIT_MS: f64 = 1000.0;

/// One burst.
#[derive(Default)]
struct Took {
    all: Vec<f64>,
    slowest: Vec<f64>,
    block_writes: Vec<f64>,
    lone: Vec<f64>,
}

pub(super) fn pods_at_once(kind: Kind, name: &str, rounds: usize, report: &mut Report) {
    let cluster = Cluster::shared();
    let bed = Bed::new("bench");
    let node = Node::join(&cluster, kind, &bed);
    node.use_usual_blocks();
    let daemon = Daemon::of_node(&bed, &node, &[]);
    daemon.wait_watched();
    for (dual, what) in [(false, "IPv4"), (true, "dual stack")] {
        let network = network(&bed, &node, dual);
        for delay in [5, 20] {
            let mut took = Took::default();
            for round in 0..rounds {
                node.bridge.delay(0);
                let tag = format!("{}{delay}r{round}", if dual { "d" } else { "s" });
                burst(&daemon, &node, &network, (&bed, &tag), delay, &mut took);
            }
            tell(&format!("{name} {delay} ms, {what}"), &took, report);
        }
    }
}

fn network<'a>(bed: &'a Bed, node: &Node, dual: bool) -> Network<'a> {
    let mut plugin = asking(bed, node.plugin(bed));
    if !dual {
        plugin["ipam"] = json!({"type": "percale-ipam", "ipv4_pools": [node.pool("v4")]});
    }
    Network::new(bed, "k8s-pod-network", vec![plugin])
}

fn tell(name: &str, took: &Took, report: &mut Report) {
    report.push(Case::goal(&format!("110 ADDs at once, {name}"), &took.all, LIMIT_MS));
    report.push(Case::goal(&format!("  the slowest, {name}"), &took.slowest, LIMIT_MS));
    report.push(Case::goal(&format!("  writes of blocks, {name}"), &took.block_writes, 10.0).in_unit(""));
    report.push(Case::alone(&format!("  a lone ADD, {name}"), &took.lone));
}

fn burst(
    daemon: &Daemon,
    node: &Node,
    network: &Network,
    (bed, tag): (&Bed, &str),
    delay: u64,
    took: &mut Took,
) {
    let spaces: Vec<Netns> = (0..=PODS).map(|i| bed.netns(&format!("{tag}p{i}"))).collect();
    let pod = |(i, ns): (usize, &Netns)| {
        let name = format!("{tag}-{i}");
        let args = if node.kind == Kind::Kubernetes { node.make_pod(&name) } else { String::new() };
        Attachment::new(&name, ns).with_args(&args)
    };
    let pods: Vec<Attachment> = spaces.iter().enumerate().map(pod).collect();
    node.bridge.delay(delay);
    took.lone.push(add(network, &pods[PODS]));
    let writes = || daemon.metric("percale_ipam_block_writes_total");
    let (before, begun) = (writes(), Instant::now());
    let each: Vec<f64> = thread::scope(|scope| {
        let running: Vec<_> = pods[..PODS].iter().map(|pod| scope.spawn(|| add(network, pod))).collect();
        running.into_iter().map(|thread| thread.join().expect("no ADD fails")).collect()
    });
    took.all.push(ms(begun.elapsed()));
    took.slowest.push(each.into_iter().fold(0.0, f64::max));
    took.block_writes.push(writes() - before);
    node.bridge.delay(0);
    for pod in &pods {
        network.del(pod).unwrap_or_else(|e| panic!("DEL: {e}"));
    }
}

fn add(network: &Network, pod: &Attachment) -> f64 {
    let answer = network.exec("ADD", &network.config(&network.plugins[0], None), pod);
    answer.result().unwrap_or_else(|e| panic!("ADD: {e}"));
    ms(answer.took)
}
