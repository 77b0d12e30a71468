//! Which store a command works on, and how it is reached: options, then the environment, with
//! calicoctl's variables and its configuration file (reference 1.9).

use crate::cli::{Options, StoreType};
use crate::documents;
use crate::outcome::usage;
use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use datastore::Store;
use datastore::embedded::{Embedded, Mode};
use datastore_etcd::Etcd;
use datastore_kubernetes::Kubernetes;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// calicoctl's configuration file: it is read if it is there.
const CONFIG: &str = "/etc/calico/calicoctl.cfg";
/// Bound on reaching a cluster.
const OPEN: Duration = Duration::from_secs(10);

/// A lookup of environment variables.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The store in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    Embedded(PathBuf),
    Etcd(Box<datastore_etcd::Config>),
    Kubernetes(Box<datastore_kubernetes::Config>),
}

impl Backend {
    /// # Errors
    /// Bad usage for a kind of store that there is not, and where this host's pods are known to be in
    /// a cluster's store that nothing says how to reach: no other one is used silently.
    pub fn choose(options: &Options, path: Option<PathBuf>, state_dir: &Path, env: Env<'_>) -> Result<Self> {
        let file = from_file(options, path.is_some(), env)?;
        let env: Env<'_> = match &file {
            Some(file) => &|name: &str| file.get(name).cloned(),
            None => env,
        };
        let etcd = datastore_etcd::Config::default().with_env(env);
        let kubernetes = kubernetes(options, env);
        let chosen = match asked(options, env)? {
            Some(kind) => Some(kind),
            None if path.is_some() => Some(StoreType::Embedded),
            None if etcd.is_given() => Some(StoreType::Etcdv3),
            None if kubernetes.is_given() || !kubernetes.context.is_empty() => Some(StoreType::Kubernetes),
            None => None,
        };
        let embedded = || Self::Embedded(path.clone().unwrap_or_else(|| state_dir.join("store")));
        match chosen {
            Some(StoreType::Etcdv3) => Ok(Self::Etcd(Box::new(etcd))),
            Some(StoreType::Kubernetes) => Ok(Self::Kubernetes(Box::new(kubernetes))),
            Some(StoreType::Embedded) => Ok(embedded()),
            None => refuse_guess(state_dir).map(|()| embedded()),
        }
    }

    /// Opens it; a missing embedded store is reported, not created.
    ///
    /// # Errors
    /// Those of the back end.
    pub fn open(&self, mode: Mode) -> Result<Arc<dyn Store>, datastore::Error> {
        let soon = datastore::Deadline::after(OPEN);
        Ok(match self {
            Self::Embedded(path) => Arc::new(Embedded::open(path, mode)?),
            Self::Etcd(config) => Arc::new(Etcd::open(config, soon)?),
            Self::Kubernetes(config) => Arc::new(Kubernetes::open(config, soon)?),
        })
    }

    pub fn is_cluster(&self) -> bool {
        !matches!(self, Self::Embedded(_))
    }

    /// Whether a commit is applied as a whole.
    pub fn is_transactional(&self) -> bool {
        !matches!(self, Self::Kubernetes(_))
    }
}

/// The kind that is named outright, Calico's variable first.
fn asked(options: &Options, env: Env<'_>) -> Result<Option<StoreType>> {
    if options.datastore_type.is_some() {
        return Ok(options.datastore_type);
    }
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let Some(text) = set("CALICO_DATASTORE_TYPE").or_else(|| set("DATASTORE_TYPE")) else { return Ok(None) };
    let text = text.to_string_lossy();
    match StoreType::from_str(&text, true) {
        Ok(kind) => Ok(Some(kind)),
        Err(_) => bail!(usage(format!("DATASTORE_TYPE={text}: use embedded, etcdv3 or kubernetes"))),
    }
}

/// An option wins over every variable.
fn kubernetes(options: &Options, env: Env<'_>) -> datastore_kubernetes::Config {
    let mut config = datastore_kubernetes::Config::default().with_env(env);
    if let Some(file) = &options.kubeconfig {
        config.kubeconfig = file.clone().into();
    }
    if let Some(context) = &options.context {
        config.context.clone_from(context);
    }
    config
}

/// A host whose pods are in a cluster's store is never answered from an empty embedded one.
fn refuse_guess(state_dir: &Path) -> Result<()> {
    let record = std::fs::read_to_string(state_dir.join("datastore")).unwrap_or_default();
    let record = record.trim();
    if record.is_empty() || record.starts_with("embedded:") {
        return Ok(());
    }
    bail!(usage(format!(
        "this host's pods are in {record}; say how it is reached (--kubeconfig, KUBECONFIG, ETCD_ENDPOINTS), \
         or --datastore-type embedded for a store of this host"
    )))
}

/// Members of calicoctl's configuration file and the variables that mean the same.
const MEMBERS: [(&str, &str); 16] = [
    ("datastoreType", "DATASTORE_TYPE"),
    ("etcdEndpoints", "ETCD_ENDPOINTS"),
    ("etcdDiscoverySrv", "ETCD_DISCOVERY_SRV"),
    ("etcdUsername", "ETCD_USERNAME"),
    ("etcdPassword", "ETCD_PASSWORD"),
    ("etcdKeyFile", "ETCD_KEY_FILE"),
    ("etcdCertFile", "ETCD_CERT_FILE"),
    ("etcdCACertFile", "ETCD_CA_CERT_FILE"),
    ("kubeconfig", "KUBECONFIG"),
    ("k8sAPIEndpoint", "K8S_API_ENDPOINT"),
    ("k8sKeyFile", "K8S_KEY_FILE"),
    ("k8sCertFile", "K8S_CERT_FILE"),
    ("k8sCAFile", "K8S_CA_FILE"),
    ("k8sAPIToken", "K8S_API_TOKEN"),
    ("k8sInsecureSkipTLSVerify", "K8S_INSECURE_SKIP_TLS_VERIFY"),
    ("k8sCurrentContext", "K8S_CURRENT_CONTEXT"),
];

