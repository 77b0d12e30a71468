//! Which store holds a network's objects (decision 27). This build has the embedded one.

use super::call::{OpenError, Stores};
use cni_protocol::netconf::{DatastoreType, Paths};
use cni_protocol::{CniError, Request};
use datastore::Store;
use datastore::embedded::{Embedded, Mode};
use std::fs;
use std::sync::Arc;

/// Opens the embedded store of each request.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbeddedStores;

impl Stores for EmbeddedStores {
    fn open(&self, req: &Request, mode: Mode) -> Result<Arc<dyn Store>, OpenError> {
        choose(req).map_err(OpenError::Config)?;
        let store = Embedded::open(&req.paths.store, mode).map_err(OpenError::Store)?;
        if mode == Mode::Create {
            record_use(&req.paths).map_err(OpenError::Config)?;
        }
        Ok(Arc::new(store))
    }
}

/// # Errors
/// Code 7 when another store, or none, is configured: never a silent change.
fn choose(req: &Request) -> Result<(), CniError> {
    let conf = &req.conf;
    let backends = &conf.backends;
    let clusters = match backends.datastore_type {
        Some(DatastoreType::Embedded) => return Ok(()),
        Some(other) => Some(other.as_str()),
        None if !backends.etcd.endpoints.is_empty() || !backends.etcd.discovery_srv.is_empty() => {
            Some("etcdv3")
        }
        None if !backends.kubernetes.kubeconfig.is_empty()
            || !backends.kubernetes.k8s_api_root.is_empty() =>
        {
            Some("kubernetes")
        }
        None => None,
    };
    match clusters {
        Some(kind) => Err(CniError::config(format!(
            "datastore_type: this configuration means {kind}, and this build has the embedded store only; \
             set datastore_type to embedded"
        ))),
        // A delegated IPAM keeps the addresses; ours keeps only what to masquerade.
        None if conf.ipam.brings_addresses || !conf.ipam.is_own() => Ok(()),
        None => Err(CniError::config(
            "datastore_type: no store is configured; give ipam.pools or ipam.ranges, or set datastore_type to embedded",
        )),
    }
}

/// `Store::identity` of the embedded store, without opening it.
pub(crate) fn embedded_identity(paths: &Paths) -> String {
    format!("embedded:{}", paths.store.display())
}

/// Notes the store in use on the host; another one later is an error that names both.
fn record_use(paths: &Paths) -> Result<(), CniError> {
    let file = paths.state_dir.join("datastore");
    let now = embedded_identity(paths);
    match fs::read_to_string(&file) {
        Ok(before) if before.trim() == now || before.trim().is_empty() => Ok(()),
        Ok(before) => Err(CniError::config(format!(
            "datastore_path: this host's state in {} belongs to {}, and the configuration means {now}; \
             correct it, or give the network a state_dir of its own",
            paths.state_dir.display(),
            before.trim()
        ))),
        // Best effort: the store itself was opened, and a full disk must not stop what it can do.
        Err(_) => {
            let _ = fs::create_dir_all(&paths.state_dir).and_then(|()| fs::write(&file, &now));
            Ok(())
        }
    }
}
