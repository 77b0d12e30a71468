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

    /// Names of policies, a few of each kind.
    pub fn policies(&self) -> Result<Vec<String>> {
        let kinds = [
            "/apis/networking.k8s.io/v1/networkpolicies",
            "/apis/crd.projectcalico.org/v1/networkpolicies",
            "/apis/crd.projectcalico.org/v1/globalnetworkpolicies",
        ];
        let mut names = Vec::new();
        for path in kinds {
            let list = match self.ask("GET", &format!("{path}?limit=5"), Vec::new()) {
                Ok(list) => list,
                Err(e) if is_missing(&e) => continue,
                Err(e) => {
                    return Err(e).with_context(|| format!("{path}: whether policies exist cannot be told"));
                }
            };
            let kind = path.rsplit('/').next().unwrap_or_default();
            let items = list["items"].as_array().into_iter().flatten();
            names.extend(
                items.map(|item| format!("{kind}/{}", item["metadata"]["name"].as_str().unwrap_or("?"))),
            );
        }
        Ok(names)
    }

    fn ask(&self, method: &str, path: &str, body: Vec<u8>) -> Result<Value> {
        let request = Request::builder().method(method).uri(path).header("Content-Type", "application/json");
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

/// Names of the policies that are in etcd under Calico's keys.
pub fn policies_in_etcd(config: &datastore_etcd::Config) -> Result<Vec<String>> {
    let deadline = Deadline::after(LIMIT);
    let store = datastore_etcd::Etcd::open(config, deadline)?;
    let mut names = Vec::new();
    for kind in ["networkpolicies", "globalnetworkpolicies"] {
        let prefix = format!("/calico/resources/v3/projectcalico.org/{kind}/");
        let keys = store.keys(&prefix, deadline)?;
        names.extend(keys.iter().take(5).map(|key| format!("{kind}/{}", key.trim_start_matches(&prefix))));
    }
    Ok(names)
}
