//! How a cluster is reached: Calico's settings and environment variables.

use crate::error::Failure;
use datastore::ErrorKind;
use datastore_resolve::bare;
use etcd_client::{Certificate, Identity, TlsOptions};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fmt, fs};
use tonic::transport::Uri;

/// Port of an endpoint that names none (etcd's client port).
const PORT: u16 = 2379;

/// What is needed to reach an etcd cluster. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// URLs, `http` or `https`; without a scheme `https` where a TLS file is given. User and password
    /// in a URL are ignored, as etcd's own client does.
    pub endpoints: Vec<String>,
    /// DNS domain in place of endpoints: not supported, and refused.
    pub discovery_srv: String,
    pub user: String,
    pub password: String,
    /// Authorities that may sign the servers' certificates; `None`: the system's.
    pub ca_cert_file: Option<PathBuf>,
    /// Both or neither of these; read again at every connection.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("endpoints", &self.subject())
            .field("user", &self.user)
            .field("ca_cert_file", &self.ca_cert_file)
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Completes the configuration from the environment as Calico's client does: `CALICO_ETCD_X`
    /// wins over what is there, `ETCD_X` fills what is not.
    #[must_use]
    pub fn with_env(mut self, env: &dyn Fn(&str) -> Option<OsString>) -> Self {
        self.locate(env);
        let text =
            |name: &str, before: String| choose(env, name, before.into()).to_string_lossy().into_owned();
        let file = |name: &str, before: Option<PathBuf>| {
            let chosen = choose(env, name, before.unwrap_or_default().into());
            (!chosen.is_empty()).then(|| PathBuf::from(chosen))
        };
        self.user = text("ETCD_USERNAME", self.user);
        self.password = text("ETCD_PASSWORD", self.password);
        self.ca_cert_file = file("ETCD_CA_CERT_FILE", self.ca_cert_file);
        self.cert_file = file("ETCD_CERT_FILE", self.cert_file);
        self.key_file = file("ETCD_KEY_FILE", self.key_file);
        self
    }

    /// Where the cluster is, which is all that [`Self::is_given`] asks for.
    fn locate(&mut self, env: &dyn Fn(&str) -> Option<OsString>) {
        let text = |name: &str, before: &str| choose(env, name, before.into()).to_string_lossy().into_owned();
        let listed = text("ETCD_ENDPOINTS", &self.endpoints.join(","));
        self.endpoints =
            listed.split(',').map(str::trim).filter(|e| !e.is_empty()).map(str::to_owned).collect();
        self.discovery_srv = text("ETCD_DISCOVERY_SRV", &self.discovery_srv);
    }

    /// As [`Self::with_env`] and [`Self::is_given`], without reading the rest.
    #[must_use]
    pub fn is_given_with(mut self, env: &dyn Fn(&str) -> Option<OsString>) -> bool {
        self.locate(env);
        self.is_given()
    }

    /// True where something says that an etcd cluster is meant.
    pub fn is_given(&self) -> bool {
        !self.endpoints.is_empty() || !self.discovery_srv.is_empty()
    }

    /// What messages call the cluster: its endpoints, without user and password.
    pub(crate) fn subject(&self) -> String {
        let shown: Vec<&str> = self.endpoints.iter().map(|url| without_user(url)).collect();
        format!("etcd {}", shown.join(","))
    }

    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, Failure> {
        if self.endpoints.is_empty() && !self.discovery_srv.is_empty() {
            return Err(Failure::invalid(
                "etcd_discovery_srv is not supported; list the servers in etcd_endpoints",
            ));
        }
        if self.endpoints.is_empty() {
            return Err(Failure::invalid("etcd_endpoints: no endpoint is given"));
        }
        self.endpoints.iter().map(|url| self.endpoint(url)).collect()
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, Failure> {
        let bad = |why: &str| Failure::invalid(format!("etcd_endpoints: {}: {why}", without_user(url)));
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(bad("use http:// or https://")),
            None => (self.has_tls_file(), url),
        };
        let authority = rest.rsplit_once('@').map_or(rest, |(_, place)| place).trim_end_matches('/');
        let uri: Uri = format!("{}://{authority}", if tls { "https" } else { "http" })
            .parse()
            .map_err(|_| bad("is no URL such as https://10.0.0.1:2379"))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("names no host"))?;
        if uri.path() != "/" {
            return Err(bad("must have no path"));
        }
        let port = match authority.strip_prefix(host).and_then(|rest| rest.strip_prefix(':')) {
            Some(port) => port.parse().map_err(|_| bad("has no port number"))?,
            None => PORT,
        };
        Ok(Endpoint { host: host.to_owned(), port, tls, uri })
    }

    fn has_tls_file(&self) -> bool {
        self.ca_cert_file.is_some() || self.cert_file.is_some() || self.key_file.is_some()
    }

    /// The TLS side for a server that shows a certificate for `host`, from the files as they are now.
    pub(crate) fn tls(&self, host: &str) -> Result<TlsOptions, Failure> {
        let mut options = TlsOptions::new().domain_name(bare(host));
        options = match &self.ca_cert_file {
            Some(file) => options.ca_certificate(Certificate::from_pem(read("etcd_ca_cert_file", file)?)),
            None => options.with_native_roots(),
        };
        match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                let (cert, key) = (read("etcd_cert_file", cert)?, read("etcd_key_file", key)?);
                Ok(options.identity(Identity::from_pem(cert, key)))
            }
            (None, None) => Ok(options),
            _ => Err(Failure::invalid("etcd_cert_file and etcd_key_file: give both or neither")),
        }
    }
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub uri: Uri,
}

