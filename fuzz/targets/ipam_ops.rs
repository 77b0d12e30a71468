//! Operations of several hosts on one store, in an order with conflicts and crashes that the
//! input chooses; `ipam::sim` has the invariants.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| ipam::sim::run_ops(data));
