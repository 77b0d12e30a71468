//! The allocator on a real API server: many workers, crashes between writes, what an ADD costs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use datastore::{CommitError, Deadline, Error, ErrorKind, Store, Watch, drive};
use datastore_kubernetes::{Calls, Kubernetes};
use ipam::audit::{HostFacts, Report, audit, plan_repair};
use ipam::{Ask, Assign, Context, IpamError, Now, Pools, Release, plan_assign, plan_release};
use model::resource::IpPoolSpec;
use model::store::{Entry, Expect, Plan, Revision, View, Write};
use model::{Family, IpPool, Scope, Stored as _, keys};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::SystemTime;
use support::{Bed, commit, soon};

fn pool(store: &dyn Store, cidr: &str, block_size: u8) {
    let spec = IpPoolSpec { cidr: cidr.into(), block_size, ..IpPoolSpec::default() };
    let pool = IpPool::new("pool", spec);
    let value = Some(pool.encode());
    commit(store, &[Write { key: keys::pool("pool"), expect: Expect::Absent, value }]);
}

fn nodes(bed: &Bed) {
    for name in ["node-a", "node-b"] {
        let node = serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        bed.api("POST", "/api/v1/nodes", Some(&node));
    }
}

fn cx(host: &str) -> Context<'_> {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = Now { wall_ns: wall.as_nanos() as u64, boot_id: "boot", boottime_ms: 1_000_000 };
    Context { scope: &Scope::Cluster, host, now, chance: 7, transactional: false }
}

