//! `percalectl` on a real etcd and a real API server.

#![allow(clippy::unwrap_used)]

use e2e::cluster::{Cluster, Kind, Node, percalectl};
use e2e::{Attachment, Bed, Network};
use serde_json::{Value, json};

struct Admin<'a> {
    bed: &'a Bed,
    node: &'a Node,
}

impl Admin<'_> {
    fn run(&self, args: &[&str], stdin: &str) -> Result<String, String> {
        let out = percalectl(self.bed, self.node, args, stdin);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }

    fn ok(&self, args: &[&str], stdin: &str) -> String {
        self.run(args, stdin).unwrap_or_else(|e| panic!("{:?}: {args:?}: {e}\n{stdin}", self.node.kind))
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args, "")).unwrap()
    }
}

/// Kind, name, spec, and a member that a patch changes.
fn resources(node: &str) -> Vec<(&'static str, String, Value, Value)> {
    let rule = json!([{"action": "Allow", "protocol": "TCP", "source": {"selector": "role == 'a'"}, "destination": {"ports": [80]}}]);
    vec![
        (
            "IPPool",
            format!("{node}-p"),
            json!({"cidr": "172.30.0.0/24", "natOutgoing": true}),
            json!({"disabled": true}),
        ),
        (
            "IPReservation",
            format!("{node}-r"),
            json!({"reservedCIDRs": ["172.30.0.8/29"]}),
            json!({"reservedCIDRs": ["172.30.0.8"]}),
        ),
        (
            "BGPConfiguration",
            format!("node.{node}"),
            json!({"logSeverityScreen": "Info"}),
            json!({"logSeverityScreen": "Debug"}),
        ),
        (
            "BGPPeer",
            format!("{node}-peer"),
            json!({"peerIP": "192.0.2.9", "asNumber": 64512, "node": node}),
            json!({"asNumber": 64513}),
        ),
        (
            "BGPFilter",
            format!("{node}-f"),
            json!({"exportV4": [{"cidr": "10.0.0.0/8", "matchOperator": "In", "action": "Accept"}]}),
            json!({"importV4": []}),
        ),
        (
            "FelixConfiguration",
            format!("node.{node}"),
            json!({"logSeverityScreen": "Info", "bpfEnabled": false}),
            json!({"bpfEnabled": true}),
        ),
        (
            "HostEndpoint",
            format!("{node}-hep"),
            json!({"node": node, "interfaceName": "eth0", "expectedIPs": ["192.0.2.1"]}),
            json!({"interfaceName": "eth1"}),
        ),
        (
            "GlobalNetworkSet",
            format!("{node}-gns"),
            json!({"nets": ["10.0.0.0/8", "fd00::/8"]}),
            json!({"nets": ["10.1.0.0/16"]}),
        ),
        (
            "NetworkSet",
            format!("{node}-ns"),
            json!({"nets": ["10.0.0.0/8"]}),
            json!({"nets": ["10.1.0.0/16"]}),
        ),
        (
            "GlobalNetworkPolicy",
            format!("{node}-gnp"),
            json!({"selector": "all()", "ingress": rule}),
            json!({"order": 7}),
        ),
        (
            "NetworkPolicy",
            format!("{node}-np"),
            json!({"selector": "all()", "egress": rule}),
            json!({"order": 7}),
        ),
    ]
}

// REQ: K-05
#[test]
fn every_kind_is_made_read_changed_and_deleted() {
    for kind in Kind::BOTH {
        let bed = Bed::new("kinds");
        let node = Node::join(&Cluster::shared(), kind, &bed);
        let admin = Admin { bed: &bed, node: &node };
        for (of, name, spec, change) in resources(&node.name) {
            let object = json!({"apiVersion": "projectcalico.org/v3", "kind": of, "metadata": {"name": name, "labels": {"a": "b"}}, "spec": spec});
            let (text, get) = (object.to_string(), ["get", of, &name, "-o", "json"]);
            admin.ok(&["create", "-f", "-"], &text);
            assert!(admin.run(&["create", "-f", "-"], &text).unwrap_err().contains("exists already"));
            let stored = admin.json(&get);
            assert_eq!(
                (&stored["metadata"]["name"], &stored["metadata"]["labels"]["a"]),
                (&json!(name), &json!("b")),
                "{stored}"
            );
            for (member, value) in spec.as_object().unwrap() {
                assert_eq!(&stored["spec"][member], value, "{kind:?} {of}");
            }
            assert!(admin.ok(&["apply", "-f", "-"], &text).contains("unchanged"), "{kind:?} {of}");
            admin.ok(&["patch", of, &name, "-p", &json!({"spec": change}).to_string()], "");
            let patched = admin.json(&get);
            for (member, value) in change.as_object().unwrap() {
                assert_eq!(&patched["spec"][member], value, "{kind:?} {of}");
            }
            let stale = admin.run(&["replace", "-f", "-"], &stored.to_string()).unwrap_err();
            assert!(stale.contains("changed since it was read"), "{kind:?} {of}: {stale}");
            admin.ok(&["replace", "-f", "-"], &text);
            assert!(admin.ok(&["get", of, "-A"], "").contains(&name), "{kind:?} {of}");
            admin.ok(&["delete", of, &name], "");
            assert!(admin.run(&get, "").unwrap_err().contains("does not exist"), "{kind:?} {of}");
        }
    }
}

