//! The command line and Calico's environment variables, resolved.

use crate::options::{Mode, Options};
use anyhow::{Context as _, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Reads an environment variable; `None` where it is not set.
pub type Env<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// Who writes the network configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// This program, last.
    Installer,
    /// The daemon, once it can serve (decision 36).
    Daemon,
}

/// Everything that an installation depends on, but the disk.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: Mode,
    /// The first is where plugins must go; others get them where they can be written.
    pub bin_dirs: Vec<PathBuf>,
    pub conf_dir: PathBuf,
    /// The configuration directory as the host names it: paths in files begin with it.
    pub conf_dir_on_host: PathBuf,
    pub source_dir: PathBuf,
    pub state_dir: PathBuf,
    pub host_root: PathBuf,
    pub conf_name: String,
    pub old_conf_name: String,
    pub publish: Publish,
    pub update_binaries: bool,
    pub skip_binaries: BTreeSet<String>,
    pub stay: bool,
    pub tls_assets: PathBuf,
    /// The pod's account.
    pub account: PathBuf,
    /// NAMESPACE and NAME of the account whose token the API server is asked for.
    pub token_account: Option<(String, String)>,
    pub skip_tls_verify: bool,
    /// A given template, before substitution.
    pub template: Option<String>,
    /// Whether a configuration was given: with `--take-over` Calico's stays where none is.
    pub config_given: bool,
    /// Variables as they are set.
    pub values: BTreeMap<&'static str, String>,
}

/// Variables that are substituted or looked at as text.
const TEXT: &[&str] = &[
    "LOG_LEVEL",
    "LOG_FILE_PATH",
    "LOG_FILE_MAX_SIZE",
    "LOG_FILE_MAX_AGE",
    "LOG_FILE_MAX_COUNT",
    "DATASTORE_TYPE",
    "KUBERNETES_NODE_NAME",
    "CNI_MTU",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "KUBERNETES_SERVICE_PROTOCOL",
    "ETCD_ENDPOINTS",
    "ETCD_DISCOVERY_SRV",
    "CALICO_IPV4POOL_CIDR",
    "CALICO_IPV6POOL_CIDR",
    "KUBECONFIG",
];

/// Of Calico's configuration, if CNI_OLD_CONF_NAME does not say otherwise.
pub const CALICOS_CONF_NAME: &str = "10-calico.conflist";

impl Settings {
    /// # Errors
    /// A variable that cannot be understood, by its name; a file that it names and that cannot be read.
    pub fn resolve(options: &Options, env: &Env<'_>) -> Result<Self> {
        let vars = Vars { env };
        let mode = options.mode();
        let host = Path::new("/host");
        let host_root = options.host_root.clone().unwrap_or_else(|| dir_or(host.join("etc"), "/host", "/"));
        let conf_name = vars.file_name("CNI_CONF_NAME", "10-percale.conflist")?;
        let given = ["CNI_NETWORK_CONFIG", "CNI_NETWORK_CONFIG_FILE"];
        let old = if matches!(mode, Mode::TakeOver(_) | Mode::GiveBack) { CALICOS_CONF_NAME } else { "" };
        Ok(Self {
            mode,
            bin_dirs: bin_dirs(options),
            conf_dir: chosen(&options.conf_dir, "/host/etc/cni/net.d", "/etc/cni/net.d"),
            conf_dir_on_host: conf_dir_on_host(options, &vars)?,
            source_dir: match &options.source_dir {
                Some(dir) => dir.clone(),
                None => own_dir().context("this program's own directory")?,
            },
            state_dir: options.state_dir.clone().unwrap_or_else(|| "/var/lib/percale".into()),
            host_root,
            conf_name,
            old_conf_name: vars.file_name("CNI_OLD_CONF_NAME", old)?,
            publish: vars.publish()?,
            update_binaries: vars.flag("UPDATE_CNI_BINARIES", true)?,
            skip_binaries: vars.list("SKIP_CNI_BINARIES")?,
            stay: options.watch || vars.flag("SLEEP", false)?,
            tls_assets: vars.text("TLS_ASSETS_DIR")?.unwrap_or_else(|| "/calico-secrets".to_owned()).into(),
            account: vars
                .text("PERCALE_ACCOUNT_DIR")?
                .unwrap_or_else(|| "/var/run/secrets/kubernetes.io/serviceaccount".to_owned())
                .into(),
            token_account: vars.account("PERCALE_CNI_SERVICE_ACCOUNT")?,
            skip_tls_verify: vars.text("SKIP_TLS_VERIFY")?.as_deref() == Some("true"),
            template: vars.template()?,
            config_given: given.iter().any(|name| env(name).is_some()),
            values: vars.values()?,
        })
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The directory of certificates, as written.
    pub fn tls_dir(&self) -> PathBuf {
        self.conf_dir.join("percale-tls")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.conf_dir.join("percale-kubeconfig")
    }

    /// The state of the installer itself.
    pub fn records_dir(&self) -> PathBuf {
        self.state_dir.join("install")
    }

    /// What tells the daemon how much of Calico's work is ours.
    pub fn stage(&self) -> PathBuf {
        self.state_dir.join(crate::set::STAGE_FILE)
    }

    /// Where the configuration waits for the daemon.
    pub fn staged(&self) -> PathBuf {
        self.state_dir.join("conflist").join(&self.conf_name)
    }
}

fn own_dir() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.parent().unwrap_or(Path::new("/")).to_owned())
}

