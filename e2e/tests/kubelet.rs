//! The whole of it in a cluster: kubelet, containerd, controllers and API server are genuine; what is installed is
//! the chart's manifests with the image, and nothing else.
// REQ: I-06
// REQ: C-17

#![allow(clippy::unwrap_used)]

use e2e::cluster::Cluster;
use e2e::kubelet::{KubeNode, is_ready, manifests, wait_long};
use e2e::netns::must;
use e2e::{Bed, Netns, bins, probe};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Instant;

const POOL: &str = "10.77.0.0/16";

fn image(bed: &Bed) -> std::path::PathBuf {
    let out = bed.path("percale.tar");
    let mut build = Command::new(bins::workspace().join("install/image/build"));
    build.arg("--bin-dir").arg(bed.bins.as_ref().unwrap().dir());
    must(build.arg("--output").arg(&out).args(["--ref", "localhost/percale:test"]));
    out
}

/// The daemon set's pod on the node.
fn agent(node: &KubeNode) -> Option<Value> {
    let pods = node.pods("percale-system", "app.kubernetes.io/component=node");
    pods.into_iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null())
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

fn agent_log(node: &KubeNode) -> String {
    let Some(pod) = agent(node) else { return "no pod of the daemon set".to_owned() };
    let parts = ["install", "daemon", "watch"].map(|c| node.log("percale-system", &name(&pod), c));
    format!("{}\n{}", pod["status"], parts.join("\n"))
}

fn running(node: &KubeNode, names: &[&str]) -> Option<Vec<IpAddr>> {
    let pods = node.pods("default", "");
    let ip = |name: &&str| {
        let pod = pods.iter().find(|pod| pod["metadata"]["name"] == **name).filter(|pod| is_ready(pod))?;
        pod["status"]["podIP"].as_str()?.parse().ok()
    };
    names.iter().map(ip).collect()
}

/// The namespace of a pod, by the process that holds it.
fn space(node: &mut KubeNode, name: &str) -> Netns {
    let all = node.containerd.list();
    let found = all.iter().find(|item| item["name"] == name && item["ready"] == true).expect("a sandbox");
    let status = node.containerd.status(found["id"].as_str().unwrap());
    Netns::existing(&format!("/proc/{}/ns/net", status["pid"]))
}

/// Addresses in the cluster's blocks.
fn given(node: &KubeNode) -> usize {
    let blocks = node.cluster.api("GET", "/apis/crd.projectcalico.org/v1/ipamblocks", None);
    let slots = |block: &Value| {
        block["spec"]["allocations"].as_array().unwrap().iter().filter(|slot| !slot.is_null()).count()
    };
    blocks["items"].as_array().unwrap().iter().map(slots).sum()
}

fn metric(bed: &Bed, name: &str) -> f64 {
    let mut text = String::new();
    let mut stream = bed.host.run(|| TcpStream::connect(("127.0.0.1", 9091))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}: {text}")).trim().parse().unwrap()
}

#[test]
fn a_node_becomes_ready_and_its_pods_have_a_network() {
    let bed = Bed::new("kubelet");
    let outside = bed.netns("outside");
    e2e::netns::join(&bed.host, &outside);
    let cluster = Cluster::with_controllers();
    let mut node = KubeNode::join(&cluster, &bed, "node-a");
    node.containerd.import(&image(&bed));
    let (_, why) = node.condition("Ready").unwrap();
    assert!(why.contains("cni plugin not initialized"), "{why}");
    node.create_pod("early");

    let begun = Instant::now();
    cluster.apply(&manifests("localhost", &node, &[&format!("pools.ipv4={POOL}")]));
    wait_long("the node is ready", || node.is_ready(), || agent_log(&node));
    println!("from the manifests to a ready node: {} ms", begun.elapsed().as_millis());
    let names = ["early", "a", "b"];
    names[1..].iter().for_each(|name| node.create_pod(name));
    wait_long("the pods run", || running(&node, &names).is_some(), || agent_log(&node));
    println!("to running pods: {} ms", begun.elapsed().as_millis());
    let ips = running(&node, &names).unwrap();
    assert!(ips.iter().all(|ip| ip.to_string().starts_with("10.77.")), "{ips:?}");
    assert_eq!(given(&node), 3, "one address of the cluster's pool for each");
    assert!(metric(&bed, "percale_cni_requests_total") >= 3.0, "the daemon in its pod served the plugin");
    assert_eq!(node.condition("NetworkUnavailable").unwrap().0, "False");
    what_is_on_the_machine(&node);
    let spaces = names.map(|name| space(&mut node, name));
    let reached = |when: &str| {
        probe::tcp(&bed.host, &spaces[0], ips[0]).unwrap_or_else(|e| panic!("host to pod {when}: {e}"));
        probe::tcp(&spaces[1], &spaces[2], ips[2]).unwrap_or_else(|e| panic!("pod to pod {when}: {e}"));
    };
    reached("at first");

    // A new daemon: another pod of the set. Pods that run do not notice, pods that come meanwhile get there.
    let first = name(&agent(&node).unwrap());
    node.delete_pod("percale-system", &first);
    node.create_pod("meanwhile");
    wait_long("a pod starts", || running(&node, &["meanwhile"]).is_some(), || agent_log(&node));
    let again = || agent(&node).is_some_and(|pod| name(&pod) != first && is_ready(&pod));
    wait_long("another pod of the daemon set", again, || agent_log(&node));
    reached("after a restart of the daemon");
    let told = agent_log(&node);
    assert!(!told.contains("forbidden"), "the shipped rights are enough: {told}");

    for name in names.iter().chain(&["meanwhile"]) {
        node.delete_pod("default", name);
    }
    wait_long("every address is free", || given(&node) == 0, || agent_log(&node));
}

fn what_is_on_the_machine(node: &KubeNode) {
    let conflist: Value =
        serde_json::from_slice(&fs::read(node.file("/etc/cni/net.d/10-percale.conflist")).unwrap()).unwrap();
    assert_eq!(conflist["plugins"][0]["datastore_type"], "kubernetes");
    let kubeconfig = fs::metadata(node.file("/etc/cni/net.d/percale-kubeconfig")).unwrap();
    assert_eq!(kubeconfig.permissions().mode() & 0o777, 0o600);
    for name in ["percale", "percale-ipam", "percale-cluster", "portmap", "loopback"] {
        assert!(node.file("/opt/cni/bin").join(name).is_file(), "{name}");
    }
}
