//! A node of a cluster: containerd and a genuine kubelet on a machine of their own (`testdata/apiserver`).
//!
//! ```text
//!   this machine's namespace                the bed's host namespace, and its mounts
//!   etcd, kube-apiserver, controllers ◄──── Bridge ◄── kubelet ──► containerd ──► /opt/cni/bin/percale
//! ```

use crate::bed::{Bed, wait_for};
use crate::bins::workspace;
use crate::bridge::Bridge;
use crate::cluster::{Cluster, Kind};
use crate::containerd::Containerd;
use crate::netns::must;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No QoS hierarchy and no reservations: those need cgroups that a test does not own.
const CONFIG: &str = r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
failCgroupV1: false
localStorageCapacityIsolation: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
healthzPort: 0
readOnlyPort: 0
address: 127.0.0.1
makeIPTablesUtilChains: false
resolvConf: ""
syncFrequency: 1s
nodeStatusUpdateFrequency: 1s
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "0%", nodefs.available: "0%"}
"#;

/// A node; its kubelet ends with it, then its pods and its runtime.
pub struct KubeNode<'a> {
    pub cluster: Arc<Cluster>,
    pub name: String,
    pub containerd: Containerd<'a>,
    pub bridge: Bridge,
    bed: &'a Bed,
    kubelet: u32,
}

impl<'a> KubeNode<'a> {
    /// Starts it; the node has registered when this returns, and has no network.
    pub fn join(cluster: &Arc<Cluster>, bed: &'a Bed, name: &str) -> Self {
        let containerd = Containerd::on_own_machine(bed);
        let bridge = Bridge::into(&bed.host, cluster.port(Kind::Kubernetes));
        let kubeconfig = fs::read_to_string(cluster.admin_kubeconfig()).expect("the bed has a kubeconfig");
        let kubeconfig =
            bed.write("kubelet.kubeconfig", kubeconfig.replace(&cluster.url(), &bridge.url("https")));
        let mut command = Command::new("nsenter");
        command.args(["-m", "-n", "-t", &containerd.pid().to_string(), "--"]).arg(program());
        command.arg("--config").arg(bed.write("kubelet.yaml", CONFIG)).arg("--kubeconfig").arg(kubeconfig);
        command.args(["--hostname-override", name]);
        let log = File::create(bed.path("kubelet.log")).expect("the bed is writable");
        let kubelet = bed.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
        let node = Self { cluster: cluster.clone(), name: name.to_owned(), containerd, bridge, bed, kubelet };
        wait_for("the node registers", || node.object()["status"]["conditions"].is_array());
        node
    }

    /// The Node object.
    pub fn object(&self) -> Value {
        self.cluster.api("GET", &format!("/api/v1/nodes/{}", self.name), None)
    }

    /// Status and message of a condition of the node.
    pub fn condition(&self, kind: &str) -> Option<(String, String)> {
        let object = self.object();
        let found = object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)?;
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("message")))
    }

    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|(status, _)| status == "True")
    }

    /// A file of the machine that the bed holds: of `/etc`, `/opt` or `/var`.
    pub fn file(&self, path: &str) -> PathBuf {
        self.bed.path("machine/up").join(path.trim_start_matches('/'))
    }

    /// Writes a file of the machine, as its processes see it.
    pub fn put(&self, path: &str, mode: &str, content: File) {
        let script = "mkdir -p \"${1%/*}\"; cat > \"$1\"; chmod \"$2\" \"$1\"";
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.containerd.pid().to_string(), "sh", "-ec", script, "sh", path, mode]);
        must(command.stdin(content));
    }

    /// Creates a pod that does nothing, for the scheduler to place.
    pub fn create_pod(&self, name: &str) {
        let container = json!({"name": "c", "image": "localhost/pause:1", "imagePullPolicy": "Never"});
        let spec = json!({"containers": [container], "terminationGracePeriodSeconds": 0});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        let made = self.cluster.api("POST", "/api/v1/namespaces/default/pods", Some(&pod));
        assert_eq!(made["kind"], "Pod", "{made}");
    }

    pub fn delete_pod(&self, namespace: &str, name: &str) {
        self.cluster.api("DELETE", &format!("/api/v1/namespaces/{namespace}/pods/{name}"), None);
    }

    /// Pods of a namespace with a label (`key=value`, or empty for all).
    pub fn pods(&self, namespace: &str, label: &str) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={label}");
        self.cluster.api("GET", &path, None)["items"].as_array().cloned().unwrap_or_default()
    }

    /// What a container of a pod wrote.
    pub fn log(&self, namespace: &str, pod: &str, container: &str) -> String {
        let dir = self.file("/var/log/pods");
        let prefix = format!("{namespace}_{pod}_");
        let pods = fs::read_dir(dir).into_iter().flatten().flatten();
        let ours = pods.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        let files = ours.flat_map(|entry| fs::read_dir(entry.path().join(container)).into_iter().flatten());
        files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
    }
}

impl Drop for KubeNode<'_> {
    fn drop(&mut self) {
        // First, so that it does not start pods again.
        self.bed.kill(self.kubelet);
    }
}

/// True once every container of the pod is ready.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// As [`wait_for`], for what images, probes and controllers take part in: two minutes.
pub fn wait_long(what: &str, mut done: impl FnMut() -> bool, why: impl Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < deadline, "waited 120 s in vain: {what}: {}", why());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn program() -> PathBuf {
    let out = must(Command::new(workspace().join("testdata/apiserver/build")).arg("kubelet"));
    String::from_utf8_lossy(&out).trim().into()
}

/// The chart as it is shipped, with an image that the node has, and the API server's address.
pub fn manifests(registry: &str, node: &KubeNode, sets: &[&str]) -> String {
    let url = node.bridge.url("https");
    let (host, port) = url.trim_start_matches("https://").split_once(':').expect("a port");
    let image = format!("image.registry={registry},image.tag=test");
    let server = format!("apiServer.host={host},apiServer.port={port}");
    chart(&[], &[&[image.as_str(), &server], sets].concat())
}

/// The chart's templates, or some of them, with these values.
pub fn chart(templates: &[&str], sets: &[&str]) -> String {
    let mut helm = Command::new(crate::bins::go_tools().join("bin/helm"));
    helm.args(["template", "percale"]).arg(workspace().join("install/charts/percale"));
    helm.args(["-n", "percale-system", "--kube-version", "1.36.0"]);
    for template in templates {
        helm.arg("--show-only").arg(format!("templates/{template}"));
    }
    for set in sets {
        helm.args(["--set", set]);
    }
    String::from_utf8(must(&mut helm)).expect("YAML is text")
}
