//! The engine at work for the daemon itself: what no plugin asked for.

use crate::config::StoreChoice;
use crate::context::Context;
use cni::engine::{Engine, OpenError, Role, Stores};
use cni::log::{Level, Log};
use cni_protocol::netconf::{DatastoreType, Defaults};
use cni_protocol::{CniError, Env, Request};
use datastore::embedded::Mode;
use datastore::{Deadline, Store};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

/// The daemon's one store, for every request.
pub(crate) struct Held(pub Arc<dyn Store>);

impl Stores for Held {
    fn open(&self, _: &Request, _: Mode, _: Deadline) -> Result<Arc<dyn Store>, OpenError> {
        Ok(self.0.clone())
    }
}

/// The store's kind, as a configuration names it.
pub(crate) fn kind(choice: &StoreChoice) -> DatastoreType {
    match choice {
        StoreChoice::Embedded(_) => DatastoreType::Embedded,
        StoreChoice::Etcd(_) => DatastoreType::Etcdv3,
        StoreChoice::Kubernetes(_) => DatastoreType::Kubernetes,
    }
}

/// Runs `work` with an engine and a request that says where everything of this host is.
///
/// # Errors
/// Those of `work`.
pub(crate) fn with_engine<T>(
    context: &Context,
    work: impl FnOnce(&Engine<'_>, &Request) -> Result<T, CniError>,
) -> Result<T, CniError> {
    let (stores, log) = (Held(context.memory.clone()), Log::stderr(Level::Info));
    let engine = Engine {
        stores: &stores,
        ledger: context.ledger.as_ref(),
        log: &log,
        role: Role::Main,
        calico: false,
        reaped: true,
    };
    work(&engine, &request(context)?)
}

fn request(context: &Context) -> Result<Request, CniError> {
    let variables = [("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/opt/cni/bin")];
    let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
    let env = Env::from_fn(|name| find(name).map(|(_, value)| OsString::from(value)))?;
    let config = &context.config;
    let mut conf = serde_json::json!({
        "cniVersion": "1.1.0",
        "name": "percaled",
        "type": "percale",
        "ipam": {"type": "percale-ipam"},
        "nodename": context.node_name,
    });
    for (key, path) in [
        ("state_dir", &context.state_dir),
        ("ipam_lock_file", &config.ipam_lock_file),
        ("attachment_dir", &config.attachment_dir),
    ] {
        conf[key] = text(path).into();
    }
    let mut req = Request::parse(env, conf.to_string().as_bytes(), Defaults::percale())?;
    req.conf.backends.datastore_type = Some(kind(&config.store));
    Ok(req)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
