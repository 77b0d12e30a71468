use super::*;
use model::Family;
use model::block::surely_full;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn block(cidr: &str) -> Block {
    Block::new(cidr.parse().unwrap(), Some("host:n".into()))
}

fn owner(name: &str) -> Attribute {
    Attribute::new(Some(name), BTreeMap::from([("pod".to_owned(), name.to_owned())]))
}

fn taken(block: &Block) -> Vec<(u32, &str)> {
    block.allocated().map(|(ordinal, entry)| (ordinal, entry.handle().unwrap())).collect()
}

// REQ: A-03
#[test]
fn every_block_size_gives_each_address_once() {
    let sizes = [("10.0.0.0", 20..=32, 32), ("fd00::", 116..=128, 128)];
    for (base, prefixes, bits) in sizes {
        for prefix in prefixes {
            let mut block = block(&format!("{base}/{prefix}"));
            let size = 1u32 << (bits - prefix);
            assert_eq!(block.size(), size as usize);
            for wanted in [0, 1, size / 2, size - 1] {
                let _ = assign(&mut block, wanted % size, &owner("a"));
                assert_eq!(block.ordinal(block.ip(wanted % size)), Some(wanted % size));
            }
            let edge = block.ip(size - 1);
            assert!(block.cidr.contains(&edge), "{edge}");
            while let Some(free) = next_free(&block, |_, _| true) {
                assign(&mut block, free, &owner("b")).unwrap();
            }
            assert_eq!(block.allocated().count(), size as usize);
            assert_eq!(block.attributes.len(), if size <= 4 { 1 } else { 2 });
        }
    }
}

#[test]
fn freed_addresses_are_given_last() {
    let mut block = block("10.0.0.0/30");
    assign(&mut block, 0, &owner("a")).unwrap();
    release(&mut block, &[0]);
    assert_eq!(block.unallocated, [1, 2, 3, 0]);
    assert_eq!(next_free(&block, |_, _| true), Some(1));
}

#[test]
fn passed_over_addresses_keep_their_places() {
    let mut block = block("10.0.0.0/30");
    let free = next_free(&block, |ordinal, _| ordinal >= 2).unwrap();
    assign(&mut block, free, &owner("a")).unwrap();
    assert_eq!(block.unallocated, [0, 1, 3]);
}

#[test]
fn a_taken_address_is_not_given_again() {
    let mut block = block("10.0.0.0/30");
    assign(&mut block, 1, &owner("a")).unwrap();
    assert_eq!(assign(&mut block, 1, &owner("b")), Err(Taken(1)));
    assert_eq!(assign(&mut block, 4, &owner("b")), Err(Taken(4)));
    assert_eq!(taken(&block), [(1, "a")]);
}

#[test]
fn attributes_are_shared_dropped_and_renumbered() {
    let mut block = block("10.0.0.0/30");
    for (ordinal, name) in [(0, "a"), (1, "b"), (2, "a"), (3, "c")] {
        assign(&mut block, ordinal, &owner(name)).unwrap();
    }
    assert_eq!(block.attributes.len(), 3);
    release(&mut block, &[0]);
    assert_eq!(taken(&block), [(1, "b"), (2, "a"), (3, "c")]);
    release(&mut block, &[2, 2]);
    assert_eq!(taken(&block), [(1, "b"), (3, "c")]);
    assert_eq!((block.attributes.len(), &block.unallocated), (2, &vec![0, 2]));
}

#[test]
fn an_entry_with_a_second_owner_is_never_shared() {
    let mut block = block("10.0.0.0/30");
    assign(&mut block, 0, &owner("a")).unwrap();
    block.attributes[0].other.insert("alternate".into(), serde_json::json!({"pod": "p"}));
    assign(&mut block, 1, &owner("a")).unwrap();
    assert_eq!(block.attributes.len(), 2);
}

#[test]
fn an_address_in_calicos_cooldown_is_not_given() {
    let mut block = block("10.0.0.0/31");
    let mut cooling = Attribute::default();
    cooling.other.insert("releasedAt".into(), serde_json::json!("2026-05-01T10:00:00Z"));
    block.attributes.push(cooling);
    block.allocations[0] = Some(0);
    block.unallocated = vec![1];
    assert_eq!(next_free(&block, |_, _| true), Some(1));
    assert_eq!(assign(&mut block, 0, &owner("a")), Err(Taken(0)));
    assert!(!block.is_empty() && !idle(&block));
}

