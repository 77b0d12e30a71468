//! A store and hosts that run one operation after the other.
#![allow(dead_code, reason = "each test file uses its part")]

use ipam::sim::SimStore;
use ipam::{
    Ask, Assign, Assigned, Context, Held, Holdings, IpamError, Now, Pools, Range, Release, Released, holdings,
};
use ipnet::IpNet;
use model::resource::{IpPoolSpec, IpReservationSpec, NodeSpec};
use model::store::{Plan, Query, Stop, View};
use model::{Block, Family, IpPool, IpReservation, IpamConfig, Node, Scope, Stored, keys};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

pub type Answer<T> = Result<T, IpamError>;

pub struct Cluster {
    pub store: SimStore,
    pub scope: Scope,
    /// Seconds since 1970.
    pub clock: u64,
    pub chance: u64,
    pub transactional: bool,
    /// Queries of all operations so far.
    pub reads: Vec<Query>,
    /// Writes of all operations so far.
    pub writes: usize,
}

impl Cluster {
    pub fn new(pools: &[(&str, &str)]) -> Self {
        let mut cluster = Self {
            store: SimStore::default(),
            scope: Scope::Cluster,
            clock: 1_700_000_000,
            chance: 1,
            transactional: true,
            reads: Vec::new(),
            writes: 0,
        };
        pools.iter().for_each(|(name, cidr)| cluster.pool(name, cidr, |_| ()));
        cluster
    }

    pub fn pool(&mut self, name: &str, cidr: &str, change: impl FnOnce(&mut IpPoolSpec)) {
        let mut spec = IpPoolSpec { cidr: cidr.to_owned(), ..IpPoolSpec::default() };
        change(&mut spec);
        self.store.put(&keys::pool(name), IpPool::new(name, spec).encode());
    }

    pub fn node(&mut self, name: &str, labels: &[(&str, &str)]) {
        let mut node = Node::new(name, NodeSpec::default());
        node.metadata.labels = map(labels);
        self.store.put(&keys::node(name), node.encode());
    }

    pub fn reserve(&mut self, cidrs: &[&str]) {
        let spec = IpReservationSpec {
            reserved_cidrs: cidrs.iter().map(|c| (*c).to_owned()).collect(),
            ..IpReservationSpec::default()
        };
        let key = keys::resource("ipreservations", "r");
        self.store.put(&key, IpReservation::new("r", spec).encode());
    }

    pub fn config(&mut self, change: impl FnOnce(&mut IpamConfig)) {
        let mut config = IpamConfig::default();
        change(&mut config);
        self.store.put(&keys::ipam_config(&self.scope), config.encode());
    }

    /// Plans and commits as `datastore::drive` does.
    pub fn run<T>(
        &mut self,
        host: &str,
        mut plan: impl FnMut(&View, &Context) -> Result<Plan<T>, Stop<IpamError>>,
    ) -> Answer<T> {
        let scope = self.scope.clone();
        let now =
            Now { wall_ns: self.clock * 1_000_000_000, boot_id: "boot", boottime_ms: self.clock * 1000 };
        let (chance, transactional) = (self.chance, self.transactional);
        let cx = Context { scope: &scope, host, now, chance, transactional };
        let mut view = View::new();
        for _ in 0..1000 {
            match plan(&view, &cx) {
                Ok(Plan::Done(out)) => return Ok(out),
                Ok(Plan::Commit(writes, out)) => {
                    self.writes += writes.len();
                    match transactional {
                        true => assert!(self.store.commit(&writes), "{writes:?}"),
                        false => writes.iter().for_each(|w| assert!(self.store.apply(w), "{w:?}")),
                    }
                    return Ok(out);
                }
                Ok(Plan::Step(_)) => panic!("nothing was applied before"),
                Err(Stop::Need(queries)) => {
                    self.store.answer(&queries, &mut view);
                    self.reads.extend(queries);
                }
                Err(Stop::Fail(error)) => return Err(error),
            }
        }
        panic!("planning does not end");
    }

