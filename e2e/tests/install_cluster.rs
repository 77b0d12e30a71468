//! Take-over by hand on a node whose Calico keeps its data in Kubernetes: our plugin under Calico's names has nothing
//! but the account of Calico's plugin, and the cluster nothing but Calico's definitions.
// REQ: C-18
// REQ: I-07

#![allow(clippy::unwrap_used)]

use e2e::clean::kernel_is_clean;
use e2e::cluster::{Cluster, Kind, Node};
use e2e::cnirun::addresses;
use e2e::containerd::CNI_VERSION;
use e2e::installer::{Installer, put_program, version};
use e2e::kubelet::chart;
use e2e::{Attachment, Bed, Network, conf, probe};
use serde_json::{Value, json};
use std::sync::Arc;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NETWORK: &str = "k8s-pod-network";

/// What Calico grants its plugin: with 3.18 as a part of calico-node's role, since 3.24 by a role of its own.
fn rights(newer: bool) -> Value {
    let all = json!(["get", "list", "create", "update", "delete"]);
    let group = json!(["crd.projectcalico.org"]);
    let mut rules = json!([
        {"apiGroups": [""], "resources": ["pods", "nodes", "namespaces"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]},
        {"apiGroups": group, "resources": ["blockaffinities", "ipamblocks", "ipamhandles"], "verbs": all},
    ]);
    let more = match newer {
        true => vec![
            json!({"apiGroups": group, "resources": ["clusterinformations", "ippools", "ipreservations", "ipamconfigs"], "verbs": all}),
        ],
        false => vec![
            json!({"apiGroups": group, "resources": ["ippools", "clusterinformations"], "verbs": ["get", "list", "watch", "create", "update"]}),
            json!({"apiGroups": group, "resources": ["ipamconfigs"], "verbs": ["get"]}),
        ],
    };
    rules.as_array_mut().unwrap().extend(more);
    rules
}

/// The configuration of a node of Calico's.
fn conflist(bed: &Bed, node: &Node) -> Value {
    let mut plugin = node.plugin(bed);
    plugin["type"] = json!("calico");
    plugin["ipam"]["type"] = json!("calico-ipam");
    plugin["datastore_type"] = json!("kubernetes");
    conf::conflist(NETWORK, CNI_VERSION, &[plugin])
}

/// A node of Calico's whose plugin was taken over.
struct CalicoNode {
    bed: Bed,
    node: Node,
    conflist: Value,
}

impl CalicoNode {
    fn taken_over(cluster: &Arc<Cluster>, namespace: &str, account: &str, newer: bool) -> Self {
        let bed = Bed::new("takehand");
        let node = Node::join(cluster, Kind::Kubernetes, &bed);
        let token = cluster.account(namespace, account);
        cluster.grant(namespace, account, &rights(newer));
        node.use_token(&bed, &token);
        let [ours, theirs] = ["ours", "theirs"].map(|tag| version(&bed, tag));
        std::fs::remove_dir_all(bed.plugin_dir()).unwrap();
        std::fs::create_dir(bed.plugin_dir()).unwrap();
        for name in ["calico", "calico-ipam"] {
            put_program(&theirs.join("percale"), &bed.plugin_dir().join(name));
        }
        let conflist = conflist(&bed, &node);
        bed.write("net.d/10-calico.conflist", conflist.to_string());
        Installer::new(&bed, &ours, None).ok(&["--take-over"]);
        Self { bed, node, conflist }
    }

    fn network(&self) -> Network<'_> {
        Network::new(&self.bed, NETWORK, self.conflist["plugins"].as_array().unwrap().clone())
    }

    fn pods_live_and_die(&self) {
        let (bed, node, network) = (&self.bed, &self.node, self.network());
        let spaces = ["one", "two"].map(|tail| bed.netns(tail));
        let pods = [0, 1].map(|at| {
            Attachment::new(spaces[at].name(), &spaces[at]).with_args(&node.make_pod(["one", "two"][at]))
        });
        let results = pods.each_ref().map(|pod| network.add(pod).unwrap());
        assert_eq!(node.given(), 4, "two addresses for each");
        for ip in addresses(&results[1]) {
            probe::tcp(&spaces[0], &spaces[1], ip).unwrap_or_else(|e| panic!("{ip}: {e}"));
        }
        pods.iter().for_each(|pod| network.check(pod).unwrap());
        network.status().unwrap();
        network.del(&pods[0]).unwrap();
        network.gc(&[&pods[1]]).unwrap();
        assert_eq!(node.given(), 2);
        network.del(&pods[1]).unwrap();
        assert_eq!(node.given(), 0);
        kernel_is_clean(&bed.host);
    }
}

/// Beside other nodes that have the chart: our definitions are there, and the chart lets Calico's account use them.
#[test]
fn beside_the_chart_its_rights_are_enough() {
    let cluster = Cluster::own();
    let node = CalicoNode::taken_over(&cluster, "kube-system", "calico-node", false);
    let space = node.bed.netns("refused");
    let pod = Attachment::new(space.name(), &space).with_args(&node.node.make_pod("refused"));
    let refused = node.network().add(&pod).unwrap_err().to_string();
    assert!(
        refused.contains("forbidden") && refused.contains("calico-node"),
        "the cure can be seen: {refused}"
    );
    assert_eq!(node.node.given(), 0);
    cluster.apply(&chart(&["accounts.yaml", "rbac.yaml"], &["cni.takeOver=plugin"]));
    node.pods_live_and_die();
}

#[test]
fn calicos_own_account_and_definitions_are_enough_by_hand() {
    let cluster = Cluster::own();
    let forget = |name: &str| cluster.api("DELETE", &format!("{DEFINITIONS}/{name}"), None);
    forget("percalerecords.percale.io");
    CalicoNode::taken_over(&cluster, "default", "newer", true).pods_live_and_die();
    // Calico had no reservations before 3.22.
    forget("ipreservations.crd.projectcalico.org");
    CalicoNode::taken_over(&cluster, "default", "older", false).pods_live_and_die();
}
