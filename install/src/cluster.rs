//! The API server (and etcd), for the two things that the installer asks of a cluster: a token for
//! the plugin's account, and whether policies exist.

use crate::kubeconfig::Server;
use anyhow::{Context as _, Result, bail};
use datastore::{Deadline, Store as _};
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(15);
/// The API server may give less.
const TOKEN_SECONDS: u64 = 24 * 3600;

/// A connection to an API server.
pub struct Api {
    runtime: tokio::runtime::Runtime,
    client: kube::Client,
}

impl Api {
    /// As the pod's own account.
    pub fn in_pod(server: &Server, account: &Path) -> Result<Self> {
        let url = server.url().parse().with_context(|| format!("the API server {}", server.url()))?;
        let mut config = kube::Config::new(url);
        config.root_cert_file = Some(account.join("ca.crt")).filter(|file| file.exists());
        config.accept_invalid_certs = server.skip_tls_verify;
        if config.root_cert_file.is_some() || server.skip_tls_verify {
            // Else the system's authorities are asked for first, and a container has none.
            config.root_cert = Some(Vec::new());
        }
        config.auth_info.token_file = Some(account.join("token").display().to_string());
        Self::connect(|_| Ok(config))
    }

    /// By a kubeconfig file.
    pub fn by_kubeconfig(file: &Path) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(file).with_context(|| file.display().to_string())?;
        Self::connect(|runtime| {
            let options = KubeConfigOptions::default();
            Ok(runtime.block_on(kube::Config::from_custom_kubeconfig(kubeconfig, &options))?)
        })
    }

    fn connect(config: impl FnOnce(&tokio::runtime::Runtime) -> Result<kube::Config>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut config = config(&runtime)?;
        config.connect_timeout = Some(LIMIT);
        config.read_timeout = Some(LIMIT);
        let client = {
            let _entered = runtime.enter();
            kube::Client::try_from(config)?
        };
        Ok(Self { runtime, client })
    }

    /// A fresh token of an account.
    ///
    /// # Errors
    /// What the API server said; it must allow `create` of `serviceaccounts/token`.
    pub fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_SECONDS},
        });
        let answer = self.ask("POST", &path, body.to_string().into_bytes());
        let answer = answer.with_context(|| format!("a token for {namespace}/{account}"))?;
        let token = answer["status"]["token"].as_str().map(str::to_owned);
        token.with_context(|| format!("a token for {namespace}/{account}: the answer has none"))
    }

    /// What denies traffic, by kind and name: a few of each kind, and how many more.
    pub fn policies(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for path in DENYING {
            let list = match self.ask("GET", &format!("{path}?limit=500"), Vec::new()) {
                Ok(list) => list,
                Err(e) if is_missing(&e) => continue,
                Err(e) => {
                    return Err(e).with_context(|| format!("{path}: whether policies exist cannot be told"));
                }
            };
            let items = list["items"].as_array().cloned().unwrap_or_default();
            names.extend(few(path.rsplit('/').next().unwrap_or_default(), items.iter().map(full_name)));
        }
        Ok(names)
    }

    /// The node's labels.
    pub fn node_labels(&self, node: &str) -> Result<Value> {
        let answer = self.ask("GET", &format!("/api/v1/nodes/{node}"), Vec::new());
        Ok(answer.with_context(|| format!("node {node}"))?["metadata"]["labels"].take())
    }

    /// Sets a label of the node, or takes it away.
    pub fn label_node(&self, node: &str, label: &str, value: Option<&str>) -> Result<()> {
        let body = json!({"metadata": {"labels": {label: value}}}).to_string().into_bytes();
        let answer = self.ask("PATCH", &format!("/api/v1/nodes/{node}"), body);
        answer.map(drop).with_context(|| format!("node {node}: label {label}"))
    }

    /// The DaemonSets that run calico-node.
    pub fn calico_sets(&self) -> Result<Vec<Value>> {
        let path = format!("/apis/apps/v1/daemonsets?labelSelector={CALICO_NODE}");
        let mut list = self.ask("GET", &path, Vec::new()).context("calico-node's DaemonSet")?;
        Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// calico-node's pods on a node.
    pub fn calico_pods(&self, node: &str) -> Result<Vec<String>> {
        let path = format!("/api/v1/pods?labelSelector={CALICO_NODE}&fieldSelector=spec.nodeName%3D{node}");
        let list = self.ask("GET", &path, Vec::new()).context("calico-node's pods")?;
        Ok(list["items"].as_array().into_iter().flatten().map(full_name).collect())
    }

    fn ask(&self, method: &str, path: &str, body: Vec<u8>) -> Result<Value> {
        let request =
            Request::builder().method(method).uri(path).header("Content-Type", content_type(method));
        let request = request.body(body)?;
        let answer = async { tokio::time::timeout(LIMIT, self.client.request::<Value>(request)).await };
        match self.runtime.block_on(answer) {
            Ok(answer) => Ok(answer?),
            Err(_) => bail!("the API server did not answer within {} s", LIMIT.as_secs()),
        }
    }
}

