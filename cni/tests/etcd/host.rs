//! A host of its own for each test: a network namespace for it, others for its pods, and the plugin
//! with all its paths in a temporary directory.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use crate::support::Server;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::{Value, json};
use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

static SESSIONS: AtomicUsize = AtomicUsize::new(0);

/// The test's thread, and what it starts from now on, in a fresh network namespace.
pub struct Session {
    name: String,
}

impl Session {
    pub fn new() -> Self {
        // SAFETY: only the network namespace of this thread changes; no file descriptors are unshared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("run as root");
        ip(&["link", "set", "lo", "up"]);
        let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("pcetcd{}-{number}", std::process::id()) }
    }

    /// A pod's namespace: its path.
    pub fn pod(&self, number: usize) -> String {
        let name = format!("{}-{number}", self.name);
        ip(&["netns", "add", &name]);
        format!("/var/run/netns/{name}")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/var/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{}-", self.name)) {
                let _ = Command::new("ip").args(["netns", "del", &name]).status();
            }
        }
    }
}

fn ip(words: &[&str]) {
    assert!(Command::new("ip").args(words).status().unwrap().success(), "ip {words:?}");
}

/// Starts a program that may just have been copied: another test's fork can still hold the copy open for
/// writing until its own exec (ETXTBSY).
fn spawn(command: &mut Command) -> Child {
    for _ in 0..500 {
        match command.spawn() {
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(10))
            }
            started => return started.unwrap(),
        }
    }
    panic!("the copied program stays busy");
}

/// One node: its state and its configuration.
pub struct Host {
    dir: tempfile::TempDir,
    pub conf: Value,
    /// Environment beside that of the protocol.
    pub env: Vec<(&'static str, &'static str)>,
    plugin: PathBuf,
    program: String,
    hosts: Option<PathBuf>,
}

impl Host {
    pub fn new(node: &str, conf: Value) -> Self {
        let dir = tempfile::Builder::new().prefix("percale-host-").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut all = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "percale", "nodename": node, "nodename_file_optional": true,
            "state_dir": at("state"), "attachment_dir": at("attachments"), "ipam_lock_file": at("ipam.lock"),
            "log_file_path": at("cni.log"), "daemon_socket": "",
        });
        for (key, value) in conf.as_object().unwrap() {
            all[key] = value.clone();
        }
        Self {
            dir,
            conf: all,
            env: Vec::new(),
            plugin: env!("CARGO_BIN_EXE_percale").into(),
            program: "percale".to_owned(),
            hosts: None,
        }
    }

    /// Runs this copy of the plugin.
    pub fn with_plugin(mut self, plugin: &Path) -> Self {
        self.plugin = plugin.to_owned();
        self
    }

    /// Runs the plugin under another file name.
    pub fn named(mut self, program: &str) -> Self {
        self.program = program.to_owned();
        self
    }

    /// The plugin sees this hosts file.
    pub fn hosts_file(&mut self, text: &str) {
        let file = self.dir.path().join("hosts");
        std::fs::write(&file, text).unwrap();
        self.hosts = Some(file);
    }

    /// The store that the host's state belongs to.
    pub fn identity(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("state/datastore")).unwrap()
    }

    pub fn run(&self, verb: &str, container: &str, netns: Option<&str>, previous: Option<&Value>) -> Ran {
        let mut conf = self.conf.clone();
        if let Some(previous) = previous {
            conf["prevResult"] = previous.clone();
        }
        let mut command = self.command();
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", container);
        command.env("CNI_IFNAME", "eth0").env("CNI_PATH", "/opt/cni/bin");
        command.envs(self.env.iter().copied());
        if let Some(netns) = netns {
            command.env("CNI_NETNS", netns);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(&mut command);
        child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
        Ran { output: child.wait_with_output().unwrap() }
    }

    fn command(&self) -> Command {
        let plugin = &self.plugin;
        let Some(hosts) = &self.hosts else {
            let mut command = Command::new(plugin);
            command.arg0(&self.program);
            return command;
        };
        let script = r#"mount --bind "$0" /etc/hosts && exec "$1""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(hosts).arg(plugin);
        command
    }
}

/// What one call of the plugin did.
pub struct Ran {
    output: Output,
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// What it printed; `None` for nothing.
    pub fn json(&self) -> Option<Value> {
        let text = self.text();
        (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {self:?}")))
    }

    pub fn ok_ref(&self) -> Value {
        assert!(self.output.status.success(), "{self:?}");
        self.json().unwrap_or_default()
    }

    /// What it printed, of a call that must succeed.
    #[allow(clippy::needless_pass_by_value, reason = "the end of a chain")]
    #[track_caller]
    pub fn ok(self) -> Value {
        self.ok_ref()
    }
}

impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.output.status, self.text(), String::from_utf8_lossy(&self.output.stderr))
    }
}

/// The address of a result.
pub fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned()
}

/// The lines of etcd's metrics whose names begin so, with their values.
fn metric(server: &Server, name: &str) -> Vec<(String, u64)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    let parse = |line: &str| {
        let (what, number) = line.rsplit_once(' ')?;
        Some((what.to_owned(), number.parse::<f64>().ok()? as u64))
    };
    lines.filter_map(parse).collect()
}

/// What etcd was asked.
#[derive(Debug)]
pub struct Calls {
    /// Requests of one key, among them the first of a connection.
    pub ranges: u64,
    /// Transactions, reading or writing.
    pub txns: u64,
    /// Keys written.
    pub puts: u64,
    pub deletes: u64,
    /// Ranges of more than one key.
    pub lists: u64,
}

impl Calls {
    pub fn of(server: &Server) -> Self {
        let handled = metric(server, "grpc_server_handled_total");
        let of = |method: &str| {
            let label = format!("grpc_method=\"{method}\"");
            handled.iter().filter(|(what, _)| what.contains(&label)).map(|(_, n)| n).sum()
        };
        let one = |name: &str| metric(server, name).iter().map(|(_, n)| n).sum();
        Self {
            ranges: of("Range"),
            txns: of("Txn"),
            puts: one("etcd_mvcc_put_total"),
            deletes: one("etcd_mvcc_delete_total"),
            lists: 0,
        }
    }

    pub fn since(&self, before: &Self) -> Self {
        let ranges = self.ranges - before.ranges;
        Self {
            ranges,
            txns: self.txns - before.txns,
            puts: self.puts - before.puts,
            deletes: self.deletes - before.deletes,
            // A call of the plugin asks for one key on its own: when it connects.
            lists: ranges.saturating_sub(1),
        }
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ranges, txns, puts, deletes, lists } = self;
        write!(
            f,
            "{ranges} ranges ({lists} of them lists), {txns} transactions; {puts} keys put, {deletes} deleted"
        )
    }
}
