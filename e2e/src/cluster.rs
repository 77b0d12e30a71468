//! A real API server and etcd (`scripts/testbed`), and a node that reaches them from its namespace.
//!
//! ```text
//!   node's namespace                      this machine's
//!   percale ── 127.0.0.1:p ── Bridge ──── 127.0.0.1:q  etcd, kube-apiserver
//! ```

use crate::bed::{Bed, copy_program};
use crate::bridge::Bridge;
use crate::netns::must;
use datastore::{Deadline, Store};
use datastore_etcd::Etcd;
use datastore_kubernetes::Kubernetes;
use model::store::{Expect, Write};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Where a cluster keeps Calico's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Etcd,
    Kubernetes,
}

impl Kind {
    pub const BOTH: [Self; 2] = [Self::Etcd, Self::Kubernetes];

    /// The process whose loss is the store's.
    pub fn server(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Kubernetes => "kube-apiserver",
        }
    }
}

/// An etcd and an API server, ended with the last user.
pub struct Cluster {
    pub dir: PathBuf,
    env: HashMap<String, String>,
}

fn testbed(verb: &str, dir: &Path, controllers: bool) -> Output {
    let script = crate::bins::workspace().join("scripts/testbed");
    let mut command = Command::new(script);
    command.arg(verb).arg(dir).env("PERCALE_TESTBED_CONTROLLERS", if controllers { "1" } else { "" });
    command.output().expect("scripts/testbed runs")
}

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

impl Cluster {
    /// One for all tests that run at a time and do not harm it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Self::own();
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    /// One that may be harmed.
    pub fn own() -> Arc<Self> {
        Self::started(false)
    }

    /// With the controller manager and the scheduler: a cluster but for its nodes.
    pub fn with_controllers() -> Arc<Self> {
        Self::started(true)
    }

