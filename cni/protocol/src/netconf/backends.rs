//! Which store the network's objects are in, and how it is reached.

use crate::fields::{At, Fields};
use std::fmt;
use std::path::PathBuf;

/// A value that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself; for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn read(fields: &Fields<'_>, key: &str) -> Self {
        Self(fields.get(key, At::secret).unwrap_or_default())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "unset" } else { "(secret)" })
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// `datastore_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatastoreType {
    Embedded,
    Etcdv3,
    Kubernetes,
}

impl DatastoreType {
    /// The spelling used in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Etcdv3 => "etcdv3",
            Self::Kubernetes => "kubernetes",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Embedded, Self::Etcdv3, Self::Kubernetes].into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for DatastoreType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the configuration says of stores; which one is used follows from it and from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// `None`: to be found out.
    pub datastore_type: Option<DatastoreType>,
    pub etcd: Etcd,
    pub kubernetes: Kubernetes,
}

impl Backends {
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        // Calico's v3 client never read these two.
        fields.skip(&["etcd_scheme", "etcd_authority"]);
        Self {
            datastore_type: fields.get("datastore_type", read_type),
            etcd: Etcd::read(fields),
            kubernetes: fields.get("kubernetes", Kubernetes::read).unwrap_or_default(),
        }
    }
}

fn read_type(at: &At<'_>) -> Option<DatastoreType> {
    if at.value.as_str() == Some("") {
        return None;
    }
    at.str_that("embedded, etcdv3 or kubernetes", DatastoreType::parse)
}

/// The `etcd_*` keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Etcd {
    /// URLs; empty where none are given. May hold a password: shown without it only.
    pub endpoints: Vec<String>,
    /// DNS domain, in place of endpoints.
    pub discovery_srv: String,
    pub key_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub ca_cert_file: Option<PathBuf>,
}

impl Etcd {
    fn read(fields: &Fields<'_>) -> Self {
        let endpoints = fields.get("etcd_endpoints", At::secret).unwrap_or_default();
        let discovery_srv = fields.text("etcd_discovery_srv");
        if !endpoints.is_empty() && !discovery_srv.is_empty() {
            fields.problem("etcd_discovery_srv", "this or etcd_endpoints", "both");
        }
        let listed = endpoints.split(',').map(str::trim).filter(|url| !url.is_empty());
        Self {
            endpoints: listed.map(str::to_owned).collect(),
            discovery_srv,
            key_file: fields.file("etcd_key_file"),
            cert_file: fields.file("etcd_cert_file"),
            ca_cert_file: fields.file("etcd_ca_cert_file"),
        }
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.endpoints.iter().map(|url| without_password(url)).collect();
        f.debug_struct("Etcd")
            .field("endpoints", &shown)
            .field("discovery_srv", &self.discovery_srv)
            .field("key_file", &self.key_file)
            .field("cert_file", &self.cert_file)
            .field("ca_cert_file", &self.ca_cert_file)
            .finish()
    }
}

/// A URL less its user and password.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
        (None, Some(at)) => url[at + 1..].to_owned(),
        _ => url.to_owned(),
    }
}

/// `kubernetes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubernetes {
    /// Paths with `:` between them, as in KUBECONFIG; empty where none is given.
    pub kubeconfig: String,
    pub k8s_api_root: String,
    /// Name of the Kubernetes node for its pod CIDR, where that is not the nodename.
    pub node_name: String,
}

impl Kubernetes {
    fn read(at: &At<'_>) -> Option<Self> {
        at.object(|fields| Self {
            kubeconfig: fields.text("kubeconfig"),
            k8s_api_root: fields.text("k8s_api_root"),
            node_name: fields.text("node_name"),
        })
    }
}

/// `policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `k8s`: pod and namespace are looked up. Empty: a profile named as the network.
    pub kind: String,
    pub k8s_api_root: String,
    pub k8s_auth_token: Secret,
    pub k8s_client_certificate: String,
    pub k8s_client_key: Secret,
    pub k8s_certificate_authority: String,
}

impl Policy {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        at.object(|fields| Self {
            kind: fields.text("type"),
            k8s_api_root: fields.text("k8s_api_root"),
            k8s_auth_token: Secret::read(fields, "k8s_auth_token"),
            k8s_client_certificate: fields.text("k8s_client_certificate"),
            k8s_client_key: Secret::read(fields, "k8s_client_key"),
            k8s_certificate_authority: fields.text("k8s_certificate_authority"),
        })
    }
}
