//! A named network namespace, and what its kernel knows.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// A namespace under `/run/netns`, removed on drop with the processes that live in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
    owned: bool,
}

impl Netns {
    /// Makes a namespace with its loopback up.
    pub fn new(name: &str) -> Self {
        must(Command::new("ip").args(["netns", "add", name]));
        let ns = Self { name: name.to_owned(), path: Path::new("/run/netns").join(name), owned: true };
        must(ns.command("ip").args(["link", "set", "lo", "up"]));
        ns
    }

    /// A namespace that somebody else made, and keeps.
    pub fn existing(path: &str) -> Self {
        Self { name: path.to_owned(), path: path.into(), owned: false }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` on a thread inside the namespace; what it spawns or binds belongs there.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        within(&self.path, f)
    }

    /// A command that will run inside. `ip netns exec` would hide the cgroups, nsenter does not.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command
    }

    /// Every link, as `ip -d -j link` tells it.
    pub fn links(&self) -> Vec<Value> {
        self.ip(&["-d", "link"])
    }

    /// The names of the links that start with `prefix`.
    pub fn link_names(&self, prefix: &str) -> Vec<String> {
        let links = self.links();
        let names = links.iter().filter_map(|l| l["ifname"].as_str());
        names.filter(|n| n.starts_with(prefix)).map(str::to_owned).collect()
    }

    /// Routes of the main table, both families.
    pub fn routes(&self) -> Vec<Value> {
        let mut all = self.ip(&["-4", "route"]);
        all.extend(self.ip(&["-6", "route"]));
        all
    }

    /// Runs `ip -j` with `args` inside and parses what it prints.
    pub fn ip(&self, args: &[&str]) -> Vec<Value> {
        let out = must(self.command("ip").arg("-j").args(args));
        if out.trim_ascii().is_empty() {
            return Vec::new();
        }
        serde_json::from_slice(&out).expect("ip -j prints JSON")
    }

    /// The text of `nft list ruleset` inside.
    pub fn ruleset(&self) -> String {
        String::from_utf8_lossy(&must(self.command("nft").args(["list", "ruleset"]))).into_owned()
    }

    /// Ids of the processes that live inside.
    pub fn processes(&self) -> Vec<u32> {
        use std::os::unix::fs::MetadataExt;
        let Ok(own) = std::fs::metadata(&self.path) else { return Vec::new() };
        let lives_here = |pid: &u32| {
            std::fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|m| (m.dev(), m.ino()) == (own.dev(), own.ino()))
        };
        all_processes().filter(|pid| *pid != std::process::id()).filter(lives_here).collect()
    }

    /// Removes the name; the namespace lives on while something holds it.
    pub fn unlink(&self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        for pid in self.processes() {
            kill(pid);
        }
        self.unlink();
    }
}

/// Joins a host with a namespace that knows no route to the pods, by a veth called `up0`:
/// 192.0.2.1 and 2001:db8:1::1 on the host, ::2 and .2 outside.
pub fn join(host: &Netns, outside: &Netns) {
    let peer = ["peer", "name", "up0", "netns", outside.name()];
    must(host.command("ip").args(["link", "add", "up0", "type", "veth"]).args(peer));
    for (ns, last) in [(host, 1), (outside, 2)] {
        must(ns.command("ip").args(["link", "set", "up0", "up"]));
        must(ns.command("ip").args(["addr", "add", &format!("192.0.2.{last}/24"), "dev", "up0"]));
        let v6 = format!("2001:db8:1::{last}/64");
        must(ns.command("ip").args(["addr", "add", &v6, "dev", "up0", "nodad"]));
    }
}

/// Runs `f` on a thread in the network namespace at `path`.
pub fn within<T: Send>(path: &Path, f: impl FnOnce() -> T + Send) -> T {
    let ns = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    thread::scope(|scope| {
        let inside = scope.spawn(move || {
            move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns as root");
            f()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Sends SIGKILL to a process that this test started.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Runs a command of the test bed itself: its failure ends the test with what it printed.
pub fn must(command: &mut Command) -> Vec<u8> {
    let out = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let told = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{command:?}: {}: {told}", out.status);
    out.stdout
}

fn all_processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
}
