//! Genuine Calico programs beside ours, on one store.
//!
//! `PERCALE_CALICO_DIR` names a directory with a directory for each version (`v3.28.5`, `v3.33.0-dev`, ...),
//! in it `calico` (the CNI plugin; as `calico-ipam` by name too), `calicoctl` and, for those that have one,
//! `install`. Nothing of them is part of this project, so `scripts/test` does not run these tests:
//! `scripts/genuine-calico DIR` does.

pub mod compare;

use crate::bed::Bed;
use crate::bridge::Bridge;
use crate::cluster::{Cluster, Kind, Node, soon};
use crate::cnirun::{Answer, Attachment, Network};
use crate::netns::must;
use ipnet::IpNet;
use model::store::{Expect, Write};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{env, fs};

/// Calico's default name of the network.
pub const NETWORK: &str = "k8s-pod-network";

/// One version of the genuine programs.
#[derive(Clone, Debug)]
pub struct Calico {
    pub version: String,
    dir: PathBuf,
}

impl Calico {
    /// Every version there is.
    ///
    /// # Panics
    /// Where there is none: a run without them would prove nothing.
    pub fn all() -> Vec<Self> {
        let root = env::var_os("PERCALE_CALICO_DIR").expect("PERCALE_CALICO_DIR is set");
        let entries = fs::read_dir(&root).expect("PERCALE_CALICO_DIR can be read");
        let dirs = entries.map(|e| e.expect("it can be read").path()).filter(|d| d.join("calico").is_file());
        let version = |dir: &Path| dir.file_name().map(|n| n.to_string_lossy().into_owned());
        let mut all: Vec<Self> = dirs.filter_map(|dir| Some(Self { version: version(&dir)?, dir })).collect();
        all.sort_by(|a, b| a.version.cmp(&b.version));
        assert!(!all.is_empty(), "{root:?} has no directory with a program `calico`");
        all
    }

    /// The newest version.
    pub fn newest() -> Self {
        Self::all().pop().expect("there is one")
    }

    /// Whether it is at least `3.MINOR`.
    pub fn since(&self, minor: u32) -> bool {
        let mut parts = self.version.trim_start_matches('v').split('.');
        let own = parts.nth(1).and_then(|part| part.parse::<u32>().ok());
        own.unwrap_or_else(|| panic!("{} is no version", self.version)) >= minor
    }

    /// One of its programs, where it has it.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.join(name)).filter(|path| path.is_file())
    }
}

/// Whose plugins run.
#[derive(Clone, Debug)]
pub enum Side {
    /// Ours under Calico's names.
    Percale,
    Calico(Calico),
}

impl Side {
    /// Ours, then every version of theirs.
    pub fn all() -> Vec<Self> {
        let theirs = Calico::all().into_iter().map(Self::Calico);
        std::iter::once(Self::Percale).chain(theirs).collect()
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Percale => "percale",
            Self::Calico(calico) => &calico.version,
        }
    }

    /// Its directory of plugins, below the bed's.
    pub fn folder(&self) -> String {
        format!("of-{}", self.name())
    }

    fn place(&self, bed: &Bed) {
        let dir = bed.plugin_dir().join(self.folder());
        fs::create_dir(&dir).expect("the bed is writable");
        let program = match self {
            Self::Percale => bed.bins.as_ref().expect("a bed with our binaries").percale(),
            Self::Calico(calico) => calico.program("calico").expect("a version has its plugin"),
        };
        for name in ["calico", "calico-ipam"] {
            std::os::unix::fs::symlink(&program, dir.join(name)).expect("the bed is writable");
        }
    }
}

/// A store, and hosts on which plugins of either side run. All of them are in one namespace: a host is its
/// name, its lock and its state.
pub struct Site {
    pub bed: Bed,
    pub node: Node,
    pub kind: Kind,
    pub cluster: Arc<Cluster>,
    _api: Bridge,
}

impl Site {
    pub fn new(cluster: &Arc<Cluster>, kind: Kind, tag: &str) -> Self {
        let bed = Bed::new(tag);
        Side::all().iter().for_each(|side| side.place(&bed));
        must(bed.host.command("ip").args(["route", "add", "default", "dev", "lo"]));
        let node = Node::join(cluster, kind, &bed);
        let port = cluster.url().rsplit(':').next().and_then(|p| p.parse().ok()).expect("a URL with a port");
        let api = Bridge::into(&bed.host, port);
        let admin = fs::read_to_string(cluster.admin_kubeconfig()).expect("the bed has a kubeconfig");
        bed.write("admin", admin.replace(&cluster.url(), &api.url("https")));
        Self { bed, node, kind, cluster: cluster.clone(), _api: api }
    }