    fn started(controllers: bool) -> Arc<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let dir = std::env::temp_dir().join(format!("percale-cluster-{}-{count}", std::process::id()));
        let output = testbed("up", &dir, controllers);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let lines = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        let env = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let cluster = Self { dir, env };
        cluster.set_ready(Kind::Etcd, Some(true));
        cluster.set_ready(Kind::Kubernetes, Some(true));
        Arc::new(cluster)
    }

    /// The store as its administrator sees it.
    pub fn store(&self, kind: Kind) -> Box<dyn Store> {
        match kind {
            Kind::Etcd => {
                let config = datastore_etcd::Config {
                    endpoints: vec![self.env["PERCALE_TESTBED_ETCD"].clone()],
                    ca_cert_file: Some(self.pki("ca.crt")),
                    cert_file: Some(self.pki("etcd-client.crt")),
                    key_file: Some(self.pki("etcd-client.key")),
                    ..datastore_etcd::Config::default()
                };
                Box::new(Etcd::open(&config, soon()).expect("etcd answers"))
            }
            Kind::Kubernetes => {
                let kubeconfig = self.admin_kubeconfig().into();
                let config = datastore_kubernetes::Config { kubeconfig, ..Default::default() };
                Box::new(Kubernetes::open(&config, soon()).expect("the API server answers"))
            }
        }
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.env["KUBECONFIG"].clone().into()
    }

    /// The kubeconfig of the plugin's account.
    pub fn plugin_kubeconfig(&self) -> PathBuf {
        self.env["PERCALE_TESTBED_CNI_KUBECONFIG"].clone().into()
    }

    pub fn pki(&self, file: &str) -> PathBuf {
        self.dir.join("pki").join(file)
    }

    /// The URL of the API server.
    pub fn url(&self) -> String {
        let text = fs::read_to_string(self.admin_kubeconfig()).expect("the bed has a kubeconfig");
        let (_, rest) = text.split_once("https://127.0.0.1:").expect("it names the server");
        format!("https://127.0.0.1:{}", rest.split('"').next().expect("a part before the quote"))
    }

    pub fn etcd_url(&self) -> String {
        self.env["PERCALE_TESTBED_ETCD"].clone()
    }

    pub(crate) fn port(&self, kind: Kind) -> u16 {
        let url = if kind == Kind::Etcd { self.etcd_url() } else { self.url() };
        url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("the URL ends with a port")
    }

    /// A request of the administrator, as anyone else would send it.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-X", method, "--cacert"]).arg(self.pki("ca.crt"));
        curl.arg("--cert").arg(self.pki("admin.crt")).arg("--key").arg(self.pki("admin.key"));
        if let Some(body) = body {
            let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let content = format!("Content-Type: {content}");
            curl.args(["-H", &content, "--data-binary", &body.to_string()]);
        }
        let told = must(curl.arg(format!("{}{path}", self.url())));
        serde_json::from_slice(&told)
            .unwrap_or_else(|e| panic!("{path}: {e}: {}", String::from_utf8_lossy(&told)))
    }

    /// As `kubectl apply --server-side` of a file with several documents, of the kinds that our manifests have.
    pub fn apply(&self, manifests: &str) {
        for document in manifests.split("\n---").filter(|text| text.contains("kind:")) {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--fail-with-body", "-X", "PATCH", "--cacert"]).arg(self.pki("ca.crt"));
            curl.arg("--cert").arg(self.pki("admin.crt")).arg("--key").arg(self.pki("admin.key"));
            curl.args(["-H", "Content-Type: application/apply-patch+yaml", "--data-binary", document]);
            let path = path_of(document);
            must(curl.arg(format!("{}{path}?fieldManager=kubectl&force=true", self.url())));
        }
    }

    /// Makes an account without any rights; its token, for ten minutes.
    pub fn account(&self, namespace: &str, name: &str) -> String {
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        self.api("POST", &accounts, Some(&account));
        let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}});
        let given = self.api("POST", &format!("{accounts}/{name}/token"), Some(&asked));
        given["status"]["token"].as_str().unwrap_or_else(|| panic!("{given}")).to_owned()
    }

    /// Gives such an account a cluster role of its own name, of these rules.
    pub fn grant(&self, namespace: &str, account: &str, rules: &Value) {
        let (api, version) = ("/apis/rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io/v1");
        let meta = json!({"name": account});
        let role = json!({"apiVersion": version, "kind": "ClusterRole", "metadata": meta, "rules": rules});
        let to = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": account});
        let whose = json!([{"kind": "ServiceAccount", "name": account, "namespace": namespace}]);
        let binding = json!({"apiVersion": version, "kind": "ClusterRoleBinding", "metadata": meta, "roleRef": to, "subjects": whose});
        self.api("POST", &format!("{api}/clusterroles"), Some(&role));
        self.api("POST", &format!("{api}/clusterrolebindings"), Some(&binding));
    }

    /// Writes an object of Calico's under its key, whatever was there; `None` deletes it.
    pub fn put(&self, kind: Kind, key: &str, value: Option<Value>) {
        let value = value.map(|value| value.to_string().into_bytes());
        let write = Write { key: key.to_owned(), expect: Expect::Any, value };
        self.store(kind).commit(&[write], soon()).unwrap_or_else(|e| panic!("{key}: {e}"));
    }

    /// Sets `datastoreReady`; `None` deletes the object that says it.
    pub fn set_ready(&self, kind: Kind, ready: Option<bool>) {
        let info =
            ready.map(|ready| resource("ClusterInformation", "default", json!({"datastoreReady": ready})));
        self.put(kind, &key("clusterinformations", "default"), info);
    }

    /// What the agent of a node puts there.
    pub fn add_node(&self, kind: Kind, name: &str) {
        match kind {
            Kind::Etcd => self.put(kind, &key("nodes", name), Some(resource("Node", name, json!({})))),
            Kind::Kubernetes => {
                let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
                self.api("POST", "/api/v1/nodes", Some(&node));
            }
        }
    }

    fn pid(&self, server: &str) -> Pid {
        let text =
            fs::read_to_string(self.dir.join(format!("{server}.pid"))).expect("the bed has a pid file");
        text.trim().parse().ok().and_then(Pid::from_raw).expect("a pid")
    }

    /// Sends a signal to a server: `etcd` or `kube-apiserver`.
    pub fn signal(&self, server: &str, signal: Signal) {
        kill_process(self.pid(server), signal).expect("the server runs");
    }

    /// Kills a server. What it was started with is needed to start it again.
    pub fn kill(&self, server: &str) -> Killed {
        let pid = self.pid(server);
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).expect("the server runs");
        let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        let argv = words.map(|word| OsString::from_vec(word.to_vec())).collect();
        self.signal(server, Signal::KILL);
        Killed { server: server.to_owned(), argv }
    }

    pub fn start(&self, killed: &Killed) {
        let file = |end: &str| self.dir.join(format!("{}.{end}", killed.server));
        // As the bed does: a child of nobody who waits for it.
        let script = r#"pid=$1 log=$2; shift 2; setsid "$@" </dev/null >"$log" 2>&1 & echo $! >"$pid""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "start"]).arg(file("pid")).arg(file("again.log")).args(&killed.argv);
        must(&mut shell);
    }

    /// Until both servers answer. A Kubernetes whose etcd was away takes its time.
    pub fn wait(&self) {
        let answers = |client: &str, url: String| {
            let mut curl = Command::new("curl");
            curl.args(["-sSf", "-m", "3", "-o", "/dev/null", "--cacert"]).arg(self.pki("ca.crt"));
            curl.arg("--cert").arg(self.pki(&format!("{client}.crt")));
            curl.arg("--key").arg(self.pki(&format!("{client}.key"))).arg(url);
            curl.output().is_ok_and(|out| out.status.success())
        };
        crate::bed::wait_at_most(Duration::from_secs(120), "the cluster's servers", || {
            answers("etcd-client", format!("{}/health", self.etcd_url()))
                && answers("admin", format!("{}/readyz", self.url()))
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        testbed("down", &self.dir, false);
    }
}

/// A server that was killed.
pub struct Killed {
    server: String,
    argv: Vec<OsString>,
}

/// Where the API server has the object of a YAML document that is written as our chart writes it.
fn path_of(document: &str) -> String {
    let value = |key: &str| {
        let lines = document.lines().filter_map(|line| line.strip_prefix(key));
        lines.map(|text| text.trim().to_owned()).next()
    };
    let kind = value("kind:").expect("a kind");
    let name = value("  name:").expect("a name");
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let namespaced = |base: &str, plural: &str| {
        format!("{base}/namespaces/{}/{plural}/{name}", value("  namespace:").expect("a namespace"))
    };
    match kind.as_str() {
        "Namespace" => format!("/api/v1/namespaces/{name}"),
        "ServiceAccount" => namespaced("/api/v1", "serviceaccounts"),
        "ClusterRole" => format!("{rbac}/clusterroles/{name}"),
        "ClusterRoleBinding" => format!("{rbac}/clusterrolebindings/{name}"),
        "Role" => namespaced(rbac, "roles"),
        "RoleBinding" => namespaced(rbac, "rolebindings"),
        "DaemonSet" => namespaced("/apis/apps/v1", "daemonsets"),
        other => panic!("{other}: no kind of our manifests"),
    }
}

/// The key of a resource of Calico's.
pub fn key(plural: &str, name: &str) -> String {
    format!("/calico/resources/v3/projectcalico.org/{plural}/{name}")
}

pub fn resource(kind: &str, name: &str, spec: Value) -> Value {
    json!({"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": spec})
}

/// A node of a cluster with pools of its own, which no other test uses.
pub struct Node {
    pub cluster: Arc<Cluster>,
    pub kind: Kind,
    pub name: String,
    pub bridge: Bridge,
    number: u32,
}

impl Node {
    /// Registers a node whose host is the bed, and makes a pool of each family for it.
    pub fn join(cluster: &Arc<Cluster>, kind: Kind, bed: &Bed) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let bridge = Bridge::into(&bed.host, cluster.port(kind));
        let node = Self { cluster: cluster.clone(), kind, name: format!("node-{number}"), bridge, number };
        cluster.add_node(kind, &node.name);
        let pools = [
            ("v4", format!("10.{}.0.0/24", 100 + number), 28),
            ("v6", format!("fd00:{number:x}::/112"), 122),
        ];
        for (family, cidr, size) in pools {
            let spec = json!({"cidr": cidr, "blockSize": size, "nodeSelector": "all()"});
            let name = node.pool(family);
            cluster.put(kind, &key("ippools", &name), Some(resource("IPPool", &name, spec)));
        }
        bed.write("state/nodename", &node.name);
        if let Some(bins) = &bed.bins {
            copy_program(&bins.percale_cluster(), &bed.plugin_dir().join("percale-cluster"));
        }
        fs::write(bed.path("kubeconfig"), node.kubeconfig(&node.bridge.url("https")))
            .expect("the bed is writable");
        node
    }

    /// The name of one of its pools: `v4` or `v6`.
    pub fn pool(&self, family: &str) -> String {
        format!("pool-{}-{family}", self.number)
    }

    /// The plugin's kubeconfig with another URL.
    pub fn kubeconfig(&self, url: &str) -> String {
        let text = fs::read_to_string(self.cluster.plugin_kubeconfig()).expect("the bed has a kubeconfig");
        text.replace(&self.cluster.url(), url)
    }

    /// Lets the bed's kubeconfig be another account's.
    pub fn use_token(&self, bed: &Bed, token: &str) {
        let good = self.kubeconfig(&self.bridge.url("https"));
        let own = good.split("token: \"").nth(1).and_then(|rest| rest.split('"').next());
        bed.write("kubeconfig", good.replace(own.expect("the bed's kubeconfig has a token"), token));
    }

    /// The plugin's configuration, with dual stack.
    pub fn plugin(&self, bed: &Bed) -> Value {
        let mut plugin = json!({
            "type": "percale", "mtu": 1500, "state_dir": bed.path("state"),
            "ipam_lock_file": bed.path("run/ipam.lock"), "attachment_dir": bed.path("run/attachments"),
            "daemon_socket": "", "log_file_path": bed.path("log/cni.log"),
            "ipam": {
                "type": "percale-ipam", "assign_ipv6": "true",
                "ipv4_pools": [self.pool("v4")], "ipv6_pools": [self.pool("v6")],
            },
        });
        let store = match self.kind {
            Kind::Etcd => json!({
                "etcd_endpoints": self.bridge.url("https"),
                "etcd_ca_cert_file": self.cluster.pki("ca.crt"),
                "etcd_cert_file": self.cluster.pki("etcd-client.crt"),
                "etcd_key_file": self.cluster.pki("etcd-client.key"),
            }),
            Kind::Kubernetes => json!({"kubernetes": {"kubeconfig": bed.path("kubeconfig")}}),
        };
        crate::conf::put_all(&mut plugin, store);
        plugin
    }

    /// Blocks of 64 addresses of both families, as they are by default, in place of smaller ones.
    pub fn use_usual_blocks(&self) {
        let name = self.pool("v4");
        let spec = json!({"cidr": format!("10.{}.0.0/24", 100 + self.number), "blockSize": 26, "nodeSelector": "all()"});
        self.cluster.put(self.kind, &key("ippools", &name), Some(resource("IPPool", &name, spec)));
    }

    /// Makes a pod of this node in Kubernetes; `CNI_ARGS` of its sandbox.
    pub fn make_pod(&self, name: &str) -> String {
        let name = format!("{}-{name}", self.name);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"nodeName": self.name, "containers": [{"name": "c", "image": "none"}]},
        });
        let made = self.cluster.api("POST", PODS, Some(&pod));
        let uid = made["metadata"]["uid"].as_str().unwrap_or_else(|| panic!("{made}"));
        format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID={uid}")
    }

    pub fn delete_pod(&self, name: &str) {
        let path = format!("{PODS}/{}-{name}", self.name);
        self.cluster.api("DELETE", &path, Some(&json!({"gracePeriodSeconds": 0})));
    }

    /// How many addresses of its pools are given.
    pub fn given(&self) -> usize {
        let [v4, v6] = [format!("10.{}.", 100 + self.number), format!("fd00:{:x}:", self.number)];
        let blocks = self.cluster.store(self.kind).list("/calico/ipam/v2/assignment/", soon());
        let given = |value: &[u8]| {
            let block: Value = serde_json::from_slice(value).expect("blocks are JSON");
            let of_us =
                block["cidr"].as_str().is_some_and(|cidr| cidr.starts_with(&v4) || cidr.starts_with(&v6));
            let slots = block["allocations"].as_array().filter(|_| of_us);
            slots.map_or(0, |slots| slots.iter().filter(|slot| !slot.is_null()).count())
        };
        blocks.expect("the store answers").iter().map(|entry| given(&entry.value)).sum()
    }
}

