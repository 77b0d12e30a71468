//! The host daemon, in a bed.

use crate::bed::{Bed, wait_for};
use crate::cluster::{Kind, Node};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// A running `percaled` in a bed's host namespace; it is killed on drop.
pub struct Daemon<'a> {
    bed: &'a Bed,
    child: Mutex<Child>,
}

/// How it is started.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// What runs it, such as strace.
    pub wrap: Vec<OsString>,
    pub args: Vec<OsString>,
    pub env: Vec<(String, String)>,
}

impl Start {
    pub fn wrapped(wrap: Vec<OsString>) -> Self {
        Self { wrap, ..Self::default() }
    }

    pub fn with_args(args: &[&str]) -> Self {
        Self { args: args.iter().map(OsString::from).collect(), ..Self::default() }
    }
}

/// Where the daemon of a bed listens.
pub fn socket(bed: &Bed) -> PathBuf {
    bed.path("run/percaled.sock")
}

/// Makes a plugin's configuration one that asks the bed's daemon.
pub fn asking(bed: &Bed, mut plugin: Value) -> Value {
    plugin["daemon_socket"] = json!(socket(bed));
    plugin
}

impl<'a> Daemon<'a> {
    /// With the embedded store of the bed; ready when this returns.
    pub fn start(bed: &'a Bed) -> Self {
        Self::start_as(bed, &Start::default())
    }

    pub fn start_as(bed: &'a Bed, how: &Start) -> Self {
        let daemon = Self::launch(bed, how);
        wait_for("percaled listens", || daemon.has_ended() || daemon.listens());
        assert!(!daemon.has_ended(), "percaled ended: {}", daemon.log());
        daemon
    }

    /// With the store of a cluster's node, through the node's bridge.
    pub fn of_node(bed: &'a Bed, node: &Node, args: &[&str]) -> Self {
        let path = |path: PathBuf| path.display().to_string();
        let mut how = Start::with_args(&["--node-name", &node.name]);
        how.args.extend(args.iter().map(OsString::from));
        how.env = match node.kind {
            Kind::Etcd => vec![
                ("ETCD_ENDPOINTS".to_owned(), node.bridge.url("https")),
                ("ETCD_CA_CERT_FILE".to_owned(), path(node.cluster.pki("ca.crt"))),
                ("ETCD_CERT_FILE".to_owned(), path(node.cluster.pki("etcd-client.crt"))),
                ("ETCD_KEY_FILE".to_owned(), path(node.cluster.pki("etcd-client.key"))),
            ],
            Kind::Kubernetes => {
                // The daemon's account may do what an administrator's may.
                let own =
                    std::fs::read_to_string(node.cluster.admin_kubeconfig()).expect("the cluster has it");
                let own = own.replace(&node.cluster.url(), &node.bridge.url("https"));
                vec![("KUBECONFIG".to_owned(), path(bed.write("daemon.kubeconfig", own)))]
            }
        };
        Self::start_as(bed, &how)
    }

    /// Waits until the watches of what every request asks for have told everything.
    pub fn wait_watched(&self) {
        wait_for("the watches", || self.metric("percale_store_unwatched") == 0.0);
    }

    /// Starts it and does not wait.
    pub fn launch(bed: &'a Bed, how: &Start) -> Self {
        let bins = bed.bins.as_ref().expect("a bed with our binaries");
        let mut words = vec![bins.percaled().into_os_string()];
        for (option, tail) in [
            ("--state-dir", "state"),
            ("--ipam-lock-file", "run/ipam.lock"),
            ("--attachment-dir", "run/attachments"),
            ("--socket", "run/percaled.sock"),
        ] {
            if !how.args.iter().any(|arg| arg == option) {
                words.extend([option.into(), bed.path(tail).into_os_string()]);
            }
        }
        words.extend(how.args.iter().cloned());
        let all: Vec<OsString> = how.wrap.iter().cloned().chain(words).collect();
        let (program, args) = all.split_first().expect("there is a program");
        let mut command: Command = bed.host.command(program);
        command.args(args).envs(how.env.iter().cloned());
        if !how.args.iter().any(|arg| arg == "--datastore-type") && how.env.is_empty() {
            command.args(["--datastore-type", "embedded"]);
        }
        let log = File::options().create(true).append(true).open(bed.path("percaled.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("the bed is writable"));
        let child = command.spawn().expect("percaled can be run");
        Self { bed, child: Mutex::new(child) }
    }

    pub fn listens(&self) -> bool {
        UnixStream::connect(socket(self.bed)).is_ok()
    }

    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    pub fn has_ended(&self) -> bool {
        self.child().try_wait().expect("a child can be waited for").is_some()
    }

    /// What all daemons of the bed wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.bed.path("percaled.log")).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&self) {
        self.terminate();
        self.stopped();
    }

    /// Waits for its end, which must be a good one.
    pub fn stopped(&self) {
        wait_for("percaled ends", || self.has_ended());
        let status = self.child().wait().expect("it ended");
        assert!(status.success(), "percaled: {status}: {}", self.log());
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a child has a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
    }

    /// `GET path` of its health or metrics address: status and body.
    pub fn get(&self, port: u16, path: &str) -> (u16, String) {
        let answer = self.bed.host.run(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("percaled listens");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(ask.as_bytes()).expect("it reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("it answers");
            answer
        });
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get(9091, "/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name}: {text}"))
    }

    /// Requests of the plugin that it served.
    pub fn served(&self) -> f64 {
        self.metric("percale_cni_requests_total")
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().expect("no holder panics")
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}
