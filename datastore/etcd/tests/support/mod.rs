//! Real servers, made and ended by each test, and a proxy that misbehaves.

#![allow(dead_code, reason = "each test binary uses some of it")]
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

pub mod certs;
#[path = "../../../tests/support/proxy.rs"]
pub mod proxy;
pub mod users;

use datastore::{CommitError, Deadline, Error, ErrorKind, Event, Store, Watch};
use datastore_etcd::{Config, Etcd};
use model::store::{Entry, Expect, Write};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

pub fn within(limit: Duration) -> Deadline {
    Deadline::after(limit)
}

pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// An etcd of one member on loopback, killed when it is dropped.
pub struct Server {
    pub port: u16,
    peer: u16,
    pub dir: tempfile::TempDir,
    tls: Option<certs::Certs>,
    child: Option<Child>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(None)
    }

    pub fn start_tls(certs: certs::Certs) -> Self {
        Self::with(Some(certs))
    }

    fn with(tls: Option<certs::Certs>) -> Self {
        let dir = tempfile::Builder::new().prefix("percale-etcd-").tempdir().unwrap();
        let mut server = Self { port: free_port(), peer: free_port(), dir, tls, child: None };
        server.spawn();
        server
    }

    /// Starts it (again), and waits until it takes connections.
    pub fn spawn(&mut self) {
        let client = self.url();
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.dir.path().join("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap"]);
        if let Some(certs) = &self.tls {
            command.arg("--cert-file").arg(&certs.cert).arg("--key-file").arg(&certs.key);
            command.arg("--trusted-ca-file").arg(&certs.ca).arg("--client-cert-auth");
        }
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.expect("etcd is installed (Debian: etcd-server)"));
        self.wait_for_port();
    }

    fn wait_for_port(&mut self) {
        let end = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let gone = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(gone.is_none() && Instant::now() < end, "etcd did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub fn config(&self) -> Config {
        let tls = self.tls.as_ref();
        Config {
            endpoints: vec![self.url()],
            ca_cert_file: tls.map(|certs| certs.ca.clone()),
            cert_file: tls.map(|certs| certs.client_cert.clone()),
            key_file: tls.map(|certs| certs.client_key.clone()),
            ..Config::default()
        }
    }

    pub fn open(&self) -> Etcd {
        open(&self.config())
    }

    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Stops it; when this returns none of its threads runs on.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let stopped = waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap();
        assert!(stopped.is_some_and(|(_, status)| status.stopped()), "etcd ended");
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Opens a store on a server that may still be choosing its leader.
pub fn open(config: &Config) -> Etcd {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match Etcd::open(config, soon()) {
            Ok(store) => return store,
            Err(e) if e.kind == ErrorKind::Unreachable && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => panic!("{e}"),
        }
    }
}

pub fn put(key: &str, expect: Expect, value: impl Into<Vec<u8>>) -> Write {
    Write { key: key.into(), expect, value: Some(value.into()) }
}

pub fn delete(key: &str, expect: Expect) -> Write {
    Write { key: key.into(), expect, value: None }
}

pub fn get(store: &dyn Store, key: &str) -> Option<Entry> {
    store.get(&[key], soon()).unwrap().remove(0)
}

pub fn kind(result: Result<impl Sized, Error>) -> ErrorKind {
    result.err().expect("must fail").kind
}

pub fn commit_kind(result: Result<u64, CommitError>) -> ErrorKind {
    match result {
        Err(CommitError::Store(error)) => error.kind,
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
