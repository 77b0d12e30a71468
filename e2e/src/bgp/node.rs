//! A node that runs `percaled`.

use super::kubernetes::Access;
use super::speakers::Process;
use super::{Fabric, soon};
use crate::bins::Bins;
use crate::netns::Netns;
use rustix::process::Signal;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

pub struct Node {
    process: Option<Process>,
    access: Access,
    pub ns: Netns,
    pub name: String,
    bins: Bins,
    dir: PathBuf,
    env: Vec<(String, String)>,
}

impl Node {
    /// A node of number `n` with its object in the store, its daemon running.
    pub fn start(fabric: &Fabric, n: u8) -> Self {
        fabric.put_node(n, serde_json::json!({}), serde_json::json!({}));
        let mut node = Self::prepare(fabric, n);
        node.run();
        node
    }

    /// A node that does nothing yet, and has no object.
    pub fn prepare(fabric: &Fabric, n: u8) -> Self {
        let name = format!("node{n}");
        let dir = fabric.path(&name);
        std::fs::create_dir(&dir).expect("the bed is writable");
        let ns = fabric.host(n);
        let access = fabric.access(&ns, &dir);
        Self { process: None, access, ns, name, bins: Bins::shipped(), dir, env: Vec::new() }
    }

    /// Sets a variable of the daemon's environment, from its next start on.
    pub fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.into(), value.into()));
    }

    /// The API server, as this node reaches it.
    pub fn api_url(&self) -> String {
        self.access.url().expect("this fabric has an API server")
    }

    pub fn path(&self, tail: &str) -> PathBuf {
        self.dir.join(tail)
    }

    /// Starts the daemon.
    pub fn run(&mut self) {
        let mut command: Command = self.ns.command(self.bins.percaled());
        command.args(["--datastore-type", self.access.datastore, "--node-name", &self.name]);
        command.args(["--metrics-addr", ""]);
        command.arg("--state-dir").arg(self.path("state")).arg("--socket").arg(self.path("percaled.sock"));
        command.arg("--ipam-lock-file").arg(self.path("ipam.lock"));
        command.env("PERCALE_SECRETS_DIR", self.path("secrets"));
        command.envs(self.access.env.iter().map(|(k, v)| (k, v)));
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        self.process = Some(Process::start(&mut command, &self.path("log")));
    }

    /// Ends the daemon by a signal and waits for its end.
    pub fn stop(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            process.signal(signal);
            process.wait();
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the daemon runs").pid()
    }

    /// Runs `percalectl` in the node's namespace.
    pub fn ctl(&self, args: &[&str]) -> Output {
        let mut command: Command = self.ns.command(self.bins.percalectl());
        command.args(args).env("PERCALE_BGP_SOCKET", self.path("bgp.sock"));
        command.output().expect("percalectl can be run")
    }

    /// What `percalectl` prints with `-o json`; null where it fails.
    pub fn ask(&self, args: &[&str]) -> Value {
        let out = self.ctl(&[args, &["-o", "json"]].concat());
        serde_json::from_slice(&out.stdout).unwrap_or_default()
    }

    /// The line of a peer in `percalectl bgp peers`.
    pub fn peer(&self, address: &str) -> Value {
        let peers = self.ask(&["bgp", "peers"]);
        let found = peers.as_array().into_iter().flatten().find(|p| p["address"] == address);
        found.cloned().unwrap_or_default()
    }

    pub fn is_up(&self, address: &str) -> bool {
        self.peer(address)["state"] == "Established"
    }

    pub fn await_up(&self, address: &str) {
        soon(&format!("{} is up with {address}", self.name), || {
            (self.is_up(address), format!("{}\n{}", self.ask(&["node", "status"]), self.log_tail()))
        });
    }

    /// Since when a session is up or down, in seconds.
    pub fn since(&self, address: &str) -> Value {
        self.peer(address)["since"].clone()
    }

    /// What the node says about the last end of a session.
    pub fn last_error(&self, address: &str) -> String {
        self.peer(address)["last_error"].as_str().unwrap_or_default().to_owned()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        log.lines().rev().take(15).collect::<Vec<_>>().join("\n")
    }

    /// Writes a password file that only root reads.
    pub fn secret(&self, name: &str, key: &str, value: &str) {
        use std::os::unix::fs::PermissionsExt;
        let dir = self.path("secrets").join(name);
        std::fs::create_dir_all(&dir).expect("the bed is writable");
        std::fs::write(dir.join(key), value).expect("the bed is writable");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(dir.join(key), mode).expect("the bed is writable");
    }
}
