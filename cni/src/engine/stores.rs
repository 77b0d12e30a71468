//! Which store holds a network's objects (decision 27), and the record of the one in use.

use super::call::{OpenError, Stores};
use super::small;
use cni_protocol::netconf::{DatastoreType, Etcd as EtcdKeys, NetConf};
use cni_protocol::{CniError, Request};
use datastore::embedded::{Embedded, Mode};
use datastore::{Deadline, Error, ErrorKind, Store};
use datastore_etcd::Etcd;
use datastore_kubernetes::Kubernetes;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, fs};

/// How the identities of clusters begin.
const ETCD: &str = "etcdv3:";
const KUBERNETES: &str = "kubernetes:";
/// What follows for a cluster that was never reached from this host.
const UNKNOWN: &str = "unknown";

/// Opens the embedded store of each request, and no other.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbeddedStores;

impl Stores for EmbeddedStores {
    fn open(&self, req: &Request, mode: Mode, _: Deadline) -> Result<Arc<dyn Store>, OpenError> {
        match kind(req, &|name| env::var_os(name)).map_err(OpenError::Config)? {
            DatastoreType::Embedded => open_embedded(req, mode),
            _ => Err(OpenError::Config(CniError::internal("this program has no clients of clusters"))),
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
            Choice::Etcd(config) => recorded(req, mode, self.once(|| Etcd::open(&config, deadline))?),
            Choice::Kubernetes(config) => {
                recorded(req, mode, self.once(|| Kubernetes::open(&config, deadline))?)
            }
        }
    }

    fn pods(&self, req: &Request, deadline: Deadline) -> Result<Arc<dyn Store>, OpenError> {
        let config = kubernetes_config(&req.conf).with_env(&|name| env::var_os(name));
        match Kubernetes::open(&config, deadline) {
            Ok(store) => Ok(Arc::new(store)),
            Err(error) if error.kind == ErrorKind::Invalid => {
                Err(OpenError::Config(CniError::config(format!("policy.type: k8s: {}", error.detail))))
            }
            Err(error) => Err(OpenError::Store(error)),
        }
    }
}

impl ClusterStores {
    fn once<S: Store + 'static>(
        &self,
        open: impl FnOnce() -> Result<S, Error>,
    ) -> Result<Arc<dyn Store>, OpenError> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &*failed {
            return Err(OpenError::Store(again(error)));
        }
        match open() {
            Ok(store) => Ok(Arc::new(store)),
            Err(error) if error.kind == ErrorKind::Invalid => {
                Err(OpenError::Config(CniError::config(error.detail)))
            }
            Err(error) => Err(OpenError::Store(again(failed.insert(error)))),
        }
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
    let kind = kind(req, &|name| env::var_os(name));
    matches!(kind, Ok(DatastoreType::Etcdv3 | DatastoreType::Kubernetes))
}

pub(crate) fn is_kubernetes(req: &Request) -> bool {
    matches!(kind(req, &|name| env::var_os(name)), Ok(DatastoreType::Kubernetes))
}

fn again(error: &Error) -> Error {
    Error { op: error.op, subject: error.subject.clone(), kind: error.kind, detail: error.detail.clone() }
}

/// What a configuration means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Embedded,
    Etcd(datastore_etcd::Config),
    Kubernetes(Box<datastore_kubernetes::Config>),
}

