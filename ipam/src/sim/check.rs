//! What must hold at the end of every schedule.

use super::world::{HOSTS, attrs};
use super::{Mode, Op, World};
use crate::audit::{HostFacts, Report, audit, plan_repair};
use crate::{Held, holdings};
use model::store::{Plan, Write};
use model::{Scope, keys};
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

impl World {
    /// Tells end states apart: what is stored (without revisions) and what was answered. Schedules
    /// that end alike need to be checked once.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.store.contents().for_each(|entry| entry.hash(&mut hasher));
        (&self.live, &self.known).hash(&mut hasher);
        hasher.finish()
    }

    /// Checks every invariant at the end of a schedule.
    pub fn check(&self) {
        self.check_live(&self.held());
        if !self.crashed {
            self.check_clean();
        }
        let mut repaired = self.clone();
        repaired.repair();
        repaired.check_exact();
        let mut deleted = self.clone();
        deleted.delete_all();
    }

    fn held(&self) -> Vec<Held> {
        let all = holdings(&self.store.whole(), &self.cx(0)).expect("everything is known");
        assert_eq!(all.notes, [], "damaged objects");
        all.held
    }

    /// Every address that was answered is its owner's, and no address has two owners.
    fn check_live(&self, held: &[Held]) {
        let unique: BTreeSet<IpAddr> = held.iter().map(|held| held.ip).collect();
        assert_eq!(unique.len(), held.len(), "an address has two owners");
        for ((host, id), ips) in &self.live {
            for ip in ips {
                let owned = |held: &&Held| held.ip == *ip && held.attrs == attrs(*host, *id);
                assert!(held.iter().any(|held| owned(&held)), "{ip} of {host}-{id} is not its own: {held:?}");
            }
        }
    }

    /// Where nobody was killed, nothing is wrong. (Leaks aside: a pod that lost one of its addresses
    /// to a forced release is taken for dead here.)
    fn check_clean(&self) {
        for host in 0..HOSTS.len() as u8 {
            let report = audit(&self.store.whole(), &self.cx(host), &self.facts(host)).expect("known");
            let report = Report { leaked: Vec::new(), ..report };
            assert!(report.clean(), "after a clean run: {report:#?}");
        }
    }

    fn facts(&self, host: u8) -> HostFacts {
        let known = self.known.iter().filter(|(of, _)| *of == host);
        let netns =
            known.map(|(of, id)| (attrs(*of, *id)["netns"].clone(), self.live.contains_key(&(*of, *id))));
        HostFacts {
            host: HOSTS[usize::from(host)].to_owned(),
            boot_id: "boot".to_owned(),
            netns: netns.collect(),
            ..HostFacts::default()
        }
    }

    /// Every host audits and repairs until there is nothing left to repair.
    fn repair(&mut self) {
        for host in 0..HOSTS.len() as u8 {
            let (cx, facts) = (self.cx(host), self.facts(host));
            for round in 0.. {
                let view = self.store.whole();
                let report = audit(&view, &cx, &facts).expect("everything is known");
                assert_eq!(report.duplicated, []);
                assert_eq!(report.damaged, []);
                match plan_repair(&view, &cx, &facts, &report).expect("everything is known") {
                    Plan::Done(_) => break,
                    Plan::Step(_) => unreachable!("nothing was applied before"),
                    Plan::Commit(writes, _) => {
                        assert!(round < 20, "repairs do not end: {report:?}");
                        self.apply_now(&writes);
                    }
                }
            }
        }
    }

    fn apply_now(&mut self, writes: &[Write]) {
        match self.setup.mode {
            Mode::Transactional => assert!(self.store.commit(writes)),
            Mode::Ordered => writes.iter().for_each(|write| assert!(self.store.apply(write))),
        }
    }

    /// After a repair: nothing is wrong, and exactly what was answered is allocated.
    fn check_exact(&self) {
        let held = self.held();
        self.check_live(&held);
        let live: usize = self.live.values().map(Vec::len).sum();
        assert_eq!(held.len(), live, "leaked: {held:?}, live: {:?}", self.live);
        for host in 0..HOSTS.len() as u8 {
            let report = audit(&self.store.whole(), &self.cx(host), &self.facts(host)).expect("known");
            assert!(report.clean(), "{report:?}");
        }
    }

    /// DEL of every attachment that was ever asked for, killed or not, leaves nothing.
    fn delete_all(&mut self) {
        self.processes.clear();
        self.locks.clear();
        for (host, id) in self.known.clone() {
            self.spawn(host, vec![Op::Del(id)]);
        }
        self.finish();
        let held = self.held();
        assert_eq!(held, [], "DEL leaves addresses");
        let handles: Vec<_> = self.store.keys(&keys::handles(&Scope::Cluster)).collect();
        assert_eq!(handles, [""; 0], "DEL leaves handles");
    }
}
