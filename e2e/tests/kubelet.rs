//! The whole of it in a cluster: kubelet, containerd, controllers and API server are genuine; what is installed is
//! the chart's manifests with the image, and nothing else.
// REQ: I-06
// REQ: C-17

#![allow(clippy::unwrap_used)]

use e2e::cluster::{Cluster, Kind, key, resource};
use e2e::installer::version;
use e2e::kubelet::{KubeNode, is_ready, manifests, wait_long};
use e2e::netns::must;
use e2e::{Bed, Netns, bins, conf, probe};
use serde_json::{Value, json};
use std::fs::{self, File};
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

/// A pod reaches the host and is reached by it.
fn reached(bed: &Bed, node: &mut KubeNode, pod: &str, when: &str) {
    let ip = running(node, &[pod]).unwrap()[0];
    let space = space(node, pod);
    probe::tcp(&bed.host, &space, ip).unwrap_or_else(|e| panic!("host to {pod} {when}: {e}"));
}

/// The node as Calico's installer leaves it; its plugin is played by another build of ours under its names.
fn calico_installs(bed: &Bed, node: &KubeNode) {
    let theirs = version(bed, "theirs");
    let loopback = bins::go_tools().join("plugins/loopback");
    for (name, file) in [
        ("calico", theirs.join("percale")),
        ("calico-ipam", theirs.join("percale")),
        ("percale-cluster", theirs.join("percale-cluster")),
        ("loopback", loopback),
    ] {
        node.put(&format!("/opt/cni/bin/{name}"), "755", File::open(file).unwrap());
    }
    let nodename = File::open(bed.write("nodename", &node.name)).unwrap();
    node.put("/var/lib/calico/nodename", "644", nodename);
    let kubeconfig = "/etc/cni/net.d/calico-kubeconfig";
    node.put(kubeconfig, "600", File::open(bed.path("kubelet.kubeconfig")).unwrap());
    let plugin = json!({"type": "calico", "datastore_type": "kubernetes", "nodename": node.name, "mtu": 1440,
        "ipam": {"type": "calico-ipam"}, "kubernetes": {"kubeconfig": kubeconfig}});
    let conflist =
        bed.write("calico.conflist", conf::conflist("k8s-pod-network", "0.3.1", &[plugin]).to_string());
    node.put("/etc/cni/net.d/10-calico.conflist", "644", File::open(conflist).unwrap());
}

const SETS: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets";

/// What plays calico-node: a pod of a daemon set with its label, and the affinity that the administrator patches in.
fn calico_node(cluster: &Cluster) {
    let labels = json!({"k8s-app": "calico-node"});
    let file = bins::workspace().join("install/manifests/calico-node-avoids.yaml");
    let patch: Value = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let container = json!({"name": "calico-node", "image": "localhost/pause:1", "imagePullPolicy": "Never"});
    let spec = json!({"hostNetwork": true, "terminationGracePeriodSeconds": 0, "tolerations": [{"operator": "Exists"}],
        "affinity": patch["spec"]["template"]["spec"]["affinity"], "containers": [container]});
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "calico-node", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}});
    assert_eq!(cluster.api("POST", SETS, Some(&set))["kind"], "DaemonSet");
}

/// What the chart's values make of a node of Calico's, one after the other: plugin and IPAM, all, and the way back.
// REQ: C-18
// REQ: I-07
#[test]
fn the_chart_takes_a_node_over_from_calico_and_gives_it_back() {
    let bed = Bed::new("kubetake");
    let outside = bed.netns("outside");
    e2e::netns::join(&bed.host, &outside);
    let cluster = Cluster::with_controllers();
    let pool = json!({"cidr": POOL, "blockSize": 26, "nodeSelector": "all()", "natOutgoing": true});
    cluster.put(Kind::Kubernetes, &key("ippools", "default"), Some(resource("IPPool", "default", pool)));
    let mut node = KubeNode::join(&cluster, &bed, "node-a");
    node.containerd.import(&image(&bed));
    calico_installs(&bed, &node);
    node.create_pod("old");
    let log = || fs::read_to_string(node.file("/var/log/calico/cni/cni.log")).unwrap_or_default();
    wait_long("Calico's pod runs", || running(&node, &["old"]).is_some(), log);
    reached(&bed, &mut node, "old", "under Calico");
    calico_node(&cluster);
    let calicos = || node.pods("kube-system", "k8s-app=calico-node").len();
    let theirs = fs::read(node.file("/opt/cni/bin/calico")).unwrap();
    let installed = |name: &str| fs::read(node.file("/opt/cni/bin").join(name)).ok();
    let net_d = || {
        let files = fs::read_dir(node.file("/etc/cni/net.d")).unwrap();
        let names = files.map(|f| f.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with("list")).collect::<Vec<_>>()
    };
    let stage = || fs::read_to_string(node.file("/var/lib/percale/take-over")).unwrap_or_default();
    let becomes = |sets: &[&str], word: &str| {
        cluster.apply(&manifests("localhost", &node, sets));
        // Given back, it is ready once calico-node has come.
        let ready = || word == "given-back" || agent(&node).is_some_and(|pod| is_ready(&pod));
        let done = || stage().trim() == word && ready();
        wait_long(word, done, || agent_log(&node));
        assert_eq!(net_d(), ["10-calico.conflist"], "{word}");
        assert!(!agent_log(&node).contains("forbidden"), "{word}: {}", agent_log(&node));
    };

    becomes(&["cni.takeOver=plugin"], "plugin");
    wait_long("calico-node runs on", || calicos() == 1, || agent_log(&node));
    assert_eq!(installed("calico"), installed("percale"));
    assert_ne!(installed("calico").as_ref(), Some(&theirs));
    node.create_pod("new");
    wait_long("a new pod runs", || running(&node, &["new"]).is_some(), || agent_log(&node));
    assert_eq!(given(&node), 2, "of Calico's own pool");
    assert!(metric(&bed, "percale_cni_requests_total") >= 1.0, "the daemon in its pod served it");
    assert!(!bed.host.ruleset().contains("percale-node"), "rules are calico-node's");

    becomes(&["cni.takeOver=all"], "all");
    assert_eq!(node.object()["metadata"]["labels"]["percale.io/taken-over"], "all");
    assert_eq!(calicos(), 0, "the label keeps calico-node off");
    assert!(bed.host.ruleset().contains("table inet percale-node"));
    becomes(&["cni.takeOver=all,cni.leave=true"], "given-back");
    assert_eq!(installed("calico"), Some(theirs));
    assert_eq!(installed("percale"), None);
    assert!(node.object()["metadata"]["labels"]["percale.io/taken-over"].is_null());
    wait_long("calico-node comes back", || calicos() == 1, || agent_log(&node));
    assert!(bed.host.ruleset().contains("table inet percale-node"), "ours stay until Felix's are there");
    must(bed.host.command("iptables").args(["-N", "cali-FORWARD"]));
    let chain =
        ["-A", "FORWARD", "-m", "comment", "--comment", "cali:wUHhoiAYhphO9Mso", "-j", "cali-FORWARD"];
    must(bed.host.command("iptables").args(chain));
    let ready = || agent(&node).is_some_and(|pod| is_ready(&pod));
    wait_long("the daemon has nothing left to do", ready, || agent_log(&node));
    assert!(!bed.host.ruleset().contains("inet percale"));
    for pod in ["old", "new"] {
        reached(&bed, &mut node, pod, "in the end");
    }
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
