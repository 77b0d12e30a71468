//! Giving addresses back: by attachment, by address, by journal; and claims to blocks.
#![allow(clippy::unwrap_used, reason = "a test")]

mod cluster;

use cluster::{Cluster, ask, exactly, handle, ip, map, net, request, seconds};
use ipam::{Answer, BatchItem, Held, IpamError, Release, ReleaseIp, Released, plan_release_affinities};
use model::{Attribute, Block, Family, Handle, Stored, keys};

const V4: Family = Family::V4;

fn small() -> Cluster {
    let mut cluster = Cluster::new(&[]);
    cluster.pool("pool", "10.0.0.0/24", |spec| spec.block_size = 30);
    cluster
}

fn free(cluster: &mut Cluster, asked: &[ReleaseIp]) -> Result<Released, IpamError> {
    cluster.run("a", |view, cx| ipam::plan_release_ip(view, cx, asked, seconds(0)))
}

#[test]
fn releasing_what_is_not_there_is_no_error() {
    let mut cluster = small();
    assert_eq!(cluster.del("a", "unknown"), [] as [std::net::IpAddr; 0]);
    cluster.add("a", "p", V4).unwrap();
    cluster.del("a", "p");
    assert_eq!(cluster.del("a", "p"), [] as [std::net::IpAddr; 0]);
}

#[test]
fn the_last_address_takes_the_handle_with_it() {
    let mut cluster = small();
    cluster.pool("six", "fd00::/120", |_| ());
    cluster.assign("a", &request("a", "p", &[ask(V4), ask(Family::V6)])).unwrap();
    assert_eq!(cluster.del("a", "p").len(), 2);
    assert_eq!(cluster.store.keys(&keys::handles(&cluster.scope)).count(), 0);
    assert_eq!(cluster.claims("a", V4).len(), 1, "an empty block stays its host's");
    cluster.assert_sound();
}

#[test]
fn a_block_without_owner_goes_with_its_last_address() {
    let mut cluster = small();
    cluster.add("a", "p", V4).unwrap();
    let cidr = cluster.claims("a", V4)[0].clone();
    cluster.run("a", |view, cx| plan_release_affinities(view, cx, "a", false)).unwrap();
    assert!(cluster.block(&cidr).is_some());
    cluster.del("a", "p");
    assert_eq!(cluster.block(&cidr), None);
    cluster.assert_sound();
}

// REQ: A-07
#[test]
fn badly_formed_handles_are_found_and_released() {
    let mut cluster = small();
    let mut block = Block::new(net("10.0.0.0/30"), Some("host:a".into()));
    for (ordinal, handle) in [(0, "net.old\r\neth0"), (1, "net.older")] {
        ipam::block::assign(&mut block, ordinal, &Attribute::new(Some(handle), map(&[]))).unwrap();
    }
    cluster.put_block(&block);
    let stored = Handle { blocks: [(net("10.0.0.0/30"), 1)].into(), ..Handle::default() };
    cluster.store.put(&keys::handle(&cluster.scope, "net.old"), stored.encode());
    assert_eq!(cluster.held("old").len(), 1);
    assert_eq!(cluster.del("a", "old\r\neth0"), [ip("10.0.0.0")]);
    assert_eq!(cluster.block("10.0.0.0/30").unwrap().allocated().count(), 1);
    assert_eq!(cluster.store.keys(&keys::handles(&cluster.scope)).count(), 0);
}

#[test]
fn several_addresses_of_one_handle_are_counted_one_by_one() {
    let mut cluster = small();
    for (n, ifname) in ["eth0", "eth1", "eth2"].iter().enumerate() {
        let mut request = request("a", "p", &[exactly(&format!("10.0.0.{n}"))]);
        request.attrs.insert("ifname".into(), (*ifname).into());
        cluster.assign("a", &request).unwrap();
    }
    let key = keys::handle(&cluster.scope, &handle("p"));
    let count = |cluster: &Cluster| {
        cluster.store.entry(&key).map(|entry| Handle::decode(&key, &entry.value).unwrap().total())
    };
    assert_eq!(count(&cluster), Some(3));
    let asked = [ReleaseIp::new(ip("10.0.0.0")), ReleaseIp::new(ip("10.0.0.2"))];
    free(&mut cluster, &asked).unwrap();
    assert_eq!(count(&cluster), Some(1));
    cluster.assert_sound();
    free(&mut cluster, &[ReleaseIp::new(ip("10.0.0.1"))]).unwrap();
    assert_eq!(count(&cluster), None);
}

#[test]
fn addresses_are_released_in_many_blocks_and_without_their_pool() {
    let mut cluster = small();
    let given = cluster.fill("a", "p", 10);
    cluster.store.delete(&keys::pool("pool"));
    let mut asked: Vec<_> = given.iter().map(|ip| ReleaseIp::new(*ip)).collect();
    asked.extend([ReleaseIp::new(given[0]), ReleaseIp::new(ip("10.9.9.9")), ReleaseIp::new(ip("fd00::1"))]);
    let released = free(&mut cluster, &asked).unwrap();
    assert_eq!(released.freed.len(), 10, "twice asked is once freed");
    assert_eq!(released.kept, [ip("10.9.9.9"), ip("fd00::1")]);
    assert_eq!(cluster.holdings().held, []);
    assert_eq!(free(&mut cluster, &asked[..1]).unwrap().kept, [given[0]]);
    cluster.assert_sound();
}

