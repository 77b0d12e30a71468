//! Opening the store, once, for all parts.

use crate::config::{Config, StoreChoice};
use crate::health::Health;
use crate::shutdown::Shutdown;
use anyhow::{Result, bail};
use datastore::embedded::{Embedded, Mode};
use datastore::{Deadline, Error, ErrorKind, Store};
use datastore_etcd::Etcd;
use datastore_kubernetes::Kubernetes;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// Bound on one try to reach a cluster.
const TRY: Duration = Duration::from_secs(10);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Opens it, as often as it takes: a cluster may be away when a host starts. `None`: asked to stop.
///
/// # Errors
/// What trying again does not cure: a wrong configuration, damaged or denied files, another store
/// than this host's.
pub(crate) fn open(config: &Config, health: &Health, shutdown: &Shutdown) -> Result<Option<Arc<dyn Store>>> {
    let condition = health.condition("store");
    while !shutdown.is_set() {
        match try_open(&config.store) {
            Ok(store) => {
                record_use(config, &store.identity())?;
                condition.ready();
                return Ok(Some(store));
            }
            Err(e) if may_pass(e.kind) => condition.not_ready(e.to_string()),
            Err(e) => return Err(e.into()),
        }
        shutdown.wait(PAUSE);
    }
    Ok(None)
}

fn may_pass(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Timeout | ErrorKind::Unreachable | ErrorKind::Full | ErrorKind::Io)
}

fn try_open(choice: &StoreChoice) -> Result<Arc<dyn Store>, Error> {
    let deadline = Deadline::after(TRY);
    Ok(match choice {
        StoreChoice::Embedded(dir) => Arc::new(Embedded::open(dir, Mode::Create)?),
        StoreChoice::Etcd(config) => Arc::new(Etcd::open(config, deadline)?),
        StoreChoice::Kubernetes(config) => Arc::new(Kubernetes::open(config, deadline)?),
    })
}

/// Decision 27: the store in use is on record; another one later is an error that names both.
fn record_use(config: &Config, now: &str) -> Result<()> {
    let file = config.state_dir.join("datastore");
    match fs::read_to_string(&file) {
        Ok(before) if before.trim() == now || before.trim().is_empty() => Ok(()),
        Ok(before) => bail!(
            "--datastore-type: this host's state in {} belongs to {}, and the configuration means {now}; \
             correct it, or give the daemon a state directory of its own",
            config.state_dir.display(),
            before.trim()
        ),
        // As for the plugin: a full disk must not stop what the opened store can do.
        Err(_) => {
            let _ = fs::create_dir_all(&config.state_dir).and_then(|()| fs::write(&file, now));
            Ok(())
        }
    }
}
