//! How a cluster is reached: Calico's settings and environment variables (reference 1.9).

use crate::error::Failure;
use datastore::ErrorKind;
use http::Uri;
use kube::config::{AuthInfo, Context, KubeConfigOptions, Kubeconfig};
use secrecy::ExposeSecret as _;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fmt, fs};

/// Where a pod finds its account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What is needed to reach a cluster. The first of these that is given decides: kubeconfig files,
/// an endpoint, `~/.kube/config` if it exists, the account of the pod. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// One file, or several separated by `:`, of which the first to set something wins.
    pub kubeconfig: OsString,
    /// Context of the kubeconfig; empty: its current one.
    pub context: String,
    /// URL of the server; wins over that of the kubeconfig.
    pub endpoint: String,
    /// This and the files win over those of a kubeconfig and of the account.
    pub token: String,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    /// Takes any certificate of the server.
    pub insecure: bool,
    /// Host and port of the server as a pod is told them.
    pub in_cluster: Option<(String, String)>,
    /// Where the pod's account is; `None`: the usual place.
    pub account: Option<PathBuf>,
    /// Home directory, for `.kube/config`.
    pub home: Option<PathBuf>,
    /// After so long without any sign a watch is opened anew; `None`: 75 seconds.
    pub watch_silence: Option<Duration>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("kubeconfig", &self.kubeconfig)
            .field("context", &self.context)
            .field("endpoint", &self.endpoint)
            .field("in_cluster", &self.in_cluster)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Completes the configuration from the environment as Calico's client does: `CALICO_X` wins
    /// over what is there, `X` fills what is not.
    #[must_use]
    pub fn with_env(mut self, env: &dyn Fn(&str) -> Option<OsString>) -> Self {
        self.locate(env);
        let text = |name: &str, before: &str| choose(env, name, before.into()).to_string_lossy().into_owned();
        let file = |name: &str, before: Option<PathBuf>| {
            let chosen = choose(env, name, before.unwrap_or_default().into());
            (!chosen.is_empty()).then(|| PathBuf::from(chosen))
        };
        self.context = text("K8S_CURRENT_CONTEXT", &self.context);
        self.token = text("K8S_API_TOKEN", &self.token);
        self.cert_file = file("K8S_CERT_FILE", self.cert_file);
        self.key_file = file("K8S_KEY_FILE", self.key_file);
        self.ca_file = file("K8S_CA_FILE", self.ca_file);
        let insecure = text("K8S_INSECURE_SKIP_TLS_VERIFY", if self.insecure { "true" } else { "" });
        self.insecure = matches!(insecure.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True");
        self.home = self.home.or_else(|| given(env, "HOME").map(PathBuf::from));
        self
    }

    /// Where the cluster is, which is all that [`Self::is_given`] asks for.
    fn locate(&mut self, env: &dyn Fn(&str) -> Option<OsString>) {
        self.kubeconfig = choose(env, "KUBECONFIG", std::mem::take(&mut self.kubeconfig));
        let endpoint = choose(env, "K8S_API_ENDPOINT", std::mem::take(&mut self.endpoint).into());
        self.endpoint = endpoint.to_string_lossy().into_owned();
        let place = |name: &str| given(env, name).map(|value| value.to_string_lossy().into_owned());
        let told = || place("KUBERNETES_SERVICE_HOST").zip(place("KUBERNETES_SERVICE_PORT"));
        self.in_cluster = self.in_cluster.take().or_else(told);
    }

    /// As [`Self::with_env`] and [`Self::is_given`], without reading the rest.
    #[must_use]
    pub fn is_given_with(mut self, env: &dyn Fn(&str) -> Option<OsString>) -> bool {
        self.locate(env);
        self.is_given()
    }

    /// True where something says that a Kubernetes cluster is meant.
    pub fn is_given(&self) -> bool {
        !self.kubeconfig.is_empty() || !self.endpoint.is_empty() || self.in_cluster.is_some()
    }

    /// What messages call the cluster.
    pub(crate) fn subject(&self) -> String {
        match self.kubeconfig.is_empty() {
            false => format!("Kubernetes by {}", self.kubeconfig.display()),
            true if !self.endpoint.is_empty() => format!("Kubernetes {}", self.endpoint),
            true => "Kubernetes by the pod's account".to_owned(),
        }
    }

    /// The connection's settings, without a token, and where tokens come from.
    pub(crate) async fn load(&self) -> Result<(kube::Config, TokenSource), Failure> {
        let files = self.kubeconfig_files();
        let (mut config, mut source) = if !files.is_empty() {
            self.of_kubeconfig(files).await?
        } else if !self.endpoint.is_empty() {
            (kube::Config::new(self.url()?), TokenSource::None)
        } else if let Some((host, port)) = &self.in_cluster {
            self.of_account(host, port)?
        } else {
            return Err(Failure::invalid(
                "no kubeconfig is given, no k8s_api_root, and this is no pod with an account",
            ));
        };
        self.override_tls(&mut config)?;
        take_token(&mut config.auth_info, &mut source);
        if !self.token.is_empty() {
            source = TokenSource::Fixed(self.token.clone());
        }
        Ok((config, source))
    }

    fn kubeconfig_files(&self) -> Vec<PathBuf> {
        if !self.kubeconfig.is_empty() {
            return env::split_paths(&self.kubeconfig).filter(|path| !path.as_os_str().is_empty()).collect();
        }
        let home = self.home.as_ref().filter(|_| self.endpoint.is_empty());
        home.map(|home| home.join(".kube/config")).into_iter().filter(|file| file.is_file()).collect()
    }

    async fn of_kubeconfig(&self, files: Vec<PathBuf>) -> Result<(kube::Config, TokenSource), Failure> {
        let context = Some(self.context.clone()).filter(|context| !context.is_empty());
        let kubeconfig = merged(&files)?;
        let chosen = context_of(&kubeconfig, context.as_deref());
        if let Some(chosen) = &chosen {
            refuse_unsupported(&kubeconfig, chosen)?;
        }
        let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
        let loaded = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let mut config =
            loaded.map_err(|e| Failure::invalid(format!("{}: {e}", self.kubeconfig.display())))?;
        if !self.endpoint.is_empty() {
            config.cluster_url = self.url()?;
        }
        let user = chosen.and_then(|context| context.user);
        let source = user.map_or(TokenSource::None, |user| TokenSource::Kubeconfig { files, user });
        Ok((config, source))
    }

    fn url(&self) -> Result<Uri, Failure> {
        let bad = |why: &str| Failure::invalid(format!("the API server's URL {:?}: {why}", self.endpoint));
        // As Calico: what follows the place is cut off.
        let root = self.endpoint.split("/api/").next().unwrap_or_default();
        let url: Uri = root.parse().map_err(|_| bad("is none"))?;
        match (url.scheme_str(), url.host()) {
            (Some("http" | "https"), Some(_)) => Ok(url),
            _ => Err(bad("must be like https://10.0.0.1:6443")),
        }
    }

    fn of_account(&self, host: &str, port: &str) -> Result<(kube::Config, TokenSource), Failure> {
        let account = self.account.clone().unwrap_or_else(|| ACCOUNT.into());
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let url = format!("https://{host}:{port}").parse();
        let url = url.map_err(|_| Failure::invalid(format!("KUBERNETES_SERVICE_HOST {host:?}: no host")))?;
        let mut config = kube::Config::new(url);
        trust(&mut config, authority(&account.join("ca.crt"))?);
        Ok((config, TokenSource::File(account.join("token"))))
    }

    fn override_tls(&self, config: &mut kube::Config) -> Result<(), Failure> {
        if let Some(file) = &self.ca_file {
            trust(config, authority(file)?);
        }
        let text = |file: &PathBuf| file.to_string_lossy().into_owned();
        if let (Some(cert), Some(key)) = (&self.cert_file, &self.key_file) {
            config.auth_info.client_certificate = Some(text(cert));
            config.auth_info.client_certificate_data = None;
            config.auth_info.client_key = Some(text(key));
            config.auth_info.client_key_data = None;
        }
        config.accept_invalid_certs |= self.insecure;
        if config.accept_invalid_certs {
            config.root_cert.get_or_insert_default();
        }
        Ok(())
    }
}

