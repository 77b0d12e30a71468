//! A store and hosts in memory, one step at a time, so that tests and fuzzers can put every
//! order of reads, writes and crashes between the operations of several hosts.
//!
//! Not part of the interface: for this workspace's tests and fuzz targets.

mod check;
mod store;
mod world;

pub use store::{Mode, SimStore};
pub use world::{Op, Process, Setup, World};

/// Runs what a fuzzer's bytes describe: a set-up, operations, and a schedule with crashes; panics
/// where an invariant is broken. Any bytes are a valid description.
pub fn run_ops(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut next = move || bytes.next();
    let head = next().unwrap_or(0);
    let mode = if head & 1 == 0 { Mode::Transactional } else { Mode::Ordered };
    let setup = Setup {
        mode,
        // Without transactions, operations on one handle need the host's lock (decision 5).
        locked: mode == Mode::Ordered || head & 2 != 0,
        strict: head & 4 != 0,
        dual: head & 8 != 0,
        blocks: 1 + (head >> 4 & 3),
        delay_s: u64::from(head >> 6) * 10,
    };
    let mut world = World::new(setup);
    for _ in 0..next().unwrap_or(0) % 6 + 1 {
        let (host, count) = (next().unwrap_or(0) % 3, next().unwrap_or(0) % 5);
        let ops = (0..count).map(|_| Op::from_byte(next().unwrap_or(0))).collect();
        world.spawn(host, ops);
    }
    while let Some(byte) = next() {
        if !world.step_by(byte) {
            break;
        }
    }
    world.finish();
    world.check();
}