    /// Registers another host.
    pub fn add_host(&self, name: &str) {
        self.cluster.add_node(self.kind, name);
    }

    /// The network as Calico's installer configures it, for one side on one host.
    pub fn network(&self, side: &Side, host: &str) -> Network<'_> {
        let mut plugin = self.node.plugin(&self.bed);
        let at = |tail: &str| self.bed.path(&format!("hosts/{host}/{tail}"));
        fs::create_dir_all(at("run")).expect("the bed is writable");
        let store = if self.kind == Kind::Etcd { "etcdv3" } else { "kubernetes" };
        let own = json!({
            "type": "calico", "log_level": "debug", "datastore_type": store,
            "nodename": host, "nodename_file_optional": true, "mtu": 1500,
            "ipam_lock_file": at("run/ipam.lock"), "attachment_dir": at("attachments"), "state_dir": at("state"),
            "log_file_path": at(&format!("{}.log", side.name())),
        });
        crate::conf::put_all(&mut plugin, own);
        plugin["ipam"]["type"] = json!("calico-ipam");
        // In etcd too: 3.18 makes itself a client of Kubernetes for every pod.
        if matches!(side, Side::Calico(_)) {
            plugin["kubernetes"] = json!({"kubeconfig": self.bed.path("admin")});
        }
        let mut network = Network::new(&self.bed, NETWORK, vec![plugin]).at_version("0.3.1");
        let own_dir = self.bed.plugin_dir().join(side.folder());
        network.env = vec![("CNI_PATH".into(), own_dir.display().to_string())];
        if matches!(side, Side::Calico(_)) {
            network.wrap = self.contained(&at("run"));
        }
        network
    }

    /// Newer Calico keeps a mark in /var/run/calico: the host's own directory stands there for it.
    fn contained(&self, run: &Path) -> Vec<std::ffi::OsString> {
        let script = "set -e; b=$1; shift; mkdir -p \"$b/netns\" \"$b/calico\"; mount --rbind /run/netns \"$b/netns\"; \
                      mount -t tmpfs percale-e2e /run; mkdir /run/netns /run/calico; mount --rbind \"$b/netns\" /run/netns; \
                      mount --bind \"$b/calico\" /run/calico; exec \"$@\"";
        let words = ["unshare", "--mount", "sh", "-c", script, "sh"].map(Into::into);
        words.into_iter().chain([run.into()]).collect()
    }

    /// Runs one of the plugins of a side: `calico` or `calico-ipam`.
    pub fn run(&self, side: &Side, host: &str, verb: &str, program: &str, pod: &Attachment) -> Answer {
        self.run_with(&self.network(side, host), side, verb, program, pod)
    }

    /// As [`Site::run`], with a configuration that was changed.
    pub fn run_with(
        &self,
        network: &Network<'_>,
        side: &Side,
        verb: &str,
        program: &str,
        pod: &Attachment,
    ) -> Answer {
        let config = network.config(&network.plugins[0], None).to_string();
        network.exec_raw(verb, &format!("{}/{program}", side.folder()), config.as_bytes(), pod)
    }

    /// Everything of Calico's in the store, as it is stored: etcd's bytes, or the objects of the API.
    pub fn dump(&self) -> BTreeMap<String, String> {
        match self.kind {
            Kind::Etcd => {
                let all = self.cluster.store(self.kind).list("/calico/", soon()).expect("etcd answers");
                let text = |value: Vec<u8>| String::from_utf8(value).expect("values are text");
                all.into_iter().map(|entry| (entry.key, text(entry.value))).collect()
            }
            Kind::Kubernetes => KINDS.iter().flat_map(|kind| self.objects(kind)).collect(),
        }
    }

    fn objects(&self, plural: &str) -> Vec<(String, String)> {
        let list = self.cluster.api("GET", &format!("/apis/crd.projectcalico.org/v1/{plural}"), None);
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let named = |mut item: Value| {
            let metadata = item["metadata"].as_object_mut().expect("an object has metadata");
            for own in ["managedFields", "uid", "resourceVersion", "creationTimestamp", "generation"] {
                metadata.remove(own);
            }
            (format!("{plural}/{}", item["metadata"]["name"].as_str().unwrap_or_default()), item.to_string())
        };
        items.into_iter().map(named).collect()
    }

    /// One object, as the store has it for us.
    pub fn stored(&self, key: &str) -> Value {
        let found = self.cluster.store(self.kind).get(&[key], soon()).expect("the store answers").remove(0);
        let found = found.unwrap_or_else(|| panic!("{key} is not there"));
        serde_json::from_slice(&found.value).expect("values are JSON")
    }

    /// Every address that is given, and to which container.
    pub fn given(&self) -> BTreeMap<IpAddr, String> {
        let blocks = self.cluster.store(self.kind).list("/calico/ipam/v2/assignment/", soon());
        let blocks = blocks.expect("the store answers");
        blocks.iter().flat_map(|entry| given_of(&entry.value)).collect()
    }

    /// Deletes what allocation and endpoints left, but for pools and nodes.
    pub fn wipe(&self) {
        let store = self.cluster.store(self.kind);
        for prefix in ["/calico/ipam/", "/calico/resources/v3/projectcalico.org/workloadendpoints/"] {
            for key in store.keys(prefix, soon()).unwrap_or_default() {
                let write = Write { key, expect: Expect::Any, value: None };
                store.commit(&[write], soon()).expect("the store answers");
            }
        }
    }

    /// `calicoctl` as the administrator runs it.
    pub fn calicoctl(&self, calico: &Calico, args: &[&str]) -> Command {
        let mut command = Command::new(calico.program("calicoctl").expect("a version has calicoctl"));
        command.args(args);
        if calico.since(21) && args.first() != Some(&"datastore") {
            command.arg("--allow-version-mismatch");
        }
        self.administrator(&mut command);
        // The newest asks Kubernetes for virtual machines, whatever the datastore.
        command.env("KUBECONFIG", self.cluster.admin_kubeconfig());
        command
    }

    /// `percalectl` as the administrator runs it.
    pub fn percalectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.bed.bins.as_ref().expect("ours are there").percalectl());
        self.administrator(command.args(args));
        command
    }

    fn administrator(&self, command: &mut Command) {
        let pki = |file: &str| self.cluster.pki(file);
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
        match self.kind {
            Kind::Etcd => command
                .envs([("DATASTORE_TYPE", "etcdv3"), ("ETCD_ENDPOINTS", &self.cluster.etcd_url())])
                .env("ETCD_CA_CERT_FILE", pki("ca.crt"))
                .env("ETCD_CERT_FILE", pki("etcd-client.crt"))
                .env("ETCD_KEY_FILE", pki("etcd-client.key")),
            Kind::Kubernetes => {
                command.env("DATASTORE_TYPE", "kubernetes").env("KUBECONFIG", self.cluster.admin_kubeconfig())
            }
        };
    }
}

