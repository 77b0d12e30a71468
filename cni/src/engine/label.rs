//! What a configuration says about its store, in one text: plugin and daemon compare it, so that a
//! daemon never serves a network of another store with its own.

use super::stores::{Choice, choose};
use cni_protocol::{CniError, Request};
use std::env;
use std::path::{Path, PathBuf};

/// The store that a request means.
///
/// # Errors
/// Code 7 when none is configured.
pub fn store_label(req: &Request) -> Result<String, CniError> {
    choose(req, &|name| env::var_os(name)).map(|choice| match choice {
        Choice::Embedded => embedded_label(&req.paths.store),
        Choice::Etcd(config) => etcd_label(&config),
        Choice::Kubernetes(_) => KUBERNETES_LABEL.to_owned(),
    })
}

/// A host belongs to one Kubernetes cluster; plugin and daemon reach it by different files.
pub const KUBERNETES_LABEL: &str = "kubernetes";

/// By its directory, whose path has one spelling.
pub fn embedded_label(dir: &Path) -> String {
    format!("embedded:{}", dir.components().collect::<PathBuf>().display())
}

/// By its endpoints, in any order.
pub fn etcd_label(config: &datastore_etcd::Config) -> String {
    let mut endpoints: Vec<&str> = config.endpoints.iter().map(|url| url.trim_end_matches('/')).collect();
    endpoints.sort_unstable();
    format!("etcdv3:{}", endpoints.join(","))
}
