//! Hosts with operations in progress on one store.

use super::{Mode, SimStore};
use crate::{
    Ask, Assign, Assigned, Context, IpamError, Now, Pools, Release, ReleaseIp, plan_assign, plan_release,
    plan_release_affinities, plan_release_ip,
};
use model::resource::{IpPoolSpec, NodeSpec};
use model::store::{Entry, Expect, Plan, Stop, View, Write};
use model::{Family, IpPool, IpamConfig, Node, Scope, Stored, keys};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub mode: Mode,
    /// Operations of one host exclude each other, as the host's IPAM lock makes them.
    pub locked: bool,
    pub strict: bool,
    /// Both families.
    pub dual: bool,
    /// How many blocks of four addresses each family's pool has (1 to 4).
    pub blocks: u8,
    pub delay_s: u64,
}

/// One operation of a host. The number names an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Add(u8),
    Del(u8),
    /// Frees one address by itself: the n-th of the pool.
    Free(u8),
    /// Gives up the host's claims to empty blocks.
    Withdraw,
    /// Gives up all the host's claims.
    Drain,
}

impl Op {
    /// Any byte is an operation.
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            0..=127 => Op::Add(byte % 8),
            128..=219 => Op::Del(byte % 8),
            220..=239 => Op::Free(byte % 8),
            240..=249 => Op::Withdraw,
            250..=255 => Op::Drain,
        }
    }
}

/// What a finished operation answered.
#[derive(Clone, Debug)]
enum Outcome {
    Added(Assigned),
    Released(Vec<IpAddr>),
    Withdrawn,
}

#[derive(Clone, Debug)]
enum State {
    Planning,
    /// Ordered stores: the writes, the next one to apply, and what they came to so far. Without an
    /// outcome it is planned again.
    Writing(Rc<Vec<Write>>, Rc<Vec<(String, Option<Entry>)>>, Option<Outcome>),
}

/// One caller on a host, which runs its operations one after the other.
#[derive(Clone, Debug)]
pub struct Process {
    host: u8,
    ops: Rc<Vec<Op>>,
    /// Which operation is running.
    at: usize,
    view: View,
    state: State,
    crashed: bool,
    /// Addresses that were freed by force since the operation began.
    robbed: Vec<IpAddr>,
    /// What a DEL must answer that it freed.
    losing: Vec<IpAddr>,
}

impl Process {
    fn op(&self) -> Option<Op> {
        if self.crashed { None } else { self.ops.get(self.at).copied() }
    }
}

#[derive(Clone, Debug)]
pub struct World {
    pub(super) setup: Setup,
    pub(super) store: SimStore,
    pub(super) processes: Vec<Process>,
    /// Attachments (host, number) that were answered addresses and not deleted since.
    pub(super) live: BTreeMap<(u8, u8), Vec<IpAddr>>,
    /// Attachments that were ever asked for.
    pub(super) known: BTreeSet<(u8, u8)>,
    /// Who holds a host's lock.
    pub(super) locks: BTreeMap<u8, usize>,
    /// Simulated seconds: one for each finished operation.
    clock: u64,
    /// A process was killed.
    pub(super) crashed: bool,
}

pub(super) const HOSTS: [&str; 3] = ["node-a", "node-b", "node-c"];

fn handle(host: u8, id: u8) -> String {
    // Two attachments share a handle, as two interfaces of one container do.
    format!("net.container-{}-{}", HOSTS[usize::from(host)], id / 2)
}

