//! Stored objects as the versions named in `testdata/stored` write them, and damaged ones.
#![allow(clippy::unwrap_used, reason = "a test")]

use model::keys::{self, Key};
use model::{
    Affinity, Block, ClusterInformation, DecodeError, Handle, IpPool, IpReservation, IpamConfig, Node,
    Problem, Profile, Stored, WorkloadEndpoint,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

#[derive(Deserialize)]
struct Fixture {
    key: String,
    value: Box<RawValue>,
    rewritten: Option<Box<RawValue>>,
}

fn fixtures() -> Vec<(String, Fixture)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/stored");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let json = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
    json.map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        let fixture = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path.display().to_string(), fixture)
    })
    .collect()
}

fn fixture(name: &str) -> Fixture {
    let found = fixtures().into_iter().find(|(path, _)| path.ends_with(&format!("/{name}.json")));
    found.unwrap_or_else(|| panic!("no fixture {name}")).1
}

fn rewrite<T: Stored>(key: &str, value: &[u8]) -> Result<Vec<u8>, DecodeError> {
    T::decode(key, value).map(|object| object.encode())
}

/// Decodes and encodes whatever the key says it is.
fn rewrite_any(key: &str, value: &[u8]) -> Result<Vec<u8>, DecodeError> {
    match keys::parse(key).unwrap_or_else(|| panic!("{key}")) {
        Key::Block { .. } => rewrite::<Block>(key, value),
        Key::Affinity { .. } => rewrite::<Affinity>(key, value),
        Key::Handle { .. } => rewrite::<Handle>(key, value),
        Key::IpamConfig { .. } => rewrite::<IpamConfig>(key, value),
        Key::Resource { kind, .. } => match kind.as_str() {
            "ippools" => rewrite::<IpPool>(key, value),
            "nodes" => rewrite::<Node>(key, value),
            "clusterinformations" => rewrite::<ClusterInformation>(key, value),
            "ipreservations" => rewrite::<IpReservation>(key, value),
            "workloadendpoints" => rewrite::<WorkloadEndpoint>(key, value),
            "profiles" => rewrite::<Profile>(key, value),
            other => panic!("no fixture of {other}"),
        },
        other => panic!("no fixture of {other:?}"),
    }
}

// REQ: A-08
#[test]
fn every_version_s_objects_are_written_back_byte_for_byte() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 15);
    for (path, fixture) in fixtures {
        let written = rewrite_any(&fixture.key, fixture.value.get().as_bytes()).expect(&path);
        let wanted = fixture.rewritten.unwrap_or(fixture.value);
        assert_eq!(String::from_utf8(written).unwrap(), wanted.get(), "{path}");
    }
}

fn block(name: &str) -> Block {
    let fixture = fixture(name);
    Block::decode(&fixture.key, fixture.value.get().as_bytes()).unwrap()
}

// REQ: A-07
#[test]
fn a_handle_ends_at_its_first_carriage_return() {
    let block = block("block-migrated-handle");
    assert_eq!(block.attribute(0).unwrap().handle(), Some("k8s-pod-network.0123abcd"));
}

#[test]
fn second_owners_and_cooldown_are_seen_in_every_spelling() {
    for name in ["block-3.33", "block-3.33-spellings"] {
        let block = block(name);
        assert!(block.attribute(0).unwrap().plain());
        assert!(!block.attribute(1).unwrap().plain());
        assert!(block.attribute(3).unwrap().released());
        assert_eq!(block.sequence_of(1), Some(1_777_629_600_123_456_790));
        assert_eq!(block.unknown_state(), None, "all of it is known");
    }
}

#[test]
fn unknown_members_that_may_be_state_of_allocations_make_a_block_read_only() {
    let fixture = fixture("block-3.33");
    let value: Value = serde_json::from_str(fixture.value.get()).unwrap();
    let cases = [
        ("/leases", json!([1, 2, 3, 4]), Some("leases")),
        ("/perOrdinal", json!({"0": "x"}), Some("perOrdinal")),
        ("/generation", json!(7), None),
        ("/attributes/0/expires", json!("2026-05-01T10:00:00Z"), Some("expires")),
    ];
    for (pointer, member, wanted) in cases {
        let mut value = value.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap()[name] = member.clone();
        let block = Block::decode(&fixture.key, value.to_string().as_bytes()).unwrap();
        assert_eq!(block.unknown_state(), wanted, "{pointer}");
        let back: Value = serde_json::from_slice(&block.encode()).unwrap();
        assert_eq!(back.pointer(pointer), Some(&member), "kept on a rewrite");
    }
}

