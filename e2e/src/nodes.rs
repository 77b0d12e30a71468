//! Several nodes on one machine: a namespace each, joined by a bridge with a router between two subnets,
//! each with its own daemon, state and plugin; one etcd, or one API server, for all.
//!
//! ```text
//!   n1 10.88.1.1 ─┐                      ┌─ n3 10.88.2.3      a default route through the router each;
//!   n2 10.88.1.2 ─┴─ bridge ─ router ────┘                    it knows no pod network
//!                              │ etcd on 10.88.1.254; the API server is reached over a node's loopback
//! ```

mod capture;
mod etcd;
mod kubernetes;
mod node;
mod stream;

pub use capture::Capture;
pub use kubernetes::DaemonAccount;
pub use node::Node;
pub use stream::Stream;

use crate::bed::Bed;
use crate::bins::target_dir;
use crate::netns::{Netns, must};
use crate::probe;
use etcd::Etcd;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// For what the nodes have to learn from each other.
pub const PATIENCE: Duration = Duration::from_secs(20);
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// The whole bed; everything ends with it.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub router: Netns,
    store: Store,
    prefix: String,
    dir: tempfile::TempDir,
}

enum Store {
    Etcd(Etcd),
    Kubernetes(Arc<crate::cluster::Cluster>),
}

/// A pod's namespace and addresses.
pub struct Pod {
    pub netns: Netns,
    pub container: String,
    pub addresses: Vec<IpAddr>,
    /// Of its host end.
    pub mtu: u64,
}

impl Pod {
    pub fn ip(&self, v4: bool) -> IpAddr {
        *self.addresses.iter().find(|ip| ip.is_ipv4() == v4).expect("a pod has both families")
    }
}

/// Asserts that everything passes between two pods, in both families, up to the MTU.
pub fn reaches(from: &Pod, to: &Pod) {
    for v4 in [true, false] {
        let mtu = usize::try_from(from.mtu.min(to.mtu)).expect("an MTU is small");
        probe::everything(&from.netns, &to.netns, to.ip(v4), mtu, Some(from.ip(v4)));
    }
}

/// Waits until the nodes know each other's networks.
pub fn settle(from: &Pod, to: &Pod) {
    for v4 in [true, false] {
        wait("the nodes route to each other", PATIENCE, || {
            probe::tcp(&from.netns, &to.netns, to.ip(v4)).is_ok()
        });
    }
}

impl Cluster {
    /// Nodes in these subnets (1 or 2), their daemons not started.
    pub fn new(tag: &str, subnets: &[u8], env: &[(&str, &str)]) -> Self {
        let mut cluster = Self::without_nodes(tag);
        for (at, subnet) in subnets.iter().enumerate() {
            let name = format!("{}-n{}", cluster.prefix, at + 1);
            let dir = cluster.dir.path().join(format!("n{}", at + 1));
            cluster.join(Netns::new(&name), dir, *subnet, env);
        }
        cluster
    }

    /// As [`Cluster::new`], with every daemon ready.
    pub fn ready(tag: &str, subnets: &[u8], env: &[(&str, &str)]) -> Self {
        let mut cluster = Self::new(tag, subnets, env);
        cluster.start();
        cluster
    }

    /// Nodes whose hosts are those of beds, so that a runtime can run there; daemons ready.
    pub fn in_beds(tag: &str, subnets: &[u8], env: &[(&str, &str)], beds: &[&Bed]) -> Self {
        let mut cluster = Self::without_nodes(tag);
        for (bed, subnet) in beds.iter().zip(subnets) {
            let path = bed.host.path().to_str().expect("names of namespaces are plain");
            cluster.join(Netns::existing(path), bed.path("node"), *subnet, env);
        }
        cluster.start();
        cluster
    }

    /// Nodes of a Kubernetes cluster, whose daemons have the rights that our manifests give them.
    pub fn on_kubernetes(
        tag: &str,
        api: &Arc<crate::cluster::Cluster>,
        subnets: &[u8],
        env: &[(&str, &str)],
    ) -> Self {
        let mut cluster = Self::empty(tag, |_, _| Store::Kubernetes(api.clone()));
        let account = DaemonAccount::install(api);
        for (at, subnet) in subnets.iter().enumerate() {
            let name = format!("{}-n{}", cluster.prefix, at + 1);
            let dir = cluster.dir.path().join(format!("n{}", at + 1));
            cluster.join(Netns::new(&name), dir, *subnet, env);
            let node = cluster.nodes.last_mut().expect("one just joined");
            account.give(node);
        }
        cluster
    }

    fn without_nodes(tag: &str) -> Self {
        Self::empty(tag, |router, dir| Store::Etcd(Etcd::start(router, dir)))
    }