    pub fn assign(&mut self, host: &str, request: &Assign) -> Answer<Assigned> {
        self.run(host, |view, cx| ipam::plan_assign(view, cx, request))
    }

    /// One address from the enabled pools, for a container of this name.
    pub fn add(&mut self, host: &str, name: &str, family: Family) -> Answer<IpAddr> {
        self.assign(host, &request(host, name, &[ask(family)])).map(|given| given.addresses[0].ip)
    }

    /// As `add`, `count` times, for containers `NAME-0`, `NAME-1`, ...
    pub fn fill(&mut self, host: &str, name: &str, count: usize) -> Vec<IpAddr> {
        let add =
            |n| self.add(host, &format!("{name}-{n}"), Family::V4).unwrap_or_else(|e| panic!("{n}: {e}"));
        (0..count).map(add).collect()
    }

    pub fn release(&mut self, host: &str, request: &Release) -> Answer<Released> {
        self.run(host, |view, cx| ipam::plan_release(view, cx, request))
    }

    pub fn del(&mut self, host: &str, name: &str) -> Vec<IpAddr> {
        let request = Release { handle: handle(name), ..Release::default() };
        self.release(host, &request).unwrap().freed
    }

    pub fn holdings(&mut self) -> Holdings {
        self.run("any", |view, cx| holdings(view, cx).map(Plan::Done)).unwrap()
    }

    pub fn held(&mut self, name: &str) -> Vec<Held> {
        let handle = handle(name);
        self.run("any", |view, cx| ipam::lookup(view, cx, &handle, &BTreeMap::new()).map(Plan::Done)).unwrap()
    }

    pub fn block(&self, cidr: &str) -> Option<Block> {
        let key = keys::block(&self.scope, &cidr.parse().unwrap());
        self.store.entry(&key).map(|entry| Block::decode(&key, &entry.value).unwrap())
    }

    pub fn put_block(&mut self, block: &Block) {
        self.store.put(&keys::block(&self.scope, &block.cidr), block.encode());
    }

    /// CIDRs of the blocks that the host's affinities name.
    pub fn claims(&self, host: &str, family: Family) -> Vec<String> {
        let prefix = keys::affinities(&self.scope, host, family);
        self.store.keys(&prefix).map(|key| key[prefix.len()..].replace('-', "/")).collect()
    }

    /// Nothing is wrong with the stored objects themselves.
    pub fn assert_sound(&mut self) {
        let facts = ipam::audit::HostFacts { host: "nobody".into(), ..Default::default() };
        let report = self.run("nobody", |v, cx| ipam::audit::audit(v, cx, &facts).map(Plan::Done)).unwrap();
        let wrong: Vec<_> = report.items().filter(|item| !item.reason.starts_with("node ")).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

pub fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub fn handle(name: &str) -> String {
    format!("net.{name}")
}

pub fn request(host: &str, name: &str, asks: &[Ask]) -> Assign {
    Assign {
        handle: handle(name),
        attrs: map(&[("node", host), ("network", "net"), ("ifname", "eth0"), ("netns", name)]),
        asks: asks.to_vec(),
        ..Assign::default()
    }
}

pub fn ask(family: Family) -> Ask {
    Ask { family, explicit: None, pools: Pools::Enabled }
}

pub fn named(family: Family, pools: &[&str]) -> Ask {
    Ask { pools: Pools::Named(pools.iter().map(|p| (*p).to_owned()).collect()), ..ask(family) }
}

pub fn ranges(ranges: &[Range]) -> Ask {
    let family = Family::of_net(&ranges[0].cidr);
    Ask { pools: Pools::Given(ranges.to_vec()), ..ask(family) }
}

pub fn exactly(text: &str) -> Ask {
    let ip = ip(text);
    Ask { explicit: Some(ip), ..ask(Family::of(ip)) }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
