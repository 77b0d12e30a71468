//! Where this host's things are, and the store opened with its lock.

use crate::backend::Backend;
use crate::cli::Options;
use anyhow::{Context, Result, anyhow};
use datastore::embedded::Mode;
use datastore::lock::{Kind, Lock};
use datastore::{Deadline, DriveError, Error, ErrorKind, Store, drive};
use model::store::{Plan, Stop, View};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Bound on the wait for the host's IPAM lock.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Bound on the work with the store after that.
const STORE_WAIT: Duration = Duration::from_secs(30);

const STATE_DIR: &str = "/var/lib/percale";
const LOCK_FILE: &str = "/run/percale/ipam.lock";
const ATTACHMENT_DIR: &str = "/run/percale/attachments";

/// The paths in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    pub backend: Backend,
    /// Where the embedded store is, or would be.
    pub store: PathBuf,
    pub state_dir: PathBuf,
    pub lock_file: PathBuf,
    pub attachment_dir: PathBuf,
}

impl Places {
    /// Options first, then the environment, then the defaults.
    pub fn resolve(options: &Options, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self> {
        let path = |option: &Option<PathBuf>, name: &str| option.clone().or_else(|| Some(env(name)?.into()));
        let store = path(&options.datastore_path, "PERCALE_DATASTORE_PATH");
        let parent = || store.as_deref().and_then(Path::parent).map(Path::to_owned);
        let state_dir = path(&options.state_dir, "PERCALE_STATE_DIR").or_else(parent);
        let state_dir = state_dir.unwrap_or_else(|| STATE_DIR.into());
        // The journal names stores by their path: `/a/store/` and `/a/./store` are `/a/store`.
        let plain = |path: &PathBuf| path.components().collect::<PathBuf>();
        let store = store.as_ref().map(plain);
        Ok(Self {
            backend: Backend::choose(options, store.clone(), &state_dir, env)?,
            store: store.unwrap_or_else(|| state_dir.join("store")),
            lock_file: path(&options.ipam_lock_file, "PERCALE_IPAM_LOCK_FILE")
                .unwrap_or_else(|| LOCK_FILE.into()),
            attachment_dir: options.attachment_dir.clone().unwrap_or_else(|| ATTACHMENT_DIR.into()),
            state_dir,
        })
    }

    /// Opens the store; a missing one is reported, not created.
    pub fn open(&self, mode: Mode) -> Result<Session> {
        let store = self.backend.open(mode).map_err(explain)?;
        Ok(Session { store, places: self.clone() })
    }

    /// Takes the host's IPAM lock. A cluster's store may be looked after from a host that has none.
    pub fn lock(&self) -> Result<Option<Lock>> {
        if self.backend.is_cluster() && !self.lock_file.exists() {
            return Ok(None);
        }
        Lock::acquire(&self.lock_file, Kind::Exclusive, Deadline::after(LOCK_WAIT))
            .map(Some)
            .context("taking the host's IPAM lock (--ipam-lock-file)")
    }
}

/// Time for one command's work with the store.
pub fn store_deadline() -> Deadline {
    Deadline::after(STORE_WAIT)
}

/// An opened store and the paths beside it.
pub struct Session {
    pub store: Arc<dyn Store>,
    pub places: Places,
}

impl Session {
    /// Runs a planner that writes, under the host's IPAM lock.
    pub fn commit<T, E: std::fmt::Display>(
        &self,
        plan: impl FnMut(&View) -> Result<Plan<T>, Stop<E>>,
    ) -> Result<T> {
        let _lock = self.places.lock()?;
        self.drive(plan)
    }

    /// Runs a planner without the lock: one that only reads, or whose caller holds it.
    pub fn drive<T, E: std::fmt::Display>(
        &self,
        plan: impl FnMut(&View) -> Result<Plan<T>, Stop<E>>,
    ) -> Result<T> {
        let (out, _) = drive(self.store.as_ref(), &mut View::new(), store_deadline(), plan).map_err(
            |error| match error {
                DriveError::Plan(refusal) => anyhow!("{refusal}"),
                DriveError::Store(error) => explain(error),
                DriveError::Contended(cost) => anyhow!("too many concurrent changes ({cost}); try again"),
            },
        )?;
        Ok(out)
    }
}

fn is_clusters(error: &Error) -> bool {
    let subject = error.subject.to_string_lossy();
    subject.starts_with("etcd ") || subject.starts_with("Kubernetes ")
}

/// Adds the cure where there is one.
pub fn explain(error: Error) -> anyhow::Error {
    let cure = match error.kind {
        ErrorKind::Missing => {
            "no store is there yet: the first pod creates it, or `percalectl store load`; \
             --datastore-path names another place"
        }
        ErrorKind::Corrupt => "`percalectl store dump` shows what is still readable",
        ErrorKind::Timeout => "try again",
        ErrorKind::Denied if is_clusters(&error) => "check the credentials and the account's rights",
        ErrorKind::Denied => "run as root, on a file system that can be written",
        ErrorKind::Full => "make room on that file system",
        _ => return error.into(),
    };
    anyhow!("{error} ({cure})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(options: &Options, vars: &[(&str, &str)]) -> Result<Places> {
        Places::resolve(options, &|name| {
            vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn paths_come_from_options_then_environment_then_defaults() {
        let places = resolve(&Options::default(), &[]).unwrap();
        assert_eq!(places.store, Path::new("/var/lib/percale/store"));
        assert_eq!(places.lock_file, Path::new("/run/percale/ipam.lock"));
        let vars = [("PERCALE_DATASTORE_PATH", "/a/store"), ("PERCALE_IPAM_LOCK_FILE", "/l")];
        let places = resolve(&Options::default(), &vars).unwrap();
        assert_eq!(
            (places.store.as_path(), places.state_dir.as_path()),
            (Path::new("/a/store"), Path::new("/a"))
        );
        assert_eq!(places.lock_file, Path::new("/l"));
        let options = Options { datastore_path: Some("/b/store".into()), ..Options::default() };
        assert_eq!(resolve(&options, &vars).unwrap().store, Path::new("/b/store"));
        let options = Options { state_dir: Some("/s".into()), ..Options::default() };
        assert_eq!(resolve(&options, &[]).unwrap().store, Path::new("/s/store"));
    }
}
