//! podman with its CNI back end, on storage of its own in the bed.
//!
//! Facts that shape it (podman 4.3.1, Debian 12): runc, since crun refuses hybrid cgroups; the
//! limits must lie below the hard ones where CAP_SYS_RESOURCE is missing. `ip=`, `mac=` and
//! `interface_name=` of `--network` arrive in CNI_ARGS and CNI_IFNAME.

use crate::bed::{self, Bed};
use crate::netns::must;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const ENTRY: &str = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n";
const IMAGE: &str = "localhost/bb:1";

/// podman in the bed's host namespace; dropping it removes its containers.
pub struct Podman<'a> {
    bed: &'a Bed,
    networks: Vec<String>,
}

impl<'a> Podman<'a> {
    /// podman with these networks (name, plugins); the first is the default one.
    pub fn new(bed: &'a Bed, networks: &[(&str, Vec<Value>)]) -> Self {
        for (name, plugins) in networks {
            let list = crate::conf::conflist(name, "1.0.0", plugins);
            bed.write(&format!("podman/net.d/{name}.conflist"), list.to_string());
        }
        fs::create_dir_all(bed.path("podman/tmp")).expect("the bed is writable");
        bed.write("podman/containers.conf", containers_conf(bed, networks[0].0));
        bed.write("podman/storage.conf", storage_conf(bed));
        let names = networks.iter().map(|(name, _)| (*name).to_owned()).collect();
        let this = Self { bed, networks: names };
        let image = crate::image::build(bed, IMAGE, ENTRY, true);
        must(this.command(&["load", "-q", "-i"]).arg(image));
        this
    }

    /// Runs a shell script in a new container and removes it: `podman run --rm`.
    pub fn run_rm(&self, options: &[&str], script: &str) -> Output {
        let mut command = self.command(&["run", "--rm"]);
        command.args(options).args(["--entrypoint", "/bin/sh", IMAGE, "-c", script]);
        command.output().expect("podman can be run")
    }

    /// Starts a container that stays; answers its id.
    pub fn run_detached(&self, options: &[&str]) -> String {
        let mut command = self.command(&["run", "-d"]);
        let out = must(command.args(options).arg(IMAGE));
        String::from_utf8_lossy(&out).trim().to_owned()
    }

    /// Any other podman command, which must succeed; answers what it prints.
    pub fn must(&self, args: &[&str]) -> String {
        String::from_utf8_lossy(&must(&mut self.command(args))).trim().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bed.host.command("podman");
        command.env("CONTAINERS_CONF", self.bed.path("podman/containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.bed.path("podman/storage.conf"));
        command.args(args);
        command
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "-af", "-t", "0"]).output();
        for network in &self.networks {
            bed::remove_matching(Path::new("/var/lib/cni/results"), network);
        }
    }
}

fn containers_conf(bed: &Bed, default_network: &str) -> String {
    format!(
        r#"[network]
network_backend = "cni"
cni_plugin_dirs = ["{bin}"]
network_config_dir = "{dir}/net.d"
default_network = "{default_network}"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{dir}/tmp"
image_default_transport = "containers-storage"
[containers]
seccomp_profile = "/usr/share/containers/seccomp.json"
cgroupns = "host"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"#,
        bin = bed.plugin_dir().display(),
        dir = bed.path("podman").display(),
    )
}

fn storage_conf(bed: &Bed) -> String {
    let dir = bed.path("podman");
    format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/storage\"\nrunroot = \"{0}/run\"\n",
        dir.display()
    )
}
