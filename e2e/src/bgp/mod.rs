//! Test beds for BGP: a bridge with an etcd, nodes that run `percaled`, and the speakers of others, each in a
//! namespace of its own.
//!
//! ```text
//!   hub: bridge br0 10.99.0.254/24, fd99::fe/64, etcd
//!     ├ node N     10.99.0.N  fd99::N   percaled
//!     └ speaker M  10.99.0.M  fd99::M   bird, bgpd, gobgpd, exabgp
//! ```
//! Instead of the etcd there may be an API server, which each node reaches on its loopback.

mod etcd;
mod kubernetes;
mod monitor;
mod node;
mod pod;
mod proxy;
pub mod scripted;
mod speakers;

pub use kubernetes::Account;
pub use monitor::Monitor;
pub use node::Node;
pub use speakers::{Bird, Frr, Gobgp, Process};

use crate::cluster::{self, Cluster, Kind};
use crate::netns::{Netns, must};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Where resources are in etcd.
const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";

/// Where the objects are.
enum Kept {
    Etcd(Process),
    Kubernetes(Arc<Cluster>, Account),
}

/// The bridge and the store. All of it goes when it is dropped.
pub struct Fabric {
    kept: Kept,
    pub hub: Netns,
    dir: tempfile::TempDir,
    prefix: String,
}

impl Fabric {
    /// With an etcd.
    pub fn new(tag: &str) -> Self {
        Self::with(tag, |hub, dir| Kept::Etcd(etcd::start(hub, dir)))
    }

    /// With an API server of its own; the daemons have the account of the manifests.
    pub fn kubernetes(tag: &str) -> Self {
        Self::with(tag, |_, _| {
            let cluster = Cluster::own();
            let account = Account::make(&cluster);
            Kept::Kubernetes(cluster, account)
        })
    }

