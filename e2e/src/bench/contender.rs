//! Ours and the peers, each on a host of its own.

use super::Families;
use crate::bed::Bed;
use crate::bins::go_tools;
use crate::cnirun::Network;
use crate::conf;
use crate::daemon::{Daemon, Start, socket};
use crate::netns::Netns;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A file system in memory that every Linux host has.
const IN_MEMORY: &str = "/dev/shm";

/// A network that is measured, with the same features on all sides: no masquerade, a route to
/// everything through the host.
pub struct Contender {
    pub name: String,
    pub bed: Bed,
    plugin: Value,
    ipam: &'static str,
    families: Families,
    /// Where our lock files are: in memory, as `/run` is on a host.
    _run: Option<TempDir>,
}

impl Contender {
    /// Ours: the embedded store, durable, no daemon.
    pub fn percale(families: Families) -> Self {
        Self::ours(Bed::new("bench"), families)
    }

    /// Ours, as it was built into a directory.
    pub fn build(families: Families, dir: &Path) -> Self {
        Self::ours(Bed::of_build("bench", dir), families)
    }

    /// Ours, asking the daemon of its bed; see [`Contender::daemon`].
    pub fn asking(mut self) -> Self {
        self.name = "percale by percaled".to_owned();
        self.plugin["daemon_socket"] = json!(socket(&self.bed));
        self
    }

    /// Starts the daemon of one that asks.
    pub fn daemon(&self) -> Daemon<'_> {
        let at = |key: &str| self.plugin[key].as_str().expect("ours has that path").to_owned();
        let (attachments, lock) = (at("attachment_dir"), at("ipam_lock_file"));
        Daemon::start_as(
            &self.bed,
            &Start::with_args(&["--attachment-dir", &attachments, "--ipam-lock-file", &lock]),
        )
    }

    fn ours(bed: Bed, families: Families) -> Self {
        let run = tempfile::Builder::new().prefix("percale-bench-").tempdir_in(IN_MEMORY);
        let run = run.expect("a tmpfs on /dev/shm");
        let mut plugin = conf::percale_with(&bed, families.subnets());
        plugin["attachment_dir"] = json!(run.path().join("attachments"));
        plugin["ipam_lock_file"] = json!(run.path().join("ipam.lock"));
        Self { name: "percale".to_owned(), bed, plugin, ipam: "percale-ipam", families, _run: Some(run) }
    }

    /// ptp with host-local, Debian's or the newest.
    pub fn ptp(families: Families, newest: bool) -> Self {
        let bed = Bed::peers("bench");
        let name = if newest { "newest ptp + host-local" } else { "Debian's ptp + host-local" };
        if newest {
            bed.use_plugins_of(&go_tools().join("plugins"));
        }
        Self::peer(name, bed, json!({"type": "ptp", "ipMasq": false}), families)
    }

    /// Debian's bridge with host-local.
    pub fn bridge(families: Families) -> Self {
        let plugin = json!({"type": "bridge", "bridge": "br0", "isGateway": true});
        Self::peer("Debian's bridge + host-local", Bed::peers("bench"), plugin, families)
    }

    fn peer(name: &str, bed: Bed, mut plugin: Value, families: Families) -> Self {
        for program in [plugin["type"].as_str().expect("a plugin has a type"), "host-local"] {
            bed.copy_plugin(program);
        }
        plugin["ipam"] = conf::host_local(&bed, families.subnets());
        plugin["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        if families != Families::V4 {
            plugin["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        }
        Self { name: name.to_owned(), bed, plugin, ipam: "host-local", families, _run: None }
    }

    /// A pod's namespace, on a kernel as the case wants it.
    pub fn pod(&self, tail: &str) -> Netns {
        let ns = self.bed.netns(tail);
        if self.families == Families::Dual {
            for space in [&ns, &self.bed.host] {
                space.run(|| fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")).expect("a sysctl");
            }
        }
        ns
    }

    /// The network; 1.0.0 is the newest version that all sides speak.
    pub fn network(&self) -> Network<'_> {
        Network::new(&self.bed, "bench", vec![self.plugin.clone()]).at_version("1.0.0")
    }

    /// The file name of the IPAM plugin.
    pub fn ipam_plugin(&self) -> &'static str {
        self.ipam
    }

    /// The IPAM's name in the table.
    pub fn ipam_name(&self) -> String {
        if self.name.starts_with("newest") {
            "newest host-local".into()
        } else {
            "Debian's host-local".into()
        }
    }
}
