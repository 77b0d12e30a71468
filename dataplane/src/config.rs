//! The daemon's settings: the command line, then the environment, then defaults.

use crate::args::Args;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reads an environment variable.
pub type Env<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// Which store holds the objects (decision 27).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    /// In this directory.
    Embedded(PathBuf),
    Etcd(datastore_etcd::Config),
    Kubernetes(datastore_kubernetes::Config),
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Felix's configuration file, if one is given.
    pub felix_file: Option<PathBuf>,
    pub state_dir: PathBuf,
    pub ipam_lock_file: PathBuf,
    pub attachment_dir: PathBuf,
    pub socket: PathBuf,
    pub store: StoreChoice,
    /// `None`: not served.
    pub health_addr: Option<SocketAddr>,
    /// `None`: not served.
    pub metrics_addr: Option<SocketAddr>,
    pub cri_socket: Option<PathBuf>,
    /// `None`: never.
    pub gc_interval: Option<Duration>,
    pub gc_grace: Duration,
    node_name: Option<String>,
}

impl Config {
    /// # Errors
    /// A value that cannot be used, by the name of its option.
    pub fn resolve(args: &Args, env: &Env) -> Result<Self> {
        let path = |option: &Option<PathBuf>, name: &str, default: &Path| {
            let chosen = option.clone().or_else(|| Some(set(env, name)?.into()));
            chosen.unwrap_or_else(|| default.to_owned())
        };
        let state_dir = path(&args.state_dir, "PERCALE_STATE_DIR", Path::new("/var/lib/percale"));
        let store_dir = path(&args.datastore_path, "PERCALE_DATASTORE_PATH", &state_dir.join("store"));
        let names = ["NODENAME", "CALICO_NODENAME", "FELIX_FELIXHOSTNAME"];
        let cri = ["PERCALE_CRI_SOCKET", "CONTAINER_RUNTIME_ENDPOINT"];
        Ok(Self {
            felix_file: args.config.clone(),
            ipam_lock_file: path(
                &args.ipam_lock_file,
                "PERCALE_IPAM_LOCK_FILE",
                Path::new("/run/percale/ipam.lock"),
            ),
            attachment_dir: path(&args.attachment_dir, "", Path::new("/run/percale/attachments")),
            socket: path(&args.socket, "PERCALE_SOCKET", Path::new("/run/percale/percaled.sock")),
            store: store(args, store_dir, env)?,
            health_addr: address(&args.health_addr, "PERCALE_HEALTH_ADDR", "127.0.0.1:9099", env)?,
            metrics_addr: address(&args.metrics_addr, "PERCALE_METRICS_ADDR", ":9091", env)?,
            cri_socket: args.cri_socket.clone().or_else(|| Some(plain(first(env, &cri)?))),
            node_name: args.node_name.clone().or_else(|| text(first(env, &names)?)),
            gc_interval: (args.gc_interval > 0).then(|| Duration::from_secs(args.gc_interval)),
            gc_grace: Duration::from_secs(args.gc_grace),
            state_dir,
        })
    }

    /// This node's name (decision 31): as configured, as pinned at first use, else the host's in lower case.
    ///
    /// # Errors
    /// Where the host has no name that could be used.
    pub fn node_name(&self) -> Result<String> {
        let pinned = || fs::read_to_string(self.nodename_file()).ok();
        let name = self.node_name.clone().or_else(pinned).unwrap_or_else(host_name);
        match name.trim() {
            "" => bail!("--node-name: the host has no name; give one"),
            name => Ok(name.to_owned()),
        }
    }

    /// Whether the store is a cluster's, not this host's own.
    pub fn is_cluster(&self) -> bool {
        !matches!(self.store, StoreChoice::Embedded(_))
    }

