#![no_main]
//! See dataplane/netlink/src/fuzz.rs for what must hold.

libfuzzer_sys::fuzz_target!(|data: &[u8]| netlink::fuzz::replies(data));
