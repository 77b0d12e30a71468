//! Gathers what shall be installed: programs of the source directory, certificates, kubeconfig,
//! network configuration.

use crate::kubeconfig::{self, Server};
use crate::observe;
use crate::options::{Mode, Stage};
use crate::plan::{From, Records, Want, Wish};
use crate::set::{Content, Hash, Kind};
use crate::settings::{Publish, Settings};
use crate::template::{self, BuiltIn, Values};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Plugins that are taken where the source directory has them: those of the CNI project, by name.
/// Nothing else of the directory is executed or installed.
const OTHERS: &[&str] = &[
    "bandwidth",
    "bridge",
    "dhcp",
    "dummy",
    "firewall",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "sbr",
    "static",
    "tap",
    "tuning",
    "vlan",
    "vrf",
];

/// Name in the plugin directory, and names that its content may have in the source directory.
/// `percale-cluster` is what `percale` executes for networks in a cluster's store, so it comes first.
const OURS: &[(&str, &[&str])] = &[
    ("percale-cluster", &["percale-cluster"]),
    ("percale-ipam", &["percale-ipam", "percale"]),
    ("percale", &["percale"]),
];

const CALICOS: &[(&str, &[&str])] =
    &[("calico-ipam", &["percale-ipam", "percale"]), ("calico", &["percale"])];

/// The installation that the settings describe.
///
/// # Errors
/// Whatever would give a node without a working plugin.
pub fn install(settings: &Settings, records: &Records, token: Option<&str>) -> Result<Wish> {
    let taken_over = is_take_over(settings, records);
    let mut wish = Wish { taken_over, routes: is_whole(settings, records), ..Wish::default() };
    for (number, dir) in settings.bin_dirs.iter().enumerate() {
        if number > 0 && !is_writable(dir) {
            eprintln!("percale-install: {}: cannot be written, and is left out", dir.display());
            continue;
        }
        wish.files.extend(programs(settings, records, dir, taken_over)?);
    }
    match (taken_over, wish.routes) {
        (true, true) => wish.files.push(stage(settings, "all")),
        (true, false) => wish.files.push(stage(settings, "plugin")),
        // One that says that the node was given back holds no more.
        (false, _) => wish.absent.push((settings.stage(), Kind::Stage)),
    }
    if taken_over && !settings.config_given {
        // Calico's configuration stays, and with it its kubeconfig and certificates.
        return Ok(wish);
    }
    let mut values = values(settings);
    let tls = certificates(settings, &mut values)?;
    let server = server(settings)?;
    let datastore = datastore_type(settings, token.is_some())?;
    if let (Some(token), Some(server)) = (token, &server) {
        let bytes = kubeconfig::render(server, token);
        wish.files.push(bytes_at(settings.kubeconfig(), Kind::Kubeconfig, bytes, 0o600));
        values.insert("SERVICEACCOUNT_TOKEN", token.to_owned());
    }
    wish.files.extend(tls);
    conflist(settings, records, &values, &datastore, &mut wish)?;
    Ok(wish)
}

/// A node that was taken over stays so until it is given back.
pub fn is_take_over(settings: &Settings, records: &Records) -> bool {
    let pending = records.pending.as_ref().is_some_and(|set| set.taken_over);
    matches!(settings.mode, Mode::TakeOver(_)) || records.current.taken_over || pending
}

/// Whether calico-node's work is ours too; it stays so until the node is given back.
pub fn is_whole(settings: &Settings, records: &Records) -> bool {
    let pending = records.pending.as_ref().is_some_and(|set| set.routes);
    matches!(settings.mode, Mode::TakeOver(Stage::All)) || records.current.routes || pending
}

/// The word to the daemon.
pub fn stage(settings: &Settings, what: &str) -> Want {
    bytes_at(settings.stage(), Kind::Stage, format!("{what}\n").into_bytes(), 0o644)
}

fn is_writable(dir: &Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
}