fn given(env: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Option<OsString> {
    env(name).filter(|value| !value.is_empty())
}

fn choose(env: &dyn Fn(&str) -> Option<OsString>, name: &str, before: OsString) -> OsString {
    let before = Some(before).filter(|value| !value.is_empty());
    given(env, &format!("CALICO_{name}")).or(before).or_else(|| given(env, name)).unwrap_or_default()
}

/// The file alone is looked at: without the empty list the client asks for the system's authorities first, and a
/// container has none.
fn trust(config: &mut kube::Config, file: Option<PathBuf>) {
    if file.is_some() {
        config.root_cert.get_or_insert_default();
    }
    config.root_cert_file = file;
}

/// What would be passed over in silence, and reach another server or act as another user.
fn refuse_unsupported(kubeconfig: &Kubeconfig, context: &Context) -> Result<(), Failure> {
    let clusters = kubeconfig.clusters.iter().filter(|named| named.name == context.cluster);
    let proxied = clusters.filter_map(|named| named.cluster.as_ref()).any(|c| c.proxy_url.is_some());
    let users = kubeconfig.auth_infos.iter().filter(|named| Some(&named.name) == context.user.as_ref());
    let acts = |u: &AuthInfo| {
        u.impersonate.is_some() || u.impersonate_uid.is_some() || u.impersonate_groups.is_some()
    };
    let disguised = users.filter_map(|named| named.auth_info.as_ref()).any(acts);
    let member = match (proxied, disguised) {
        (true, _) => "proxy-url",
        (_, true) => "as",
        (false, false) => return Ok(()),
    };
    Err(Failure::invalid(format!("the kubeconfig's member {member:?} is not supported")))
}

/// Files as kubectl merges them: those that do not exist are passed over, unless there is no other.
fn merged(files: &[PathBuf]) -> Result<Kubeconfig, Failure> {
    // Not the configuration's fault: its installer may be about to write it.
    let bad = |e: kube::config::KubeconfigError| Failure::new(ErrorKind::Denied, e.to_string());
    let there: Vec<&PathBuf> = files.iter().filter(|file| file.exists()).collect();
    if let (true, Some(first)) = (there.is_empty(), files.first()) {
        let missing = fs::File::open(first).err().map_or_else(String::new, |e| format!(": {e}"));
        let detail = format!("kubeconfig {}{missing}", first.display());
        return Err(Failure::new(ErrorKind::Denied, detail));
    }
    there.into_iter().try_fold(Kubeconfig::default(), |merged, file| {
        merged.merge(Kubeconfig::read_from(file).map_err(bad)?).map_err(bad)
    })
}

/// The context by this name, or the current one.
fn context_of(kubeconfig: &Kubeconfig, name: Option<&str>) -> Option<Context> {
    let name = name.or(kubeconfig.current_context.as_deref())?;
    kubeconfig.contexts.iter().find(|context| context.name == name)?.context.clone()
}

/// The authority's file, which is read at every connection.
fn authority(file: &Path) -> Result<Option<PathBuf>, Failure> {
    match fs::File::open(file) {
        Ok(_) => Ok(Some(file.to_owned())),
        Err(e) => Err(Failure::new(ErrorKind::Denied, format!("{}: {e}", file.display()))),
    }
}

/// Where tokens come from. Those of files are read again when the file changes.
#[derive(Clone, Debug)]
pub(crate) enum TokenSource {
    /// A client certificate, a plugin, or nothing.
    None,
    Fixed(String),
    File(PathBuf),
    /// The token stands in a kubeconfig, which its installer writes again before it expires.
    Kubeconfig {
        files: Vec<PathBuf>,
        user: String,
    },
}

impl TokenSource {
    /// The files whose change announces another token.
    pub fn files(&self) -> &[PathBuf] {
        match self {
            TokenSource::File(file) => std::slice::from_ref(file),
            TokenSource::Kubeconfig { files, .. } => files,
            TokenSource::None | TokenSource::Fixed(_) => &[],
        }
    }

    pub fn read(&self) -> Result<Option<String>, Failure> {
        match self {
            TokenSource::None => Ok(None),
            TokenSource::Fixed(token) => Ok(Some(token.clone())),
            TokenSource::File(file) => fs::read_to_string(file)
                .map(Some)
                .map_err(|e| Failure::new(ErrorKind::Denied, format!("token {}: {e}", file.display()))),
            TokenSource::Kubeconfig { files, user } => {
                let named = merged(files)?.auth_infos.into_iter().find(|named| named.name == *user);
                let token = named.and_then(|named| named.auth_info).and_then(|info| info.token);
                Ok(token.map(|token| token.expose_secret().to_owned()))
            }
        }
    }
}

/// The token is sent by us, so that it can be renewed; other ways to log in stay with the client.
fn take_token(user: &mut AuthInfo, source: &mut TokenSource) {
    if let Some(file) = user.token_file.take() {
        *source = TokenSource::File(file.into());
        user.token = None;
    } else if user.token.take().is_none() && matches!(source, TokenSource::Kubeconfig { .. }) {
        *source = TokenSource::None;
    }
}
