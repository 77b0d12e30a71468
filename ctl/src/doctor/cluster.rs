//! A cluster's store, as the plugin of this host meets it: the node's name and object, the account and its
//! token, certificates.

use super::{Finding, Host, config};
use crate::backend::Backend;
use crate::session::store_deadline;
use cni_protocol::NetConf;
use datastore_kubernetes::Kubernetes;
use model::keys;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const CHECK: &str = "cluster";
/// Less than this left is told: kubelets renew certificates with a third of their time left.
const SOON: u64 = 7 * 86_400;
/// Less than this left of a token, which an installer renews long before, is told.
const TOKEN_SOON: u64 = 900;

/// Nothing for a host with a store of its own. That the store cannot be reached is another check's finding.
pub fn check(host: &Host<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if host.places.backend.is_cluster() {
        findings.extend(name(host));
        findings.extend(object(host));
    }
    if let Backend::Etcd(etcd) = &host.places.backend {
        let files = [&etcd.ca_cert_file, &etcd.cert_file].into_iter().flatten();
        findings.extend(files.filter_map(|file| certificate(file)));
    }
    for account in accounts(host) {
        findings.extend(judge(&account));
    }
    findings
}

/// The agent's word that the node's network is up (decision 31).
fn name(host: &Host<'_>) -> Option<Finding> {
    let file = host.places.state_dir.join("nodename");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    text.trim().is_empty().then(|| {
        Finding::wrong(
            CHECK,
            format!("{} is not there", file.display()),
            "every ADD waits for the host's agent to write the node's name, unless nodename_file_optional is set",
            "start percaled (or calico-node) on this host, and look at its log".to_owned(),
        )
    })
}

fn object(host: &Host<'_>) -> Option<Finding> {
    let node = crate::host::Host::look(host.places).ok()?.node;
    let store = host.places.backend.open(datastore::embedded::Mode::ReadOnly).ok()?;
    let found = store.get(&[&keys::node(&node)], store_deadline()).ok()?;
    found.iter().all(Option::is_none).then(|| {
        Finding::wrong(
            CHECK,
            format!("the cluster has no node {node}"),
            "every ADD is put off until it has: the name is wrong, or the host's agent has not joined it",
            format!("percalectl get nodes; correct {}", host.places.state_dir.join("nodename").display()),
        )
    })
}

/// A way to Kubernetes: where it stands, and what it says.
struct Account {
    file: String,
    config: datastore_kubernetes::Config,
}

/// The plugin's, by the configurations of this host; without one percalectl's own.
fn accounts(host: &Host<'_>) -> Vec<Account> {
    let (networks, _) = config::read(host);
    let mut files: Vec<String> =
        networks.iter().flat_map(|network| network.ours().filter_map(kubeconfig)).collect();
    files.sort();
    files.dedup();
    if files.is_empty() {
        let Backend::Kubernetes(config) = &host.places.backend else { return Vec::new() };
        let file = config.kubeconfig.to_string_lossy().into_owned();
        return vec![Account { file, config: (**config).clone() }];
    }
    let account = |file: String| {
        let kubeconfig = host.path(&file).into();
        Account { file, config: datastore_kubernetes::Config { kubeconfig, ..Default::default() } }
    };
    files.into_iter().map(account).collect()
}

fn kubeconfig(plugin: &serde_json::Value) -> Option<String> {
    let parsed = NetConf::parse(&serde_json::to_vec(plugin).ok()?).ok()?;
    Some(parsed.conf.backends.kubernetes.kubeconfig).filter(|file| !file.is_empty())
}

fn judge(account: &Account) -> Vec<Finding> {
    let file = &account.file;
    let renew = || format!("look at percale-install --watch, which writes {file} anew before the token ends");
    let store = match Kubernetes::open(&account.config, store_deadline()) {
        Ok(store) => store,
        Err(error) => {
            let why = "the plugin reaches the cluster by it: no pod gets an address";
            return vec![Finding::wrong(CHECK, format!("{file}: {error}"), why, renew())];
        }
    };
    let mut findings = Vec::new();
    if let Some(left) =
        store.token_end().map(|end| end.saturating_sub(now())).filter(|left| *left < TOKEN_SOON)
    {
        let why = "after that the plugin is refused, and no pod gets an address";
        let what = format!("the token in {file} ends in {left} seconds");
        findings.push(Finding::wrong(CHECK, what, why, renew()));
    }
    match store.lacking_rights(store_deadline()) {
        Ok(lacking) if lacking.is_empty() => {}
        Ok(lacking) => findings.push(Finding::wrong(
            CHECK,
            format!("the account of {file} may not {}", lacking.join(", ")),
            "the plugin needs all of it for an address",
            "kubectl apply the role percale-cni of the manifests, and bind the account to it".to_owned(),
        )),
        Err(error) => findings.push(Finding::note(
            CHECK,
            format!("the rights of {file} could not be asked for: {error}"),
            "what the account lacks shows only when a pod needs it",
            format!("kubectl --kubeconfig {file} auth can-i --list"),
        )),
    }
    findings
}

fn certificate(file: &Path) -> Option<Finding> {
    let shown = file.display();
    let finding = |what: String| {
        let why = "once it has ended the store refuses this host, and no pod gets an address";
        Some(Finding::wrong(CHECK, what, why, format!("renew {shown}")))
    };
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) => return finding(format!("{shown}: {error}")),
    };
    match super::certificate::end(&text) {
        None => finding(format!("{shown}: no certificate can be read from it")),
        Some(end) if end <= now() => finding(format!("{shown}: the certificate has ended")),
        Some(end) if end - now() < SOON => {
            finding(format!("{shown}: the certificate ends in {} hours", (end - now()) / 3600))
        }
        Some(_) => None,
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
