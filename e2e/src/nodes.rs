//! Several nodes on one machine: a namespace each, joined by a bridge with a router between two subnets,
//! each with its own daemon, state and plugin; one etcd for all.
//!
//! ```text
//!   n1 10.88.1.1 ─┐                      ┌─ n3 10.88.2.3      a default route through the router each;
//!   n2 10.88.1.2 ─┴─ bridge ─ router ────┘                    it knows no pod network
//!                              │ etcd on 10.88.1.254
//! ```

use crate::bins::target_dir;
use crate::netns::{Netns, must};
use datastore::Deadline;
use datastore_etcd::Etcd;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Where etcd listens, as nodes see it.
const ETCD: &str = "http://10.88.1.254:2379";

/// The whole bed; everything ends with it.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub router: Netns,
    etcd: Child,
    prefix: String,
    dir: tempfile::TempDir,
}

/// One node.
pub struct Node {
    pub name: String,
    pub host: Netns,
    pub dir: PathBuf,
    env: Vec<(String, String)>,
    daemon: Option<Child>,
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

impl Cluster {
    /// Nodes in these subnets (1 or 2), their daemons not started.
    pub fn new(tag: &str, subnets: &[u8], env: &[(&str, &str)]) -> Self {
        let prefix = format!("pn{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&format!("percale-nodes-{tag}-")).tempdir();
        let dir = dir.expect("the temporary directory is writable");
        let router = Netns::new(&format!("{prefix}-r"));
        make_router(&router);
        let etcd = start_etcd(&router, dir.path());
        let node = |(at, subnet): (usize, &u8)| Node::new(&prefix, &router, dir.path(), at + 1, *subnet, env);
        let nodes = subnets.iter().enumerate().map(node).collect();
        Self { nodes, router, etcd, prefix, dir }
    }

    /// As [`Cluster::new`], with every daemon ready.
    pub fn ready(tag: &str, subnets: &[u8], env: &[(&str, &str)]) -> Self {
        let mut cluster = Self::new(tag, subnets, env);
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.nodes.iter().for_each(Node::wait_ready);
        cluster
    }

    /// Starts a pod through the shipped plugin.
    pub fn add(&self, node: usize, container: &str) -> Pod {
        self.try_add(node, container).unwrap_or_else(|told| panic!("ADD of {container}: {told}"))
    }

    /// # Errors
    /// What the plugin answered.
    pub fn try_add(&self, node: usize, container: &str) -> Result<Pod, Value> {
        let netns = Netns::new(&format!("{}-{container}", self.prefix));
        let result = self.nodes[node].cni("ADD", container, netns.path())?;
        let ips = result["ips"].as_array().expect("a result has ips");
        let bare = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
        let addresses = ips.iter().map(|ip| bare(ip).expect("an address")).collect();
        let mtu = netns.ip(&["link", "show", "eth0"])[0]["mtu"].as_u64().expect("a link has an MTU");
        Ok(Pod { netns, container: container.to_owned(), addresses, mtu })
    }

    /// # Errors
    /// What the plugin answered.
    pub fn del(&self, node: usize, pod: &Pod) -> Result<(), Value> {
        self.nodes[node].cni("DEL", &pod.container, pod.netns.path()).map(drop)
    }

    /// What is stored under a key.
    pub fn stored(&self, key: &str) -> Option<Value> {
        let answer = self.etcd_call("range", &json!({"key": base64(key.as_bytes())}));
        let value = answer["kvs"][0]["value"].as_str()?;
        Some(serde_json::from_slice(&unbase64(value)).expect("values are JSON"))
    }

    pub fn store(&self, key: &str, value: &Value) {
        let value = base64(value.to_string().as_bytes());
        self.etcd_call("put", &json!({"key": base64(key.as_bytes()), "value": value}));
    }

    pub fn unstore(&self, key: &str) {
        self.etcd_call("deleterange", &json!({"key": base64(key.as_bytes())}));
    }

    fn etcd_call(&self, call: &str, body: &Value) -> Value {
        let mut command = self.router.command("curl");
        command.args(["-sSf", "-X", "POST", "-d", &body.to_string()]).arg(format!("{ETCD}/v3/kv/{call}"));
        serde_json::from_slice(&must(&mut command)).expect("etcd answers JSON")
    }

    /// The store, for what is too much for single calls.
    pub fn etcd(&self) -> Etcd {
        let config = datastore_etcd::Config { endpoints: vec![ETCD.to_owned()], ..Default::default() };
        let deadline = Deadline::after(Duration::from_secs(30));
        self.router.run(move || Etcd::open(&config, deadline)).expect("etcd answers")
    }

    /// Stops (or continues) etcd where it is.
    pub fn pause_etcd(&self, pause: bool) {
        let signal = if pause { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        signal_child(&self.etcd, signal);
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
        signal_child(&self.etcd, rustix::process::Signal::CONT);
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
        let _ = &self.dir;
    }
}

fn signal_child(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process(pid, signal);
}

fn make_router(router: &Netns) {
    must(router.command("ip").args(["link", "add", "br0", "type", "bridge"]));
    must(router.command("ip").args(["link", "set", "br0", "up"]));
    for subnet in [1, 2] {
        must(router.command("ip").args(["addr", "add", &format!("10.88.{subnet}.254/24"), "dev", "br0"]));
        must(router.command("ip").args([
            "addr",
            "add",
            &format!("fd00:88:{subnet}::fe/64"),
            "dev",
            "br0",
            "nodad",
        ]));
    }
    router.run(|| {
        for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{file}"), "1").expect("a namespace of our own");
        }
    });
}

fn start_etcd(router: &Netns, dir: &Path) -> Child {
    let log = fs::File::create(dir.join("etcd.log")).expect("the bed is writable");
    let mut command = router.command("etcd");
    command.arg("--data-dir").arg(dir.join("etcd"));
    command.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:0", "--log-level", "error", "--unsafe-no-fsync"]);
    command.stdout(Stdio::null()).stderr(log);
    let etcd = command.spawn().expect("etcd is installed");
    let health = format!("{ETCD}/health");
    wait("etcd", Duration::from_secs(30), || {
        let answer = router.command("curl").args(["-sf", &health]).output().expect("curl is installed");
        String::from_utf8_lossy(&answer.stdout).contains("true")
    });
    etcd
}

impl Node {
    fn new(
        prefix: &str,
        router: &Netns,
        dir: &Path,
        number: usize,
        subnet: u8,
        env: &[(&str, &str)],
    ) -> Self {
        let host = Netns::new(&format!("{prefix}-n{number}"));
        let port = format!("e{number}");
        must(router.command("ip").args(["link", "add", &port, "type", "veth"]).args([
            "peer",
            "name",
            "eth0",
            "netns",
            host.name(),
        ]));
        must(router.command("ip").args(["link", "set", &port, "master", "br0", "up"]));
        must(host.command("ip").args(["link", "set", "eth0", "up"]));
        let dir = dir.join(format!("n{number}"));
        fs::create_dir_all(&dir).expect("the bed is writable");
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let node = Self { name: format!("node{number}"), host, dir, env, daemon: None };
        node.give_addresses(subnet, number);
        node
    }