fn attrs(host: &str, id: &str) -> BTreeMap<String, String> {
    let netns = format!("/run/netns/{id}:1");
    let pairs =
        [("node", host), ("network", "net"), ("ifname", "eth0"), ("netns", &netns), ("boot_id", "boot")];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn assign(store: &dyn Store, view: &mut View, host: &str, id: &str) -> Result<IpAddr, String> {
    let ask = Ask { family: Family::V4, explicit: None, pools: Pools::Enabled };
    let request =
        Assign { handle: format!("net.{id}"), attrs: attrs(host, id), asks: vec![ask], ..Assign::default() };
    let (given, _) = drive(store, view, soon(), |view| plan_assign(view, &cx(host), &request))
        .map_err(|e: datastore::DriveError<IpamError>| e.to_string())?;
    Ok(given.addresses[0].ip)
}

fn release(store: &dyn Store, view: &mut View, host: &str, id: &str) -> Result<Vec<IpAddr>, String> {
    let request = Release { handle: format!("net.{id}"), ..Release::default() };
    let (released, _) = drive(store, view, soon(), |view| plan_release(view, &cx(host), &request))
        .map_err(|e: datastore::DriveError<IpamError>| e.to_string())?;
    Ok(released.freed)
}

fn facts(host: &str, netns: impl IntoIterator<Item = (String, bool)>) -> HostFacts {
    let netns = netns.into_iter().map(|(id, lives)| (format!("/run/netns/{id}:1"), lives)).collect();
    HostFacts { host: host.into(), boot_id: "boot".into(), netns, ..HostFacts::default() }
}

fn audited(store: &dyn Store, facts: &HostFacts) -> Report {
    let plan = |view: &View| audit(view, &cx(&facts.host), facts).map(Plan::Done);
    let (report, _) = drive(store, &mut View::new(), soon(), plan)
        .unwrap_or_else(|e: datastore::DriveError<IpamError>| panic!("{e}"));
    report
}

fn repair(store: &dyn Store, facts: &HostFacts) {
    for round in 0.. {
        let report = audited(store, facts);
        assert!(report.duplicated.is_empty() && report.damaged.is_empty(), "{report:?}");
        if report.clean() {
            return;
        }
        assert!(round < 10, "repairs do not end: {report:?}");
        let plan = |view: &View| plan_repair(view, &cx(&facts.host), facts, &report);
        drive(store, &mut View::new(), soon(), plan)
            .unwrap_or_else(|e: datastore::DriveError<IpamError>| panic!("{e}"));
    }
}

/// Who has which address, as the workers know it.
#[derive(Default)]
struct Ledger(Mutex<BTreeMap<IpAddr, String>>);

impl Ledger {
    fn take(&self, ip: IpAddr, id: &str) {
        let before = self.0.lock().unwrap().insert(ip, id.to_owned());
        assert_eq!(before, None, "{ip} was given to {id} too");
    }

    fn give_back(&self, ip: IpAddr) {
        self.0.lock().unwrap().remove(&ip);
    }
}

/// Assigns and releases, keeping at most six; the rest of a worker's addresses stay.
fn work(store: &Kubernetes, ledger: &Ledger, host: &str, worker: usize, rounds: usize) {
    let mut held: Vec<(String, IpAddr)> = Vec::new();
    for round in 0..rounds {
        let id = format!("{host}-{worker}-{round}");
        let ip = assign(store, &mut View::new(), host, &id).unwrap_or_else(|e| panic!("{id}: {e}"));
        ledger.take(ip, &id);
        held.push((id, ip));
        if held.len() > 6 {
            let (id, ip) = held.remove(round * 7 % held.len());
            // From the moment it is free others may have it.
            ledger.give_back(ip);
            let freed = release(store, &mut View::new(), host, &id).unwrap();
            assert_eq!(freed, [ip], "{id}");
        }
    }
}

#[test]
fn two_hosts_with_four_workers_each() {
    let bed = Bed::up();
    let rounds = if std::env::var_os("PERCALE_FULL").is_some() { 200 } else { 30 };
    let stores = [bed.open(), support::open(&bed.plugin_config())];
    pool(&stores[0], "10.64.0.0/25", 29);
    nodes(&bed);
    let ledger = Ledger::default();
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for (host, store) in ["node-a", "node-b"].into_iter().zip(&stores) {
            let ledger = &ledger;
            for worker in 0..4 {
                scope.spawn(move || work(store, ledger, host, worker, rounds));
            }
        }
    });
    let operations = 8 * (2 * rounds - 6);
    println!(
        "{operations} operations in {:?}; {:?}",
        began.elapsed(),
        stores.each_ref().map(Kubernetes::calls)
    );
    let living = ledger.0.into_inner().unwrap();
    for host in ["node-a", "node-b"] {
        let facts = facts(host, living.values().map(|id| (id.clone(), true)));
        let report = audited(&stores[0], &facts);
        assert_eq!(report.allocations, living.len());
        assert!(report.clean(), "{report:?}");
    }
}

/// Ends like a killed process after a number of writes.
struct Mortal<'s> {
    store: &'s Kubernetes,
    writes_left: Mutex<usize>,
}

impl Store for Mortal<'_> {
    fn identity(&self) -> String {
        self.store.identity()
    }

    fn get(&self, keys: &[&str], deadline: Deadline) -> Result<Vec<Option<Entry>>, Error> {
        self.store.get(keys, deadline)
    }

    fn list(&self, prefix: &str, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        self.store.list(prefix, deadline)
    }

    fn keys(&self, prefix: &str, deadline: Deadline) -> Result<Vec<String>, Error> {
        self.store.keys(prefix, deadline)
    }

    fn commit(&self, writes: &[Write], deadline: Deadline) -> Result<Revision, CommitError> {
        let mut left = self.writes_left.lock().unwrap();
        let lived = writes.len().min(*left);
        *left -= lived;
        if lived == writes.len() {
            return self.store.commit(writes, deadline);
        }
        if lived > 0 {
            self.store.commit(&writes[..lived], deadline)?;
        }
        let kind = ErrorKind::Io;
        Err(Error { op: "write", subject: "x".into(), kind, detail: "killed".into() }.into())
    }

    fn barrier(&self, deadline: Deadline) -> Result<(), Error> {
        self.store.barrier(deadline)
    }

    fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, Error> {
        self.store.watch(prefix)
    }
}

