//! Two nodes, each with a containerd of its own that starts pods through our plugin and daemon.

#![allow(clippy::unwrap_used)]

use e2e::bed::copy_program;
use e2e::containerd::{Containerd, ids, ok};
use e2e::nodes::{Cluster, PATIENCE, wait};
use e2e::{Bed, netns, probe};
use rustix::process::Signal;
use serde_json::Value;
use std::net::{IpAddr, TcpListener};

const ENV: [(&str, &str); 5] = [
    ("CALICO_NETWORKING_BACKEND", "vxlan"),
    ("CALICO_IPV4POOL_CIDR", "10.50.0.0/16"),
    ("CALICO_IPV4POOL_VXLAN", "Always"),
    ("CALICO_IPV6POOL_CIDR", "fd50::/64"),
    ("CALICO_IPV6POOL_VXLAN", "Always"),
];

fn ips(status: &Value) -> Vec<IpAddr> {
    let list = status["ips"].as_array().unwrap();
    list.iter().map(|ip| ip.as_str().unwrap().parse().unwrap()).collect()
}

/// From one sandbox to another, in both families.
fn reaches(from: &Value, to: &Value) -> bool {
    let space = |status: &Value| netns::Netns::existing(&format!("/proc/{}/ns/net", status["pid"]));
    ips(to).into_iter().all(|ip| {
        let server = netns::within(space(to).path(), || TcpListener::bind((ip, 0)).unwrap());
        probe::tcp_to(&space(from), server.local_addr().unwrap(), &server).is_ok()
    })
}

/// Addresses of the cluster that somebody holds, but for the nodes' own tunnels.
fn leases(cluster: &Cluster, nodes: &[&str]) -> usize {
    let held = |key: &str| cluster.stored_under(key).into_iter();
    let blocks = held("/calico/ipam/v2/assignment/");
    let given = |block: Value| {
        let slots = block["allocations"].as_array().unwrap().iter().filter(|slot| !slot.is_null()).count();
        slots as u64
    };
    usize::try_from(blocks.map(given).sum::<u64>()).unwrap() - 2 * nodes.len()
}

#[test]
fn pods_of_two_runtimes_reach_each_other_whatever_happens_to_the_daemons() {
    let beds = [Bed::new("crinode1"), Bed::new("crinode2")];
    for bed in &beds {
        copy_program(
            &bed.bins.as_ref().unwrap().percale_cluster(),
            &bed.plugin_dir().join("percale-cluster"),
        );
    }
    let mut cluster = Cluster::in_beds("cri", &[1, 2], &ENV, &[&beds[0], &beds[1]]);
    let plugins: Vec<Value> = cluster.nodes.iter().map(e2e::nodes::Node::plugin).collect();
    let mut runtimes: Vec<Containerd> =
        beds.iter().zip(plugins).map(|(bed, plugin)| Containerd::start(bed, &[plugin])).collect();
    let mut pods: Vec<Vec<String>> = runtimes.iter_mut().map(|r| ids(&r.run(&["web", "db"]))).collect();
    let states = |runtimes: &mut [Containerd], pods: &[Vec<String>]| -> Vec<Value> {
        let each = runtimes.iter_mut().zip(pods);
        each.flat_map(|(runtime, pods)| pods.iter().map(|id| runtime.status(id)).collect::<Vec<_>>())
            .collect()
    };
    let found = states(&mut runtimes, &pods);
    wait("pods of both nodes reach each other", PATIENCE, || {
        reaches(&found[0], &found[2]) && reaches(&found[3], &found[1])
    });
    assert!(reaches(&found[0], &found[1]), "pods of one node too");
    // A daemon that is away: pods start and stop all the same, and the other node learns of them.
    cluster.nodes[0].end(Signal::KILL);
    pods[0].extend(ids(&runtimes[0].run(&["late"])));
    let gone = pods[0].remove(0);
    for item in runtimes[0]
        .stop(std::slice::from_ref(&gone))
        .iter()
        .chain(&runtimes[0].remove(std::slice::from_ref(&gone)))
    {
        ok(item);
    }
    let found = states(&mut runtimes, &pods);
    wait("the late pod is reached", PATIENCE, || reaches(&found[2], &found[1]));
    cluster.nodes[0].start();
    cluster.nodes[0].wait_ready();
    assert!(reaches(&found[1], &found[2]) && reaches(&found[0], &found[3]));
    for (runtime, pods) in runtimes.iter_mut().zip(&pods) {
        for item in runtime.stop(pods).iter().chain(&runtime.remove(pods)) {
            ok(item);
        }
    }
    let names = ["node1", "node2"];
    wait("every address of a pod is given back", PATIENCE, || leases(&cluster, &names) == 0);
    for node in &cluster.nodes {
        wait("their links are gone", PATIENCE, || node.host.link_names("cali").is_empty());
    }
    drop(runtimes);
}
