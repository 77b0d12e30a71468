//! What arrives on the daemon's socket, and what a daemon answers: no panic, and what is understood can
//! be said again.
#![no_main]

use cni_protocol::daemon::{Ask, Reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((ask, version)) = Ask::decode(bytes) {
        let said = ask.encode(version);
        // Version 1 takes any text for a configuration, version 2 sends JSON only.
        if let Ok(said) = said {
            assert_eq!(Ask::decode(&said).ok(), Some((ask.clone(), version)));
        }
        let _ = ask.env();
    }
    if let Ok(reply) = Reply::decode(bytes) {
        for version in [1, 2] {
            assert!(Reply::decode(&reply.encode(version)).is_ok());
        }
    }
});
