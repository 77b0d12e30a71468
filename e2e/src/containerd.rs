//! A containerd of our own in the bed's host namespace, driven through its CRI socket.
//!
//! Facts that shape it (containerd 1.6.20, runc 1.1.5, Debian 12): `restrict_oom_score_adj` is
//! needed where CAP_SYS_RESOURCE is missing; nothing can be pulled, so the sandbox image is made
//! here and imported; the `loopback` plugin must be in the plugin directory; results of version
//! 1.1.0 are refused.

use crate::bed::{self, Bed, wait_for};
use crate::netns::must;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The newest CNI version that this containerd accepts.
pub const CNI_VERSION: &str = "1.0.0";

const PAUSE: &str = r"
#include <signal.h>
#include <unistd.h>
#include <sys/wait.h>
static void down(int s) { _exit(0); }
static void reap(int s) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) {
    signal(SIGINT, down); signal(SIGTERM, down); signal(SIGCHLD, reap);
    for (;;) pause();
}
";

/// Runs containerd where what it and its containers write beside the bed lands in the bed.
const MACHINE: &str = r#"set -e
mount --make-rshared /
for dir in etc opt usr var; do
    mkdir -p "$1/up/$dir" "$1/work/$dir"
    mount -t overlay overlay -o "lowerdir=/$dir,upperdir=$1/up/$dir,workdir=$1/work/$dir" "/$dir"
done
mount --bind "$1/run" /run
rm -rf /etc/cni /opt/cni
exec containerd
"#;

/// A running containerd; dropping it stops and removes its sandboxes first.
pub struct Containerd<'a> {
    bed: &'a Bed,
    pid: u32,
    /// What it was started with.
    words: Vec<OsString>,
    cri: Cri,
    pub network: String,
}

impl<'a> Containerd<'a> {
    /// Starts containerd with a network of these plugins and waits until it is ready.
    pub fn start(bed: &'a Bed, plugins: &[Value]) -> Self {
        let mut this = Self::without_network(bed);
        this.replace_network(plugins);
        this
    }

    /// Starts containerd on a node whose network somebody else sets up.
    pub fn without_network(bed: &'a Bed) -> Self {
        fs::create_dir_all(bed.path("net.d")).expect("the bed is writable");
        bed.write("containerd.toml", config(bed));
        Self::launched(bed, &["-c".into(), bed.path("containerd.toml").into()])
    }

    /// Starts it with the directories of a machine of its own: `/etc`, `/opt`, `/usr`, `/var` and `/run` are those of the
    /// bed's `machine`, in a mount namespace that others enter by its process id.
    pub fn on_own_machine(bed: &'a Bed) -> Self {
        let machine = bed.path("machine");
        bed.write("machine/up/etc/containerd/config.toml", config_of_machine(bed));
        fs::create_dir_all(machine.join("run/containerd")).expect("the bed is writable");
        std::os::unix::fs::symlink(machine.join("run/containerd/containerd.sock"), socket(bed))
            .expect("the bed is writable");
        let script = bed.write("machine/enter", MACHINE);
        Self::launched(bed, &["sh".into(), script.into(), machine.into()])
    }

