//! The files in which a host remembers what it saw of a cluster's store: whatever they hold, they are advice
//! or nothing. What a checksum would stop is tried behind a right one too.
#![no_main]

use datastore::hints::{decode_index, decode_lists};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let framed = datastore::hints::frame(data);
    for bytes in [data, &framed] {
        if let Some(index) = decode_index(bytes) {
            assert!(index.full.len() <= bytes.len());
        }
        if let Some(lists) = decode_lists(bytes) {
            assert!(lists.of.len() <= bytes.len());
        }
    }
});
