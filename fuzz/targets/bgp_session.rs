#![no_main]
//! See bgp/src/fuzz for what must hold.

libfuzzer_sys::fuzz_target!(|data: &[u8]| bgp::fuzz::session(data));
