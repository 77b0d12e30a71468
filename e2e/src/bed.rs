//! The guard that every test lives in.

use crate::bins::Bins;
use crate::netns::{Netns, kill, must};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The host's own addresses. It has no default route.
pub const HOST_V4: &str = "198.51.100.1";
pub const HOST_V6: &str = "2001:db8:99::1";

const DEBIAN_PLUGINS: &str = "/usr/lib/cni";
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A directory, a namespace that plays the host, a plugin directory, and whatever is started in
/// them. All of it goes when the bed is dropped.
pub struct Bed {
    children: Mutex<Vec<Child>>,
    pub host: Netns,
    dir: tempfile::TempDir,
    prefix: String,
    pub bins: Option<Bins>,
}

impl Bed {
    /// A bed with the shipped binaries in its plugin directory.
    pub fn new(tag: &str) -> Self {
        Self::with(tag, Some(Bins::shipped()))
    }

    /// A bed whose plugins are the debug build, which obeys the test clock.
    pub fn debug(tag: &str) -> Self {
        Self::with(tag, Some(Bins::debug()))
    }

    /// A bed with the binaries of one directory.
    pub fn of_build(tag: &str, dir: &Path) -> Self {
        Self::with(tag, Some(Bins::in_dir(dir.to_owned())))
    }

    /// A bed with the peers alone.
    pub fn peers(tag: &str) -> Self {
        Self::with(tag, None)
    }

    fn with(tag: &str, bins: Option<Bins>) -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("pe{}-{serial}", std::process::id());
        let dir = tempfile::Builder::new().prefix(&format!("percale-e2e-{tag}-")).tempdir();
        let bed = Self {
            children: Mutex::default(),
            host: Netns::new(&format!("{prefix}-host")),
            dir: dir.expect("the temporary directory is writable"),
            prefix,
            bins,
        };
        bed.fill_plugin_dir();
        bed.give_host_addresses();
        bed
    }

    fn give_host_addresses(&self) {
        for address in [HOST_V4, HOST_V6] {
            must(self.host.command("ip").args(["addr", "add", address, "dev", "lo"]));
        }
    }

    fn fill_plugin_dir(&self) {
        let dir = self.plugin_dir();
        fs::create_dir(&dir).expect("a new directory");
        link_all(Path::new(DEBIAN_PLUGINS), &dir);
        if let Some(bins) = &self.bins {
            for name in ["percale", "percale-ipam"] {
                copy_program(&bins.percale(), &dir.join(name));
            }
        }
    }

    /// Puts links to the plugins of `from` in place of those of the same name.
    pub fn use_plugins_of(&self, from: &Path) {
        link_all(from, &self.plugin_dir());
    }

    /// Puts a copy of a plugin in place of the link to it. How a file was written decides by how large pieces
    /// the kernel maps it: what is measured against ours is written as ours.
    pub fn copy_plugin(&self, name: &str) {
        let place = self.plugin_dir().join(name);
        let from = fs::canonicalize(&place).expect("the plugin is there");
        fs::remove_file(&place).expect("the bed is writable");
        copy_program(&from, &place);
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the bed's directory.
    pub fn path(&self, tail: &str) -> PathBuf {
        self.dir.path().join(tail)
    }

    pub fn plugin_dir(&self) -> PathBuf {
        self.path("bin")
    }

    /// A name that no other bed uses.
    pub fn unique(&self, tail: &str) -> String {
        format!("{}-{tail}", self.prefix)
    }

    /// A namespace for a pod.
    pub fn netns(&self, tail: &str) -> Netns {
        Netns::new(&self.unique(tail))
    }

    /// Writes a file in the bed's directory, with the directories above it.
    pub fn write(&self, tail: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(tail);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("the bed is writable");
        fs::write(&path, content).expect("the bed is writable");
        path
    }

    /// Starts a process that ends with the bed at the latest.
    pub fn spawn(&self, command: &mut Command) -> u32 {
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        let pid = child.id();
        self.children.lock().expect("no holder panics").push(child);
        pid
    }

    /// Kills a process that [`Bed::spawn`] started and waits for its end.
    pub fn kill(&self, pid: u32) {
        let mut children = self.children.lock().expect("no holder panics");
        if let Some(at) = children.iter().position(|c| c.id() == pid) {
            end(&mut children.swap_remove(at));
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for child in self.children.get_mut().expect("no holder panics").iter_mut() {
            end(child);
        }
        for pid in self.host.processes() {
            kill(pid);
        }
        for mount in mounts_below(self.dir.path()) {
            kill_users_of(&mount);
            let _ = rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Ends the processes of a pod whose namespace a runtime mounted in the bed.
fn kill_users_of(mount: &Path) {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = fs::metadata(mount) else { return };
    let here = fs::metadata("/proc/self/ns/net").expect("/proc is mounted");
    if !meta.is_file() || meta.dev() != here.dev() {
        return;
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let same = fs::metadata(entry.path().join("ns/net")).is_ok_and(|m| m.ino() == meta.ino());
        if same {
            kill(pid);
        }
    }
}

/// Mount points under `dir`, the deepest first.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|p| p.starts_with(dir)).collect();
    below.reverse();
    below
}

fn link_all(from: &Path, to: &Path) {
    let entries = fs::read_dir(from)
        .unwrap_or_else(|e| panic!("{}: {e}: install what scripts/deps installs", from.display()));
    for entry in entries.map(|e| e.expect("the directory is readable")) {
        let target = to.join(entry.file_name());
        let _ = fs::remove_file(&target);
        std::os::unix::fs::symlink(entry.path(), target).expect("the bed is writable");
    }
}

/// Waits until `done` answers true; the deadline is generous, since machines differ.
pub fn wait_for(what: &str, done: impl FnMut() -> bool) {
    wait_at_most(Duration::from_secs(30), what, done);
}

/// As [`wait_for`], for what takes longer.
pub fn wait_at_most(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < limit, "waited {} s in vain: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Removes files that a runtime left outside the bed, by their unique part.
pub fn remove_matching(dir: &Path, part: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(part) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Copies a program. Not in this process: a child that another thread forks meanwhile would hold
/// the new file open for writing, and its execution would fail with ETXTBSY.
pub fn copy_program(from: &Path, to: &Path) {
    must(Command::new("cp").arg(from).arg(to));
}

/// Compiles a C program statically into the bed.
pub fn compile(bed: &Bed, source: &str, name: &str) -> PathBuf {
    let code = bed.write(&format!("{name}.c"), source);
    let out = bed.path(name);
    must(Command::new("gcc").args(["-Os", "-static", "-s", "-o"]).arg(&out).arg(code));
    out
}
