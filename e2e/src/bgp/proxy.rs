//! Kubernetes' own service proxy on a node, which turns service addresses into those of pods.

use super::kubernetes::kubeconfig;
use super::{Fabric, Node, Process, soon};
use crate::bins::workspace;
use crate::netns::must;
use serde_json::json;
use std::process::Command;

impl Fabric {
    /// Starts kube-proxy in the node's namespace, with the administrator's rights. It ends with the value.
    pub fn kube_proxy(&self, node: &Node) -> Process {
        let built =
            must(Command::new(workspace().join("testdata/apiserver/build")).args(["-n", "kube-proxy"]));
        let program = String::from_utf8(built).expect("a path is text");
        let cluster = self.cluster();
        let user =
            json!({"client-certificate": cluster.pki("admin.crt"), "client-key": cluster.pki("admin.key")});
        let (file, log) = (node.path("proxy.kubeconfig"), node.path("kube-proxy.log"));
        let url = node.api_url();
        std::fs::write(&file, kubeconfig(cluster, &url, &user)).expect("the bed is writable");
        let mut command: Command = node.ns.command(program.trim());
        command.arg("--kubeconfig").arg(&file).args([
            "--hostname-override",
            &node.name,
            "--proxy-mode",
            "nftables",
        ]);
        // These limits are the machine's, not the namespace's.
        command.args(["--conntrack-max-per-core", "0", "--conntrack-tcp-timeout-established", "0"]);
        command.args(["--conntrack-tcp-timeout-close-wait", "0"]);
        let mut process = Process::start(&mut command, &log);
        soon("kube-proxy has written its rules", || {
            process.must_run();
            let rules = node.ns.ruleset();
            (rules.contains("kube-proxy"), std::fs::read_to_string(&log).unwrap_or_default())
        });
        process
    }
}
