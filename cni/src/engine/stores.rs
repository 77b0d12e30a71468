//! Which store holds a network's objects (decision 27), and the record of the one in use.

use super::call::{OpenError, Stores};
use cni_protocol::netconf::{Backends, DatastoreType, Etcd as EtcdKeys};
use cni_protocol::{CniError, Request};
use datastore::embedded::{Embedded, Mode};
use datastore::{Deadline, Error, ErrorKind, Store};
use datastore_etcd::{Config, Etcd};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, fs};

/// The name of an etcd cluster that was never reached from this host.
const UNKNOWN_CLUSTER: &str = "etcdv3:unknown";
/// How the identities of etcd clusters begin.
const ETCD: &str = "etcdv3:";

/// Opens the embedded store of each request, and no other.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbeddedStores;

impl Stores for EmbeddedStores {
    fn open(&self, req: &Request, mode: Mode, _: Deadline) -> Result<Arc<dyn Store>, OpenError> {
        match choose(req, &|name| env::var_os(name)).map_err(OpenError::Config)? {
            Choice::Embedded => open_embedded(req, mode),
            Choice::Etcd(_) => Err(OpenError::Config(CniError::internal("this program has no etcd client"))),
        }
    }
}

/// Opens whichever store a request means, for a process that serves one request.
#[derive(Debug, Default)]
pub struct ClusterStores {
    /// Why the cluster could not be reached: asking again would use up the request's time.
    failed: Mutex<Option<Error>>,
}

impl Stores for ClusterStores {
    fn open(&self, req: &Request, mode: Mode, deadline: Deadline) -> Result<Arc<dyn Store>, OpenError> {
        match choose(req, &|name| env::var_os(name)).map_err(OpenError::Config)? {
            Choice::Embedded => open_embedded(req, mode),
            Choice::Etcd(config) => recorded(req, mode, Arc::new(self.open_etcd(&config, deadline)?)),
        }
    }
}

impl ClusterStores {
    fn open_etcd(&self, config: &Config, deadline: Deadline) -> Result<Etcd, OpenError> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &*failed {
            return Err(OpenError::Store(again(error)));
        }
        Etcd::open(config, deadline).map_err(|error| match error.kind {
            ErrorKind::Invalid => OpenError::Config(CniError::config(error.detail)),
            _ => OpenError::Store(again(failed.insert(error))),
        })
    }
}

fn open_embedded(req: &Request, mode: Mode) -> Result<Arc<dyn Store>, OpenError> {
    let store = Embedded::open(&req.paths.store, mode).map_err(OpenError::Store)?;
    recorded(req, mode, Arc::new(store))
}

/// The store, once it is known as this host's.
fn recorded(req: &Request, mode: Mode, store: Arc<dyn Store>) -> Result<Arc<dyn Store>, OpenError> {
    if mode == Mode::Create {
        record_use(req, &store.identity()).map_err(OpenError::Config)?;
    }
    Ok(store)
}

/// Whether a request's objects are in a cluster's store; where none is configured the engine says so.
pub(crate) fn is_cluster(req: &Request) -> bool {
    matches!(choose(req, &|name| env::var_os(name)), Ok(Choice::Etcd(_)))
}

fn again(error: &Error) -> Error {
    Error { op: error.op, subject: error.subject.clone(), kind: error.kind, detail: error.detail.clone() }
}

/// What a configuration means.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Embedded,
    Etcd(Config),
}

/// # Errors
/// Code 7 when a store that this build does not have, or none, is configured: never a silent change.
fn choose(req: &Request, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Choice, CniError> {
    let conf = &req.conf;
    let kind = match conf.backends.datastore_type {
        Some(kind) => Some(kind),
        None => type_from(env)?,
    };
    if kind == Some(DatastoreType::Embedded) {
        return Ok(Choice::Embedded);
    }
    let etcd = etcd_config(&conf.backends.etcd).with_env(env);
    match kind.or_else(|| implied(&conf.backends, &etcd)) {
        Some(DatastoreType::Etcdv3) => Ok(Choice::Etcd(etcd)),
        Some(DatastoreType::Kubernetes) => Err(CniError::config(
            "datastore_type: this configuration means kubernetes, and this build has the embedded store and etcd; \
             set datastore_type to embedded or etcdv3",
        )),
        // A delegated IPAM keeps the addresses; ours keeps only what to masquerade.
        _ if conf.ipam.brings_addresses || !conf.ipam.is_own() => Ok(Choice::Embedded),
        _ => Err(CniError::config(
            "datastore_type: no store is configured; give etcd_endpoints, ipam.pools or ipam.ranges, \
             or set datastore_type to embedded",
        )),
    }
}

/// `DATASTORE_TYPE`, Calico's name for it first.
fn type_from(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<DatastoreType>, CniError> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let Some(text) = set("CALICO_DATASTORE_TYPE").or_else(|| set("DATASTORE_TYPE")) else { return Ok(None) };
    let text = text.to_string_lossy();
    match DatastoreType::parse(&text) {
        Some(kind) => Ok(Some(kind)),
        None => Err(CniError::config(format!("DATASTORE_TYPE={text:?}: use embedded, etcdv3 or kubernetes"))),
    }
}

/// What the other settings say where no type is given.
fn implied(backends: &Backends, etcd: &Config) -> Option<DatastoreType> {
    let kubernetes = &backends.kubernetes;
    if etcd.is_given() {
        Some(DatastoreType::Etcdv3)
    } else if !kubernetes.kubeconfig.is_empty() || !kubernetes.k8s_api_root.is_empty() {
        Some(DatastoreType::Kubernetes)
    } else {
        None
    }
}

fn etcd_config(keys: &EtcdKeys) -> Config {
    Config {
        endpoints: keys.endpoints.clone(),
        discovery_srv: keys.discovery_srv.clone(),
        ca_cert_file: keys.ca_cert_file.clone(),
        cert_file: keys.cert_file.clone(),
        key_file: keys.key_file.clone(),
        ..Config::default()
    }
}

/// What the journal calls a store that cannot be opened: as it was recorded at its first use.
pub(crate) fn expected_identity(req: &Request) -> String {
    match choose(req, &|name| env::var_os(name)) {
        Ok(Choice::Etcd(_)) => {
            let recorded = fs::read_to_string(record_file(req)).unwrap_or_default();
            let recorded = recorded.trim();
            if recorded.starts_with(ETCD) { recorded.to_owned() } else { UNKNOWN_CLUSTER.to_owned() }
        }
        _ => format!("embedded:{}", req.paths.store.display()),
    }
}

/// What follows the store's name in a journal entry, if it is this store's. What was owed to a
/// cluster that was never reached may be owed to any: it is freed by the attachment's identity.
pub(crate) fn after_identity<'a>(name: &'a str, identity: &str) -> Option<&'a str> {
    let unknown = || name.strip_prefix(UNKNOWN_CLUSTER).filter(|_| identity.starts_with(ETCD));
    name.strip_prefix(identity).or_else(unknown)
}