fn programs(settings: &Settings, records: &Records, dir: &Path, taken_over: bool) -> Result<Vec<Want>> {
    let source = &settings.source_dir;
    if !source.join("percale").is_file() {
        bail!("{}: has no percale to install; name the right directory with --source-dir", source.display());
    }
    let others = OTHERS.iter().map(|name| (*name, std::slice::from_ref(name)));
    let calicos = CALICOS.iter().filter(|_| taken_over);
    let all = others.chain(OURS.iter().chain(calicos).map(|(name, from)| (*name, *from)));
    let mut wants = Vec::new();
    for (name, candidates) in all {
        let path = dir.join(name);
        if settings.skip_binaries.contains(name) {
            wants.extend(as_recorded(records, &path));
            continue;
        }
        let Some(file) = candidates.iter().map(|c| source.join(c)).find(|file| file.is_file()) else {
            continue;
        };
        let seen = observe::content(&file)?.context("a file of the source directory went away")?;
        let content = Content { sha256: seen.sha256, mode: 0o755 };
        let keep_existing = !settings.update_binaries;
        wants.push(Want { path, kind: Kind::Plugin, content, from: From::File(file), keep_existing });
    }
    Ok(wants)
}

/// What is recorded and still there stays.
fn as_recorded(records: &Records, path: &Path) -> Option<Want> {
    let entry = records.current.find(path).filter(|_| path.exists())?;
    let (path, kind, content) = (entry.path.clone(), entry.kind, entry.content.clone());
    Some(Want { path, kind, content, from: From::Saved, keep_existing: true })
}

fn bytes_at(path: PathBuf, kind: Kind, bytes: Vec<u8>, mode: u32) -> Want {
    let content = Content { sha256: Hash::of(&bytes), mode };
    Want { path, kind, content, from: From::Bytes(bytes), keep_existing: false }
}

fn values(settings: &Settings) -> Values {
    let host_name = || rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let defaults = [
        ("LOG_LEVEL", "info".to_owned()),
        ("LOG_FILE_PATH", "/var/log/percale/cni/cni.log".to_owned()),
        ("LOG_FILE_MAX_SIZE", "100".to_owned()),
        ("LOG_FILE_MAX_AGE", "30".to_owned()),
        ("LOG_FILE_MAX_COUNT", "10".to_owned()),
        ("DATASTORE_TYPE", "kubernetes".to_owned()),
        ("KUBERNETES_NODE_NAME", host_name()),
        ("CNI_MTU", "1500".to_owned()),
        ("KUBERNETES_SERVICE_HOST", String::new()),
        ("KUBERNETES_SERVICE_PORT", String::new()),
        ("KUBERNETES_SERVICE_PROTOCOL", "https".to_owned()),
        ("ETCD_ENDPOINTS", String::new()),
        ("ETCD_DISCOVERY_SRV", String::new()),
        ("SERVICEACCOUNT_TOKEN", String::new()),
        ("KUBECONFIG_FILEPATH", settings.conf_dir_on_host.join("percale-kubeconfig").display().to_string()),
    ];
    let mut values: Values = defaults.into_iter().collect();
    values.extend(settings.values.iter().map(|(name, value)| (*name, value.clone())));
    values
}

/// Files of TLS_ASSETS_DIR by name, and the placeholders that name them as the host does.
fn certificates(settings: &Settings, values: &mut Values) -> Result<Vec<Want>> {
    let mut wants = Vec::new();
    let names = [
        ("etcd-ca", "ETCD_CA_CERT_FILE", 0o644),
        ("etcd-cert", "ETCD_CERT_FILE", 0o644),
        ("etcd-key", "ETCD_KEY_FILE", 0o600),
    ];
    for (name, placeholder, mode) in names {
        let file = settings.tls_assets.join(name);
        let given = match fs::read(&file) {
            Ok(bytes) => Some(bytes),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(e).with_context(|| format!("TLS_ASSETS_DIR: {}", file.display())),
        };
        let on_host = settings.conf_dir_on_host.join("percale-tls").join(name);
        let text = given.as_ref().map(|_| on_host.display().to_string()).unwrap_or_default();
        values.insert(placeholder, text);
        wants.extend(
            given.map(|bytes| bytes_at(settings.tls_dir().join(name), Kind::Certificate, bytes, mode)),
        );
    }
    Ok(wants)
}

/// The API server as a pod is told it.
pub fn server(settings: &Settings) -> Result<Option<Server>> {
    let value = |name| settings.value(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let (Some(host), Some(port)) = (value("KUBERNETES_SERVICE_HOST"), value("KUBERNETES_SERVICE_PORT"))
    else {
        if settings.account.join("token").exists() {
            bail!(
                "this pod has an account, but KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set"
            );
        }
        return Ok(None);
    };
    let file = settings.account.join("ca.crt");
    let authority = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(_) if settings.skip_tls_verify || !settings.account.exists() => Vec::new(),
        Err(e) => return Err(e).with_context(|| format!("the API server's authority: {}", file.display())),
    };
    let protocol = value("KUBERNETES_SERVICE_PROTOCOL").unwrap_or_else(|| "https".to_owned());
    Ok(Some(Server { protocol, host, port, authority, skip_tls_verify: settings.skip_tls_verify }))
}

