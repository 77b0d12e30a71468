//! One node: a namespace that plays the host, its daemon, its directory.

use super::{bin, signal_child};
use crate::bridge::Bridge;
use crate::netns::{Netns, must};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The node, and how its programs find the store.
pub struct Node {
    pub name: String,
    pub host: Netns,
    pub dir: PathBuf,
    /// The daemon's environment.
    pub env: Vec<(String, String)>,
    /// What runs the daemon, and becomes it.
    pub wrap: Vec<String>,
    /// Members of the plugin's configuration that name the store.
    pub(super) store: Value,
    /// The way to the API server, where that is the store.
    pub(super) _bridge: Option<Bridge>,
    pub(super) daemon: Option<Child>,
}

impl Node {
    /// A link to the router's bridge, with addresses of a subnet.
    pub(super) fn connect(&self, router: &Netns, subnet: u8, number: usize) {
        let port = format!("e{number}");
        must(router.command("ip").args(["link", "add", &port, "type", "veth"]).args([
            "peer",
            "name",
            "eth0",
            "netns",
            self.host.name(),
        ]));
        must(router.command("ip").args(["link", "set", &port, "master", "br0", "up"]));
        must(self.host.command("ip").args(["link", "set", "eth0", "up"]));
        self.give_addresses(subnet, number);
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
        let mut words = self.wrap.iter().map(Into::into).chain([bin("percaled").into_os_string()]);
        let mut command = Command::new(words.next().expect("there is the daemon at least"));
        command.args(words);
        let path = |tail: &str| self.dir.join(tail);
        command.arg("--state-dir").arg(path("state")).arg("--ipam-lock-file").arg(path("ipam.lock"));
        command.arg("--attachment-dir").arg(path("attachments")).arg("--socket").arg(path("sock"));
        command.args(["--health-addr", "127.0.0.1:9099", "--metrics-addr", "127.0.0.1:9091"]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs([("IP", "autodetect"), ("IP6", "autodetect"), ("AUTODETECT_POLL_INTERVAL", "1s")]);
        command.env("NODENAME", &self.name);
        command.envs(self.env.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log.expect("the bed is writable"));
        let daemon = self.host.run(move || command.process_group(0).spawn());
        self.daemon = Some(daemon.expect("percaled can be run"));
    }

    /// What `/readiness` answers.
    pub fn readiness(&self) -> String {
        self.get("127.0.0.1:9099/readiness")
    }

    /// What `/metrics` answers.
    pub fn metrics(&self) -> String {
        self.get("127.0.0.1:9091/metrics")
    }

    /// The page and, at its end, the status.
    fn get(&self, page: &str) -> String {
        let mut command = self.host.command("curl");
        let out =
            command.args(["-s", "-m", "2", "-w", "%{http_code}"]).arg(format!("http://{page}")).output();
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

    /// The daemon's process.
    ///
    /// # Panics
    /// When it was not started.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon was started").id()
    }

    /// Ends the daemon by a signal and waits for its end.
    pub fn end(&mut self, signal: Signal) {
        if let Some(mut daemon) = self.daemon.take() {
            signal_child(&daemon, signal);
            let _ = daemon.wait();
        }
    }

    /// The plugin's configuration.
    pub fn plugin(&self) -> Value {
        let mut plugin = json!({
            "type": "percale", "nodename": self.name,
            "state_dir": self.dir.join("state"), "ipam_lock_file": self.dir.join("ipam.lock"),
            "attachment_dir": self.dir.join("attachments"), "daemon_socket": self.dir.join("sock"),
            "log_file_path": self.dir.join("cni.log"),
            "ipam": {"type": "percale-ipam", "assign_ipv4": "true", "assign_ipv6": "true"},
        });
        crate::conf::put_all(&mut plugin, self.store.clone());
        plugin
    }

    pub(super) fn cni(&self, verb: &str, container: &str, args: &str, netns: &Path) -> Result<Value, Value> {
        let mut config = self.plugin();
        crate::conf::put_all(&mut config, json!({"cniVersion": "1.0.0", "name": "pods"}));
        let mut command = Command::new(bin("percale"));
        command.envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")]);
        command.env("CNI_NETNS", netns).env("CNI_PATH", bin("")).env("CNI_ARGS", args);
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
        self.end(Signal::KILL);
    }
}