/// Settings of which there is one.
#[test]
fn settings_of_the_cluster() {
    let cluster = Cluster::own();
    for kind in Kind::BOTH {
        let bed = Bed::new("settings");
        let node = Node::join(&cluster, kind, &bed);
        let admin = Admin { bed: &bed, node: &node };
        let kcc = "apiVersion: projectcalico.org/v3\nkind: KubeControllersConfiguration\nmetadata: {name: default}\nspec: {}\n";
        admin.ok(&["apply", "-f", "-"], kcc);
        assert_eq!(
            admin.json(&["get", "kcc", "default", "-o", "json"])["spec"]["prometheusMetricsPort"],
            9094
        );
        admin.ok(&["ipam", "configure", "--strictaffinity", "true", "--max-blocks-per-host", "4"], "");
        let config = admin.json(&["get", "ipamconfig", "default", "-o", "json"]);
        assert_eq!(
            (&config["spec"]["strictAffinity"], &config["spec"]["maxBlocksPerHost"]),
            (&json!(true), &json!(4))
        );
        let patch = r#"{"spec":{"datastoreReady":false}}"#;
        admin.ok(&["patch", "clusterinformation", "default", "-p", patch], "");
        let locked = admin.run(&["ipam", "configure", "--max-blocks-per-host", "5"], "").unwrap_err();
        assert!(locked.contains("locked"), "{kind:?}: {locked}");
        admin.ok(&["patch", "clusterinformation", "default", "-p", &patch.replace("false", "true")], "");
        assert!(admin.ok(&["get", "nodes"], "").contains(&node.name));
        // What is there can be written down and brought back.
        let dump = admin.ok(&["store", "dump"], "");
        assert!(admin.run(&["store", "load", "-"], &dump).unwrap_err().contains("--force"));
        admin.ok(&["delete", "ippool", &node.pool("v4")], "");
        admin.ok(&["store", "load", "--force", "-"], &dump);
        assert!(admin.ok(&["get", "ippools"], "").contains(&node.pool("v4")), "{kind:?}");
    }
}

#[test]
fn what_pods_hold_is_shown() {
    for kind in Kind::BOTH {
        let bed = Bed::new("shown");
        let node = Node::join(&Cluster::shared(), kind, &bed);
        let admin = Admin { bed: &bed, node: &node };
        let network = Network::new(&bed, "k8s-pod-network", vec![node.plugin(&bed)]);
        let ns = bed.netns("pod");
        let pod = Attachment::new(ns.name(), &ns);
        let result = network.add(&pod).unwrap();
        let ip = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
        let held = admin.ok(&["ipam", "show", "--ip", ip], "");
        assert!(held.contains(&pod.container), "{kind:?}: {held}");
        let affinities = admin.json(&["get", "blockaffinities", "-o", "json"]);
        let of_node =
            affinities["items"].as_array().unwrap().iter().filter(|a| a["spec"]["node"] == json!(node.name));
        assert_eq!(of_node.clone().count(), 2, "{kind:?}: {affinities}");
        let one = of_node.clone().next().unwrap()["metadata"]["name"].as_str().unwrap();
        assert_eq!(admin.json(&["get", "blockaffinity", one, "-o", "json"])["spec"]["state"], "confirmed");
        let refused = admin.run(&["delete", "blockaffinity", one], "").unwrap_err();
        assert!(refused.contains("written by others"), "{kind:?}: {refused}");
        network.del(&pod).unwrap();
    }
}

