//! A real API server for the tests of one binary, ended with the last of them.

#![allow(dead_code, reason = "each test binary uses some of it")]
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

#[path = "../../../tests/support/proxy.rs"]
pub mod proxy;

use datastore::{CommitError, Deadline, Event, Store, Watch};
use datastore_kubernetes::{Config, Kubernetes};
use model::store::{Entry, Expect, Write};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

pub fn within(limit: Duration) -> Deadline {
    Deadline::after(limit)
}

/// `scripts/testbed`, up.
pub struct Bed {
    pub dir: PathBuf,
    env: HashMap<String, String>,
}

fn testbed(verb: &str, dir: &Path) -> std::process::Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/testbed");
    Command::new(script).arg(verb).arg(dir).output().expect("scripts/testbed runs")
}

impl Bed {
    /// One bed for all tests that run at a time.
    pub fn shared() -> Arc<Self> {
        static BED: Mutex<Weak<Bed>> = Mutex::new(Weak::new());
        let mut shared = BED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let bed = Arc::new(Self::up());
            *shared = Arc::downgrade(&bed);
            bed
        })
    }

    /// A bed for one test that harms it.
    pub fn up() -> Self {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let dir = std::env::temp_dir().join(format!("percale-kubernetes-{}-{count}", std::process::id()));
        let output = testbed("up", &dir);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let lines = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        Self { dir, env: lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.env["KUBECONFIG"].clone().into()
    }

    pub fn config(&self) -> Config {
        Config { kubeconfig: self.admin_kubeconfig().into(), ..Config::default() }
    }

    /// The plugin's account, with its rights and no others.
    pub fn plugin_config(&self) -> Config {
        let kubeconfig = self.env["PERCALE_TESTBED_CNI_KUBECONFIG"].clone().into();
        Config { kubeconfig, ..Config::default() }
    }

    pub fn open(&self) -> Kubernetes {
        open(&self.config())
    }

    /// The API server's port.
    pub fn port(&self) -> u16 {
        let text = std::fs::read_to_string(self.admin_kubeconfig()).unwrap();
        let (_, rest) = text.split_once("https://127.0.0.1:").unwrap();
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    }

    pub fn server_pid(&self) -> i32 {
        std::fs::read_to_string(self.dir.join("kube-apiserver.pid")).unwrap().trim().parse().unwrap()
    }

    /// A request of the administrator, as anyone else would send it.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let pki = |name: &str| self.dir.join("pki").join(name);
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-X", method, "--cacert"]).arg(pki("ca.crt"));
        curl.arg("--cert").arg(pki("admin.crt")).arg("--key").arg(pki("admin.key"));
        if let Some(body) = body {
            curl.args(["-H", "Content-Type: application/json", "--data-binary", &body.to_string()]);
        }
        let output = curl.arg(format!("https://127.0.0.1:{}{path}", self.port())).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{path}: {e}: {output:?}"))
    }

    pub fn crd(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.api(method, &format!("/apis/crd.projectcalico.org/v1/{path}"), body)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        testbed("down", &self.dir);
    }
}

pub fn open(config: &Config) -> Kubernetes {
    Kubernetes::open(config, soon()).unwrap()
}

pub fn put(key: &str, expect: Expect, value: &str) -> Write {
    Write { key: key.into(), expect, value: Some(value.into()) }
}

pub fn delete(key: &str, expect: Expect) -> Write {
    Write { key: key.into(), expect, value: None }
}

pub fn get(store: &dyn Store, key: &str) -> Option<Entry> {
    store.get(&[key], soon()).unwrap().remove(0)
}

pub fn json(entry: &Entry) -> Value {
    serde_json::from_slice(&entry.value).unwrap()
}

pub fn commit(store: &dyn Store, writes: &[Write]) -> u64 {
    store.commit(writes, soon()).unwrap_or_else(|e| panic!("{e}: {e:?}"))
}

pub fn commit_error(store: &dyn Store, writes: &[Write]) -> datastore::Error {
    match store.commit(writes, soon()) {
        Err(CommitError::Store(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The next event; errors of an outage are passed over.
pub fn next(watch: &mut dyn Watch) -> Event {
    let deadline = soon();
    loop {
        match watch.next(deadline) {
            Ok(event) => return event.expect("an event before the deadline"),
            Err(_) => assert!(!deadline.left().is_zero()),
        }
    }
}
