//! The speakers of others.

use super::Fabric;
use crate::netns::{Netns, kill, must};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A process that ends with this value.
pub struct Process(Child, PathBuf);

impl Process {
    /// Starts it; what it prints goes to `log`, behind what is there.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the bed is writable");
        let twin = file.try_clone().expect("a descriptor is left");
        command.stdin(Stdio::null()).stdout(twin).stderr(file);
        Process(command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}")), log.to_owned())
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id() as i32).expect("a process has a number");
        kill_process(pid, signal).expect("it runs");
    }

    pub fn wait(&mut self) {
        self.0.wait().expect("it is ours");
    }

    /// Panics with what it printed if it ended.
    pub fn must_run(&mut self) {
        if let Some(status) = self.0.try_wait().expect("it is ours") {
            panic!("ended with {status}: {}", std::fs::read_to_string(&self.1).unwrap_or_default());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill(self.0.id());
        let _ = self.0.wait();
    }
}

fn write(fabric: &Fabric, name: &str, text: &str) -> PathBuf {
    let path = fabric.path(name);
    std::fs::write(&path, text).expect("the bed is writable");
    path
}

/// BIRD 2. Its kernel's routes are its own affair: `conf` says what is exported.
pub struct Bird {
    process: Option<Process>,
    pub ns: Netns,
    conf: PathBuf,
    socket: PathBuf,
    log: PathBuf,
}

impl Bird {
    pub fn start(fabric: &Fabric, n: u8, conf: &str) -> Self {
        let mut bird = Self::prepare(fabric, n, conf);
        bird.begin();
        bird
    }

    /// One that does nothing yet, for what has to be in its namespace before: its BFD never looks for an address again.
    pub fn prepare(fabric: &Fabric, n: u8, conf: &str) -> Self {
        let conf = write(fabric, &format!("bird{n}.conf"), conf);
        let socket = fabric.path(&format!("bird{n}.ctl"));
        let log = fabric.path(&format!("bird{n}.log"));
        Self { process: None, ns: fabric.host(n), conf, socket, log }
    }

    pub fn begin(&mut self) {
        self.run_with(&[]);
    }

    /// Starts it again: it takes up where it was (`-R`).
    pub fn run(&mut self) {
        self.run_with(&["-R"]);
    }

    fn run_with(&mut self, options: &[&str]) {
        let mut command = self.ns.command("bird");
        command.arg("-f").args(options).arg("-c").arg(&self.conf).arg("-s").arg(&self.socket);
        self.process = Some(Process::start(&mut command, &self.log));
    }

    pub fn stop(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            process.signal(signal);
            process.wait();
        }
    }

    /// The answer to a command of `birdc`; empty while it does not run.
    pub fn ask(&self, words: &str) -> String {
        let mut command = self.ns.command("birdc");
        let out = command.arg("-s").arg(&self.socket).args(words.split(' ')).output();
        String::from_utf8_lossy(&out.expect("birdc can be run").stdout).into_owned()
    }

    /// Gives it another configuration.
    pub fn configure(&self, conf: &str) {
        std::fs::write(&self.conf, conf).expect("the bed is writable");
        let answer = self.ask("configure");
        assert!(answer.contains("econfigur"), "{answer}");
    }

    pub fn is_up(&self, protocol: &str) -> bool {
        self.ask(&format!("show protocols {protocol}")).contains("Established")
    }

    /// True if it has a route to just this network.
    pub fn has(&self, net: &str) -> bool {
        self.ask(&format!("show route {net} all")).contains(&format!("{net} "))
    }
}

/// FRR: zebra, bgpd and bfdd, with sockets of their own.
pub struct Frr {
    bgpd: Option<Process>,
    _zebra: Process,
    _bfdd: Process,
    pub ns: Netns,
    dir: PathBuf,
}