    /// Addresses and default routes of a subnet, in place of any before.
    pub fn give_addresses(&self, subnet: u8, last: usize) {
        let ip = |args: &[&str]| drop(must(self.host.command("ip").args(args)));
        ip(&["addr", "flush", "dev", "eth0", "scope", "global"]);
        ip(&["addr", "add", &format!("10.88.{subnet}.{last}/24"), "dev", "eth0"]);
        ip(&["addr", "add", &format!("fd00:88:{subnet}::{last}/64"), "dev", "eth0", "nodad"]);
        ip(&["route", "replace", "default", "via", &format!("10.88.{subnet}.254")]);
        ip(&["-6", "route", "replace", "default", "via", &format!("fd00:88:{subnet}::fe")]);
    }

    /// Starts the daemon.
    pub fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log"));
        let mut command = Command::new(bin("percaled"));
        let path = |tail: &str| self.dir.join(tail);
        command.arg("--state-dir").arg(path("state")).arg("--ipam-lock-file").arg(path("ipam.lock"));
        command.arg("--attachment-dir").arg(path("attachments")).arg("--socket").arg(path("sock"));
        command.args(["--health-addr", "127.0.0.1:9099", "--metrics-addr", "127.0.0.1:9091"]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs([("DATASTORE_TYPE", "etcdv3"), ("ETCD_ENDPOINTS", ETCD), ("NODENAME", &self.name)]);
        command.envs([("IP", "autodetect"), ("IP6", "autodetect"), ("AUTODETECT_POLL_INTERVAL", "1s")]);
        command.envs(self.env.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log.expect("the bed is writable"));
        let daemon = self.host.run(move || command.process_group(0).spawn());
        self.daemon = Some(daemon.expect("percaled can be run"));
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon was started").id()
    }