fn record_file(req: &Request) -> PathBuf {
    req.paths.state_dir.join("datastore")
}

/// Notes the store in use on the host; another one later is an error that names both.
fn record_use(req: &Request, now: &str) -> Result<(), CniError> {
    let file = record_file(req);
    match fs::read_to_string(&file) {
        Ok(before) if before.trim() == now || before.trim().is_empty() => Ok(()),
        Ok(before) => Err(CniError::config(format!(
            "datastore_type: this host's state in {} belongs to {}, and the configuration means {now}; \
             correct it, or give the network a state_dir of its own",
            req.paths.state_dir.display(),
            before.trim()
        ))),
        // Best effort: the store itself was opened, and a full disk must not stop what it can do.
        Err(_) => {
            let _ = fs::create_dir_all(&req.paths.state_dir).and_then(|()| fs::write(&file, now));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni_protocol::Env;
    use cni_protocol::netconf::Defaults;

    fn request(conf: &str) -> Request {
        let conf = format!(r#"{{"cniVersion":"1.1.0","name":"net","type":"percale",{conf}}}"#);
        let vars = [("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/opt/cni/bin")];
        let env = Env::from_fn(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into())).unwrap();
        Request::parse(env, conf.as_bytes(), Defaults::percale()).unwrap()
    }

    fn choice(conf: &str, vars: &[(&str, &str)]) -> Result<Choice, CniError> {
        choose(&request(conf), &|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
    }

    fn endpoints(choice: Choice) -> Vec<String> {
        match choice {
            Choice::Etcd(config) => config.endpoints,
            Choice::Embedded => panic!("embedded"),
        }
    }

    const POOLS: &str = r#""ipam":{"type":"percale-ipam","pools":[{"cidr":"10.0.0.0/16"}]}"#;
    const NO_POOLS: &str = r#""ipam":{"type":"percale-ipam"}"#;

    // REQ: C-14
    #[test]
    fn the_store_is_what_the_configuration_says_and_never_a_guess() {
        assert_eq!(choice(POOLS, &[]).unwrap(), Choice::Embedded);
        assert!(choice(NO_POOLS, &[]).unwrap_err().msg.contains("no store is configured"));
        let etcd = format!(r#""etcd_endpoints":"http://a:1,http://b:1",{POOLS}"#);
        assert_eq!(endpoints(choice(&etcd, &[]).unwrap()), ["http://a:1", "http://b:1"]);
        let embedded = format!(r#""datastore_type":"embedded",{etcd}"#);
        assert_eq!(choice(&embedded, &[("DATASTORE_TYPE", "etcdv3")]).unwrap(), Choice::Embedded);
        let kubernetes = format!(r#""kubernetes":{{"kubeconfig":"/k"}},{POOLS}"#);
        assert!(choice(&kubernetes, &[]).unwrap_err().msg.contains("kubernetes"));
    }

    // REQ: C-14
    #[test]
    fn the_environment_is_read_as_calico_does() {
        let env = [("ETCD_ENDPOINTS", "http://env:1")];
        assert_eq!(endpoints(choice(NO_POOLS, &env).unwrap()), ["http://env:1"]);
        let typed = [("CALICO_DATASTORE_TYPE", "etcdv3"), ("DATASTORE_TYPE", "kubernetes")];
        assert!(endpoints(choice(POOLS, &typed).unwrap()).is_empty());
        assert!(choice(POOLS, &[("DATASTORE_TYPE", "mysql")]).unwrap_err().msg.contains("mysql"));
    }

    #[test]
    fn a_journal_entry_belongs_to_one_store() {
        assert_eq!(after_identity("etcdv3:1f network", "etcdv3:1f"), Some(" network"));
        assert_eq!(after_identity("etcdv3:unknown", "etcdv3:1f"), Some(""));
        assert_eq!(after_identity("etcdv3:unknown", "embedded:/s"), None);
        assert_eq!(after_identity("embedded:/s", "etcdv3:1f"), None);
    }
}