#[test]
fn a_failed_check_frees_nothing() {
    let mut cluster = small();
    let given = cluster.fill("a", "p", 2);
    let sequence = cluster.held("p-1")[0].sequence;
    let bad_handle = ReleaseIp { handle: Some("net.other".into()), ..ReleaseIp::new(given[1]) };
    let bad_sequence = ReleaseIp { sequence: Some(7), ..ReleaseIp::new(given[1]) };
    let good = ReleaseIp { handle: Some(handle("p-1")), sequence, ..ReleaseIp::new(given[1]) };
    let first = || ReleaseIp::new(given[0]);
    let refused = free(&mut cluster, &[first(), bad_handle]).unwrap_err();
    assert!(matches!(&refused, IpamError::Handle { found: Some(f), .. } if *f == handle("p-1")), "{refused}");
    assert!(matches!(free(&mut cluster, &[first(), bad_sequence]), Err(IpamError::Sequence { .. })));
    assert_eq!(cluster.holdings().held.len(), 2);
    assert_eq!(free(&mut cluster, &[good]).unwrap().freed, [given[1]]);
    // Modern data model 1.3, rule 4: a stale number on a free address is an error too.
    let stale = ReleaseIp { sequence, ..ReleaseIp::new(given[1]) };
    assert!(matches!(free(&mut cluster, &[stale]), Err(IpamError::Sequence { found: None, .. })));
}

#[test]
fn a_journal_entry_frees_only_what_it_saw() {
    let mut cluster = small();
    cluster.add("a", "p", V4).unwrap();
    let seen = cluster.held("p");
    let replay = |cluster: &mut Cluster, only: &[Held]| {
        let request = Release { handle: handle("p"), only: Some(only.to_vec()), ..Release::default() };
        cluster.release("a", &request).unwrap()
    };
    // Given again to the same attachment since: another allocation.
    cluster.del("a", "p");
    let again = cluster.assign("a", &request("a", "p", &[exactly(&seen[0].ip.to_string())])).unwrap();
    assert_eq!(again.addresses[0].ip, seen[0].ip);
    assert_eq!(replay(&mut cluster, &seen), Released { freed: vec![], kept: vec![seen[0].ip] });
    let fresh = cluster.held("p");
    let mut other = fresh.clone();
    other[0].attrs.insert("poduid".into(), "x".into());
    assert_eq!(replay(&mut cluster, &other).freed, [] as [std::net::IpAddr; 0]);
    // It does not need the handle's object.
    cluster.store.delete(&keys::handle(&cluster.scope, &handle("p")));
    assert_eq!(replay(&mut cluster, &fresh).freed, [seen[0].ip]);
    assert_eq!(replay(&mut cluster, &fresh).kept, [seen[0].ip], "once more changes nothing");
}

#[test]
fn a_migrating_machine_s_address_stays() {
    let mut cluster = small();
    cluster.add("a", "vm", V4).unwrap();
    let cidr = cluster.claims("a", V4)[0].clone();
    let mut block = cluster.block(&cidr).unwrap();
    block.attributes[0].other.insert("alternate".into(), serde_json::json!({"pod": "target"}));
    cluster.put_block(&block);
    assert_eq!(cluster.del("a", "vm"), [] as [std::net::IpAddr; 0]);
    let held = block.ip(0);
    assert_eq!(free(&mut cluster, &[ReleaseIp::new(held)]).unwrap().kept, [held]);
}

#[test]
fn every_update_counts_and_every_allocation_carries_the_number_it_was_made_under() {
    let mut cluster = small();
    cluster.add("a", "p", V4).unwrap();
    let cidr = cluster.claims("a", V4)[0].clone();
    let born = cluster.clock * 1_000_000_000;
    let block = cluster.block(&cidr).unwrap();
    assert_eq!((block.sequence_number, block.sequence_of(0)), (born + 1, Some(born)));
    assert_eq!(block.affinity_claim_time.as_deref(), Some("2023-11-14T22:13:20Z"));
    cluster.add("a", "q", V4).unwrap();
    cluster.del("a", "p");
    let block = cluster.block(&cidr).unwrap();
    assert_eq!(
        (block.sequence_number, block.sequence_of(0), block.sequence_of(1)),
        (born + 3, None, Some(born + 1))
    );
}

// REQ: A-05
#[test]
fn claims_are_given_up_though_their_pool_is_deleted() {
    let mut cluster = small();
    cluster.add("a", "p", V4).unwrap();
    cluster.del("a", "p");
    cluster.store.delete(&keys::pool("pool"));
    let answer = cluster.run("c", |view, cx| plan_release_affinities(view, cx, "a", true)).unwrap();
    assert_eq!(answer.released.len(), 1);
    assert!(cluster.claims("a", V4).is_empty() && cluster.holdings().blocks.is_empty());
}