impl Frr {
    /// `conf` is bgpd's, `bfd` bfdd's.
    pub fn start(fabric: &Fabric, n: u8, conf: &str, bfd: &str) -> Self {
        let ns = fabric.host(n);
        let dir = fabric.path(&format!("frr{n}"));
        std::fs::create_dir(&dir).expect("the bed is writable");
        for (name, text) in [("zebra", ""), ("bgpd", conf), ("bfdd", bfd)] {
            std::fs::write(dir.join(format!("{name}.conf")), text).expect("the bed is writable");
        }
        // They give up root for this user, who must reach their sockets.
        must(Command::new("chmod").arg("755").arg(fabric.dir()));
        must(Command::new("chown").args(["-R", "frr:frr"]).arg(&dir));
        let zebra = daemon(&ns, &dir, "zebra");
        let socket = dir.join("zserv.api");
        super::soon("zebra listens", || (socket.exists(), String::new()));
        let bfdd = daemon(&ns, &dir, "bfdd");
        let bgpd = Some(daemon(&ns, &dir, "bgpd"));
        Self { bgpd, _zebra: zebra, _bfdd: bfdd, ns, dir }
    }

    pub fn stop_bgpd(&mut self, signal: Signal) {
        if let Some(mut process) = self.bgpd.take() {
            process.signal(signal);
            process.wait();
        }
    }

    pub fn run_bgpd(&mut self) {
        self.bgpd = Some(daemon(&self.ns, &self.dir, "bgpd"));
    }

    /// The JSON that a `show ... json` prints; null while it does not run.
    pub fn ask(&self, words: &str) -> Value {
        let mut command = self.ns.command("vtysh");
        let out = command.arg("--vty_socket").arg(&self.dir).args(["-c", words]).output();
        serde_json::from_slice(&out.expect("vtysh can be run").stdout).unwrap_or_default()
    }

    /// Carries out lines of configuration.
    pub fn configure(&self, lines: &[&str]) {
        let mut command = self.ns.command("vtysh");
        command.arg("--vty_socket").arg(&self.dir).args(["-c", "configure terminal"]);
        for line in lines {
            command.args(["-c", line]);
        }
        must(&mut command);
    }

    pub fn is_up(&self, peer: &str) -> bool {
        self.ask(&format!("show bgp neighbors {peer} json"))[peer]["bgpState"] == "Established"
    }

    pub fn has(&self, net: &str) -> bool {
        let family = if net.contains(':') { "ipv6" } else { "ipv4" };
        !self.ask(&format!("show bgp {family} unicast {net} json"))["paths"].is_null()
    }
}

fn daemon(ns: &Netns, dir: &Path, name: &str) -> Process {
    let mut command = ns.command(format!("/usr/lib/frr/{name}"));
    command.arg("-f").arg(dir.join(format!("{name}.conf"))).arg("-i").arg(dir.join(format!("{name}.pid")));
    command.arg("-z").arg(dir.join("zserv.api")).arg("--vty_socket").arg(dir);
    command.args(["-P", "0", "--log", "stdout"]);
    if name == "bfdd" {
        command.arg("--bfdctl").arg(dir.join("bfdd.sock"));
    }
    Process::start(&mut command, &dir.join(format!("{name}.log")))
}

/// GoBGP.
pub struct Gobgp {
    _process: Process,
    pub ns: Netns,
}

impl Gobgp {
    pub fn start(fabric: &Fabric, n: u8, conf: &str) -> Self {
        let ns = fabric.host(n);
        let conf = write(fabric, &format!("gobgp{n}.toml"), conf);
        let mut command = ns.command("gobgpd");
        command.arg("-f").arg(conf).args(["--api-hosts", "127.0.0.1:50051", "--pprof-disable"]);
        let process = Process::start(&mut command, &fabric.path(&format!("gobgp{n}.log")));
        let it = Self { _process: process, ns };
        super::soon("gobgpd answers", || (it.run("global").is_some(), String::new()));
        it
    }

    /// What `gobgp` prints, if it succeeds.
    pub fn run(&self, words: &str) -> Option<String> {
        let mut command = self.ns.command("gobgp");
        let out =
            command.args(["-u", "127.0.0.1"]).args(words.split(' ')).output().expect("gobgp can be run");
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    }

    pub fn must(&self, words: &str) {
        let mut command = self.ns.command("gobgp");
        must(command.args(["-u", "127.0.0.1"]).args(words.split(' ')));
    }

    pub fn is_up(&self, peer: &str) -> bool {
        self.run(&format!("neighbor {peer}")).is_some_and(|text| text.contains("BGP state = ESTABLISHED"))
    }

    pub fn has(&self, net: &str) -> bool {
        let family = if net.contains(':') { "ipv6" } else { "ipv4" };
        self.run(&format!("global rib {net} -a {family}")).is_some_and(|text| text.contains(net))
    }
}
