//! Stage 2 of the take-over, on Calico's side (decision 35): nothing that this build cannot enforce may exist, and
//! calico-node must be off the node, and stay off it, before the daemon does its work.

use crate::cluster::{self, Api};
use crate::placement;
use crate::settings::Settings;
use crate::wish;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// On nodes whose routes and rules are Percale's. calico-node's DaemonSet must avoid it.
pub const LABEL: &str = "percale.io/taken-over";
pub const LABEL_VALUE: &str = "all";

/// How long calico-node's pod may take to go.
const PATIENCE: Duration = Duration::from_secs(120);
/// Processes that do calico-node's work. A BIRD may be somebody else's; Calico's ends with these.
const DAEMONS: &[&str] = &["calico-felix", "calico-node"];

/// # Errors
/// The policies, by name; or why it cannot be told whether there are any.
pub fn refuse_policies(settings: &Settings, conf: &Value) -> Result<()> {
    let policies = policies(settings, conf)?;
    if policies.is_empty() {
        return Ok(());
    }
    bail!(
        "--take-over=all: refused, because policies exist that this build cannot enforce ({}); pods would be \
         open that are closed now. --take-over takes the plugin and the IPAM, and leaves policy to calico-node",
        policies.join(", ")
    )
}

/// Labels the node, and waits until calico-node has left it. Pods keep their network meanwhile: routes and rules stay
/// when calico-node goes.
///
/// # Errors
/// A DaemonSet that would come back; calico-node that does not go; the API server's.
pub fn keep_calico_off(settings: &Settings, conf: &Value) -> Result<()> {
    if let Some(api) = api(settings, conf)? {
        let node = node_name(settings, conf);
        let labels = api.node_labels(&node)?;
        for set in api.calico_sets()? {
            refuse_returning(&set, &labels, &node)?;
        }
        api.label_node(&node, LABEL, Some(LABEL_VALUE))?;
        eprintln!(
            "percale-install: node {node}: labelled {LABEL}={LABEL_VALUE}; waiting for calico-node to leave"
        );
        wait_until(|| Ok(api.calico_pods(&node)?.first().map(|pod| format!("pod {pod}"))))?;
    }
    wait_until(|| Ok(running_daemon()))
}

/// Takes the label away.
///
/// # Errors
/// The API server's, with what is left to do.
pub fn let_calico_in(settings: &Settings, conf: &Value) -> Result<()> {
    let Some(api) = api(settings, conf)? else { return Ok(()) };
    let node = node_name(settings, conf);
    api.label_node(&node, LABEL, None).with_context(|| {
        format!("Calico's files are back, but the label {LABEL} still keeps calico-node off node {node}; run again")
    })
}

fn refuse_returning(set: &Value, labels: &Value, node: &str) -> Result<()> {
    let mut labels = labels.as_object().cloned().unwrap_or_default();
    labels.insert(LABEL.to_owned(), LABEL_VALUE.into());
    if !placement::may_run(&set["spec"]["template"]["spec"], &labels, node) {
        return Ok(());
    }
    let text = |key: &str| set["metadata"][key].as_str().unwrap_or("?").to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    bail!(
        "--take-over=all: the DaemonSet {namespace}/{name} does not avoid nodes with the label {LABEL}={LABEL_VALUE}, \
         so calico-node and its installer would come back. Once for the cluster: kubectl -n {namespace} patch daemonset \
         {name} --patch-file install/manifests/calico-node-avoids.yaml (where an operator owns it: the same affinity in \
         its Installation)"
    )
}

/// Waits until `left` names nothing any more.
fn wait_until(left: impl Fn() -> Result<Option<String>>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while let Some(what) = left()? {
        if Instant::now() >= deadline {
            bail!(
                "--take-over=all: {what} is still there after {} s; Percale would work against it. End it \
                 (without Kubernetes: systemctl disable --now calico-node) and run again",
                PATIENCE.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// A process of calico-node in this network namespace: where Kubernetes does not run it. A container sees its own alone.
fn running_daemon() -> Option<String> {
    let own = fs::read_link("/proc/self/ns/net").ok()?;
    let pids = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let here = |path: &PathBuf| fs::read_link(path.join("ns/net")).is_ok_and(|ns| ns == own);
    let named = |path: PathBuf| {
        let name = fs::read_to_string(path.join("comm")).ok()?;
        DAEMONS.contains(&name.trim()).then_some((path, name))
    };
    let (path, name) = pids.filter_map(named).find(|(path, _)| here(path))?;
    Some(format!("process {} ({})", path.file_name()?.to_string_lossy(), name.trim()))
}

fn policies(settings: &Settings, conf: &Value) -> Result<Vec<String>> {
    let text = |key: &str| conf[key].as_str().unwrap_or_default().to_owned();
    let is_etcd = conf["datastore_type"] == "etcdv3" || !text("etcd_endpoints").is_empty();
    let mut names = Vec::new();
    if is_etcd {
        let file =
            |key: &str| Some(text(key)).filter(|path| !path.is_empty()).map(|path| on_host(settings, &path));
        let endpoints = text("etcd_endpoints").split(',').map(str::trim).map(str::to_owned).collect();
        let config = datastore_etcd::Config {
            endpoints,
            ca_cert_file: file("etcd_ca_cert_file"),
            cert_file: file("etcd_cert_file"),
            key_file: file("etcd_key_file"),
            ..datastore_etcd::Config::default()
        };
        names = cluster::policies_in_etcd(&config).context("whether policies exist cannot be told")?;
    }
    match api(settings, conf)? {
        Some(api) => names.extend(api.policies()?),
        None if is_etcd => {}
        None => bail!(
            "whether policies exist cannot be told: Calico's configuration names neither etcd nor a kubeconfig"
        ),
    }
    Ok(names)
}

/// The API server: as this pod's account, by KUBECONFIG, or as Calico's plugin. `None`: this node has none.
fn api(settings: &Settings, conf: &Value) -> Result<Option<Api>> {
    if settings.account.join("token").exists()
        && let Some(server) = wish::server(settings)?
    {
        return Api::in_pod(&server, &settings.account).map(Some);
    }
    let calicos = conf["kubernetes"]["kubeconfig"].as_str().filter(|path| !path.is_empty());
    let given = settings.value("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    match given.or_else(|| calicos.map(|path| on_host(settings, path))) {
        Some(file) => Api::by_kubeconfig(&file).map(Some),
        None => Ok(None),
    }
}

/// KUBERNETES_NODE_NAME, what Calico's configuration says, or the host's name.
fn node_name(settings: &Settings, conf: &Value) -> String {
    let given = settings.value("KUBERNETES_NODE_NAME").filter(|name| !name.is_empty());
    let calicos = || conf["nodename"].as_str().filter(|name| !name.is_empty());
    let host = || rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    given.or_else(calicos).map_or_else(host, str::to_owned)
}

/// A path that a file of the host names.
fn on_host(settings: &Settings, path: &str) -> PathBuf {
    match Path::new(path).strip_prefix("/") {
        Ok(tail) => settings.host_root.join(tail),
        Err(_) => path.into(),
    }
}