// REQ: A-06
#[test]
fn empty_blocks_are_given_up_though_others_are_in_use() {
    let mut cluster = small();
    cluster.fill("a", "p", 10);
    for n in 0..4 {
        cluster.del("a", &format!("p-{n}"));
    }
    let before = cluster.claims("a", V4);
    let answer = cluster.run("c", |view, cx| plan_release_affinities(view, cx, "a", true)).unwrap();
    assert_eq!((answer.released.len(), answer.kept.len(), answer.more), (1, 2, false));
    assert_eq!(cluster.claims("a", V4).len(), before.len() - 1);
    // Without that condition the blocks in use lose their owner and keep their addresses.
    let answer = cluster.run("c", |view, cx| plan_release_affinities(view, cx, "a", false)).unwrap();
    assert_eq!(answer.released.len(), 2);
    let blocks = cluster.holdings().blocks;
    assert!(blocks.iter().all(|block| block.affinity.is_none()) && blocks.len() == 2);
    cluster.assert_sound();
}

#[test]
fn many_claims_are_given_up_in_several_commits() {
    let mut cluster = small();
    cluster.pool("pool", "10.0.0.0/22", |spec| spec.block_size = 30);
    cluster.fill("a", "p", 200);
    for n in 0..200 {
        cluster.del("a", &format!("p-{n}"));
    }
    let mut rounds = 0;
    loop {
        rounds += 1;
        let answer = cluster.run("a", |view, cx| plan_release_affinities(view, cx, "a", true)).unwrap();
        if !answer.more {
            break;
        }
    }
    assert_eq!(rounds, 2);
    assert!(cluster.holdings().blocks.is_empty());
}

fn batch(cluster: &mut Cluster, items: &[BatchItem]) -> Vec<Result<Answer, IpamError>> {
    cluster.run("a", |view, cx| ipam::plan_batch(view, cx, items)).unwrap()
}

#[test]
fn a_batch_costs_about_one_block_write() {
    let mut cluster = Cluster::new(&[("p", "10.0.0.0/24")]);
    let items: Vec<_> =
        (0..50).map(|n| BatchItem::Assign(request("a", &format!("p{n}"), &[ask(V4)]))).collect();
    let answers = batch(&mut cluster, &items);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Answer::Assigned(_)))));
    assert_eq!(cluster.writes, 50 + 2, "handles, one block, one affinity");
    assert_eq!(cluster.holdings().held.len(), 50);
    cluster.assert_sound();
}

#[test]
fn a_failing_item_leaves_no_trace_and_does_not_fail_the_others() {
    let mut cluster = small();
    cluster.pool("pool", "10.0.0.0/30", |spec| spec.block_size = 30);
    cluster.add("a", "old", V4).unwrap();
    let add = |name: &str, asks: &[ipam::Ask]| BatchItem::Assign(request("a", name, asks));
    let del = |name: &str| BatchItem::Release(Release { handle: handle(name), ..Release::default() });
    let answers = batch(
        &mut cluster,
        &[
            add("one", &[ask(V4)]),
            add("both", &[ask(V4), ask(Family::V6)]),
            add("two", &[ask(V4)]),
            del("old"),
            add("three", &[ask(V4)]),
            add("four", &[ask(V4)]),
            add("five", &[ask(V4)]),
            add("one", &[ask(V4)]),
        ],
    );
    let kinds: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Ok(Answer::Assigned(assigned)) if assigned.repeated => "again",
            Ok(Answer::Assigned(_)) => "given",
            Ok(Answer::Released(_)) => "freed",
            Ok(Answer::Deferred) => "deferred",
            Err(IpamError::NoPools { .. }) => "no pool",
            Err(IpamError::Exhausted { .. }) => "exhausted",
            Err(error) => panic!("{error}"),
        })
        .collect();
    assert_eq!(kinds, ["given", "no pool", "given", "freed", "given", "given", "exhausted", "again"]);
    assert_eq!(cluster.holdings().held.len(), 4);
    assert_eq!(cluster.held("both"), []);
    cluster.assert_sound();
}

#[test]
fn what_does_not_fit_into_a_commit_is_deferred() {
    let mut cluster = Cluster::new(&[("p", "10.0.0.0/16")]);
    let items: Vec<_> =
        (0..150).map(|n| BatchItem::Assign(request("a", &format!("p{n}"), &[ask(V4)]))).collect();
    let mut left = &items[..];
    let mut commits = 0;
    while !left.is_empty() {
        let before = cluster.writes;
        let answers = batch(&mut cluster, left);
        assert!(cluster.writes - before <= 100);
        let done = answers.iter().take_while(|answer| **answer != Ok(Answer::Deferred)).count();
        assert!(done > 0 && answers[done..].iter().all(|answer| *answer == Ok(Answer::Deferred)));
        left = &left[done..];
        commits += 1;
    }
    assert_eq!(commits, 2);
    assert_eq!(cluster.holdings().held.len(), 150);
}