pub(super) fn attrs(host: u8, id: u8) -> BTreeMap<String, String> {
    let pairs = [
        ("node", HOSTS[usize::from(host)].to_owned()),
        ("network", "net".to_owned()),
        ("ifname", format!("eth{}", id % 2)),
        ("netns", format!("/run/netns/{host}-{id}:1")),
        ("boot_id", "boot".to_owned()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The address that [`Op::Free`] means.
fn freed(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let mut store = SimStore::default();
        let config = IpamConfig { strict_affinity: setup.strict, ..IpamConfig::default() };
        store.put(&keys::ipam_config(&Scope::Cluster), config.encode());
        let length = 30 - setup.blocks.next_power_of_two().trailing_zeros() as u8;
        for (name, cidr, size) in
            [("v4", format!("10.0.0.0/{length}"), 30), ("v6", format!("fd00::/{}", length + 96), 126)]
        {
            let spec = IpPoolSpec { cidr, block_size: size, ..IpPoolSpec::default() };
            store.put(&keys::pool(name), IpPool::new(name, spec).encode());
        }
        for host in HOSTS {
            store.put(&keys::node(host), Node::new(host, NodeSpec::default()).encode());
        }
        Self {
            setup,
            store,
            processes: Vec::new(),
            live: BTreeMap::new(),
            known: BTreeSet::new(),
            locks: BTreeMap::new(),
            clock: 0,
            crashed: false,
        }
    }

    pub fn spawn(&mut self, host: u8, ops: Vec<Op>) {
        let state = State::Planning;
        let (view, ops) = (View::new(), Rc::new(ops));
        let (robbed, losing) = (Vec::new(), Vec::new());
        self.processes.push(Process { host, ops, at: 0, view, state, crashed: false, robbed, losing });
    }

    /// The processes that can take a step now.
    pub fn ready(&self) -> Vec<usize> {
        (0..self.processes.len()).filter(|&index| self.can_step(index)).collect()
    }

    fn can_step(&self, index: usize) -> bool {
        let process = &self.processes[index];
        let Some(op) = process.op() else { return false };
        let lock = self.locks.get(&process.host);
        // The attachment's lock: one verb at a time (decision 5).
        let attachment = |op| match op {
            Op::Add(id) | Op::Del(id) => Some(id),
            _ => None,
        };
        let busy = |other: &Process| {
            let started = !matches!(other.state, State::Planning) || !is_fresh(&other.view);
            started
                && other.host == process.host
                && attachment(op).is_some()
                && other.op().and_then(attachment) == attachment(op)
        };
        let others = self.processes.iter().enumerate().filter(|(other, _)| *other != index);
        lock.is_none_or(|owner| *owner == index) && !others.map(|(_, process)| process).any(busy)
    }

    /// A step or a crash, as a byte says; false when nothing is left to do.
    pub fn step_by(&mut self, byte: u8) -> bool {
        let ready = self.ready();
        if ready.is_empty() {
            return false;
        }
        let index = ready[usize::from(byte & 0x1f) % ready.len()];
        if byte >= 0xf0 {
            self.crash(index)
        } else {
            self.step(index)
        }
        true
    }

    /// Runs everything to its end, in turns.
    pub fn finish(&mut self) {
        for round in 0.. {
            let ready = self.ready();
            if ready.is_empty() {
                return;
            }
            assert!(round < 100_000, "operations do not end: {:?}", self.processes);
            self.step(ready[round % ready.len()]);
        }
    }

    /// The process is killed where it stands.
    pub fn crash(&mut self, index: usize) {
        self.processes[index].crashed = true;
        self.crashed = true;
        self.unlock(index);
    }

    fn unlock(&mut self, index: usize) {
        self.locks.retain(|_, owner| *owner != index);
    }

    /// One read, or one write (ordered), or one commit (transactional) of a process.
    pub fn step(&mut self, index: usize) {
        if self.setup.locked {
            self.locks.insert(self.processes[index].host, index);
        }
        self.expect_losses(index);
        match self.processes[index].state.clone() {
            State::Planning => self.plan(index),
            State::Writing(writes, done, outcome) => self.write(index, &writes, &done, outcome),
        }
    }

    /// A DEL that began ends its attachment's claim to its addresses, done or killed. One address
    /// freed by force is its holder's no more, nor that of an ADD that is about to answer it.
    fn expect_losses(&mut self, index: usize) {
        let host = self.processes[index].host;
        match self.processes[index].op() {
            Some(Op::Del(id)) => {
                let held = self.live.remove(&(host, id));
                self.processes[index].losing.extend(held.into_iter().flatten());
            }
            Some(Op::Free(n)) => {
                let ip = freed(n);
                self.live.retain(|_, held| !held.contains(&ip));
                self.processes.iter_mut().for_each(|process| process.robbed.push(ip));
            }
            _ => {}
        }
    }

    fn plan(&mut self, index: usize) {
        let (host, op) = (self.processes[index].host, self.processes[index].op().expect("it can step"));
        if let Op::Add(id) = op {
            self.known.insert((host, id));
        }
        let planned = self.run(host, op, &self.processes[index].view);
        match planned {
            Err(Stop::Need(queries)) => {
                let view = &mut self.processes[index].view;
                if is_fresh(view) {
                    // Marks that the operation began.
                    view.put("/", None);
                }
                self.store.answer(&queries, view);
            }
            Err(Stop::Fail(error)) => {
                assert_expected(&error);
                self.done(index, None);
            }
            Ok(Plan::Done(outcome)) => self.done(index, Some(outcome)),
            Ok(Plan::Commit(writes, outcome)) => self.commit(index, writes, Some(outcome)),
            Ok(Plan::Step(writes)) => self.commit(index, writes, None),
        }
    }

    fn commit(&mut self, index: usize, writes: Vec<Write>, outcome: Option<Outcome>) {
        assert!(writes.len() <= 100, "{} writes", writes.len());
        match self.setup.mode {
            Mode::Ordered => self.write(index, &Rc::new(writes), &Rc::default(), outcome),
            Mode::Transactional => {
                assert_once(&writes);
                if self.store.commit(&writes) {
                    self.committed(index, self.current(&writes), outcome);
                } else {
                    let current = self.current(&writes);
                    self.processes[index].view.record(0, current);
                }
            }
        }
    }

    /// What the keys are now.
    fn current(&self, writes: &[Write]) -> Vec<(String, Option<Entry>)> {
        writes.iter().map(|write| (write.key.clone(), self.store.entry(&write.key))).collect()
    }

    /// Applies the next write. A later write of a key means "as the earlier one left it".
    fn write(
        &mut self,
        index: usize,
        writes: &Rc<Vec<Write>>,
        done: &[(String, Option<Entry>)],
        outcome: Option<Outcome>,
    ) {
        let mut write = writes[done.len()].clone();
        if let Some((_, left)) = done.iter().rev().find(|(key, _)| *key == write.key) {
            write.expect = left.as_ref().map_or(Expect::Absent, |entry| Expect::At(entry.revision));
        }
        let mut done = done.to_vec();
        if !self.store.apply(&write) {
            let applied = done.len();
            done.extend(self.current(&writes[applied..]));
            self.processes[index].view.record(applied, done);
            self.processes[index].state = State::Planning;
            return;
        }
        done.push((write.key.clone(), self.store.entry(&write.key)));
        if done.len() == writes.len() {
            return self.committed(index, done, outcome);
        }
        self.processes[index].state = State::Writing(writes.clone(), Rc::new(done), outcome);
    }

    fn committed(&mut self, index: usize, now: Vec<(String, Option<Entry>)>, outcome: Option<Outcome>) {
        match outcome {
            Some(outcome) => self.done(index, Some(outcome)),
            None => {
                self.processes[index].view.record(now.len(), now);
                self.processes[index].state = State::Planning;
            }
        }
    }

    fn done(&mut self, index: usize, outcome: Option<Outcome>) {
        let process = &mut self.processes[index];
        let (host, op) = (process.host, process.op().expect("it was running"));
        self.clock += 1;
        process.at += 1;
        process.view = View::new();
        process.state = State::Planning;
        let robbed = std::mem::take(&mut process.robbed);
        let losing = std::mem::take(&mut process.losing);
        self.unlock(index);
        if let Some(Outcome::Released(freed)) = &outcome
            && matches!(op, Op::Del(_))
        {
            let told = losing.iter().all(|ip| freed.contains(ip) || robbed.contains(ip));
            assert!(told, "freed {losing:?}, but answered {freed:?}");
        }
        if let (Op::Add(id), Some(Outcome::Added(assigned))) = (op, outcome)
            && !assigned.addresses.iter().any(|given| robbed.contains(&given.ip))
        {
            self.added(host, id, &assigned);
        }
    }

    fn added(&mut self, host: u8, id: u8, assigned: &Assigned) {
        let ips: Vec<IpAddr> = assigned.addresses.iter().map(|given| given.ip).collect();
        let others = self.live.iter().filter(|(owner, _)| **owner != (host, id));
        for (owner, held) in others {
            assert!(
                !held.iter().any(|ip| ips.contains(ip)),
                "{ips:?} given to {host}-{id}, held by {owner:?}"
            );
        }
        self.live.insert((host, id), ips);
    }

    pub(super) fn cx(&self, host: u8) -> Context<'static> {
        let (seconds, ms) = (1_000_000_000, 1000);
        let now = Now {
            wall_ns: (1_700_000_000 + self.clock) * seconds,
            boot_id: "boot",
            boottime_ms: self.clock * ms,
        };
        let transactional = self.setup.mode == Mode::Transactional;
        Context {
            scope: &Scope::Cluster,
            host: HOSTS[usize::from(host)],
            now,
            chance: self.clock,
            transactional,
        }
    }

    fn assign_request(&self, host: u8, id: u8) -> Assign {
        let families = if self.setup.dual { &Family::BOTH[..] } else { &Family::BOTH[..1] };
        let ask = |family: &Family| Ask { family: *family, explicit: None, pools: Pools::Enabled };
        Assign {
            handle: handle(host, id),
            attrs: attrs(host, id),
            asks: families.iter().map(ask).collect(),
            reuse_delay: Duration::from_secs(self.setup.delay_s),
            ..Assign::default()
        }
    }

    fn release_request(&self, host: u8, id: u8) -> Release {
        let mut matches = attrs(host, id);
        matches.retain(|key, _| key == "network" || key == "ifname");
        let reuse_delay = Duration::from_secs(self.setup.delay_s);
        Release { handle: handle(host, id), matches, only: None, reuse_delay }
    }

    fn run(&self, host: u8, op: Op, view: &View) -> Result<Plan<Outcome>, Stop<IpamError>> {
        let cx = self.cx(host);
        match op {
            Op::Add(id) => map(plan_assign(view, &cx, &self.assign_request(host, id)), Outcome::Added),
            Op::Del(id) => {
                map(plan_release(view, &cx, &self.release_request(host, id)), |r| Outcome::Released(r.freed))
            }
            Op::Free(n) => {
                let asked = [ReleaseIp::new(freed(n))];
                map(plan_release_ip(view, &cx, &asked, Duration::ZERO), |r| Outcome::Released(r.freed))
            }
            Op::Withdraw => map(plan_release_affinities(view, &cx, cx.host, true), |_| Outcome::Withdrawn),
            Op::Drain => map(plan_release_affinities(view, &cx, cx.host, false), |_| Outcome::Withdrawn),
        }
    }
}

/// Whether an operation has read nothing yet.
fn is_fresh(view: &View) -> bool {
    view.get("/").is_err()
}

fn map<A, B>(
    plan: Result<Plan<A>, Stop<IpamError>>,
    convert: impl FnOnce(A) -> B,
) -> Result<Plan<B>, Stop<IpamError>> {
    Ok(match plan? {
        Plan::Commit(writes, out) => Plan::Commit(writes, convert(out)),
        Plan::Step(writes) => Plan::Step(writes),
        Plan::Done(out) => Plan::Done(convert(out)),
    })
}

/// Pools run dry; nothing else may go wrong.
fn assert_expected(error: &IpamError) {
    let dry = matches!(error, IpamError::Exhausted { .. } | IpamError::BlockLimit { .. });
    assert!(dry, "{error}");
}

fn assert_once(writes: &[Write]) {
    let unique: BTreeSet<&str> = writes.iter().map(|write| write.key.as_str()).collect();
    assert_eq!(unique.len(), writes.len(), "a key is written twice in one transaction");
}