// REQ: K-05
#[test]
fn calicoctl_s_file_and_several_kubeconfigs_lead_to_the_store() {
    let bed = Bed::new("ctlfile");
    let cluster = Cluster::shared();
    let etcd = Node::join(&cluster, Kind::Etcd, &bed);
    let spec = json!({"datastoreType": "etcdv3", "etcdEndpoints": etcd.bridge.url("https"), "etcdCACertFile": cluster.pki("ca.crt"),
        "etcdCertFile": cluster.pki("etcd-client.crt"), "etcdKeyFile": cluster.pki("etcd-client.key")});
    let file = json!({"apiVersion": "projectcalico.org/v3", "kind": "CalicoAPIConfig", "metadata": null, "spec": spec});
    let file = bed.write("calicoctl.cfg", file.to_string());
    let ctl = || {
        let mut command = bed.host.command(bed.bins.as_ref().unwrap().percalectl());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.arg("--state-dir").arg(bed.path("other-state"));
        command
    };
    let out = ctl().arg("--config").arg(file).args(["get", "nodes"]).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains(&etcd.name), "{out:?}");
    let kubernetes = Node::join(&cluster, Kind::Kubernetes, &bed);
    let text = std::fs::read_to_string(cluster.admin_kubeconfig()).unwrap();
    let text = text.replace(&cluster.url(), &kubernetes.bridge.url("https"));
    let (contexts, rest) =
        (bed.write("a", "apiVersion: v1\nkind: Config\ncurrent-context: none\n"), bed.write("b", text));
    let files = format!("{}:{}", contexts.display(), rest.display());
    let out = ctl()
        .env("KUBECONFIG", &files)
        .env("K8S_CURRENT_CONTEXT", "testbed")
        .args(["get", "nodes"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains(&kubernetes.name), "{out:?}");
    let out = ctl().env("KUBECONFIG", &files).args(["get", "nodes"]).output().unwrap();
    assert_eq!(out.status.code(), Some(1), "the current context is another: {out:?}");
}

#[test]
fn profiles_of_kubernetes_come_from_namespaces_and_accounts() {
    let bed = Bed::new("profiles");
    let node = Node::join(&Cluster::shared(), Kind::Kubernetes, &bed);
    let admin = Admin { bed: &bed, node: &node };
    let namespace = format!("of-{}", node.name);
    let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {"team": "a"}}});
    node.cluster.api("POST", "/api/v1/namespaces", Some(&made));
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "labels": {"tier": "b"}}});
    node.cluster.api("POST", &format!("/api/v1/namespaces/{namespace}/serviceaccounts"), Some(&account));
    let profile = admin.json(&["get", "profile", &format!("kns.{namespace}"), "-o", "json"]);
    assert_eq!(profile["spec"]["labelsToApply"]["pcns.team"], "a", "{profile}");
    assert_eq!(
        profile["spec"]["labelsToApply"]["pcns.projectcalico.org/name"],
        json!(namespace),
        "{profile}"
    );
    assert_eq!(profile["spec"]["ingress"][0]["action"], "Allow", "{profile}");
    let profile = admin.json(&["get", "profile", &format!("ksa.{namespace}.web"), "-o", "json"]);
    assert_eq!(profile["spec"]["labelsToApply"]["pcsa.tier"], "b", "{profile}");
    assert_eq!(profile["spec"]["egress"], Value::Null, "{profile}");
    let all = admin.json(&["get", "profiles", "-o", "json"]);
    let names: Vec<&str> =
        all["items"].as_array().unwrap().iter().filter_map(|p| p["metadata"]["name"].as_str()).collect();
    assert!(
        names.contains(&"projectcalico-default-allow") && names.contains(&"kns.kube-system"),
        "{names:?}"
    );
    assert!(admin.run(&["get", "profile", "kns.none"], "").unwrap_err().contains("does not exist"));
}

#[test]
fn the_doctor_looks_at_the_node_the_account_and_certificates() {
    for kind in Kind::BOTH {
        let bed = Bed::new("doctor");
        let node = Node::join(&Cluster::shared(), kind, &bed);
        let conflist = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [node.plugin(&bed)]});
        bed.write("net.d/10-percale.conflist", conflist.to_string());
        let dir = bed.path("net.d");
        let look = || {
            let out =
                percalectl(&bed, &node, &["doctor", "--conf-dir", dir.to_str().unwrap(), "-o", "json"], "");
            let report: Value = serde_json::from_slice(&out.stdout).unwrap();
            let found = report["findings"].as_array().unwrap().iter().filter(|f| f["check"] == "cluster");
            found.map(|f| f["what"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(look(), Vec::<String>::new(), "{kind:?}");
        bed.write("state/nodename", "nobody");
        assert_eq!(look(), ["the cluster has no node nobody"], "{kind:?}");
        bed.write("state/nodename", "");
        assert!(look()[0].contains("nodename is not there"), "{kind:?}: {:?}", look());
        bed.write("state/nodename", &node.name);
        if kind == Kind::Kubernetes {
            // An account without rights, whose token ends soon, and a token that nobody takes.
            let weak = node.cluster.account("default", &node.name);
            node.use_token(&bed, &weak);
            let found = look();
            assert!(
                found[0].contains("kube-system"),
                "it may not even look at what tells clusters apart: {found:?}"
            );
            let little = json!([{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}]);
            node.cluster.grant("default", &node.name, &little);
            let found = look();
            assert!(
                found.iter().any(|what| what.contains("may not") && what.contains("create ipamblocks")),
                "{found:?}"
            );
            assert!(
                found.iter().any(|what| what.contains("the token in") && what.contains("ends in")),
                "{found:?}"
            );
            node.use_token(&bed, "none");
            assert!(look()[0].contains("kubeconfig"), "{:?}", look());
        }
    }
}
