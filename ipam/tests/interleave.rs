//! Every order of steps of small cases, and random orders of larger ones: reads, writes and
//! crashes of several hosts on one store. See `ipam::sim` for what is checked after each.
//!
//! `PERCALE_FULL=1` runs twenty times as many random schedules.
#![allow(clippy::unwrap_used, reason = "a test")]

use ipam::sim::{Mode, Op, Setup, World};
use std::collections::HashSet;

const TX: Setup =
    Setup { mode: Mode::Transactional, locked: false, strict: false, dual: false, blocks: 2, delay_s: 0 };
const ORDERED: Setup = Setup { mode: Mode::Ordered, ..TX };

#[derive(Default)]
struct Exhaust {
    schedules: usize,
    checked: HashSet<u64>,
}

impl Exhaust {
    /// Runs every schedule, with up to `crashes` processes killed at every point.
    fn run(&mut self, world: World, crashes: u8) {
        let ready = world.ready();
        if ready.is_empty() {
            self.schedules += 1;
            if self.checked.insert(world.fingerprint()) {
                world.check();
            }
            return;
        }
        for index in ready {
            let mut next = world.clone();
            next.step(index);
            self.run(next, crashes);
            if crashes > 0 {
                let mut next = world.clone();
                next.crash(index);
                self.run(next, crashes - 1);
            }
        }
    }
}

/// Every schedule of these processes (host and operations).
fn exhaust(name: &str, setup: Setup, crashes: u8, processes: &[(u8, &[Op])]) -> usize {
    let mut world = World::new(setup);
    for (host, ops) in processes {
        world.spawn(*host, ops.to_vec());
    }
    let start = std::time::Instant::now();
    let mut all = Exhaust::default();
    all.run(world, crashes);
    let (ends, took) = (all.checked.len(), start.elapsed().as_millis());
    println!("{name}: {} schedules, {ends} different ends, {took} ms", all.schedules);
    all.schedules
}

use Op::{Add, Del, Drain, Free, Withdraw};

#[test]
fn every_schedule_in_a_store_with_transactions() {
    let one = Setup { blocks: 1, ..TX };
    let strict = Setup { strict: true, ..TX };
    let add: &[Op] = &[Add(0)];
    let schedules = [
        exhaust("3 hosts, 2 blocks", TX, 0, &[(0, add), (1, add), (2, add)]),
        exhaust("3 hosts, 1 block", one, 0, &[(0, add), (1, add), (2, add)]),
        exhaust("3 hosts, strict", strict, 0, &[(0, add), (1, add), (2, add)]),
        exhaust("2 hosts, a crash", TX, 1, &[(0, &[Add(0), Del(0)]), (1, &[Add(0)])]),
        exhaust("both families, a crash", Setup { dual: true, ..one }, 1, &[(0, add), (1, add)]),
        exhaust("one handle, two interfaces", TX, 1, &[(0, &[Add(0), Del(0)]), (0, &[Add(1)])]),
        exhaust("borrow and give back", one, 0, &[(0, &[Add(0), Del(0)]), (1, &[Add(0), Del(0)])]),
        exhaust("claims given up", TX, 0, &[(0, add), (0, &[Withdraw]), (1, add)]),
        exhaust("drained", one, 0, &[(0, add), (0, &[Drain]), (1, add)]),
    ];
    assert!(schedules.iter().sum::<usize>() > 15_000, "{schedules:?}");
}

#[test]
fn every_schedule_in_a_store_without_transactions() {
    let one = Setup { blocks: 1, ..ORDERED };
    let add: &[Op] = &[Add(0)];
    let schedules = [
        exhaust("2 hosts, 2 blocks, a crash", ORDERED, 1, &[(0, add), (1, add)]),
        exhaust("2 hosts, 1 block, a crash", one, 1, &[(0, add), (1, add)]),
        exhaust("2 hosts, 1 block, two crashes", one, 2, &[(0, add), (1, add)]),
        exhaust("one host, two containers", ORDERED, 0, &[(0, &[Add(0), Del(0)]), (0, &[Add(2)])]),
        exhaust("add and delete, a crash", ORDERED, 1, &[(0, &[Add(0), Del(0)]), (1, add)]),
        exhaust("claims given up, a crash", ORDERED, 1, &[(0, add), (0, &[Withdraw])]),
        exhaust("claims given up beside another host", one, 0, &[(0, &[Add(0), Withdraw]), (1, add)]),
        exhaust("drained, a crash", ORDERED, 1, &[(0, add), (0, &[Drain])]),
        exhaust("freed by address", one, 0, &[(0, add), (1, &[Free(0)])]),
    ];
    assert!(schedules.iter().sum::<usize>() > 100_000, "{schedules:?}");
}

/// SplitMix64 (public domain): seeds name schedules, so a failing one can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn op(&mut self) -> Op {
        Op::from_byte(self.next() as u8)
    }
}

fn random_world(random: &mut Random, mode: Mode) -> World {
    let setup = Setup {
        mode,
        // Two operations on one handle are kept apart by the host's lock (decision 5).
        locked: mode == Mode::Ordered || random.below(2) == 0,
        strict: random.below(4) == 0,
        dual: random.below(2) == 0,
        blocks: 1 + random.below(4) as u8,
        delay_s: random.below(3) * 3,
    };
    let mut world = World::new(setup);
    for _ in 0..1 + random.below(5) {
        let ops = (0..1 + random.below(5)).map(|_| random.op()).collect();
        world.spawn(random.below(3) as u8, ops);
    }
    world
}

/// One random schedule with crashes, checked at its end.
fn random_schedule(seed: u64, mode: Mode) {
    let mut random = Random(seed);
    let mut world = random_world(&mut random, mode);
    let crashing = random.below(2) == 0;
    loop {
        let ready = world.ready();
        let Some(&index) = ready.get(random.below(ready.len().max(1) as u64) as usize) else { break };
        if crashing && random.below(24) == 0 { world.crash(index) } else { world.step(index) }
    }
    world.check();
}

fn random_schedules(mode: Mode, count: u64) {
    let count = if std::env::var_os("PERCALE_FULL").is_some() { count * 20 } else { count };
    for seed in 0..count {
        let ran = std::panic::catch_unwind(|| random_schedule(seed, mode));
        assert!(ran.is_ok(), "seed {seed} of {mode:?}");
    }
    println!("{count} random schedules, {mode:?}");
}

#[test]
fn random_schedules_in_a_store_with_transactions() {
    random_schedules(Mode::Transactional, 7_000);
}

#[test]
fn random_schedules_in_a_store_without_transactions() {
    random_schedules(Mode::Ordered, 7_000);
}

#[test]
fn any_bytes_describe_a_run() {
    let mut random = Random(7);
    for length in 0..300 {
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        ipam::sim::run_ops(&bytes);
    }
}
