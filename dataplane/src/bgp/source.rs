//! Where Kubernetes' own objects are: the daemon's store, or beside it the cluster that the environment names.

use crate::config::StoreChoice;
use crate::context::Context;
use datastore::{Deadline, Error, Store};
use datastore_kubernetes::{Config, Kubernetes};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bound on one try to reach the cluster.
const TRY: Duration = Duration::from_secs(10);

/// A store that may be opened at first use, and is tried again where that failed.
#[derive(Clone)]
pub(super) struct Source(Arc<Mutex<Opened>>);

enum Opened {
    Yes(Arc<dyn Store>),
    NotYet(Box<Config>),
}

impl Source {
    pub fn of(store: Arc<dyn Store>) -> Self {
        Source(Arc::new(Mutex::new(Opened::Yes(store))))
    }

    /// The cluster, if there is one.
    pub fn kubernetes(context: &Context) -> Option<Self> {
        if let StoreChoice::Kubernetes(_) = context.config.store {
            return Some(Source::of(context.store.clone()));
        }
        let config = Config::default().with_env(&|name| std::env::var_os(name));
        let later = || Source(Arc::new(Mutex::new(Opened::NotYet(Box::new(config.clone())))));
        config.is_given().then(later)
    }

    pub fn get(&self) -> Result<Arc<dyn Store>, Error> {
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let store: Arc<dyn Store> = match &*opened {
            Opened::Yes(store) => return Ok(store.clone()),
            Opened::NotYet(config) => Arc::new(Kubernetes::open(config, Deadline::after(TRY))?),
        };
        *opened = Opened::Yes(store.clone());
        Ok(store)
    }
}
