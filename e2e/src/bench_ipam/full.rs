//! Pools of many blocks that are all full.

use super::store::{Host, attrs, soon};
use super::{Case, Size};
use crate::cluster::{Cluster, Kind};
use datastore::DriveError;
use ipam::{IpamError, Pools};
use ipnet::{IpNet, Ipv4Net};
use model::store::{Expect, Write};
use model::{Attribute, Block, Stored as _, keys};
use serde_json::json;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Writers that fill the pool.
const WRITERS: usize = 8;
/// Where the largest pool that is full lies.
const FULL: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 16, 0, 0), 12));
/// Assignments whose mean is compared: several blocks are claimed among them.
const REQUESTS: usize = 256;

pub fn run(cluster: &Cluster, kind: Kind, size: &Size) -> Vec<Case> {
    let [alone, both, late] = ["alone", "both", "late"].map(|name| {
        cluster.add_node(kind, name);
        Host::new(name, cluster.store(kind))
    });
    let bits = size.blocks.trailing_zeros() as u8;
    alone.pool("spare", "10.200.0.0/16", 26);
    alone.pool("full", &format!("10.16.0.0/{}", 26 - bits), 26);
    let began = Instant::now();
    fill(cluster, kind, size.blocks);
    println!("{kind:?}: {} blocks written in {:?}", size.blocks, began.elapsed());
    let [alone, both] = in_turn([(&alone, &["spare"]), (&both, &["full", "spare"])]);
    let cold = refused(&late, size.blocks);
    let warm = refused(&late, size.blocks);
    let index = late.index_size();
    let blocks = json!({"blocks": size.blocks});
    let name = |what: &str| format!("{kind:?}: {what}");
    vec![
        Case::new(name("a full pool is refused, nothing known"), cold, "goal", 10_000.0, blocks.clone()),
        Case::new(name("the same, index known"), warm, "goal", 1000.0, json!({"index_bytes": index})),
        Case::new(
            name("one assignment, the first of two pools full"),
            both,
            "only the second",
            alone.as_secs_f64() * 1000.0,
            blocks,
        ),
    ]
}

/// The means of many assignments of two hosts from their pools, one by one in turn, so that what else the machine
/// does slows both.
fn in_turn(hosts: [(&Host, &[&str]); 2]) -> [Duration; 2] {
    let mut took = [Duration::ZERO; 2];
    for n in 0..REQUESTS {
        for (took, (host, pools)) in took.iter_mut().zip(&hosts) {
            let pools = Pools::Named(pools.iter().map(|name| (*name).to_owned()).collect());
            let began = Instant::now();
            let given = host.assign(&format!("{}-{n}", host.name), pools);
            *took += began.elapsed();
            given.unwrap_or_else(|e| panic!("{} {n}: {e}", host.name));
        }
    }
    took.map(|took| took / REQUESTS as u32)
}

/// How long it takes until every block was seen.
fn refused(host: &Host, blocks: usize) -> Duration {
    let began = Instant::now();
    let answer = host.assign("late", Pools::Named(vec!["full".to_owned()]));
    let took = began.elapsed();
    assert!(matches!(answer, Err(DriveError::Plan(IpamError::Exhausted { .. }))), "{answer:?}");
    let index = std::fs::read(host.dir.path().join("full")).expect("the index was written");
    let index = datastore::hints::decode_index(&index).expect("it is whole");
    let of_pool =
        |key: &&String| key.rsplit('/').next().and_then(keys::parse_cidr).is_some_and(|b| FULL.contains(&b));
    assert_eq!(index.full.keys().filter(of_pool).count(), blocks, "refused only when every block was seen");
    took
}

/// Blocks of other hosts, each with 64 pods as the plugin writes them.
fn fill(cluster: &Cluster, kind: Kind, blocks: usize) {
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = cluster.store(kind);
            scope.spawn(move || {
                for number in (writer..blocks).step_by(WRITERS) {
                    let (key, value) = full_block(number);
                    let write = Write { key, expect: Expect::Absent, value: Some(value) };
                    store.commit(&[write], soon()).unwrap_or_else(|e| panic!("{number}: {e}"));
                }
            });
        }
    });
}

fn full_block(number: usize) -> (String, Vec<u8>) {
    let base = u32::from(Ipv4Addr::new(10, 16, 0, 0)) + number as u32 * 64;
    let cidr = IpNet::V4(Ipv4Net::new(base.into(), 26).expect("a prefix length"));
    let host = format!("other-{}", number % 1000);
    let mut block = Block::new(cidr, Some(format!("host:{host}")));
    for ordinal in 0..64 {
        let id = format!("{number:05}-{ordinal:02}-5f1d3c0a9b7e4f20");
        let entry = Attribute::new(Some(&format!("net.{id}")), attrs(&host, &id));
        ipam::block::assign(&mut block, ordinal, &entry).expect("it is free");
    }
    (keys::block(&model::Scope::Cluster, &cidr), block.encode())
}
