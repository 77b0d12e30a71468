//! Stores without transactions: a commit is applied write by write, and others come between.
#![allow(clippy::unwrap_used, reason = "a test")]

mod cluster;

use cluster::{Cluster, ask, exactly, handle, ip, map, request};
use ipam::{Context, IpamError, Now, Release, plan_assign, plan_release};
use model::store::{Entry, Expect, Plan, Stop, View};
use model::{Attribute, Block, Family, Handle, Scope, Stored, keys};

fn cluster(pool: &str, block_size: u8) -> Cluster {
    let mut cluster = Cluster::new(&[]);
    cluster.pool("pool", pool, |spec| spec.block_size = block_size);
    cluster.node("a", &[]);
    cluster.node("b", &[]);
    cluster.transactional = false;
    cluster
}

fn cx() -> Context<'static> {
    let now = Now { wall_ns: 1_800_000_000_000_000_000, boot_id: "boot", boottime_ms: 1 };
    Context { scope: &Scope::Cluster, host: "a", now, chance: 1, transactional: false }
}

/// Runs a plan on host `a`. `between` may change the store before the write of a key that contains
/// `before`, once.
fn disturbed<T>(
    cluster: &mut Cluster,
    before: &str,
    between: impl FnOnce(&mut Cluster),
    mut plan: impl FnMut(&View, &Context) -> Result<Plan<T>, Stop<IpamError>>,
) -> Result<T, IpamError> {
    let (mut view, mut between) = (View::new(), Some(between));
    'again: loop {
        let (writes, out) = match plan(&view, &cx()) {
            Ok(Plan::Commit(writes, out)) => (writes, Some(out)),
            Ok(Plan::Step(writes)) => (writes, None),
            Ok(Plan::Done(out)) => return Ok(out),
            Err(Stop::Fail(error)) => return Err(error),
            Err(Stop::Need(queries)) => {
                cluster.store.answer(&queries, &mut view);
                continue;
            }
        };
        let mut now: Vec<(String, Option<Entry>)> = Vec::new();
        for write in &writes {
            if write.key.contains(before)
                && let Some(between) = between.take()
            {
                between(cluster);
            }
            let mut write = write.clone();
            if let Some((_, left)) = now.iter().rev().find(|(key, _)| *key == write.key) {
                write.expect = left.as_ref().map_or(Expect::Absent, |entry| Expect::At(entry.revision));
            }
            if !cluster.store.apply(&write) {
                let applied = now.len();
                let rest = writes[applied..].iter().map(|w| (w.key.clone(), cluster.store.entry(&w.key)));
                now.extend(rest.collect::<Vec<_>>());
                view.record(applied, now);
                continue 'again;
            }
            now.push((write.key.clone(), cluster.store.entry(&write.key)));
        }
        match out {
            Some(out) => return Ok(out),
            None => view.record(now.len(), now),
        }
    }
}

fn stored_handle(cluster: &Cluster, name: &str) -> Option<Handle> {
    let key = keys::handle(&Scope::Cluster, &handle(name));
    cluster.store.entry(&key).map(|entry| Handle::decode(&key, &entry.value).unwrap())
}

/// Takes every free address of a block, as another host would.
fn fill(cluster: &mut Cluster, cidr: &str) {
    let mut block = cluster.block(cidr).unwrap();
    let other = Attribute::new(Some("net.other"), map(&[("node", "b")]));
    for ordinal in block.unallocated.clone() {
        ipam::block::assign(&mut block, ordinal, &other).unwrap();
    }
    cluster.put_block(&block);
    let mut handle = Handle::default();
    handle.blocks.insert(block.cidr, ipam_count(&block));
    cluster.store.put(&keys::handle(&Scope::Cluster, "net.other"), handle.encode());
}

fn ipam_count(block: &Block) -> u32 {
    block.allocated().filter(|(_, entry)| entry.handle() == Some("net.other")).count() as u32
}

#[test]
fn an_assignment_that_goes_elsewhere_leaves_no_count_behind() {
    let mut cluster = cluster("10.0.0.0/28", 30);
    let first = cluster.add("a", "one", Family::V4).unwrap();
    let own = cluster.block(&cluster.claims("a", Family::V4)[0]).unwrap().cidr.to_string();
    let wanted = request("a", "two", &[ask(Family::V4)]);
    let given = disturbed(
        &mut cluster,
        "/block/",
        |cluster| fill(cluster, &own),
        |v, cx| plan_assign(v, cx, &wanted),
    );
    let given = given.unwrap();
    assert!(!given.repeated && given.addresses[0].ip != first);
    let counted = stored_handle(&cluster, "two").unwrap();
    assert_eq!(counted.total(), 1, "{counted:?}");
    cluster.assert_sound();
}

#[test]
fn a_refused_assignment_leaves_no_handle_behind() {
    let mut cluster = cluster("10.0.0.0/30", 30);
    cluster.add("a", "one", Family::V4).unwrap();
    let wanted = request("a", "two", &[ask(Family::V4)]);
    let refused = disturbed(
        &mut cluster,
        "/block/",
        |cluster| fill(cluster, "10.0.0.0/30"),
        |v, cx| plan_assign(v, cx, &wanted),
    );
    assert!(matches!(refused, Err(IpamError::Exhausted { .. })), "{refused:?}");
    assert_eq!(stored_handle(&cluster, "two"), None);
    cluster.assert_sound();
}

