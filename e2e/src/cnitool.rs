//! libcni itself, through the CNI project's `cnitool`: ADD, CHECK, DEL, GC and STATUS.

use crate::bed::{self, Bed};
use crate::bins::go_tools;
use crate::netns::Netns;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// cnitool on one conflist.
pub struct Cnitool<'a> {
    bed: &'a Bed,
    pub network: String,
    program: PathBuf,
    /// `CAP_ARGS`: capability arguments as JSON.
    pub capabilities: Option<Value>,
}

impl<'a> Cnitool<'a> {
    pub fn new(bed: &'a Bed, version: &str, plugins: &[Value]) -> Self {
        let network = bed.unique("tool");
        let list = crate::conf::conflist(&network, version, plugins);
        bed.write("tool.d/10-net.conflist", list.to_string());
        let program = go_tools().join("bin/cnitool");
        assert!(program.is_file(), "{} is missing: run scripts/deps", program.display());
        Self { bed, network, program, capabilities: None }
    }

    /// Runs one verb on a namespace and an interface name.
    pub fn run(&self, verb: &str, netns: &Netns, ifname: &str) -> Output {
        let mut command: Command = self.bed.host.command(&self.program);
        command.args([verb, &self.network]).arg(netns.path());
        command.env("CNI_PATH", self.bed.plugin_dir()).env("NETCONFPATH", self.bed.path("tool.d"));
        command.env("CNI_IFNAME", ifname);
        if let Some(capabilities) = &self.capabilities {
            command.env("CAP_ARGS", capabilities.to_string());
        }
        command.output().expect("cnitool can be run")
    }

    /// As [`Cnitool::run`], and asserts success.
    pub fn must(&self, verb: &str, netns: &Netns, ifname: &str) -> Vec<u8> {
        let out = self.run(verb, netns, ifname);
        let told = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "cnitool {verb}: {told}{}", String::from_utf8_lossy(&out.stdout));
        out.stdout
    }

    /// ADD; answers the result.
    pub fn add(&self, netns: &Netns, ifname: &str) -> Value {
        serde_json::from_slice(&self.must("add", netns, ifname)).expect("cnitool prints the result")
    }
}

impl Drop for Cnitool<'_> {
    fn drop(&mut self) {
        bed::remove_matching(Path::new("/var/lib/cni/results"), &self.network);
    }
}
