//! A state directory with a store, a network namespace that stands for the host, and `percalectl`.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part of the bed, and fails where it cannot go on"
)]

use datastore::embedded::{Embedded, Mode};
use datastore::{Deadline, Store, drive};
use ipam::{Ask, Assign, Context, Now, PoolSpec, Pools, Range};
use model::store::{Expect, View, Write};
use model::{Family, Scope};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub const BIN: &str = env!("CARGO_BIN_EXE_percalectl");
pub const NODE: &str = "n1";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Removed when dropped, also after a failure.
pub struct Bed {
    dir: tempfile::TempDir,
    netns: Option<String>,
}

/// What a run of `percalectl` gave.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The run must have ended so.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(name) = &self.netns {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

impl Bed {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), netns: None }
    }

    /// With a namespace that stands for the host, so that links can be made in it.
    pub fn with_host() -> Self {
        let mut bed = Self::new();
        let netns = bed.netns.insert(name("host"));
        ip(&format!("netns add {netns}"));
        bed
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store_dir(&self) -> PathBuf {
        self.path("store")
    }

    pub fn store(&self) -> Embedded {
        Embedded::open(&self.store_dir(), Mode::Create).unwrap()
    }

    /// A bed whose store is there and empty.
    pub fn with_store(self) -> Self {
        drop(self.store());
        std::fs::write(self.path("nodename"), NODE).unwrap();
        self
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "")
    }

    /// Runs `percalectl` in the bed's host, with this on standard input.
    pub fn run_with(&self, args: &[&str], stdin: &str) -> Ran {
        let mut command = self.command(BIN);
        command.arg("--datastore-path").arg(self.store_dir());
        command.arg("--ipam-lock-file").arg(self.path("ipam.lock"));
        command.arg("--attachment-dir").arg(self.path("attachments"));
        finish(command.args(args), stdin)
    }

    /// A command in the bed's host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match &self.netns {
            None => Command::new(program),
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{netns}")).arg(program);
                command
            }
        };
        for name in ["DATASTORE_TYPE", "CALICO_DATASTORE_TYPE", "KUBECONFIG", "ETCD_ENDPOINTS", "CNI_PATH"] {
            command.env_remove(name);
        }
        command
    }

    /// `ip` in the bed's host.
    pub fn ip(&self, args: &str) {
        ip(&format!("-n {} {args}", self.netns.as_deref().unwrap()));
    }

    pub fn put(&self, key: &str, value: &[u8]) {
        let write = Write { key: key.into(), expect: Expect::Any, value: Some(value.to_vec()) };
        self.store().commit(&[write], soon()).unwrap();
    }

    /// Gives an attachment an address of 10.91.0.0/16, as an ADD would.
    pub fn lease(&self, container: &str, attrs: &[(&str, &str)]) -> IpAddr {
        self.try_lease(container, attrs).unwrap()
    }

    /// The same, with the allocator's refusal. The pool is created where there is none yet.
    pub fn try_lease(&self, container: &str, attrs: &[(&str, &str)]) -> Result<IpAddr, String> {
        let pool = PoolSpec { cidr: "10.91.0.0/16".parse().unwrap(), block_size: None, nat_outgoing: false };
        let has_pool = !self.store().keys(&model::keys::pools(), soon()).unwrap().is_empty();
        let create = if has_pool { vec![] } else { vec![pool] };
        self.assign(&Scope::Cluster, container, attrs, Pools::Enabled, create)
    }

    /// The same from a range of the network's own.
    pub fn network_lease(&self, network: &str, container: &str) -> IpAddr {
        let range = Range::new("10.92.0.0/24".parse().unwrap());
        let scope = Scope::Network(network.into());
        self.assign(&scope, container, &[("network", network)], Pools::Given(vec![range]), vec![]).unwrap()
    }

    fn assign(
        &self,
        scope: &Scope,
        container: &str,
        attrs: &[(&str, &str)],
        pools: Pools,
        create_pools: Vec<PoolSpec>,
    ) -> Result<IpAddr, String> {
        let defaults = [("node", NODE), ("network", "net"), ("ifname", "eth0")];
        let attrs: BTreeMap<String, String> =
            defaults.iter().chain(attrs).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let request = Assign {
            handle: format!("{}.{container}", attrs["network"]),
            attrs,
            asks: vec![Ask { family: Family::V4, explicit: None, pools }],
            create_pools,
            ..Assign::default()
        };
        let cx = Context { scope, host: NODE, now: Now::default(), chance: 1, transactional: true };
        let node = model::Node::new(NODE, model::resource::NodeSpec::default());
        self.put(&node.key(), &model::Stored::encode(&node));
        let store = self.store();
        let planned = drive(&store, &mut View::new(), soon(), |view| ipam::plan_assign(view, &cx, &request));
        planned.map(|(given, _)| given.addresses[0].ip).map_err(|e| e.to_string())
    }
}

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// A name of our own.
pub fn name(what: &str) -> String {
    format!("pctl-{}-{}-{what}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn ip(args: &str) {
    let status = Command::new("ip").args(args.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {args}");
}

pub fn finish(command: &mut Command, stdin: &str) -> Ran {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that does not read its input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
}

/// A network namespace that stands for a pod.
pub struct Pod(pub String);

impl Pod {
    pub fn new() -> Self {
        let name = name("pod");
        ip(&format!("netns add {name}"));
        Self(name)
    }

    /// Its `netns` attribute.
    pub fn attribute(&self) -> String {
        let path = format!("/run/netns/{}", self.0);
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
        model::netns::render(&path, inode)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).stderr(Stdio::null()).status();
    }
}