/// The proxy in front of an API server that counts and refuses (`testdata/apiserver/proxy.py`).
pub struct Counting {
    bridge: Bridge,
    dir: PathBuf,
}

impl Counting {
    /// In front of the node's API server; the node's kubeconfig then leads to it.
    pub fn before(node: &Node, bed: &Bed) -> Self {
        let dir = bed.path("proxy");
        fs::create_dir_all(&dir).expect("the bed is writable");
        let out = dir.join("port");
        let mut command = Command::new("python3");
        command.arg(crate::bins::workspace().join("testdata/apiserver/proxy.py"));
        command.arg(node.cluster.url()).arg(node.cluster.pki("ca.crt")).arg(&dir);
        bed.spawn(command.stdout(fs::File::create(&out).expect("the bed is writable")));
        let port = || fs::read_to_string(&out).ok()?.trim().parse().ok();
        crate::bed::wait_for("the proxy's port", || port().is_some());
        let bridge = Bridge::into(&bed.host, port().expect("it was there"));
        fs::write(bed.path("kubeconfig"), node.kubeconfig(&bridge.url("http"))).expect("the bed is writable");
        Self { bridge, dir }
    }

    pub fn url(&self) -> String {
        self.bridge.url("http")
    }

    /// The next requests are answered with these codes.
    pub fn refuse(&self, codes: &[u16]) {
        let lines: Vec<String> = codes.iter().map(u16::to_string).collect();
        fs::write(self.dir.join("faults"), lines.join("\n")).expect("the bed is writable");
    }