#[test]
fn damaged_blocks_are_refused_with_the_member_s_name() {
    let fixture = fixture("block-3.18");
    let good: Value = serde_json::from_str(fixture.value.get()).unwrap();
    let check = |pointer: &str, bad: Value, wanted: Problem| {
        let mut value = good.clone();
        *value.pointer_mut(pointer).unwrap() = bad;
        let error = Block::decode(&fixture.key, value.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.problem, wanted, "{pointer}");
    };
    let (allocations, unallocated) = ("allocations", "unallocated");
    check("/allocations", json!([0, 1, null]), Problem::Length { field: allocations, found: 3, wanted: 4 });
    check("/allocations", Value::Null, Problem::Length { field: allocations, found: 0, wanted: 4 });
    check("/allocations/2", json!(2), Problem::OutOfRange { field: allocations, at: 2, found: 2, limit: 2 });
    check("/unallocated/0", json!(4), Problem::OutOfRange { field: unallocated, at: 0, found: 4, limit: 4 });
    check("/unallocated/0", json!(3), Problem::Repeated { field: unallocated, value: 3 });
    check("/unallocated/0", json!(0), Problem::Contradiction { field: unallocated, ordinal: 0 });
    let (found, wanted) = ("192.168.0.4/30".to_owned(), "192.168.0.0/30".to_owned());
    check("/cidr", json!("192.168.0.4/30"), Problem::Mismatch { field: "cidr", found, wanted });
}

#[test]
fn wrong_types_and_sizes_are_errors_not_panics() {
    let fixture = fixture("block-3.33");
    let good: Value = serde_json::from_str(fixture.value.get()).unwrap();
    for name in good.as_object().unwrap().keys() {
        for bad in [json!("x"), json!(-1), json!(1.5), json!([{}]), json!({"a": []}), json!(u64::MAX)] {
            let mut value = good.clone();
            value[name] = bad.clone();
            let decoded = Block::decode(&fixture.key, value.to_string().as_bytes());
            let text_or_number =
                matches!(name.as_str(), "affinity" | "affinity_claim_time" | "sequenceNumber");
            assert!(decoded.is_err() || text_or_number, "{name}: {bad}");
        }
    }
    let huge = vec![b' '; model::decode::MAX_VALUE + 1];
    let error = Block::decode(&fixture.key, &huge).unwrap_err();
    assert!(matches!(error.problem, Problem::TooLarge { .. }));
    let deep = "[".repeat(100_000);
    assert!(Block::decode(&fixture.key, deep.as_bytes()).is_err());
    assert!(Block::decode("/calico/elsewhere", b"{}").is_err());
}

// REQ: A-03
#[test]
fn only_legal_block_sizes_are_read() {
    for (cidr, size, legal) in
        [("10.0.0.0/20", 4096, true), ("10.0.0.0/19", 8192, false), ("fd00::/115", 8192, false)]
    {
        let cidr: ipnet::IpNet = cidr.parse().unwrap();
        let block = Block::new(cidr, None);
        assert_eq!(block.size(), size);
        let key = keys::block(&model::Scope::Cluster, &cidr);
        assert_eq!(Block::decode(&key, &block.encode()).is_ok(), legal, "{cidr}");
    }
}

#[test]
fn an_affinity_without_a_state_is_confirmed() {
    let key = fixture("affinity-3.18").key;
    for value in [&b""[..], b"{}", b"{\"state\":null}"] {
        let affinity = Affinity::decode(&key, value).unwrap();
        assert_eq!(affinity.state(), model::AffinityState::Confirmed);
    }
    assert!(Affinity::decode(&key, b"{\"state\":\"half\"}").is_err());
}

#[test]
fn a_stored_configuration_without_auto_allocation_means_off() {
    let key = keys::ipam_config(&model::Scope::Cluster);
    assert!(!IpamConfig::decode(&key, b"{}").unwrap().auto_allocate_blocks);
    assert!(IpamConfig::default().auto_allocate_blocks);
}

#[test]
fn resources_name_what_is_wrong() {
    let key = keys::pool("p");
    let decode = |spec: Value| {
        let value = json!({"metadata": {"name": "p"}, "spec": spec});
        IpPool::decode(&key, value.to_string().as_bytes()).map_err(|e| e.problem)
    };
    assert!(decode(json!({"cidr": "10.0.0.0/16"})).is_ok());
    assert!(decode(json!({"cidr": "10.0.0.0/28", "disabled": true})).is_ok());
    let bad = |field, value: &str| Err(Problem::BadValue { field, value: value.to_owned() });
    assert_eq!(decode(json!({"cidr": "10.0.0.0"})).map(drop), bad("spec.cidr", "10.0.0.0"));
    assert_eq!(
        decode(json!({"cidr": "10.0.0.0/16", "blockSize": 33})).map(drop),
        bad("spec.blockSize", "33")
    );
    assert_eq!(decode(json!({"cidr": "10.0.0.0/28"})).map(drop), bad("spec.blockSize", "0"));
    let other = IpPool::decode(&keys::pool("q"), br#"{"metadata":{"name":"p"}}"#).unwrap_err();
    assert!(matches!(other.problem, Problem::Mismatch { field: "metadata.name", .. }));
}
