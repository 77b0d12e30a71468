//! A key on the first line, then the value stored under it. What decodes is written back so that
//! it decodes to the same, unknown members and all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::keys::{self, Key};
use model::{
    Affinity, Block, ClusterInformation, Handle, IpPool, IpReservation, IpamConfig, Node, Profile, Stored,
    WorkloadEndpoint,
};
use std::fmt::Debug;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let key = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let value = parts.next().unwrap_or_default();
    match keys::parse(&key) {
        Some(Key::Block { .. }) => {
            if let Some(block) = round_trip::<Block>(&key, value) {
                check_block(&block);
            }
        }
        Some(Key::Affinity { .. }) => drop(round_trip::<Affinity>(&key, value)),
        Some(Key::Handle { .. }) => drop(round_trip::<Handle>(&key, value)),
        Some(Key::IpamConfig { .. }) => drop(round_trip::<IpamConfig>(&key, value)),
        Some(Key::Resource { .. }) => {
            round_trip::<IpPool>(&key, value);
            round_trip::<Node>(&key, value);
            round_trip::<ClusterInformation>(&key, value);
            round_trip::<IpReservation>(&key, value);
            round_trip::<WorkloadEndpoint>(&key, value);
            round_trip::<Profile>(&key, value);
        }
        _ => {}
    }
});

fn round_trip<T: Stored + PartialEq + Debug>(key: &str, value: &[u8]) -> Option<T> {
    let first = T::decode(key, value).ok()?;
    let written = first.encode();
    let second = T::decode(key, &written).expect("our own writing is understood");
    assert_eq!(first, second);
    assert_eq!(written, second.encode());
    Some(first)
}

/// What every reader of a block relies on.
fn check_block(block: &Block) {
    for (ordinal, _) in block.allocated() {
        assert_eq!(block.ordinal(block.ip(ordinal)), Some(ordinal));
    }
    let used = block.allocated().count();
    assert!(used <= block.size());
    let _sequences: Vec<_> = (0..block.size() as u32).map(|ordinal| block.sequence_of(ordinal)).collect();
    let _facts = (block.owner(), block.is_empty(), block.unknown_state());
}
