//! Where this host's things are, and the store opened with its lock.

use crate::cli::{Options, StoreType};
use crate::outcome::usage;
use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use datastore::embedded::{Embedded, Mode};
use datastore::lock::{Kind, Lock};
use datastore::{Deadline, DriveError, Error, ErrorKind, Store, drive};
use model::store::{Plan, Stop, View};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
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
    pub store: PathBuf,
    pub state_dir: PathBuf,
    pub lock_file: PathBuf,
    pub attachment_dir: PathBuf,
}

impl Places {
    /// Options first, then the environment, then the defaults.
    /// Fails where a store is asked for that this build does not have: no other one is used silently.
    pub fn resolve(options: &Options, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self> {
        let path = |option: &Option<PathBuf>, name: &str| option.clone().or_else(|| Some(env(name)?.into()));
        let store = path(&options.datastore_path, "PERCALE_DATASTORE_PATH");
        embedded_only(options, store.is_some(), env)?;
        let parent = || store.as_deref().and_then(Path::parent).map(Path::to_owned);
        let state_dir = path(&options.state_dir, "PERCALE_STATE_DIR").or_else(parent);
        let state_dir = state_dir.unwrap_or_else(|| STATE_DIR.into());
        // The journal names stores by their path: `/a/store/` and `/a/./store` are `/a/store`.
        let plain = |path: &PathBuf| path.components().collect::<PathBuf>();
        let store = store.as_ref().map(plain);
        Ok(Self {
            store: store.clone().unwrap_or_else(|| state_dir.join("store")),
            lock_file: path(&options.ipam_lock_file, "PERCALE_IPAM_LOCK_FILE")
                .unwrap_or_else(|| LOCK_FILE.into()),
            attachment_dir: options.attachment_dir.clone().unwrap_or_else(|| ATTACHMENT_DIR.into()),
            state_dir,
        })
    }

    /// Opens the store; a missing one is reported, not created.
    pub fn open(&self, mode: Mode) -> Result<Session> {
        let store = Embedded::open(&self.store, mode).map_err(explain)?;
        Ok(Session { store, places: self.clone() })
    }

    /// Takes the host's IPAM lock.
    pub fn lock(&self) -> Result<Lock> {
        Lock::acquire(&self.lock_file, Kind::Exclusive, Deadline::after(LOCK_WAIT))
            .context("taking the host's IPAM lock (--ipam-lock-file)")
    }
}

/// Time for one command's work with the store.
pub fn store_deadline() -> Deadline {
    Deadline::after(STORE_WAIT)
}

fn embedded_only(options: &Options, has_path: bool, env: &dyn Fn(&str) -> Option<OsString>) -> Result<()> {
    let asked = match options.datastore_type {
        Some(given) => given,
        None => type_from(options, has_path, env)?,
    };
    match asked {
        StoreType::Embedded => Ok(()),
        other => {
            let name = other.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
            bail!(
                "datastore type {name}: this build has the embedded store only \
                 (--datastore-type embedded uses this host's)"
            )
        }
    }
}

/// The environment's answer, Calico's names first with their prefix (reference 1.9); then what the
/// other settings imply.
fn type_from(options: &Options, has_path: bool, env: &dyn Fn(&str) -> Option<OsString>) -> Result<StoreType> {
    let set = |name: &str| either(env, name).filter(|v| !v.is_empty());
    if let Some(text) = set("DATASTORE_TYPE") {
        let text = text.to_string_lossy();
        return StoreType::from_str(&text, true)
            .map_err(|_| usage(format!("DATASTORE_TYPE={text}: use embedded, etcdv3 or kubernetes")));
    }
    Ok(match () {
        () if has_path => StoreType::Embedded,
        () if set("ETCD_ENDPOINTS").is_some() => StoreType::Etcdv3,
        () if options.kubeconfig.is_some() || set("KUBECONFIG").is_some() => StoreType::Kubernetes,
        () if options.context.is_some() || set("K8S_CURRENT_CONTEXT").is_some() => StoreType::Kubernetes,
        () => StoreType::Embedded,
    })
}

fn either(env: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Option<OsString> {
    env(&format!("CALICO_{name}")).or_else(|| env(name))
}

/// An opened store and the paths beside it.
pub struct Session {
    pub store: Embedded,
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
        let store: &dyn Store = &self.store;
        let (out, _) =
            drive(store, &mut View::new(), store_deadline(), plan).map_err(|error| match error {
                DriveError::Plan(refusal) => anyhow!("{refusal}"),
                DriveError::Store(error) => explain(error),
                DriveError::Contended(cost) => anyhow!("too many concurrent changes ({cost}); try again"),
            })?;
        Ok(out)
    }
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

    type Case<'a> = (Options, &'a [(&'a str, &'a str)], &'a str);

    // A host that is set up for a cluster store is never answered from an empty embedded one.
    #[test]
    fn another_store_is_refused_however_it_is_asked_for() {
        let typed = |t| Options { datastore_type: Some(t), ..Options::default() };
        let cases: [Case<'_>; 6] = [
            (typed(StoreType::Kubernetes), &[], "kubernetes"),
            (Options::default(), &[("DATASTORE_TYPE", "etcdv3")], "etcdv3"),
            (
                Options::default(),
                &[("CALICO_DATASTORE_TYPE", "kubernetes"), ("DATASTORE_TYPE", "embedded")],
                "kubernetes",
            ),
            (Options::default(), &[("ETCD_ENDPOINTS", "http://x:2379")], "etcdv3"),
            (Options::default(), &[("KUBECONFIG", "/k")], "kubernetes"),
            (Options { context: Some("c".into()), ..Options::default() }, &[], "kubernetes"),
        ];
        for (options, vars, name) in cases {
            let error = resolve(&options, vars).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("embedded store only"), "{error}");
        }
        assert!(
            resolve(&Options::default(), &[("DATASTORE_TYPE", "mysql")])
                .unwrap_err()
                .is::<crate::outcome::BadUsage>()
        );
    }

    #[test]
    fn an_embedded_path_or_type_settles_it() {
        let options = Options { datastore_type: Some(StoreType::Embedded), ..Options::default() };
        assert!(resolve(&options, &[("KUBECONFIG", "/k")]).is_ok());
        assert!(
            resolve(&Options::default(), &[("KUBECONFIG", "/k"), ("PERCALE_DATASTORE_PATH", "/s")]).is_ok()
        );
    }
}
