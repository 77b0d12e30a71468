//! Every order of steps of small cases, and random orders of larger ones: reads, writes and
//! crashes of several hosts on one store. See `ipam::sim` for what is checked after each.

use ipam::sim::{Mode, Op, Setup, World};
use std::collections::HashSet;

const SMALL: Setup =
    Setup { mode: Mode::Transactional, locked: false, strict: false, dual: false, blocks: 2, delay_s: 0 };

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

fn run(name: &str, setup: Setup, crashes: u8, processes: &[(u8, &[Op])]) -> usize {
    let mut world = World::new(setup);
    for (host, ops) in processes {
        world.spawn(*host, ops.to_vec());
    }
    let start = std::time::Instant::now();
    let mut all = Exhaust::default();
    all.run(world, crashes);
    println!("{name}: {} schedules, {} ends in {:?}", all.schedules, all.checked.len(), start.elapsed());
    all.schedules
}

#[test]
fn probe() {
    use Op::*;
    let ordered = Setup { mode: Mode::Ordered, ..SMALL };
    run("2 hosts add, tx", SMALL, 0, &[(0, &[Add(0)]), (1, &[Add(0)])]);
    run("2 hosts add, tx, crash", SMALL, 1, &[(0, &[Add(0)]), (1, &[Add(0)])]);
    run("3 hosts add, tx", SMALL, 0, &[(0, &[Add(0)]), (1, &[Add(0)]), (2, &[Add(0)])]);
    run("2 hosts add, ordered", ordered, 0, &[(0, &[Add(0)]), (1, &[Add(0)])]);
    run("2 hosts add, ordered 1 block", Setup { blocks: 1, ..ordered }, 0, &[(0, &[Add(0)]), (1, &[Add(0)])]);
    run("2 hosts add, ordered, crash", ordered, 1, &[(0, &[Add(0)]), (1, &[Add(0)])]);
    run("add del, ordered", ordered, 0, &[(0, &[Add(0), Del(0)]), (0, &[Add(2)])]);
    run("add withdraw, ordered", ordered, 0, &[(0, &[Add(0)]), (0, &[Withdraw])]);
}