/// The kinds that a node's pods touch.
const KINDS: [&str; 5] = ["ipamblocks", "blockaffinities", "ipamhandles", "ipamconfigs", "ippools"];

fn given_of(block: &[u8]) -> Vec<(IpAddr, String)> {
    let block: Value = serde_json::from_slice(block).expect("blocks are JSON");
    let cidr: IpNet = block["cidr"].as_str().and_then(|c| c.parse().ok()).expect("a block has its CIDR");
    let base = cidr.network();
    let slots = block["allocations"].as_array().expect("a block has slots");
    let owner = |slot: &Value| {
        let attribute = &block["attributes"][usize::try_from(slot.as_u64()?).ok()?];
        attribute["handle_id"].as_str()?.strip_prefix(NETWORK)?.strip_prefix('.').map(str::to_owned)
    };
    let address = |at: usize| match base {
        IpAddr::V4(ip) => IpAddr::from(Ipv4Addr::from_bits(ip.to_bits() + at as u32)),
        IpAddr::V6(ip) => IpAddr::from(Ipv6Addr::from_bits(ip.to_bits() + at as u128)),
    };
    let given = slots.iter().enumerate().filter(|(_, slot)| !slot.is_null());
    given.map(|(at, slot)| (address(at), owner(slot).unwrap_or_default())).collect()
}