/// A kind that this cluster does not have.
fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404)
}

fn content_type(method: &str) -> &'static str {
    if method == "PATCH" { "application/merge-patch+json" } else { "application/json" }
}

/// `k8s-app=calico-node`, as all releases of Calico label the set and its pods.
const CALICO_NODE: &str = "k8s-app%3Dcalico-node";

/// Kinds whose very existence denies something. A host endpoint without any policy denies all but fail-safe ports.
const DENYING: &[&str] = &[
    "/apis/networking.k8s.io/v1/networkpolicies",
    "/apis/crd.projectcalico.org/v1/networkpolicies",
    "/apis/crd.projectcalico.org/v1/globalnetworkpolicies",
    "/apis/crd.projectcalico.org/v1/hostendpoints",
    "/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies",
    "/apis/policy.networking.k8s.io/v1alpha1/baselineadminnetworkpolicies",
];

/// `NAMESPACE/NAME`, or the name alone.
fn full_name(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap_or("?");
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// Five names with their kind, and how many more there are.
fn few(kind: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let all: Vec<String> = names.collect();
    let mut told: Vec<String> = all.iter().take(5).map(|name| format!("{kind}/{name}")).collect();
    if all.len() > told.len() {
        told.push(format!("{} more {kind}", all.len() - told.len()));
    }
    told
}

/// What denies traffic in etcd, under Calico's keys.
pub fn policies_in_etcd(config: &datastore_etcd::Config) -> Result<Vec<String>> {
    let deadline = Deadline::after(LIMIT);
    let store = datastore_etcd::Etcd::open(config, deadline)?;
    let prefix = |kind: &str| format!("/calico/resources/v3/projectcalico.org/{kind}/");
    let mut names = Vec::new();
    for kind in ["networkpolicies", "globalnetworkpolicies", "hostendpoints"] {
        let keys = store.keys(&prefix(kind), deadline)?;
        names.extend(few(kind, keys.iter().map(|key| key.trim_start_matches(&prefix(kind)).to_owned())));
    }
    let profiles = store.list(&prefix("profiles"), deadline)?;
    let strict = profiles.iter().filter(|entry| !is_open(&entry.value));
    let name = |key: &str| key.trim_start_matches(&prefix("profiles")).to_owned();
    names.extend(few("profiles", strict.map(|entry| name(&entry.key))));
    Ok(names)
}

/// Whether a profile lets everything through, or says nothing (labels alone). What cannot be read does not count as open.
pub fn is_open(profile: &[u8]) -> bool {
    let Ok(profile) = serde_json::from_slice::<Value>(profile) else { return false };
    let everything = |rule: &Value| {
        rule.as_object().is_some_and(|rule| {
            rule.iter().all(|(key, value)| match key.as_str() {
                "action" => value == "Allow",
                _ => value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty),
            })
        })
    };
    ["ingress", "egress"].iter().all(|key| match &profile["spec"][key] {
        Value::Null => true,
        Value::Array(rules) => rules.iter().all(everything),
        _ => false,
    })
}
