//! A simulated host: its connection to the store, and what the plugin does with it.

use datastore::hints::Hints;
use datastore::{Conflicts, Deadline, DriveError, Store, drive, drive_hinted};
use ipam::audit::{HostFacts, Report, audit};
use ipam::{Ask, Assign, Context, IpamError, Now, Pools, Release, plan_assign, plan_release};
use model::resource::IpPoolSpec;
use model::store::{Plan, View, Write};
use model::{Family, IpPool, Scope, Stored as _, keys};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(120))
}

/// One host.
pub struct Host {
    pub name: String,
    pub store: Box<dyn Store>,
    /// Where it keeps what it saw, as the plugin does beside its state.
    pub dir: TempDir,
}

impl Host {
    pub fn new(name: &str, store: Box<dyn Store>) -> Self {
        Self { name: name.to_owned(), store, dir: TempDir::new().expect("there is room for a directory") }
    }

    /// What a process that begins now knows of earlier ones.
    fn hints(&self) -> Hints {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Hints::new(self.dir.path(), &self.store.identity(), "boot", wall.as_millis() as u64)
    }

    /// Bytes of the index of full blocks.
    pub fn index_size(&self) -> u64 {
        std::fs::metadata(self.dir.path().join("full")).map_or(0, |file| file.len())
    }

    fn cx(&self) -> Context<'_> {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Now { wall_ns: wall.as_nanos() as u64, boot_id: "boot", boottime_ms: 1_000_000 };
        let transactional = self.store.is_transactional();
        Context { scope: &Scope::Cluster, host: &self.name, now, chance: 7, transactional }
    }

    /// As the plugin does, whose processes live for one call.
    pub fn assign(&self, id: &str, pools: Pools) -> Result<(IpAddr, Conflicts), DriveError<IpamError>> {
        let request = Assign {
            handle: format!("net.{id}"),
            attrs: attrs(&self.name, id),
            asks: vec![Ask { family: Family::V4, explicit: None, pools }],
            ..Assign::default()
        };
        let kept =
            |plan: &Plan<_>| matches!(plan, Plan::Commit(writes, _) if ipam::is_within_kept_blocks(writes));
        let plan = |view: &View| plan_assign(view, &self.cx(), &request);
        let (given, cost) =
            drive_hinted(self.store.as_ref(), &mut View::new(), soon(), &self.hints(), kept, plan)?;
        Ok((given.addresses[0].ip, cost))
    }

    pub fn release(&self, id: &str) -> (Vec<IpAddr>, Conflicts) {
        let request = Release { handle: format!("net.{id}"), ..Release::default() };
        let released = drive(self.store.as_ref(), &mut View::new(), soon(), |view| {
            plan_release(view, &self.cx(), &request)
        });
        let (released, cost) = released.unwrap_or_else(|e| panic!("{id}: {e}"));
        (released.freed, cost)
    }

    /// What is wrong with the stored objects, and every address in use.
    pub fn audit(&self) -> (Report, Vec<IpAddr>) {
        let facts = HostFacts { host: self.name.clone(), boot_id: "boot".to_owned(), ..HostFacts::default() };
        let looked = drive(self.store.as_ref(), &mut View::new(), soon(), |view| {
            let held = ipam::holdings(view, &self.cx())?;
            Ok(Plan::Done((audit(view, &self.cx(), &facts)?, held.held)))
        });
        let ((report, held), _) = looked.unwrap_or_else(|e: DriveError<IpamError>| panic!("{e}"));
        (report, held.iter().map(|held| held.ip).collect())
    }

    /// Writes, whatever was there.
    pub fn put(&self, key: &str, value: Option<Vec<u8>>) {
        let write = Write { key: key.to_owned(), expect: model::store::Expect::Any, value };
        self.store.commit(&[write], soon()).unwrap_or_else(|e| panic!("{key}: {e}"));
    }

    pub fn pool(&self, name: &str, cidr: &str, block_size: u8) {
        let spec = IpPoolSpec { cidr: cidr.to_owned(), block_size, ..IpPoolSpec::default() };
        self.put(&keys::pool(name), Some(IpPool::new(name, spec).encode()));
    }
}

pub fn attrs(host: &str, id: &str) -> BTreeMap<String, String> {
    let netns = format!("/run/netns/{id}:1");
    let pairs = [
        ("node", host),
        ("network", "net"),
        ("ifname", "eth0"),
        ("netns", &netns),
        ("boot_id", "boot"),
        ("namespace", "default"),
        ("pod", id),
        ("timestamp", "2026-01-02 03:04:05.123456789 +0000 UTC"),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}