    fn empty(tag: &str, store: impl FnOnce(&Netns, &std::path::Path) -> Store) -> Self {
        let prefix = format!("pn{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&format!("percale-nodes-{tag}-")).tempdir();
        let dir = dir.expect("the temporary directory is writable");
        let router = Netns::new(&format!("{prefix}-r"));
        make_router(&router);
        let store = store(&router, dir.path());
        Self { nodes: Vec::new(), router, store, prefix, dir }
    }

    fn join(&mut self, host: Netns, dir: PathBuf, subnet: u8, env: &[(&str, &str)]) {
        fs::create_dir_all(&dir).expect("the bed is writable");
        let number = self.nodes.len() + 1;
        let mut env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let etcd = [("DATASTORE_TYPE", "etcdv3"), ("ETCD_ENDPOINTS", etcd::URL)];
        env.extend(etcd.map(|(k, v)| (k.to_owned(), v.to_owned())));
        let store = json!({"datastore_type": "etcdv3", "etcd_endpoints": etcd::URL});
        let name = format!("node{number}");
        let node = Node { name, host, dir, env, wrap: Vec::new(), store, _bridge: None, daemon: None };
        node.connect(&self.router, subnet, number);
        self.nodes.push(node);
    }

    /// Starts every daemon and waits until all are ready.
    pub fn start(&mut self) {
        self.nodes.iter_mut().for_each(Node::start);
        self.nodes.iter().for_each(Node::wait_ready);
    }

    /// Starts a pod through the shipped plugin.
    pub fn add(&self, node: usize, container: &str) -> Pod {
        self.try_add(node, container).unwrap_or_else(|told| panic!("ADD of {container}: {told}"))
    }

    /// # Errors
    /// What the plugin answered.
    pub fn try_add(&self, node: usize, container: &str) -> Result<Pod, Value> {
        let netns = Netns::new(&format!("{}-{container}", self.prefix));
        if let Store::Kubernetes(api) = &self.store {
            kubernetes::make_pod(api, &self.nodes[node].name, container);
        }
        let result = self.nodes[node].cni("ADD", container, &self.args(container), netns.path())?;
        let ips = result["ips"].as_array().expect("a result has ips");
        let bare = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
        let addresses = ips.iter().map(|ip| bare(ip).expect("an address")).collect();
        let mtu = netns.ip(&["link", "show", "eth0"])[0]["mtu"].as_u64().expect("a link has an MTU");
        Ok(Pod { netns, container: container.to_owned(), addresses, mtu })
    }

    /// # Errors
    /// What the plugin answered.
    pub fn del(&self, node: usize, pod: &Pod) -> Result<(), Value> {
        let args = self.args(&pod.container);
        self.nodes[node].cni("DEL", &pod.container, &args, pod.netns.path()).map(drop)
    }

    /// As kubelet names a pod to the plugin.
    fn args(&self, pod: &str) -> String {
        match self.store {
            Store::Etcd(_) => String::new(),
            Store::Kubernetes(_) => {
                format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}")
            }
        }
    }

    /// What is stored under a key of etcd.
    pub fn stored(&self, key: &str) -> Option<Value> {
        etcd::get(&self.router, key)
    }

    /// Every value below a prefix of etcd.
    pub fn stored_under(&self, prefix: &str) -> Vec<Value> {
        etcd::list(&self.router, prefix)
    }

    pub fn store(&self, key: &str, value: &Value) {
        etcd::put(&self.router, key, value);
    }

    pub fn unstore(&self, key: &str) {
        etcd::delete(&self.router, key);
    }

    /// The store, for what is too much for single calls.
    pub fn etcd(&self) -> datastore_etcd::Etcd {
        let config = datastore_etcd::Config { endpoints: vec![etcd::URL.to_owned()], ..Default::default() };
        let deadline = datastore::Deadline::after(Duration::from_secs(30));
        self.router.run(move || datastore_etcd::Etcd::open(&config, deadline)).expect("etcd answers")
    }

    /// Stops (or continues) etcd where it is.
    pub fn pause_etcd(&self, pause: bool) {
        match &self.store {
            Store::Etcd(etcd) => etcd.pause(pause),
            Store::Kubernetes(api) => {
                api.signal("etcd", if pause { Signal::STOP } else { Signal::CONT });
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- log of {}\n{}", node.name, node.log());
            }
        }
        self.nodes.clear();
    }
}

fn signal_child(child: &Child, signal: Signal) {
    let _ = kill_process(Pid::from_child(child), signal);
}

fn make_router(router: &Netns) {
    let ip = |args: &[&str]| drop(must(router.command("ip").args(args)));
    ip(&["link", "add", "br0", "type", "bridge"]);
    ip(&["link", "set", "br0", "up"]);
    for subnet in [1, 2] {
        ip(&["addr", "add", &format!("10.88.{subnet}.254/24"), "dev", "br0"]);
        ip(&["addr", "add", &format!("fd00:88:{subnet}::fe/64"), "dev", "br0", "nodad"]);
    }
    router.run(|| {
        for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{file}"), "1").expect("a namespace of our own");
        }
    });
}

/// A shipped program, or their directory.
pub fn bin(name: &str) -> PathBuf {
    let dir = std::env::var_os("PERCALE_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let release = target_dir().join("release");
        if release.join("percaled").is_file() { release } else { target_dir().join("debug") }
    });
    let path = dir.join(name);
    assert!(path.exists(), "{} is missing: build it first", path.display());
    path
}

/// Polls until `done`; how long it took.
pub fn wait(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        let looked = Instant::now();
        if done() {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain: {what}");
        // Where a look is dear (an emulated processor), what is waited for shall get on as well.
        std::thread::sleep(looked.elapsed().clamp(Duration::from_millis(10), Duration::from_secs(1)));
    }
}