type Variables = std::collections::BTreeMap<String, OsString>;

/// What calicoctl's file says, if there is one: as calicoctl, in place of the environment.
fn from_file(options: &Options, has_path: bool, env: Env<'_>) -> Result<Option<Variables>> {
    let file = match &options.config {
        Some(file) => file.clone(),
        None if has_path || options.datastore_type == Some(StoreType::Embedded) => return Ok(None),
        None => PathBuf::from(CONFIG),
    };
    if options.config.is_none() && !file.exists() {
        return Ok(None);
    }
    let name = file.display();
    let documents = documents::read(&file)?;
    let [document] = documents.as_slice() else { bail!("{name}: one document is needed") };
    if document.value["kind"] != "CalicoAPIConfig" {
        bail!("{name}: kind: CalicoAPIConfig is needed");
    }
    let empty = Map::new();
    let spec = document.value["spec"].as_object().unwrap_or(&empty);
    let mut variables = variables(spec).with_context(|| format!("{name}: spec"))?;
    // The file says nothing of these.
    for known in ["HOME", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
        variables.extend(env(known).map(|value| (known.to_owned(), value)));
    }
    Ok(Some(variables))
}

fn variables(spec: &Map<String, Value>) -> Result<Variables> {
    let mut found = Variables::new();
    for (member, value) in spec {
        let Some((_, name)) = MEMBERS.iter().find(|(known, _)| known == member) else {
            bail!("{member}: not known here; certificates are read from files (etcdCertFile and the like)")
        };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null => continue,
            _ => bail!("{member}: text is needed"),
        };
        found.insert((*name).to_owned(), text.into());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(options: &Options, vars: &[(&str, &str)]) -> Result<Backend> {
        let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        let path = options.datastore_path.clone();
        Backend::choose(options, path, Path::new("/nowhere/state"), &env)
    }

    fn kind(options: &Options, vars: &[(&str, &str)]) -> &'static str {
        match choose(options, vars).unwrap() {
            Backend::Embedded(_) => "embedded",
            Backend::Etcd(_) => "etcdv3",
            Backend::Kubernetes(_) => "kubernetes",
        }
    }

    // REQ: K-05
    #[test]
    fn what_is_named_outright_wins_and_settings_imply_the_rest() {
        let typed = |t| Options { datastore_type: Some(t), ..Options::default() };
        let none = Options::default();
        let path = Options { datastore_path: Some("/s".into()), ..Options::default() };
        let context = Options { context: Some("c".into()), ..Options::default() };
        let both = [("CALICO_DATASTORE_TYPE", "kubernetes"), ("DATASTORE_TYPE", "embedded")];
        let etcd = [("ETCD_ENDPOINTS", "http://x:2379"), ("KUBECONFIG", "/k")];
        assert_eq!(kind(&none, &[]), "embedded");
        assert_eq!(kind(&typed(StoreType::Kubernetes), &etcd), "kubernetes");
        assert_eq!(kind(&none, &both), "kubernetes");
        assert_eq!(kind(&none, &etcd), "etcdv3");
        assert_eq!(kind(&path, &etcd), "embedded");
        assert_eq!(kind(&none, &etcd[1..]), "kubernetes");
        assert_eq!(kind(&context, &[]), "kubernetes");
        assert!(choose(&none, &[("DATASTORE_TYPE", "mysql")]).unwrap_err().is::<crate::outcome::BadUsage>());
    }

    // REQ: K-05
    #[test]
    fn options_win_over_the_environment() {
        let options =
            Options { kubeconfig: Some("/o".into()), context: Some("o".into()), ..Options::default() };
        let vars = [("CALICO_KUBECONFIG", "/e"), ("K8S_CURRENT_CONTEXT", "e")];
        let Backend::Kubernetes(config) = choose(&options, &vars).unwrap() else { panic!() };
        assert_eq!((config.kubeconfig.to_str(), config.context.as_str()), (Some("/o"), "o"));
    }

    #[test]
    fn calicoctl_s_file_is_read_in_place_of_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("calicoctl.cfg");
        let text = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  \
                    datastoreType: etcdv3\n  etcdEndpoints: https://a:1,https://b:2\n  etcdCACertFile: /ca\n";
        std::fs::write(&file, text).unwrap();
        let options = Options { config: Some(file.clone()), ..Options::default() };
        let Backend::Etcd(config) = choose(&options, &[("ETCD_ENDPOINTS", "http://no:1")]).unwrap() else {
            panic!()
        };
        assert_eq!(config.endpoints, ["https://a:1", "https://b:2"]);
        assert_eq!(config.ca_cert_file, Some("/ca".into()));
        std::fs::write(&file, text.replace("etcdCACertFile", "etcdCACrtFile")).unwrap();
        assert!(format!("{:#}", choose(&options, &[]).unwrap_err()).contains("etcdCACrtFile: not known"));
    }

    #[test]
    fn a_host_of_a_cluster_is_not_answered_from_an_empty_store() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("datastore"), "kubernetes:1-2").unwrap();
        let error = Backend::choose(&Options::default(), None, dir.path(), &|_| None).unwrap_err();
        assert!(error.to_string().contains("kubernetes:1-2"), "{error}");
    }
}