/// # Errors
/// Code 7 when none is configured: never a guess.
pub(super) fn choose(req: &Request, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Choice, CniError> {
    Ok(match kind(req, env)? {
        DatastoreType::Embedded => Choice::Embedded,
        DatastoreType::Etcdv3 => Choice::Etcd(etcd_config(&req.conf.backends.etcd).with_env(env)),
        DatastoreType::Kubernetes => Choice::Kubernetes(Box::new(kubernetes_config(&req.conf).with_env(env))),
    })
}

/// As [`choose`], without how a cluster is reached: most calls want to know no more.
fn kind(req: &Request, env: &dyn Fn(&str) -> Option<OsString>) -> Result<DatastoreType, CniError> {
    let conf = &req.conf;
    let named = match conf.backends.datastore_type {
        Some(kind) => Some(kind),
        None => type_from(env)?,
    };
    Ok(match named {
        Some(kind) => kind,
        None if etcd_config(&conf.backends.etcd).is_given_with(env) => DatastoreType::Etcdv3,
        // Calico's plugin knows no other, and may yet find a file in the home directory.
        None if req.calico || kubernetes_config(conf).is_given_with(env) => DatastoreType::Kubernetes,
        // A delegated IPAM keeps the addresses; ours keeps only what to masquerade.
        None if conf.ipam.brings_addresses || !conf.ipam.is_own() => DatastoreType::Embedded,
        None => {
            return Err(CniError::config(
                "datastore_type: no store is configured; give kubernetes.kubeconfig, etcd_endpoints, ipam.pools \
                 or ipam.ranges, or set datastore_type to embedded",
            ));
        }
    })
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

fn etcd_config(keys: &EtcdKeys) -> datastore_etcd::Config {
    datastore_etcd::Config {
        endpoints: keys.endpoints.clone(),
        discovery_srv: keys.discovery_srv.clone(),
        ca_cert_file: keys.ca_cert_file.clone(),
        cert_file: keys.cert_file.clone(),
        key_file: keys.key_file.clone(),
        ..datastore_etcd::Config::default()
    }
}

/// `kubernetes` and, for what it does not say, the older keys under `policy`.
fn kubernetes_config(conf: &NetConf) -> datastore_kubernetes::Config {
    let (keys, policy) = (&conf.backends.kubernetes, &conf.policy);
    let file = |path: &str| Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
    let roots = [&keys.k8s_api_root, &policy.k8s_api_root];
    let endpoint = roots.into_iter().find(|root| !root.is_empty()).cloned().unwrap_or_default();
    datastore_kubernetes::Config {
        kubeconfig: keys.kubeconfig.clone().into(),
        endpoint,
        token: policy.k8s_auth_token.expose().to_owned(),
        cert_file: file(&policy.k8s_client_certificate),
        key_file: file(policy.k8s_client_key.expose()),
        ca_file: file(&policy.k8s_certificate_authority),
        ..datastore_kubernetes::Config::default()
    }
}

/// What the journal calls a store that cannot be opened: as it was recorded at its first use.
pub(crate) fn expected_identity(req: &Request) -> String {
    match choose(req, &|name| env::var_os(name)) {
        Ok(Choice::Etcd(_)) => recorded_cluster(req, ETCD),
        Ok(Choice::Kubernetes(_)) => recorded_cluster(req, KUBERNETES),
        _ => format!("embedded:{}", req.paths.store.display()),
    }
}

fn recorded_cluster(req: &Request, kind: &str) -> String {
    let recorded = fs::read_to_string(record_file(req)).unwrap_or_default();
    match recorded.trim() {
        known if known.starts_with(kind) => known.to_owned(),
        _ => format!("{kind}{UNKNOWN}"),
    }
}

/// What follows the store's name in a journal entry, if it is this store's. What was owed to a
/// cluster that was never reached may be owed to any: it is freed by the attachment's identity.
pub(crate) fn after_identity<'a>(name: &'a str, identity: &str) -> Option<&'a str> {
    let unknown = |kind: &str| {
        let of_kind = name.strip_prefix(kind).filter(|_| identity.starts_with(kind));
        of_kind.and_then(|rest| rest.strip_prefix(UNKNOWN))
    };
    name.strip_prefix(identity).or_else(|| unknown(ETCD)).or_else(|| unknown(KUBERNETES))
}

fn record_file(req: &Request) -> PathBuf {
    req.paths.state_dir.join("datastore")
}

/// Notes the store in use on the host; another one later is an error that names both.
fn record_use(req: &Request, now: &str) -> Result<(), CniError> {
    let file = record_file(req);
    match small::read(&file) {
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
        request_of(conf, Defaults::percale())
    }

    fn request_of(conf: &str, defaults: Defaults) -> Request {
        let conf = format!(r#"{{"cniVersion":"1.1.0","name":"net","type":"percale",{conf}}}"#);
        let vars = [("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/opt/cni/bin")];
        let env = Env::from_fn(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into())).unwrap();
        Request::parse(env, conf.as_bytes(), defaults).unwrap()
    }

    fn choice(conf: &str, vars: &[(&str, &str)]) -> Result<Choice, CniError> {
        choose(&request(conf), &|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
    }

    fn endpoints(choice: Choice) -> Vec<String> {
        match choice {
            Choice::Etcd(config) => config.endpoints,
            other => panic!("{other:?}"),
        }
    }

    fn kubeconfig(choice: Choice) -> OsString {
        match choice {
            Choice::Kubernetes(config) => config.kubeconfig,
            other => panic!("{other:?}"),
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
        assert_eq!(kubeconfig(choice(&kubernetes, &[]).unwrap()), "/k");
        let both = format!(r#""etcd_endpoints":"http://a:1",{kubernetes}"#);
        assert_eq!(endpoints(choice(&both, &[]).unwrap()), ["http://a:1"]);
        let in_cluster = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];
        assert!(matches!(choice(POOLS, &in_cluster), Ok(Choice::Kubernetes(_))));
    }

    // REQ: C-14
    #[test]
    fn under_a_calico_name_kubernetes_is_the_default() {
        let req = request_of(POOLS, Defaults::calico());
        assert!(matches!(choose(&req, &|_| None), Ok(Choice::Kubernetes(_))));
    }

    #[test]
    fn policy_s_older_keys_complete_the_way_to_kubernetes() {
        let keys = r#""policy":{"type":"k8s","k8s_api_root":"https://old:1","k8s_auth_token":"t",
                      "k8s_certificate_authority":"/ca"},"kubernetes":{"kubeconfig":"/k"}"#;
        let Ok(Choice::Kubernetes(config)) = choice(keys, &[("K8S_CURRENT_CONTEXT", "two")]) else {
            panic!()
        };
        assert_eq!((config.endpoint.as_str(), config.token.as_str()), ("https://old:1", "t"));
        assert_eq!((config.ca_file, config.context.as_str()), (Some("/ca".into()), "two"));
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
        assert_eq!(after_identity("kubernetes:unknown network", "kubernetes:u-1"), Some(" network"));
        assert_eq!(after_identity("kubernetes:unknown", "etcdv3:1f"), None);
    }
}