    /// Requests since the last call: method, path and code.
    pub fn take(&self) -> Vec<String> {
        let file = self.dir.join("requests");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(file);
        text.lines().map(str::to_owned).collect()
    }
}

/// `percalectl` in the node's host, on the node's cluster, as its administrator.
pub fn percalectl(bed: &Bed, node: &Node, args: &[&str], stdin: &str) -> Output {
    use std::io::Write as _;
    let bins = bed.bins.as_ref().expect("a bed with our binaries");
    let mut command = bed.host.command(bins.percalectl());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    match node.kind {
        Kind::Etcd => {
            command.env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", node.bridge.url("https"));
            command.env("ETCD_CA_CERT_FILE", node.cluster.pki("ca.crt"));
            command.env("CALICO_ETCD_CERT_FILE", node.cluster.pki("etcd-client.crt"));
            command.env("ETCD_KEY_FILE", node.cluster.pki("etcd-client.key"));
        }
        Kind::Kubernetes => {
            let text = fs::read_to_string(node.cluster.admin_kubeconfig()).expect("the bed has a kubeconfig");
            let text = text.replace(&node.cluster.url(), &node.bridge.url("https"));
            command.arg("--kubeconfig").arg(bed.write("admin.kubeconfig", text));
        }
    }
    command.arg("--state-dir").arg(bed.path("state")).arg("--ipam-lock-file").arg(bed.path("run/ipam.lock"));
    command.arg("--attachment-dir").arg(bed.path("run/attachments")).args(args);
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("percalectl can be run");
    let mut pipe = child.stdin.take().expect("stdin is a pipe");
    let _ = pipe.write_all(stdin.as_bytes());
    drop(pipe);
    child.wait_with_output().expect("a child can be waited for")
}
