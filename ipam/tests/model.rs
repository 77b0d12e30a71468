//! Random operations of several hosts, one after the other, against a plain map: an ADD succeeds
//! exactly while an address is free, answers what nobody has, and a DEL gives back exactly that.
#![allow(clippy::unwrap_used, reason = "a test")]

mod cluster;

use cluster::{Cluster, ask, exactly, handle, map, request, seconds};
use ipam::{Assign, IpamError, Release};
use model::Family;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;

#[derive(Clone, Debug)]
enum Op {
    Add { host: u8, id: u8, dual: bool },
    Explicit { host: u8, id: u8, ordinal: u8 },
    Del { id: u8 },
    Withdraw { host: u8, drain: bool },
    Wait,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0u8..3, 0u8..24, any::<bool>()).prop_map(|(host, id, dual)| Op::Add { host, id, dual }),
        1 => (0u8..3, 24u8..30, 0u8..20).prop_map(|(host, id, ordinal)| Op::Explicit { host, id, ordinal }),
        4 => (0u8..30).prop_map(|id| Op::Del { id }),
        1 => (0u8..3, any::<bool>()).prop_map(|(host, drain)| Op::Withdraw { host, drain }),
        1 => Just(Op::Wait),
    ]
}

/// Addresses of each family's pool.
const CAPACITY: usize = 16;

struct Pair {
    cluster: Cluster,
    /// What each container has.
    held: BTreeMap<u8, Vec<IpAddr>>,
    delay: u64,
}

impl Pair {
    fn new(block_size: u8, transactional: bool, delay: u64) -> Self {
        let mut cluster = Cluster::new(&[]);
        cluster.transactional = transactional;
        cluster.pool("p4", "10.0.0.0/28", |spec| spec.block_size = block_size);
        cluster.pool("p6", "fd00::/124", |spec| spec.block_size = block_size + 96);
        Self { cluster, held: BTreeMap::new(), delay }
    }

    fn used(&self, family: Family) -> usize {
        self.held.values().flatten().filter(|ip| Family::of(**ip) == family).count()
    }

    fn run(&mut self, op: Op) {
        self.cluster.clock += 1;
        match op {
            Op::Add { host, id, dual } => {
                self.add(host, id, if dual { &Family::BOTH } else { &Family::BOTH[..1] })
            }
            Op::Explicit { host, id, ordinal } => self.explicit(host, id, ordinal),
            Op::Del { id } => self.del(id),
            Op::Withdraw { host, drain } => {
                let host = name(host);
                self.cluster
                    .run(&host, |view, cx| ipam::plan_release_affinities(view, cx, &host, !drain))
                    .unwrap();
            }
            Op::Wait => self.cluster.clock += 5,
        }
    }

    fn add(&mut self, host: u8, id: u8, families: &[Family]) {
        let asks: Vec<_> = families.iter().map(|family| ask(*family)).collect();
        let reuse_delay = seconds(self.delay);
        let request = Assign { reuse_delay, ..request(&name(host), &id.to_string(), &asks) };
        let held = self.held.get(&id).cloned().unwrap_or_default();
        let has = |family: &Family| held.iter().any(|ip| Family::of(*ip) == *family);
        let fits = families.iter().all(|family| has(family) || self.used(*family) < CAPACITY);
        match self.cluster.assign(&name(host), &request) {
            Ok(assigned) => {
                assert!(fits);
                assert_eq!(assigned.repeated, families.iter().all(has));
                self.gave(id, assigned.addresses.iter().map(|given| given.ip).collect());
            }
            Err(IpamError::Exhausted { .. }) => assert!(!fits, "addresses are free, but not found"),
            Err(error) => panic!("{error}"),
        }
    }

    fn explicit(&mut self, host: u8, id: u8, ordinal: u8) {
        let asked = format!("10.0.0.{ordinal}");
        let answer =
            self.cluster.assign(&name(host), &request(&name(host), &id.to_string(), &[exactly(&asked)]));
        let asked: IpAddr = asked.parse().unwrap();
        let owner = self.held.iter().find(|(_, ips)| ips.contains(&asked)).map(|(owner, _)| *owner);
        match answer {
            Ok(_) => {
                assert!(owner.is_none_or(|owner| owner == id));
                self.gave(id, vec![asked]);
            }
            Err(IpamError::AlreadyAssigned { handle: found, .. }) => {
                assert_eq!(found, owner.map(|owner| handle(&owner.to_string())));
            }
            Err(IpamError::HoldsOther { .. }) => assert!(self.held.contains_key(&id) && owner != Some(id)),
            Err(IpamError::NotInPool { .. }) => assert!(usize::from(ordinal) >= CAPACITY),
            Err(error) => panic!("{error}"),
        }
    }

    /// Keeps what was there, and adds what nobody else has.
    fn gave(&mut self, id: u8, ips: Vec<IpAddr>) {
        for (owner, held) in self.held.iter().filter(|(owner, _)| **owner != id) {
            assert!(!ips.iter().any(|ip| held.contains(ip)), "{ips:?} of {owner} given to {id}");
        }
        let held = self.held.entry(id).or_default();
        ips.into_iter().for_each(|ip| {
            if !held.contains(&ip) {
                held.push(ip)
            }
        });
    }

    fn del(&mut self, id: u8) {
        let reuse_delay = seconds(self.delay);
        let request = Release { handle: handle(&id.to_string()), matches: map(&[]), only: None, reuse_delay };
        let mut freed = self.cluster.release("any", &request).unwrap().freed;
        let mut held = self.held.remove(&id).unwrap_or_default();
        freed.sort();
        held.sort();
        assert_eq!(freed, held);
    }

    fn check(&mut self) {
        let mut stored: Vec<_> = self.cluster.holdings().held.iter().map(|held| held.ip).collect();
        let mut held: Vec<_> = self.held.values().flatten().copied().collect();
        stored.sort();
        held.sort();
        assert_eq!(stored, held);
        self.cluster.assert_sound();
    }
}

fn name(host: u8) -> String {
    format!("node-{host}")
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("PERCALE_FULL").is_some() { 20_000 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_address_is_given_twice_and_none_is_lost(
        block_size in 29u8..=32,
        transactional in any::<bool>(),
        delay in prop_oneof![Just(0u64), Just(4)],
        ops in proptest::collection::vec(op(), 1..80),
    ) {
        let mut pair = Pair::new(block_size, transactional, delay);
        for op in ops {
            pair.run(op);
        }
        pair.check();
    }
}