#[test]
fn a_release_in_several_rounds_answers_all_that_it_freed() {
    let mut cluster = cluster("10.0.0.0/28", 30);
    let (one, two) = ("10.0.0.0", "10.0.0.4");
    let both = request("a", "pod", &[exactly(one), exactly(two)]);
    cluster.assign("a", &both).unwrap();
    let release = Release { handle: handle("pod"), ..Release::default() };
    let disturb =
        |cluster: &mut Cluster| drop(cluster.assign("b", &request("b", "x", &[exactly("10.0.0.5")])));
    let freed = disturbed(&mut cluster, "10.0.0.4-30", disturb, |v, cx| plan_release(v, cx, &release));
    let mut freed = freed.unwrap().freed;
    freed.sort();
    assert_eq!(freed, [ip(one), ip(two)]);
    assert_eq!(stored_handle(&cluster, "pod"), None);
    cluster.assert_sound();
}

#[test]
fn ids_that_are_no_names_have_no_object_and_are_released_all_the_same() {
    let mut cluster = cluster("10.0.0.0/28", 30);
    let mut odd = request("a", "x", &[ask(Family::V4)]);
    odd.handle = "my_net.c-".to_owned();
    let first = cluster.assign("a", &odd).unwrap();
    let again = cluster.assign("a", &odd).unwrap();
    assert!(again.repeated && again.addresses == first.addresses);
    assert_eq!(cluster.store.keys(&keys::handles(&Scope::Cluster)).count(), 0);
    cluster.assert_sound();
    let release = Release { handle: odd.handle.clone(), ..Release::default() };
    assert_eq!(cluster.release("a", &release).unwrap().freed, [first.addresses[0].ip]);
    assert!(cluster.holdings().held.is_empty());
}

#[test]
fn an_allocation_whose_handle_was_lost_is_released_by_it() {
    let mut cluster = cluster("10.0.0.0/28", 30);
    let given = cluster.add("a", "pod", Family::V4).unwrap();
    cluster.store.delete(&keys::handle(&Scope::Cluster, &handle("pod")));
    assert_eq!(cluster.del("a", "pod"), [given]);
}

// REQ: A-07
#[test]
fn a_handle_of_an_old_migration_is_found_and_released() {
    let mut cluster = cluster("10.0.0.0/28", 30);
    let given = cluster.add("a", "pod", Family::V4).unwrap();
    let cidr = cluster.claims("a", Family::V4)[0].clone();
    let mut block = cluster.block(&cidr).unwrap();
    block.attributes[0].handle_id = Some(format!("{}\r\neth0", handle("pod")));
    cluster.put_block(&block);
    cluster.store.delete(&keys::handle(&Scope::Cluster, &handle("pod")));
    let release = Release { handle: format!("{}\r\neth0", handle("pod")), ..Release::default() };
    assert_eq!(cluster.release("a", &release).unwrap().freed, [given]);
}

#[test]
fn an_empty_block_of_a_pool_that_no_longer_selects_the_node_is_given_up() {
    for transactional in [true, false] {
        let mut cluster = cluster("10.0.0.0/28", 30);
        cluster.transactional = transactional;
        let ips = cluster.fill("a", "pod", 2);
        cluster.pool("pool", "10.0.0.0/28", |spec| {
            (spec.block_size, spec.node_selector) = (30, "rack == 'r1'".to_owned());
        });
        assert_eq!(cluster.del("a", "pod-0"), [ips[0]]);
        assert_eq!(cluster.claims("a", Family::V4).len(), 1, "the block is in use");
        assert_eq!(cluster.del("a", "pod-1"), [ips[1]]);
        assert_eq!(cluster.claims("a", Family::V4).len(), 0);
        assert_eq!(cluster.store.keys("/calico/ipam/v2/assignment/").count(), 0);
        cluster.assert_sound();
    }
}

/// A pool whose blocks are all full, of other hosts.
fn full_pool() -> Cluster {
    let mut cluster = cluster("10.0.0.0/24", 30);
    for number in 0..64_u8 {
        let mut block =
            Block::new(format!("10.0.0.{}/30", number * 4).parse().unwrap(), Some("host:b".into()));
        let other = Attribute::new(Some("net.other"), map(&[("node", "b")]));
        (0..4).for_each(|ordinal| ipam::block::assign(&mut block, ordinal, &other).unwrap());
        cluster.put_block(&block);
    }
    cluster
}

fn rooms_read(cluster: &Cluster) -> usize {
    cluster.reads.iter().filter(|query| matches!(query, model::store::Query::Room(_))).count()
}

#[test]
fn a_full_pool_is_seen_block_by_block_once_and_refused_only_then() {
    let mut cluster = full_pool();
    let wanted = request("a", "pod", &[ask(Family::V4)]);
    let mut view = View::new();
    let plan = |cluster: &mut Cluster, view: &mut View| loop {
        match plan_assign(view, &cx(), &wanted) {
            Err(Stop::Need(queries)) => {
                cluster.store.answer(&queries, view);
                cluster.reads.extend(queries);
            }
            answer => break answer,
        }
    };
    assert!(matches!(plan(&mut cluster, &mut view), Err(Stop::Fail(IpamError::Exhausted { .. }))));
    assert_eq!((rooms_read(&cluster), view.full().len()), (64, 64));
    assert!(!cluster.reads.iter().any(|q| matches!(q, model::store::Query::Get(k) if k.contains("/block/"))));
    // The next request takes the index over: only what changed since is looked at.
    let index = view.full().clone();
    let mut block = cluster.block("10.0.0.128/30").unwrap();
    ipam::block::release(&mut block, &[2]);
    cluster.put_block(&block);
    let (mut view, before) = (View::new(), rooms_read(&cluster));
    view.put_full(index);
    let Ok(Plan::Commit(_, given)) = plan(&mut cluster, &mut view) else { panic!("there is room") };
    assert_eq!(given.addresses[0].ip, ip("10.0.0.130"));
    assert_eq!(rooms_read(&cluster) - before, 1);
}