#[test]
fn sequence_numbers_follow_calicos_rules() {
    let mut block = block("10.0.0.0/30");
    block.sequence_number = 100;
    assign(&mut block, 0, &owner("a")).unwrap();
    assign(&mut block, 1, &owner("a")).unwrap();
    bump(&mut block, 5);
    assert_eq!(
        (block.sequence_of(0), block.sequence_of(1), block.sequence_number),
        (Some(100), Some(100), 101)
    );
    release(&mut block, &[0]);
    assert_eq!(block.sequence_of(0), None);
    assign(&mut block, 0, &owner("a")).unwrap();
    assert_eq!(block.sequence_of(0), Some(101));
    block.sequence_number = 0;
    bump(&mut block, 5);
    assert_eq!(block.sequence_number, 5, "a counter that never counted starts at the present");
}

#[test]
fn a_block_is_idle_with_windows_reservations_alone() {
    let mut block = block("10.0.0.0/30");
    assign(&mut block, 0, &owner("Windows-Reserved-IPAM-handle")).unwrap();
    assert!(idle(&block) && !block.is_empty());
    assign(&mut block, 1, &owner("a")).unwrap();
    assert!(!idle(&block));
}

#[test]
fn lost_addresses_come_back_at_the_end() {
    let mut block = block("10.0.0.0/30");
    assign(&mut block, 1, &owner("a")).unwrap();
    block.unallocated = vec![3];
    assert_eq!(lost(&block), [0, 2]);
    requeue_lost(&mut block);
    assert_eq!(block.unallocated, [3, 0, 2]);
}

#[test]
fn a_full_block_is_recognised_without_decoding() {
    use model::Stored;
    for cidr in ["10.0.0.0/20", "10.0.0.0/26", "10.0.0.0/32", "fd00::/116", "fd00::/122"] {
        let mut block = block(cidr);
        block.affinity = Some(format!("host:{}", "n".repeat(253)));
        block.affinity_claim_time = Some("2026-05-01T10:00:00Z".into());
        let mut trick = owner("\"unallocated\":[]");
        std::sync::Arc::make_mut(trick.secondary.as_mut().unwrap()).insert("unallocated".into(), "[]".into());
        while let Some(free) = next_free(&block, |_, _| true) {
            assert!(!surely_full(&key(&block), &block.encode()), "{cidr}");
            let left = block.unallocated.len();
            // Fast through the large ones: all but the last eight at once.
            let step = if left > 8 { left - 8 } else { 1 };
            for ordinal in block.unallocated.clone().into_iter().take(step) {
                assign(&mut block, ordinal, &trick).unwrap();
            }
            let _ = free;
        }
        assert!(surely_full(&key(&block), &block.encode()), "{cidr}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Against a plain map from ordinal to owner.
    #[test]
    fn behaves_like_a_map(ops in proptest::collection::vec((0u32..20, 0u8..6, any::<bool>()), 0..120)) {
        let mut block = block("10.0.0.0/28");
        let mut map: BTreeMap<u32, String> = BTreeMap::new();
        for (ordinal, who, give) in ops {
            let name = format!("owner{who}");
            if give {
                let free = ordinal < 16 && !map.contains_key(&ordinal);
                prop_assert_eq!(assign(&mut block, ordinal, &owner(&name)).is_ok(), free);
                if free {
                    map.insert(ordinal, name);
                }
            } else {
                release(&mut block, &[ordinal]);
                map.remove(&ordinal);
            }
            let found: BTreeMap<u32, String> =
                taken(&block).into_iter().map(|(o, n)| (o, n.to_owned())).collect();
            prop_assert_eq!(&found, &map);
            let owners: std::collections::BTreeSet<&String> = map.values().collect();
            prop_assert_eq!(block.attributes.len(), owners.len());
            prop_assert_eq!(block.unallocated.len(), 16 - map.len());
            prop_assert_eq!(block.sequence_for_allocation.len(), map.len());
            prop_assert!(lost(&block).is_empty());
            let key = model::keys::block(&model::Scope::Cluster, &block.cidr);
            let back = <Block as model::Stored>::decode(&key, &model::Stored::encode(&block));
            prop_assert_eq!(back.as_ref(), Ok(&block));
            prop_assert_eq!(block.family(), Family::V4);
        }
    }
}

fn key(block: &Block) -> String {
    model::keys::block(&model::Scope::Cluster, &block.cidr)
}