    fn launched(bed: &'a Bed, words: &[OsString]) -> Self {
        let network = bed.unique("net");
        for dir in ["containerd", "state-containerd", "py"] {
            fs::create_dir_all(bed.path(dir)).expect("the bed is writable");
        }
        let words = words.to_vec();
        let pid = launch(bed, &words);
        import(bed, &crate::image::build(bed, "localhost/pause:1", PAUSE, false));
        Self { bed, pid, words, cri: Cri::connect(bed), network }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Makes an image known.
    pub fn import(&self, image: &Path) {
        import(self.bed, image);
    }

    /// Runs a container on the host's network to its end: its exit status and what it said.
    pub fn run_container(&mut self, spec: &Value) -> (i64, String) {
        let items = self.cri.ask(&json!({"op": "container", "pods": [spec]}));
        let ended = ok(&items[0]);
        (ended["exit"].as_i64().expect("a number"), ended["log"].as_str().expect("a text").to_owned())
    }

    /// Replaces the configuration by a rename within the directory.
    pub fn replace_network(&mut self, plugins: &[Value]) {
        write_conflist(self.bed, &self.network, plugins);
        self.wait_ready();
    }

    pub fn wait_ready(&mut self) {
        let cri = &mut self.cri;
        wait_for("containerd is ready", || cri.ask(&json!({"op": "ready"}))[0]["ok"] == true);
    }

    /// Runs pods side by side; an item is `{"ok": id}` or `{"error": text}`.
    pub fn run(&mut self, names: &[&str]) -> Vec<Value> {
        let pods: Vec<Value> = names.iter().map(|n| json!({"name": n})).collect();
        self.cri.ask(&json!({"op": "run", "pods": pods}))
    }

    /// Runs one pod with `(container, host)` ports; answers its id.
    pub fn run_one(&mut self, name: &str, ports: &[(u16, u16)]) -> String {
        let items = self.cri.ask(&json!({"op": "run", "pods": [{"name": name, "ports": ports}]}));
        ok(&items[0]).as_str().expect("an id is text").to_owned()
    }

    pub fn stop(&mut self, ids: &[String]) -> Vec<Value> {
        self.cri.ask(&json!({"op": "stop", "ids": ids}))
    }

    pub fn remove(&mut self, ids: &[String]) -> Vec<Value> {
        self.cri.ask(&json!({"op": "remove", "ids": ids}))
    }

    /// `{"ready", "ips", "pid", "netns"}` of a sandbox.
    pub fn status(&mut self, id: &str) -> Value {
        ok(&self.cri.ask(&json!({"op": "status", "ids": [id]}))[0]).clone()
    }

    /// `{"id", "name", "ready"}` of every sandbox.
    pub fn list(&mut self) -> Vec<Value> {
        let items = self.cri.ask(&json!({"op": "list"}));
        ok(&items[0]).as_array().expect("a list").clone()
    }

    /// A second connection, for a call that is not to be waited for.
    pub fn connect(&self) -> Cri {
        Cri::connect(self.bed)
    }

    /// SIGKILLs containerd; its shims and the plugin live on.
    pub fn crash(&mut self) {
        self.bed.kill(self.pid);
    }

    /// Starts it again on the same state.
    pub fn restart(&mut self) {
        self.pid = launch(self.bed, &self.words);
        self.cri = Cri::connect(self.bed);
        self.wait_ready();
    }

    fn remove_all(&mut self) -> Option<()> {
        let items = self.cri.try_ask(&json!({"op": "list"}))?;
        let ids: Vec<Value> = items[0]["ok"].as_array()?.iter().map(|i| i["id"].clone()).collect();
        for op in ["stop", "remove"] {
            if !ids.is_empty() {
                self.cri.try_ask(&json!({"op": op, "ids": ids}))?;
            }
        }
        Some(())
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        self.remove_all();
        self.bed.kill(self.pid);
        bed::remove_matching(Path::new("/var/lib/cni/results"), &self.network);
    }
}

/// The `ok` of an item.
///
/// # Panics
/// Where the item is an error.
pub fn ok(item: &Value) -> &Value {
    assert!(item["error"].is_null(), "the runtime answered: {item}");
    &item["ok"]
}

/// The ids of items that must all have gone well.
pub fn ids(items: &[Value]) -> Vec<String> {
    items.iter().map(|i| ok(i).as_str().expect("an id is text").to_owned()).collect()
}

/// A connection to the CRI socket: a process that turns lines of JSON into calls.
pub struct Cri {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Cri {
    fn connect(bed: &Bed) -> Self {
        let script = prepare_client(bed);
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg(socket(bed)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3 is installed");
        let stdin = process.stdin.take().expect("stdin is a pipe");
        let stdout = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        Self { process, stdin, stdout }
    }

    pub fn ask(&mut self, request: &Value) -> Vec<Value> {
        self.try_ask(request).unwrap_or_else(|| panic!("the CRI client ended during {request}"))
    }

    /// Sends a request without waiting for its answer.
    pub fn send(&mut self, request: &Value) {
        writeln!(self.stdin, "{request}").expect("the CRI client runs");
    }

    fn try_ask(&mut self, request: &Value) -> Option<Vec<Value>> {
        writeln!(self.stdin, "{request}").ok()?;
        self.answer()
    }

    /// The answer to the oldest request that has none yet.
    pub fn answer(&mut self) -> Option<Vec<Value>> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).ok()?;
        let answer: Value = serde_json::from_str(&line).ok()?;
        Some(answer["items"].as_array()?.clone())
    }
}

impl Drop for Cri {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn socket(bed: &Bed) -> PathBuf {
    bed.path("c.sock")
}

fn prepare_client(bed: &Bed) -> PathBuf {
    let dir = bed.path("py");
    let script = dir.join("cri.py");
    if !script.exists() {
        bed.write("py/cri.proto", include_str!("../beds/cri.proto"));
        let mut protoc = Command::new("/usr/bin/python3");
        protoc.args(["-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--grpc_python_out=.", "cri.proto"]);
        must(protoc.current_dir(&dir));
        bed.write("py/cri.py", include_str!("../beds/cri.py"));
    }
    script
}

fn write_conflist(bed: &Bed, network: &str, plugins: &[Value]) {
    let list = crate::conf::conflist(network, CNI_VERSION, plugins);
    let new = bed.write("net.d/new", list.to_string());
    fs::rename(new, bed.path("net.d/10-net.conflist")).expect("a rename within the directory");
}

fn config(bed: &Bed) -> String {
    let path = |tail: &str| bed.path(tail).display().to_string();
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{bin}"
    conf_dir = "{conf}"
"#,
        root = path("containerd"),
        state = path("state-containerd"),
        socket = path("c.sock"),
        bin = path("bin"),
        conf = path("net.d"),
    )
}

/// As on a host: containerd's defaults, but for what this machine cannot do.
fn config_of_machine(bed: &Bed) -> String {
    format!(
        r#"version = 2
root = "{root}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
"#,
        root = bed.path("containerd").display(),
    )
}

/// `-c FILE`, or a shell that becomes containerd in a mount namespace of its own.
fn launch(bed: &Bed, words: &[OsString]) -> u32 {
    let log = fs::File::options().create(true).append(true).open(bed.path("containerd.log"));
    let log = log.expect("the bed is writable");
    let is_plain = words.first().is_some_and(|word| word == "-c");
    let mut command = bed.host.command(if is_plain { "containerd" } else { "unshare" });
    command.args(if is_plain { &[][..] } else { &["-m", "--"][..] }).args(words);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
    let pid = bed.spawn(&mut command);
    wait_for("containerd answers", || ctr(bed).arg("version").output().is_ok_and(|o| o.status.success()));
    pid
}

fn ctr(bed: &Bed) -> Command {
    let mut command = Command::new("ctr");
    command.arg("-a").arg(socket(bed));
    command
}

fn import(bed: &Bed, image: &Path) {
    must(ctr(bed).args(["-n", "k8s.io", "images", "import"]).arg(image));
}
