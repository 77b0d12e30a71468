//! Many pods at once on a cluster's store that answers late.

use super::super::calls::ms;
use super::super::report::{Case, Report};
use super::Size;
use crate::cluster::{Cluster, Kind, Node};
use crate::daemon::{Daemon, asking};
use crate::netns::Netns;
use crate::{Attachment, Bed, Network};
use serde_json::json;
use std::thread;
use std::time::Instant;

/// Pods that are made in the API server at a time.
const MAKERS: usize = 8;
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

pub(super) fn pods_at_once(kind: Kind, name: &str, size: &Size, report: &mut Report) {
    let cluster = Cluster::shared();
    let bed = Bed::new("bench");
    let node = Node::join(&cluster, kind, &bed);
    node.use_usual_blocks();
    let daemon = Daemon::of_node(&bed, &node, &[]);
    daemon.wait_watched();
    for (dual, what) in [(false, "IPv4"), (true, "dual stack")] {
        let network = network(&bed, &node, dual);
        for &delay in size.delays {
            let mut took = Took::default();
            for round in 0..size.rounds.bursts {
                let tag = format!("{}{delay}r{round}", if dual { "d" } else { "s" });
                let pods = Pods::make(&bed, &node, &tag, size.pods + 1);
                node.bridge.delay(delay);
                burst(&daemon, &network, &pods, &mut took);
                node.bridge.delay(0);
                pods.remove(&network);
            }
            tell(size.pods, &format!("{name} {delay} ms, {what}"), &took, report);
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

fn tell(pods: usize, name: &str, took: &Took, report: &mut Report) {
    report.push(Case::goal(&format!("{pods} ADDs at once, {name}"), &took.all, LIMIT_MS));
    report.push(Case::goal(&format!("  the slowest, {name}"), &took.slowest, LIMIT_MS));
    report.push(Case::goal(&format!("  writes of blocks, {name}"), &took.block_writes, 10.0).in_unit(""));
    report.push(Case::alone(&format!("  a lone ADD, {name}"), &took.lone));
}

/// Pods that are there and have no network yet.
struct Pods {
    _spaces: Vec<Netns>,
    all: Vec<Attachment>,
}

impl Pods {
    fn make(bed: &Bed, node: &Node, tag: &str, count: usize) -> Self {
        let spaces: Vec<Netns> = (0..count).map(|i| bed.netns(&format!("{tag}p{i}"))).collect();
        let attachment = |(i, ns): (usize, &Netns)| Attachment::new(&format!("{tag}-{i}"), ns);
        let mut all: Vec<Attachment> = spaces.iter().enumerate().map(attachment).collect();
        if node.kind == Kind::Kubernetes {
            thread::scope(|makers| {
                for part in all.chunks_mut(count.div_ceil(MAKERS)) {
                    makers.spawn(move || {
                        part.iter_mut().for_each(|pod| pod.args = node.make_pod(&pod.container))
                    });
                }
            });
        }
        Self { _spaces: spaces, all }
    }

    fn remove(&self, network: &Network) {
        for pod in &self.all {
            network.del(pod).unwrap_or_else(|e| panic!("DEL: {e}"));
        }
    }
}

/// One alone, then the others at once.
fn burst(daemon: &Daemon, network: &Network, pods: &Pods, took: &mut Took) {
    let (lone, pods) = pods.all.split_first().expect("there are pods");
    took.lone.push(add(network, lone));
    let writes = || daemon.metric("percale_ipam_block_writes_total");
    let (before, begun) = (writes(), Instant::now());
    let each: Vec<f64> = thread::scope(|scope| {
        let running: Vec<_> = pods.iter().map(|pod| scope.spawn(|| add(network, pod))).collect();
        running.into_iter().map(|thread| thread.join().expect("no ADD fails")).collect()
    });
    took.all.push(ms(begun.elapsed()));
    took.slowest.push(each.into_iter().fold(0.0, f64::max));
    took.block_writes.push(writes() - before);
}

fn add(network: &Network, pod: &Attachment) -> f64 {
    let answer = network.exec("ADD", &network.config(&network.plugins[0], None), pod);
    answer.result().unwrap_or_else(|e| panic!("ADD: {e}"));
    ms(answer.took)
}
