//! Nodes of a Kubernetes cluster: what kubelet and an administrator do, and the daemon's account.

use super::Node;
use crate::bins::workspace;
use crate::bridge::Bridge;
use crate::cluster::Cluster;
use crate::netns::must;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::sync::Arc;

const NAMESPACE: &str = "percale-system";
/// What of our manifests makes the accounts and gives them their rights, and where the API server has each.
const KINDS: [(&str, &str); 5] = [
    ("ServiceAccount", "/api/v1/namespaces/percale-system/serviceaccounts"),
    ("ClusterRole", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
    ("ClusterRoleBinding", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"),
    ("Role", "/apis/rbac.authorization.k8s.io/v1/namespaces/percale-system/roles"),
    ("RoleBinding", "/apis/rbac.authorization.k8s.io/v1/namespaces/percale-system/rolebindings"),
];

/// The daemon's account in a cluster, with the rights of `install/manifests/percale.yaml` and no others.
pub struct DaemonAccount {
    api: Arc<Cluster>,
    token: String,
}

impl DaemonAccount {
    pub fn install(api: &Arc<Cluster>) -> Self {
        let manifests = fs::read_to_string(workspace().join("install/manifests/percale.yaml"));
        for object in manifests.expect("the manifests are there").split("\n---\n") {
            apply(api, object);
        }
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/percale-node/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600}});
        let answer = api.api("POST", &path, Some(&request));
        let token = answer["status"]["token"].as_str().unwrap_or_else(|| panic!("no token: {answer}"));
        Self { api: api.clone(), token: token.to_owned() }
    }

    /// Registers the node as kubelet and a cloud do, not reachable yet, and gives its daemon the account.
    pub(super) fn give(&self, node: &mut Node) {
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}});
        self.api.api("POST", "/api/v1/nodes", Some(&object));
        let port = self.api.url().rsplit(':').next().and_then(|port| port.parse().ok());
        let bridge = Bridge::into(&node.host, port.expect("the URL ends with a port"));
        let kubeconfig = node.dir.join("kubeconfig");
        fs::write(&kubeconfig, self.kubeconfig(&bridge.url("https"))).expect("the bed is writable");
        let text = |path: &std::path::Path| path.display().to_string();
        node.env.retain(|(name, _)| name != "DATASTORE_TYPE" && name != "ETCD_ENDPOINTS");
        for (name, value) in [("DATASTORE_TYPE", "kubernetes".to_owned()), ("KUBECONFIG", text(&kubeconfig))]
        {
            node.env.push((name.to_owned(), value));
        }
        node.store = json!({"datastore_type": "kubernetes", "kubernetes": {"kubeconfig": text(&kubeconfig)}});
        node._bridge = Some(bridge);
    }

    fn kubeconfig(&self, url: &str) -> String {
        let file = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bed",
            "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "percale-node"}}],
            "clusters": [{"name": "bed", "cluster": {"server": url,
                "certificate-authority": self.api.pki("ca.crt")}}],
            "users": [{"name": "percale-node", "user": {"token": self.token}}],
        });
        file.to_string()
    }
}

/// Makes an object of the manifests, if it is of those kinds.
fn apply(api: &Cluster, object: &str) {
    let after = |start: &str| object.lines().find_map(|line| line.strip_prefix(start));
    let kind = after("kind: ").unwrap_or_default();
    let Some((_, path)) = KINDS.iter().find(|(known, _)| *known == kind) else { return };
    let name = after("  name: ").expect("an object has a name");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail-with-body", "-X", "PATCH", "--cacert"]).arg(api.pki("ca.crt"));
    curl.arg("--cert").arg(api.pki("admin.crt")).arg("--key").arg(api.pki("admin.key"));
    curl.args(["-H", "Content-Type: application/apply-patch+yaml", "--data-binary", object]);
    must(curl.arg(format!("{}{path}/{name}?fieldManager=bed&force=true", api.url())));
}

/// The pod as it is when kubelet asks for its sandbox.
pub(super) fn make_pod(api: &Cluster, node: &str, name: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none"}]}});
    api.api("POST", "/api/v1/namespaces/default/pods", Some(&pod));
}

impl Cluster {
    /// What cloud and kubelet say of a node: its addresses, and that its network does not work yet.
    pub fn report_node(&self, name: &str, addresses: &[&str]) {
        let addresses: Vec<Value> =
            addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
        let unavailable = json!({"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"});
        let status = json!({"status": {"addresses": addresses, "conditions": [unavailable]}});
        self.api("PATCH", &format!("/api/v1/nodes/{name}/status"), Some(&status));
    }

    pub fn node(&self, name: &str) -> Value {
        self.api("GET", &format!("/api/v1/nodes/{name}"), None)
    }

    /// The status of the node's condition `NetworkUnavailable`.
    pub fn network_unavailable(&self, name: &str) -> String {
        let node = self.node(name);
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == "NetworkUnavailable");
        found.and_then(|condition| condition["status"].as_str()).unwrap_or("absent").to_owned()
    }
}