fn choose(env: &dyn Fn(&str) -> Option<OsString>, name: &str, before: OsString) -> OsString {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let given = Some(before).filter(|value| !value.is_empty());
    set(&format!("CALICO_{name}")).or(given).or_else(|| set(name)).unwrap_or_default()
}

fn read(key: &str, file: &Path) -> Result<Vec<u8>, Failure> {
    // Not the configuration's fault: the file may come back, and what is owed until then is kept.
    let denied = |e| Failure::new(ErrorKind::Denied, format!("{key} {}: {e}", file.display()));
    fs::read(file).map_err(denied)
}

fn without_user(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoints: &[&str]) -> Config {
        Config { endpoints: endpoints.iter().map(|e| (*e).to_owned()).collect(), ..Config::default() }
    }

    fn env<'a>(vars: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
    }

    // REQ: C-13
    #[test]
    fn calico_s_variables_complete_the_configuration_in_calico_s_order() {
        let before = Config { cert_file: Some("/conf/cert".into()), ..config(&["http://conf:1"]) };
        let vars = [
            ("ETCD_ENDPOINTS", "http://env:1"),
            ("CALICO_ETCD_KEY_FILE", "/calico/key"),
            ("ETCD_KEY_FILE", "/env/key"),
            ("ETCD_CERT_FILE", "/env/cert"),
            ("ETCD_CA_CERT_FILE", "/env/ca"),
            ("ETCD_USERNAME", "u"),
            ("CALICO_ETCD_PASSWORD", "p"),
        ];
        let got = before.clone().with_env(&env(&vars));
        assert_eq!(got.endpoints, ["http://conf:1"]);
        assert_eq!(got.cert_file, Some("/conf/cert".into()));
        assert_eq!((got.key_file, got.ca_cert_file), (Some("/calico/key".into()), Some("/env/ca".into())));
        assert_eq!((got.user.as_str(), got.password.as_str()), ("u", "p"));
        let got = before.with_env(&env(&[("CALICO_ETCD_ENDPOINTS", "https://a:1, https://b:2,")]));
        assert_eq!(got.endpoints, ["https://a:1", "https://b:2"]);
    }

    #[test]
    fn endpoints_are_read_in_every_usual_form() {
        let one = |url: &str| config(&[url]).endpoints().map(|e| (e[0].host.clone(), e[0].port, e[0].tls));
        assert_eq!(one("http://10.0.0.1:2379").unwrap(), ("10.0.0.1".to_owned(), 2379, false));
        assert_eq!(one("https://u:secret@etcd.example/").unwrap(), ("etcd.example".to_owned(), PORT, true));
        assert_eq!(one("https://[fd00::1]:1").unwrap(), ("[fd00::1]".to_owned(), 1, true));
        assert_eq!(one("etcd:1").unwrap(), ("etcd".to_owned(), 1, false));
        for bad in ["ftp://a:1", "http://", "http://a:b", "http://a:1/path", "http://a b:1"] {
            let failure = one(bad).unwrap_err();
            assert!(failure.detail.starts_with("etcd_endpoints"), "{}", failure.detail);
        }
        assert!(config(&[]).endpoints().unwrap_err().detail.contains("no endpoint"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = Config { password: "hidden1".into(), ..config(&["https://u:hidden2@h:1"]) };
        let shown = format!("{config:?} {}", config.subject());
        assert!(!shown.contains("hidden") && shown.contains("h:1"), "{shown}");
    }

    // REQ: C-13
    #[test]
    fn a_missing_or_lonely_certificate_is_named() {
        let lonely = Config { cert_file: Some("/nowhere/cert".into()), ..config(&["https://h:1"]) };
        assert!(lonely.tls("h").unwrap_err().detail.contains("etcd_key_file"));
        let missing = Config { ca_cert_file: Some("/nowhere/ca".into()), ..config(&["https://h:1"]) };
        assert!(missing.tls("h").unwrap_err().detail.contains("etcd_ca_cert_file /nowhere/ca"));
    }
}