    /// What `/readiness` answers.
    pub fn readiness(&self) -> String {
        let mut command = self.host.command("curl");
        let out =
            command.args(["-s", "-m", "2", "-w", "%{http_code}", "http://127.0.0.1:9099/readiness"]).output();
        String::from_utf8_lossy(&out.expect("curl is installed").stdout).into_owned()
    }

    pub fn wait_ready(&self) {
        let begun = Instant::now();
        while !self.readiness().ends_with("204") {
            let told = self.readiness();
            assert!(begun.elapsed() < Duration::from_secs(120), "{}: {told}; {}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Ends the daemon by a signal and waits for its end.
    pub fn end(&mut self, signal: rustix::process::Signal) {
        if let Some(mut daemon) = self.daemon.take() {
            signal_child(&daemon, signal);
            let _ = daemon.wait();
        }
    }

    fn cni(&self, verb: &str, container: &str, netns: &Path) -> Result<Value, Value> {
        let config = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "percale",
            "datastore_type": "etcdv3", "etcd_endpoints": ETCD,
            "state_dir": self.dir.join("state"), "ipam_lock_file": self.dir.join("ipam.lock"),
            "attachment_dir": self.dir.join("attachments"), "daemon_socket": self.dir.join("sock"),
            "log_file_path": self.dir.join("cni.log"),
            "ipam": {"type": "percale-ipam", "assign_ipv4": "true", "assign_ipv6": "true"},
        });
        let mut command = Command::new(bin("percale"));
        command.envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")]);
        command.env("CNI_NETNS", netns).env("CNI_PATH", bin(""));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = self.host.run(move || command.spawn()).expect("the plugin can be run");
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        stdin.write_all(config.to_string().as_bytes()).expect("the plugin reads its configuration");
        drop(stdin);
        let out = child.wait_with_output().expect("a child can be waited for");
        let told = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
        if out.status.success() { Ok(told) } else { Err(told) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end(rustix::process::Signal::KILL);
    }
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
    while !done() {
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}

/// What passes a link, from now until [`Capture::end`].
pub struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    pub fn start(host: &Netns, link: &str, file: PathBuf) -> Self {
        let mut command = host.command("tcpdump");
        command.args(["-i", link, "-U", "--immediate-mode", "-nn", "-Z", "root", "-w"]).arg(&file);
        let tcpdump =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("tcpdump is installed");
        // The file's header is written once it listens.
        wait("tcpdump listens", Duration::from_secs(10), || fs::metadata(&file).is_ok_and(|m| m.len() >= 24));
        Self { tcpdump, file }
    }

    /// Ends it, and tells how many packets match each of these filters (of pcap-filter).
    pub fn end(mut self, filters: &[&str]) -> Vec<usize> {
        std::thread::sleep(Duration::from_millis(200));
        signal_child(&self.tcpdump, rustix::process::Signal::INT);
        let _ = self.tcpdump.wait();
        let count = |filter: &&str| {
            let out = must(Command::new("tcpdump").args(["-nn", "-r"]).arg(&self.file).arg(filter));
            String::from_utf8_lossy(&out).lines().count()
        };
        filters.iter().map(count).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let number = part.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - part.len()));
        for at in 0..4 {
            let digit = ALPHABET[(number >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= part.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn unbase64(text: &str) -> Vec<u8> {
    let digits: Vec<u32> =
        text.bytes().filter_map(|c| ALPHABET.iter().position(|a| *a == c)).map(|d| d as u32).collect();
    let mut bytes = Vec::new();
    for part in digits.chunks(4) {
        let number = part.iter().fold(0u32, |n, d| n << 6 | d) << (6 * (4 - part.len()));
        bytes.extend(number.to_be_bytes()[1..part.len()].iter());
    }
    bytes
}