/// Decision 27, as far as an installer sees it. It is written out, so that the plugin need not guess.
fn datastore_type(settings: &Settings, has_account: bool) -> Result<String> {
    let given = |name| settings.value(name).is_some_and(|text| !text.is_empty());
    if let Some(named) = settings.value("DATASTORE_TYPE") {
        return match named {
            "kubernetes" | "etcdv3" | "embedded" => Ok(named.to_owned()),
            other => bail!("DATASTORE_TYPE={other:?}: use kubernetes, etcdv3 or embedded"),
        };
    }
    let pools = given("CALICO_IPV4POOL_CIDR") || given("CALICO_IPV6POOL_CIDR");
    let found = if given("ETCD_ENDPOINTS") || given("ETCD_DISCOVERY_SRV") {
        "etcdv3"
    } else if has_account || given("KUBERNETES_SERVICE_HOST") {
        "kubernetes"
    } else if pools {
        "embedded"
    } else if settings.template.is_some() {
        "kubernetes"
    } else {
        bail!(
            "no store is named and no pod account is here: set CALICO_IPV4POOL_CIDR for a host of its own, \
             ETCD_ENDPOINTS, DATASTORE_TYPE, or give CNI_NETWORK_CONFIG"
        );
    };
    Ok(found.to_owned())
}

fn conflist(
    settings: &Settings,
    records: &Records,
    values: &Values,
    datastore: &str,
    wish: &mut Wish,
) -> Result<()> {
    let bytes = configuration(settings, values, datastore)?;
    let secret = settings.template.as_ref().is_some_and(|text| text.contains("__SERVICEACCOUNT_TOKEN__"));
    let mode = if secret { 0o600 } else { 0o644 };
    let path = settings.conf_dir.join(&settings.conf_name);
    let old = settings.conf_dir.join(&settings.old_conf_name);
    let replaces = !settings.old_conf_name.is_empty() && settings.old_conf_name != settings.conf_name;
    if replaces {
        same_network(&old, &bytes, wish.taken_over)?;
        wish.absent.push((old, Kind::Conflist));
    }
    // A node that is taken over has a network already, and must have a configuration at every moment.
    let publish = if wish.taken_over { Publish::Installer } else { settings.publish };
    match publish {
        Publish::Installer => wish.files.push(bytes_at(path, Kind::Conflist, bytes, mode)),
        Publish::Daemon => {
            wish.files.push(bytes_at(settings.staged(), Kind::Staged, bytes, mode));
            // One that an earlier run put there serves until the daemon replaces it.
            wish.files.extend(as_recorded(records, &path));
        }
    }
    Ok(())
}

fn configuration(settings: &Settings, values: &Values, datastore: &str) -> Result<Vec<u8>> {
    let mut values = values.clone();
    values.insert("DATASTORE_TYPE", datastore.to_owned());
    if let Some(template) = &settings.template {
        return template::render(template, &values, datastore);
    }
    let pool =
        |name| settings.value(name).filter(|cidr| !cidr.is_empty() && *cidr != "none").map(str::to_owned);
    let pools = ["CALICO_IPV4POOL_CIDR", "CALICO_IPV6POOL_CIDR"].into_iter().filter_map(pool).collect();
    let mtu = settings.value("CNI_MTU").map(str::to_owned);
    template::built_in(&values, &BuiltIn { datastore_type: datastore.to_owned(), pools, mtu })
}

/// Addresses are held under the network's name: another name would orphan those of running pods.
fn same_network(old: &Path, new: &[u8], taken_over: bool) -> Result<()> {
    let Ok(bytes) = fs::read(old) else { return Ok(()) };
    let (was, is) = (template::network_name(&bytes), template::network_name(new));
    if taken_over && was != is {
        let text = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".to_owned());
        bail!(
            "the network is called {} in {} and {} in the new configuration; running pods' addresses are held \
             under its name, so it must stay",
            text(&was),
            old.display(),
            text(&is)
        );
    }
    Ok(())
}
