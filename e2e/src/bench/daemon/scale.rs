//! One node with many pods among many nodes: from start to ready, memory, idle CPU, and how fast the others'
//! changes reach its kernel.

use super::super::calls::ms;
use super::super::report::{Case, Report};
use super::Size;
use crate::nodes::{Cluster, wait};
use datastore::{Deadline, Store as _};
use model::store::{Expect, Write};
use model::{Attribute, Block, Scope, Stored as _, keys};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Addresses in use of each node's block.
const USED: u32 = 30;
const ENV: [(&str, &str); 4] = [
    ("CALICO_NETWORKING_BACKEND", "vxlan"),
    ("CALICO_IPV4POOL_CIDR", "10.50.0.0/16"),
    ("CALICO_IPV4POOL_VXLAN", "Always"),
    ("CALICO_IPV6POOL_CIDR", "fd50::/64"),
];

pub(super) fn many_nodes(size: &Size, report: &mut Report) {
    let nodes = size.nodes;
    let mut cluster = Cluster::new("bench", &[1], &ENV);
    // The others were there first, so that this node takes no block of theirs.
    commit(&cluster, (0..nodes).flat_map(|n| [node(n), block(n, n)]).collect());
    cluster.nodes[0].start();
    cluster.nodes[0].wait_ready();
    let pods: Vec<_> = (0..size.own_pods).map(|i| cluster.add(0, &format!("p{i}"))).collect();
    let starts: Vec<f64> = (0..3).map(|_| restart(&mut cluster)).collect();
    let name = format!("start to ready, {} pods, {nodes} nodes", size.own_pods);
    report.push(Case::goal(&name, &starts, 1000.0));
    wait("all routes", Duration::from_secs(60), || routed(&cluster, nodes, 0) == nodes as usize);
    sleep(Duration::from_secs(3));
    let mib = status_mib(cluster.nodes[0].pid(), "VmRSS:");
    report.push(Case::goal("  memory", &[mib], 60.0).in_mib());
    let share = cpu_share(cluster.nodes[0].pid(), size.idle);
    report.push(Case::goal("  CPU of an idle daemon", &[share * 100.0], 0.1).in_unit("%"));
    changes(&cluster, nodes, report);
    for pod in &pods {
        cluster.del(0, pod).unwrap_or_else(|e| panic!("DEL: {e}"));
    }
}

fn node_name(n: u32) -> String {
    format!("other-{n}")
}

fn underlay(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 88, 16, 0)) + n)
}

/// The first address of its block, as Calico's agent takes it.
fn vtep(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 50, 0, 0)) + n * 64)
}

fn put(key: String, value: Vec<u8>) -> Write {
    Write { key, expect: Expect::Any, value: Some(value) }
}

fn node(n: u32) -> Write {
    let name = node_name(n);
    let value = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name},
        "spec": {"bgp": {"ipv4Address": format!("{}/16", underlay(n))}, "ipv4VXLANTunnelAddr": vtep(n)},
    });
    put(keys::node(&name), value.to_string().into_bytes())
}

/// The block of number `n`, of the node of number `of`.
fn block(n: u32, of: u32) -> Write {
    let cidr = format!("{}/26", vtep(n)).parse().expect("a network");
    let mut block = Block::new(cidr, Some(format!("host:{}", node_name(of))));
    for ordinal in 0..USED {
        let attrs = BTreeMap::from([
            ("node".to_owned(), node_name(of)),
            ("pod".to_owned(), format!("pod-{ordinal}")),
        ]);
        let attribute = Attribute::new(Some(&format!("k8s-pod-network.{n}-{ordinal}")), attrs);
        ipam::block::assign(&mut block, ordinal, &attribute).expect("it is free");
    }
    put(keys::block(&Scope::Cluster, &cidr), block.encode())
}

fn commit(cluster: &Cluster, writes: Vec<Write>) {
    let etcd = cluster.etcd();
    for part in writes.chunks(100) {
        etcd.commit(part, Deadline::after(Duration::from_secs(30))).expect("etcd takes it");
    }
}

/// Milliseconds from the start to the first good answer.
fn restart(cluster: &mut Cluster) -> f64 {
    let node = &mut cluster.nodes[0];
    node.end(rustix::process::Signal::TERM);
    let begun = Instant::now();
    node.start();
    node.host.run(|| {
        while !is_ready() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not become ready");
            sleep(Duration::from_millis(3));
        }
    });
    ms(begun.elapsed())
}

fn is_ready() -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", 9099)) else { return false };
    let asked = stream.write_all(b"GET /readiness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.starts_with("HTTP/1.1 204")
}

/// How many blocks are routed to the node `shift` behind their first.
fn routed(cluster: &Cluster, nodes: u32, shift: u32) -> usize {
    let routes = cluster.nodes[0].host.ip(&["-4", "route"]);
    let via = |route: &serde_json::Value| {
        Some((route["dst"].as_str()?.to_owned(), route["gateway"].as_str()?.to_owned()))
    };
    let via: HashMap<String, String> = routes.iter().filter_map(via).collect();
    let is_so = |n: &u32| {
        let gateway = vtep((n + shift) % nodes).to_string();
        via.get(&format!("{}/26", vtep(*n))) == Some(&gateway)
    };
    (0..nodes).filter(is_so).count()
}

/// Every block goes to the next node.
fn changes(cluster: &Cluster, nodes: u32, report: &mut Report) {
    let mut rates = Vec::new();
    for shift in 1..=3 {
        let writes = (0..nodes).map(|n| block(n, (n + shift) % nodes)).collect();
        let begun = Instant::now();
        commit(cluster, writes);
        wait("the changes", Duration::from_secs(60), || routed(cluster, nodes, shift) == nodes as usize);
        rates.push(f64::from(nodes) / begun.elapsed().as_secs_f64());
    }
    report.push(Case::alone("changes of blocks until routed", &rates).in_unit("/s"));
}

fn status_mib(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let line = status.lines().find(|line| line.starts_with(name)).expect("Linux tells it");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
    kib.expect("a number") / 1024.0
}

/// Share of one CPU that a process uses.
fn cpu_share(pid: u32, during: Duration) -> f64 {
    let before = cpu(pid);
    sleep(during);
    (cpu(pid) - before).as_secs_f64() / during.as_secs_f64()
}

/// Of all its threads, to the nanosecond (`/proc/PID/task/TID/schedstat`).
fn cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon runs");
    let of = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(of).sum())
}
