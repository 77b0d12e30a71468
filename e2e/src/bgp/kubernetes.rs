//! An API server as the store: what the manifests give the daemon, and how a node reaches it.

use super::etcd::ENDPOINT;
use crate::bins::workspace;
use crate::bridge::Bridge;
use crate::cluster::Cluster;
use crate::netns::Netns;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Where the manifests put the daemon.
pub const NAMESPACE: &str = "percale-system";

/// The daemon's account in the cluster, with the rights of `install/manifests/percale.yaml` and no others.
pub struct Account {
    token: String,
}

/// How a daemon is told of its store.
pub(super) struct Access {
    pub datastore: &'static str,
    pub env: Vec<(String, String)>,
    bridge: Option<Bridge>,
}

impl Access {
    pub fn etcd() -> Self {
        let env = vec![("ETCD_ENDPOINTS".to_owned(), ENDPOINT.to_owned())];
        Access { datastore: "etcdv3", env, bridge: None }
    }

    pub fn url(&self) -> Option<String> {
        self.bridge.as_ref().map(|bridge| bridge.url("https"))
    }
}

impl Account {
    pub(super) fn make(cluster: &Cluster) -> Self {
        let text =
            fs::read_to_string(workspace().join("install/manifests/percale.yaml")).expect("a manifest");
        let all: Vec<Value> = serde_saphyr::from_multiple(&text).expect("the manifest is YAML");
        for object in &all {
            if let Some(collection) = collection(object["kind"].as_str().unwrap_or_default()) {
                let made = cluster.api("POST", &collection, Some(object));
                // What the bed has made already is there: 409.
                assert!(made["code"].is_null() || made["code"] == 409, "{made}");
            }
        }
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/percale-node/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 7200}});
        let answer = cluster.api("POST", &path, Some(&request));
        let token = answer["status"]["token"].as_str();
        Account { token: token.unwrap_or_else(|| panic!("no token: {answer}")).to_owned() }
    }

    pub(super) fn access(&self, cluster: &Cluster, ns: &Netns, dir: &Path) -> Access {
        let port =
            cluster.url().rsplit(':').next().and_then(|p| p.parse().ok()).expect("the URL ends with a port");
        let bridge = Bridge::into(ns, port);
        let file = dir.join("kubeconfig");
        let text = kubeconfig(cluster, &bridge.url("https"), &json!({"token": self.token}));
        fs::write(&file, text).expect("the bed is writable");
        let env = [
            ("KUBECONFIG", file.display().to_string()),
            ("NAMESPACE", NAMESPACE.to_owned()),
            ("IP6", "autodetect".to_owned()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).into();
        Access { datastore: "kubernetes", env, bridge: Some(bridge) }
    }
}

/// A kubeconfig as JSON, which is YAML as well.
pub(super) fn kubeconfig(cluster: &Cluster, url: &str, user: &Value) -> String {
    let server = json!({"server": url, "certificate-authority": cluster.pki("ca.crt")});
    json!({"apiVersion": "v1", "kind": "Config", "current-context": "bed",
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
        "clusters": [{"name": "bed", "cluster": server}],
        "users": [{"name": "bed", "user": user}]})
    .to_string()
}

/// Where objects of a kind are made, if the daemon's account needs them.
fn collection(kind: &str) -> Option<String> {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    Some(match kind {
        "ServiceAccount" => format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"),
        "ClusterRole" => format!("{rbac}/clusterroles"),
        "ClusterRoleBinding" => format!("{rbac}/clusterrolebindings"),
        "Role" => format!("{rbac}/namespaces/{NAMESPACE}/roles"),
        "RoleBinding" => format!("{rbac}/namespaces/{NAMESPACE}/rolebindings"),
        _ => return None,
    })
}

/// A Kubernetes node of number `n`, or what is new of it: Calico's part of it is in annotations.
pub(super) fn put_node(cluster: &Cluster, n: u8, labels: &Value, bgp: &Value) {
    let mut annotations = Map::new();
    let mut note = |name: &str, text: String| {
        annotations.insert(format!("projectcalico.org/{name}"), text.into());
    };
    note("IPv4Address", format!("10.99.0.{n}/24"));
    note("IPv6Address", format!("fd99::{n:x}/64"));
    for (member, name) in [("asNumber", "ASNumber"), ("routeReflectorClusterID", "RouteReflectorClusterID")] {
        match &bgp[member] {
            Value::Null => {}
            Value::String(text) => note(name, text.clone()),
            other => note(name, other.to_string()),
        }
    }
    let name = format!("node{n}");
    let metadata = json!({"name": name, "labels": labels, "annotations": annotations});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata});
    if cluster.api("POST", "/api/v1/nodes", Some(&node))["code"] == 409 {
        cluster.api("PATCH", &format!("/api/v1/nodes/{name}"), Some(&json!({"metadata": metadata})));
    }
    let addresses = json!([{"type": "InternalIP", "address": format!("10.99.0.{n}")}]);
    let status = json!({"status": {"addresses": addresses}});
    cluster.api("PATCH", &format!("/api/v1/nodes/{name}/status"), Some(&status));
}