fn dir_or(probe: PathBuf, then: &str, otherwise: &str) -> PathBuf {
    if probe.is_dir() { then.into() } else { otherwise.into() }
}

fn chosen(option: &Option<PathBuf>, mounted: &str, plain: &str) -> PathBuf {
    option.clone().unwrap_or_else(|| dir_or(mounted.into(), mounted, plain))
}

fn bin_dirs(options: &Options) -> Vec<PathBuf> {
    let first = chosen(&options.bin_dir, "/host/opt/cni/bin", "/opt/cni/bin");
    let second = Path::new("/host/secondary-bin-dir");
    let second = (options.bin_dir.is_none() && second.is_dir()).then(|| second.to_owned());
    std::iter::once(first).chain(second).collect()
}

/// CNI_NET_DIR; by hand the given directory is the host's own.
fn conf_dir_on_host(options: &Options, vars: &Vars<'_>) -> Result<PathBuf> {
    let given = vars.text("CNI_NET_DIR")?.map(PathBuf::from);
    let by_hand = || options.conf_dir.clone().filter(|dir| !dir.starts_with("/host"));
    Ok(given.or_else(by_hand).unwrap_or_else(|| "/etc/cni/net.d".into()))
}

struct Vars<'a> {
    env: &'a Env<'a>,
}

impl Vars<'_> {
    /// Set but empty counts as set.
    fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = (self.env)(name) else { return Ok(None) };
        match value.into_string() {
            Ok(text) => Ok(Some(text)),
            Err(_) => bail!("{name}: its value is no UTF-8"),
        }
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.text(name)?.as_deref() {
            None => Ok(default),
            Some("1" | "t" | "T" | "true" | "True" | "TRUE" | "y" | "yes" | "on") => Ok(true),
            Some("0" | "f" | "F" | "false" | "False" | "FALSE" | "n" | "no" | "off") => Ok(false),
            Some(other) => bail!("{name}={other:?}: use true or false"),
        }
    }

    fn list(&self, name: &str) -> Result<BTreeSet<String>> {
        let text = self.text(name)?.unwrap_or_default();
        Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    /// A name within the configuration directory.
    fn file_name(&self, name: &str, default: &str) -> Result<String> {
        let text = self.text(name)?.unwrap_or_else(|| default.to_owned());
        if text.contains('/') || text == "." || text == ".." {
            bail!("{name}={text:?}: must be a file name without a directory");
        }
        if text.is_empty() && name == "CNI_CONF_NAME" {
            bail!("{name}: is empty; leave it unset, or name a file");
        }
        Ok(text)
    }

    fn publish(&self) -> Result<Publish> {
        match self.text("PUBLISH_CONF")?.as_deref() {
            None | Some("installer") => Ok(Publish::Installer),
            Some("daemon") => Ok(Publish::Daemon),
            Some(other) => bail!("PUBLISH_CONF={other:?}: use installer or daemon"),
        }
    }

    fn account(&self, name: &str) -> Result<Option<(String, String)>> {
        let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        match text.split_once('/') {
            Some((namespace, account))
                if !namespace.is_empty() && !account.is_empty() && !account.contains('/') =>
            {
                Ok(Some((namespace.to_owned(), account.to_owned())))
            }
            _ => bail!("{name}={text:?}: use NAMESPACE/NAME"),
        }
    }

    /// The file wins over the text.
    fn template(&self) -> Result<Option<String>> {
        if let Some(file) = self.text("CNI_NETWORK_CONFIG_FILE")?.filter(|file| !file.is_empty()) {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("CNI_NETWORK_CONFIG_FILE={file}"))?;
            return Ok(Some(text));
        }
        self.text("CNI_NETWORK_CONFIG")
    }

    fn values(&self) -> Result<BTreeMap<&'static str, String>> {
        let mut values = BTreeMap::new();
        for name in TEXT {
            if let Some(value) = self.text(name)? {
                values.insert(*name, value);
            }
        }
        Ok(values)
    }
}