// REQ: A-16
#[test]
fn a_crash_between_any_two_writes_is_repaired() {
    let bed = Bed::up();
    let store = bed.open();
    pool(&store, "10.65.0.0/24", 30);
    nodes(&bed);
    let (mut living, mut dead) = (BTreeMap::new(), BTreeSet::new());
    let mut crashes = 0;
    // Blocks of four: every fourth assignment claims one, with its affinity.
    for survivor in 0..4 {
        for writes in 0..8 {
            let id = format!("{survivor}-{writes}");
            let mortal = Mortal { store: &store, writes_left: Mutex::new(writes) };
            match assign(&mortal, &mut View::new(), "node-a", &id) {
                Ok(ip) => drop(living.insert(id, ip)),
                Err(e) => {
                    assert!(e.contains("killed"), "{e}");
                    crashes += 1;
                    dead.insert(id);
                }
            }
            let halfway = living.iter().find(|_| writes % 2 == 1).map(|(id, ip)| (id.clone(), *ip));
            if let Some((id, ip)) = halfway {
                let mortal = Mortal { store: &store, writes_left: Mutex::new(writes / 2) };
                match release(&mortal, &mut View::new(), "node-a", &id) {
                    Ok(freed) => assert_eq!(freed, [ip]),
                    Err(_) => crashes += 1,
                }
                living.remove(&id);
                dead.insert(id);
            }
            let known =
                living.keys().map(|id| (id.clone(), true)).chain(dead.iter().map(|id| (id.clone(), false)));
            let facts = facts("node-a", known);
            repair(&store, &facts);
            assert_eq!(audited(&store, &facts).allocations, living.len());
        }
    }
    println!("{crashes} crashes, {} addresses held", living.len());
    assert!(crashes > 10 && living.len() > 4);
}

fn spent(store: &Kubernetes, before: Calls) -> Calls {
    let now = store.calls();
    Calls {
        gets: now.gets - before.gets,
        lists: now.lists - before.lists,
        writes: now.writes - before.writes,
        repeated: now.repeated - before.repeated,
    }
}

#[test]
fn the_calls_of_a_steady_state_are_few() {
    let bed = Bed::up();
    let store = support::open(&bed.plugin_config());
    pool(&bed.open(), "10.66.0.0/16", 26);
    for (what, id) in [("first assign, claims a block", "a"), ("second assign", "b"), ("third assign", "c")] {
        let before = store.calls();
        let began = std::time::Instant::now();
        assign(&store, &mut View::new(), "node-a", id).unwrap();
        println!("{what}, nothing known: {:?} {:?}", spent(&store, before), began.elapsed());
    }
    // Known: what a daemon's watches would know.
    let mut view = View::new();
    assign(&store, &mut view, "node-a", "d").unwrap();
    for id in ["e", "f"] {
        refresh(&store, &mut view);
        let before = store.calls();
        assign(&store, &mut view, "node-a", id).unwrap();
        let calls = spent(&store, before);
        println!("assign, all known: {calls:?}");
        assert!(calls.writes <= 2 && calls.lists == 0, "{calls:?}");
    }
    for id in ["e", "f"] {
        refresh(&store, &mut view);
        let before = store.calls();
        release(&store, &mut view, "node-a", id).unwrap();
        let calls = spent(&store, before);
        println!("release, all known: {calls:?}");
        assert!(calls.writes <= 3 && calls.lists == 0, "{calls:?}");
    }
    let before = store.calls();
    release(&store, &mut View::new(), "node-a", "d").unwrap();
    println!("release, nothing known: {:?}", spent(&store, before));
}

/// Brings a view up to date as watches would.
fn refresh(store: &Kubernetes, view: &mut View) {
    for prefix in [keys::blocks(&Scope::Cluster, Family::V4), keys::handles(&Scope::Cluster)] {
        view.put_list(&prefix, store.list(&prefix, soon()).unwrap());
    }
}