    /// Where the node's name is pinned, for the plugin and for the next start.
    pub fn nodename_file(&self) -> PathBuf {
        self.state_dir.join("nodename")
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

fn set(env: &Env, name: &str) -> Option<OsString> {
    if name.is_empty() {
        return None;
    }
    env(name).filter(|value| !value.is_empty())
}

fn first(env: &Env, names: &[&str]) -> Option<OsString> {
    names.iter().find_map(|name| set(env, name))
}

fn text(value: OsString) -> Option<String> {
    value.into_string().ok()
}

/// A socket's path, also where it is given as a URL.
fn plain(value: OsString) -> PathBuf {
    let text = value.to_string_lossy();
    PathBuf::from(text.strip_prefix("unix://").unwrap_or(&text))
}

fn store(args: &Args, dir: PathBuf, env: &Env) -> Result<StoreChoice> {
    let etcd = datastore_etcd::Config::default().with_env(env);
    let kubernetes = datastore_kubernetes::Config::default().with_env(env);
    let given = args.datastore_type.clone().map(OsString::from);
    let names = ["CALICO_DATASTORE_TYPE", "DATASTORE_TYPE", "FELIX_DATASTORETYPE"];
    let named = given.or_else(|| first(env, &names)).map(|name| name.to_string_lossy().to_lowercase());
    // The embedded store's components are compared as text, so its path has one spelling.
    let embedded = StoreChoice::Embedded(dir.components().collect());
    Ok(match named.as_deref() {
        Some("embedded") => embedded,
        Some("etcdv3") => StoreChoice::Etcd(etcd),
        Some("kubernetes") => StoreChoice::Kubernetes(kubernetes),
        Some(other) => bail!("--datastore-type {other:?}: use embedded, etcdv3 or kubernetes"),
        None if args.datastore_path.is_some() => embedded,
        None if etcd.is_given() => StoreChoice::Etcd(etcd),
        None if kubernetes.is_given() => StoreChoice::Kubernetes(kubernetes),
        None => embedded,
    })
}

/// `HOST:PORT`, or `:PORT` for all addresses of both families.
fn address(option: &Option<String>, name: &str, default: &str, env: &Env) -> Result<Option<SocketAddr>> {
    let set = option.clone().or_else(|| env(name).and_then(text)).unwrap_or_else(|| default.to_owned());
    if set.is_empty() {
        return Ok(None);
    }
    if let Some(port) = set.strip_prefix(':') {
        let port = port.parse().with_context(|| format!("{name}={set}: no port"))?;
        return Ok(Some((Ipv6Addr::UNSPECIFIED, port).into()));
    }
    set.parse().map(Some).with_context(|| format!("{name}={set}: use ADDRESS:PORT or :PORT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(args: Args, vars: &[(&str, &str)]) -> Result<Config> {
        Config::resolve(&args, &|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()))
    }

    #[test]
    fn the_store_is_the_one_that_is_named_else_the_one_that_is_given() {
        let of = |args, vars| resolve(args, vars).map(|config| config.store);
        let typed = |name: &str| Args { datastore_type: Some(name.to_owned()), ..Args::default() };
        assert_eq!(of(Args::default(), &[]).unwrap(), StoreChoice::Embedded("/var/lib/percale/store".into()));
        let etcd = [("ETCD_ENDPOINTS", "http://a:1"), ("KUBECONFIG", "/k")];
        assert!(
            matches!(of(Args::default(), &etcd).unwrap(), StoreChoice::Etcd(c) if c.endpoints == ["http://a:1"])
        );
        assert!(matches!(of(Args::default(), &etcd[1..]).unwrap(), StoreChoice::Kubernetes(_)));
        assert!(matches!(of(typed("embedded"), &etcd).unwrap(), StoreChoice::Embedded(_)));
        assert!(of(typed("mysql"), &[]).unwrap_err().to_string().contains("mysql"));
        let felix = [("FELIX_DATASTORETYPE", "kubernetes")];
        assert!(matches!(of(Args::default(), &felix).unwrap(), StoreChoice::Kubernetes(_)));
    }

    #[test]
    fn addresses_may_lack_a_host_or_be_off() {
        let of = |text: &str| {
            resolve(Args { metrics_addr: Some(text.to_owned()), ..Args::default() }, &[])
                .map(|c| c.metrics_addr)
        };
        assert_eq!(of(":9").unwrap(), Some("[::]:9".parse().unwrap()));
        assert_eq!(of("127.0.0.1:9").unwrap(), Some("127.0.0.1:9".parse().unwrap()));
        assert_eq!(of("").unwrap(), None);
        assert!(of("here").is_err());
    }

    #[test]
    fn the_node_name_is_configured_pinned_or_the_hosts() {
        let dir = tempfile::tempdir().unwrap();
        let args = Args { state_dir: Some(dir.path().to_owned()), ..Args::default() };
        let name = |vars: &[(&str, &str)]| resolve(args.clone(), vars).unwrap().node_name().unwrap();
        assert_eq!(name(&[]), host_name());
        fs::write(dir.path().join("nodename"), "pinned\n").unwrap();
        assert_eq!(name(&[]), "pinned");
        assert_eq!(name(&[("NODENAME", "n1"), ("CALICO_NODENAME", "n2")]), "n1");
    }
}