    fn with(tag: &str, keep: impl FnOnce(&Netns, &Path) -> Kept) -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("pb{}-{serial}", std::process::id());
        let dir = tempfile::Builder::new().prefix(&format!("percale-bgp-{tag}-")).tempdir();
        let dir = dir.expect("the temporary directory is writable");
        let hub = Netns::new(&format!("{prefix}-hub"));
        ip(&hub, "link add br0 type bridge");
        ip(&hub, "link set br0 up");
        ip(&hub, "addr add 10.99.0.254/24 dev br0");
        ip(&hub, "addr add fd99::fe/64 dev br0 nodad");
        let kept = keep(&hub, dir.path());
        Self { kept, hub, dir, prefix }
    }

    pub fn path(&self, tail: &str) -> PathBuf {
        self.dir.path().join(tail)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A namespace with both addresses of number `n` (1 to 253), joined to the bridge by `eth0`; its end at the
    /// bridge is called `v` and the number.
    pub fn host(&self, n: u8) -> Netns {
        let ns = Netns::new(&format!("{}-{n}", self.prefix));
        ip(&self.hub, &format!("link add v{n} type veth peer name eth0 netns {}", ns.name()));
        ip(&self.hub, &format!("link set v{n} master br0 up"));
        ip(&ns, "link set eth0 up");
        ip(&ns, &format!("addr add 10.99.0.{n}/24 dev eth0"));
        ip(&ns, &format!("addr add fd99::{n:x}/64 dev eth0 nodad"));
        must(ns.command("sysctl").args(["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]));
        ns
    }

    /// Cuts or restores the cable of a host: it notices nothing but silence.
    pub fn cable(&self, n: u8, plugged: bool) {
        let action = if plugged { format!("v{n} master br0") } else { format!("v{n} nomaster") };
        ip(&self.hub, &format!("link set {action}"));
    }

    /// Stores a resource.
    pub fn put(&self, plural: &str, name: &str, spec: Value) {
        self.put_with(plural, name, json!({}), spec);
    }

    /// Stores a resource with members of its metadata, such as labels.
    pub fn put_with(&self, plural: &str, name: &str, mut metadata: Value, spec: Value) {
        metadata["name"] = name.into();
        let object = json!({"apiVersion": "projectcalico.org/v3", "metadata": metadata, "spec": spec});
        self.put_key(&format!("{RESOURCES}{plural}/{name}"), &object);
    }

    pub fn put_key(&self, key: &str, value: &Value) {
        match &self.kept {
            Kept::Etcd(_) => {
                etcd::call(&self.hub, "put", &[("key", key), ("value", &value.to_string())]);
            }
            Kept::Kubernetes(cluster, _) => cluster.put(Kind::Kubernetes, key, Some(value.clone())),
        }
    }

    pub fn delete(&self, plural: &str, name: &str) {
        self.delete_key(&format!("{RESOURCES}{plural}/{name}"));
    }

    pub fn delete_key(&self, key: &str) {
        match &self.kept {
            Kept::Etcd(_) => drop(etcd::call(&self.hub, "deleterange", &[("key", key)])),
            Kept::Kubernetes(cluster, _) => cluster.put(Kind::Kubernetes, key, None),
        }
    }

    /// The stored value of a resource; null where there is none.
    pub fn get(&self, plural: &str, name: &str) -> Value {
        let key = format!("{RESOURCES}{plural}/{name}");
        match &self.kept {
            Kept::Etcd(_) => etcd::get(&self.hub, &key),
            Kept::Kubernetes(cluster, _) => {
                let found = cluster.store(Kind::Kubernetes).get(&[&key], cluster::soon());
                let entry = found.expect("the API server answers").pop().flatten();
                entry.map(|e| serde_json::from_slice(&e.value).expect("JSON")).unwrap_or_default()
            }
        }
    }

    /// The cluster, where there is an API server.
    pub fn cluster(&self) -> &Cluster {
        match &self.kept {
            Kept::Etcd(_) => panic!("this fabric has an etcd"),
            Kept::Kubernetes(cluster, _) => cluster,
        }
    }

    /// Stores a node object with the addresses of number `n`; `bgp` is added to its `spec.bgp`.
    pub fn put_node(&self, n: u8, labels: Value, bgp: Value) {
        if let Kept::Kubernetes(cluster, _) = &self.kept {
            return kubernetes::put_node(cluster, n, &labels, &bgp);
        }
        let mut own =
            json!({"ipv4Address": format!("10.99.0.{n}/24"), "ipv6Address": format!("fd99::{n:x}/64")});
        for (name, value) in bgp.as_object().into_iter().flatten() {
            own[name] = value.clone();
        }
        self.put_with("nodes", &format!("node{n}"), json!({"labels": labels}), json!({"bgp": own}));
    }

    /// Stores a confirmed affinity of a node for a block.
    pub fn put_block(&self, n: u8, cidr: &str) {
        self.put_key(&block_key(n, cidr), &json!({"state": "confirmed", "deleted": false}));
    }

    pub fn delete_block(&self, n: u8, cidr: &str) {
        self.delete_key(&block_key(n, cidr));
    }

    pub fn etcd_pid(&self) -> u32 {
        match &self.kept {
            Kept::Etcd(process) => process.pid(),
            Kept::Kubernetes(..) => panic!("this fabric has an API server"),
        }
    }

    /// How a daemon in a namespace reaches the store.
    fn access(&self, ns: &Netns, dir: &Path) -> kubernetes::Access {
        match &self.kept {
            Kept::Etcd(_) => kubernetes::Access::etcd(),
            Kept::Kubernetes(cluster, account) => account.access(cluster, ns, dir),
        }
    }
}

fn block_key(n: u8, cidr: &str) -> String {
    let version = if cidr.contains(':') { 6 } else { 4 };
    format!("/calico/ipam/v2/host/node{n}/ipv{version}/block/{}", cidr.replace('/', "-"))
}

/// Runs `ip` with words in a namespace.
pub fn ip(ns: &Netns, words: &str) {
    must(ns.command("ip").args(words.split(' ')));
}

/// Waits until `look` answers something; what it last said instead is shown when time is over.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) => assert!(Instant::now() < deadline, "{what}: waited {limit:?} in vain; last: {last}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As [`eventually`], for a condition and something to show.
pub fn soon(what: &str, mut look: impl FnMut() -> (bool, String)) {
    eventually(what, Duration::from_secs(40), || match look() {
        (true, _) => Ok(()),
        (false, seen) => Err(seen),
    });
}

/// The routes of the main table to a network as `ip -j route` tells them.
pub fn routes_to(ns: &Netns, net: &str) -> Vec<Value> {
    let family = if net.contains(':') { "-6" } else { "-4" };
    let plain = net.trim_end_matches("/32").trim_end_matches("/128");
    ns.ip(&[family, "route", "show", "table", "main"]).into_iter().filter(|r| r["dst"] == plain).collect()
}

/// The gateways of the routes to a network, in order.
pub fn gateways(ns: &Netns, net: &str) -> Vec<String> {
    let mut all = Vec::new();
    for route in routes_to(ns, net) {
        let hops = route["nexthops"].as_array().cloned().unwrap_or_else(|| vec![route.clone()]);
        all.extend(hops.iter().filter_map(|hop| hop["gateway"].as_str().map(str::to_owned)));
    }
    all.sort();
    all
}
