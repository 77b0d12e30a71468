//! What comes from the network configuration: ranges, pools to create, reuse delay, sticky names.
#![allow(clippy::unwrap_used, reason = "a test")]

mod cluster;

use cluster::{Cluster, ask, exactly, ip, named, net, ranges, request, seconds};
use ipam::{Assign, IpamError, Note, PoolSpec, Range, RangeFault, Release};
use model::{Block, Family, Scope};
use std::net::IpAddr;

const V4: Family = Family::V4;

fn network() -> Cluster {
    let mut cluster = Cluster::new(&[]);
    cluster.scope = Scope::Network("lan".into());
    cluster
}

fn range(cidr: &str, start: &str, end: &str, gateway: &str) -> Range {
    let ip = |text: &str| text.parse().ok();
    Range { start: ip(start), end: ip(end), gateway: ip(gateway), ..Range::new(net(cidr)) }
}

/// Every address that a range gives until it is exhausted.
fn all(cluster: &mut Cluster, range: &Range) -> Vec<IpAddr> {
    let mut given = Vec::new();
    for n in 0..2000 {
        match cluster.assign("a", &request("a", &format!("p{n}"), &[ranges(std::slice::from_ref(range))])) {
            Ok(assigned) => given.push(assigned.addresses[0].ip),
            Err(IpamError::Exhausted { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    given.sort();
    given
}

#[test]
fn a_range_gives_all_but_network_gateway_and_broadcast() {
    let given = all(&mut network(), &range("10.0.0.0/24", "", "", ""));
    assert_eq!(given.len(), 253);
    assert_eq!((given[0], given[252]), (ip("10.0.0.2"), ip("10.0.0.254")));
    let given = all(&mut network(), &range("10.0.0.0/30", "", "", ""));
    assert_eq!(given, [ip("10.0.0.2")]);
    let given = all(&mut network(), &range("10.0.0.0/29", "", "", "10.0.0.6"));
    assert_eq!(given, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"].map(ip));
    let given = all(&mut network(), &range("10.0.0.0/24", "10.0.0.60", "10.0.0.70", ""));
    assert_eq!(given.len(), 11);
    assert_eq!((given[0], given[10]), (ip("10.0.0.60"), ip("10.0.0.70")));
    let given = all(&mut network(), &range("10.0.0.0/24", "10.0.0.0", "10.0.0.255", ""));
    assert_eq!(given.len(), 253, "bounds do not bring network and broadcast back");
    let given = all(&mut network(), &range("fd00::/120", "", "", ""));
    assert_eq!((given.len(), given[253]), (254, ip("fd00::ff")), "IPv6 has no broadcast address");
}

#[test]
fn the_answer_carries_subnet_and_gateway() {
    let mut cluster = network();
    let asks =
        [ranges(&[range("10.0.0.0/16", "", "", "")]), ranges(&[range("fd00::/64", "", "", "fd00::99")])];
    let given = cluster.assign("a", &request("a", "p", &asks)).unwrap().addresses;
    assert_eq!((given[0].prefix_len, given[0].gateway), (16, Some(ip("10.0.0.1"))));
    assert_eq!((given[1].prefix_len, given[1].gateway), (64, Some(ip("fd00::99"))));
    let again = cluster.assign("a", &request("a", "p", &asks)).unwrap();
    assert!(again.repeated && again.addresses == given);
    cluster.assert_sound();
}

#[test]
fn several_ranges_are_one_supply_and_several_asks_an_address_each() {
    let mut cluster = network();
    let (one, two) = (range("10.0.0.0/30", "", "", ""), range("10.0.1.0/30", "", "", ""));
    let either = [ranges(&[one.clone(), two.clone()])];
    let first = cluster.assign("a", &request("a", "p", &either)).unwrap().addresses[0].ip;
    let second = cluster.assign("a", &request("a", "q", &either)).unwrap().addresses[0].ip;
    assert_eq!([first, second], [ip("10.0.0.2"), ip("10.0.1.2")]);
    let mut cluster = network();
    let both = [ranges(&[one]), ranges(&[two])];
    let given = cluster.assign("a", &request("a", "p", &both)).unwrap().addresses;
    assert_eq!([given[0].ip, given[1].ip], [ip("10.0.0.2"), ip("10.0.1.2")]);
    assert!(cluster.assign("a", &request("a", "p", &both)).unwrap().repeated);
}

#[test]
fn explicit_addresses_of_a_range() {
    let mut cluster = network();
    let mut asked = |name: &str, text: &str| {
        let mut ask = ranges(&[range("10.0.0.0/24", "10.0.0.10", "10.0.0.20", "10.0.0.15")]);
        ask.explicit = Some(ip(text));
        cluster.assign("a", &request("a", name, &[ask])).map(|given| given.addresses[0].clone())
    };
    let given = asked("p", "10.0.0.12").unwrap();
    assert_eq!((given.ip, given.prefix_len, given.gateway), (ip("10.0.0.12"), 24, Some(ip("10.0.0.15"))));
    for text in ["10.0.0.0", "10.0.0.9", "10.0.0.15", "10.0.0.21", "10.0.0.255"] {
        assert!(matches!(asked("q", text), Err(IpamError::Withheld { .. })), "{text}");
    }
    assert!(matches!(asked("q", "10.0.1.12"), Err(IpamError::NotInPool { .. })));
}

#[test]
fn wrong_ranges_say_what_is_wrong() {
    let cases = [
        (range("10.0.0.0/31", "", "", ""), RangeFault::TooSmall),
        (range("10.0.0.1/32", "", "", ""), RangeFault::TooSmall),
        (range("10.0.0.1/24", "", "", ""), RangeFault::HostBits),
        (range("10.0.0.0/24", "10.0.1.1", "", ""), RangeFault::Start),
        (range("10.0.0.0/24", "", "10.0.1.1", ""), RangeFault::End),
        (range("10.0.0.0/24", "10.0.0.9", "10.0.0.8", ""), RangeFault::Order),
        (range("10.0.0.0/24", "", "", "fd00::1"), RangeFault::Gateway),
        (Range { block_size: Some(19), ..range("10.0.0.0/16", "", "", "") }, RangeFault::BlockSize),
        (Range { block_size: Some(23), ..range("10.0.0.0/24", "", "", "") }, RangeFault::BlockSize),
    ];
    for (range, fault) in cases {
        let error = network().assign("a", &request("a", "p", &[ranges(std::slice::from_ref(&range))]));
        assert_eq!(error, Err(IpamError::BadRange { range: range.cidr, fault }));
    }
    let other = ipam::Ask { family: Family::V6, ..ranges(&[range("10.0.0.0/24", "", "", "")]) };
    let error = network().assign("a", &request("a", "p", &[other])).unwrap_err();
    assert!(matches!(error, IpamError::BadRange { fault: RangeFault::Family, .. }));
}

#[test]
fn equal_subnets_of_two_networks_do_not_collide() {
    let mut cluster = network();
    let ask = [ranges(&[range("10.0.0.0/24", "", "", "")])];
    let first = cluster.assign("a", &request("a", "p", &ask)).unwrap().addresses[0].ip;
    cluster.scope = Scope::Network("other".into());
    assert_eq!(cluster.assign("a", &request("a", "p", &ask)).unwrap().addresses[0].ip, first);
    let scopes = cluster.run("a", |view, _| ipam::scopes(view).map(model::store::Plan::Done)).unwrap();
    let network = |name: &str| Scope::Network(name.into());
    assert_eq!(scopes, [Scope::Cluster, network("lan"), network("other")]);
}

fn with_pools(name: &str, pools: &[(&str, Option<u8>)]) -> Assign {
    let cidrs: Vec<&str> = pools.iter().map(|(cidr, _)| *cidr).collect();
    let spec = |(cidr, block_size): &(&str, Option<u8>)| PoolSpec {
        cidr: net(cidr),
        block_size: *block_size,
        nat_outgoing: true,
    };
    let create_pools = pools.iter().map(spec).collect();
    Assign { create_pools, ..request("a", name, &[named(V4, &cidrs)]) }
}

#[test]
fn listed_pools_are_created_once_and_named_by_their_network() {
    let mut cluster = Cluster::new(&[("mine", "10.7.0.0/16")]);
    let request = with_pools("p", &[("10.91.0.0/16", Some(28)), ("10.7.0.0/16", None)]);
    let given = cluster.assign("a", &request).unwrap();
    assert_eq!(given.addresses[0].prefix_len, 28);
    assert_eq!(given.report, [Note::PoolDiffers { pool: "mine".into(), field: "natOutgoing" }]);
    let (pools, notes) = cluster.run("a", |view, _| ipam::pools(view).map(model::store::Plan::Done)).unwrap();
    let names: Vec<&str> = pools.iter().map(|pool| pool.name()).collect();
    assert_eq!((names, notes), (vec!["10-91-0-0-16", "mine"], vec![]));
    let created = &pools[0];
    assert_eq!(
        (created.kind.as_str(), created.spec.block_size, created.spec.nat_outgoing),
        ("IPPool", 28, true)
    );
    let uid = created.metadata.uid.clone().unwrap();
    assert!(uid.len() == 36 && &uid[14..15] == "4" && "89ab".contains(&uid[19..20]), "{uid}");
    assert_eq!(created.metadata.creation_timestamp.as_deref(), Some("2023-11-14T22:13:20Z"));
    let writes = cluster.writes;
    cluster.assign("a", &with_pools("q", &[("10.91.0.0/16", Some(28))])).unwrap();
    assert_eq!(cluster.writes - writes, 2, "block and handle only");
}

#[test]
fn pools_that_contradict_what_exists_are_refused() {
    let mut cluster = Cluster::new(&[("mine", "10.7.0.0/16")]);
    cluster.put_block(&Block::new(net("10.8.0.0/28"), Some("host:a".into())));
    let mut refused = |cidr: &str, size| cluster.assign("a", &with_pools("p", &[(cidr, size)])).unwrap_err();
    let size = refused("10.7.0.0/16", Some(28));
    assert!(matches!(size, IpamError::PoolBlockSize { existing: 26, wanted: 28, .. }), "{size}");
    let overlap = refused("10.7.1.0/24", None);
    assert!(matches!(&overlap, IpamError::PoolOverlap { name, .. } if name == "mine"), "{overlap}");
    assert!(matches!(refused("10.8.0.0/16", None), IpamError::PoolOverBlock { .. }));
    for (cidr, size) in [("10.9.0.0/16", 19), ("10.9.0.0/16", 33), ("10.9.0.0/27", 26)] {
        let error = refused(cidr, Some(size));
        assert!(matches!(error, IpamError::BadBlockSize { .. }), "{error}");
    }
    let small = refused("10.9.0.0/28", None);
    assert!(matches!(small, IpamError::BadBlockSize { block_size: 26, .. }), "smaller than a block: {small}");
}

fn delayed(name: &str) -> Assign {
    Assign { reuse_delay: seconds(60), ..request("a", name, &[ask(V4)]) }
}

fn add(cluster: &mut Cluster, name: &str) -> IpAddr {
    cluster.assign("a", &delayed(name)).unwrap().addresses[0].ip
}

fn del(cluster: &mut Cluster, name: &str) {
    let request = Release { handle: format!("net.{name}"), reuse_delay: seconds(60), ..Release::default() };
    cluster.release("a", &request).unwrap();
}

fn two_blocks() -> Cluster {
    let mut cluster = Cluster::new(&[]);
    cluster.pool("p", "10.0.0.0/29", |spec| spec.block_size = 30);
    cluster
}

// REQ: A-13
#[test]
fn a_released_address_cools_while_others_are_free() {
    let mut cluster = two_blocks();
    let first: Vec<_> = (0..4).map(|n| add(&mut cluster, &format!("p{n}"))).collect();
    del(&mut cluster, "p1");
    cluster.clock += 1;
    del(&mut cluster, "p0");
    // The own block has only cooling addresses: a new block comes first.
    let fresh = add(&mut cluster, "q0");
    assert!(!first.contains(&fresh));
    for n in 1..4 {
        add(&mut cluster, &format!("q{n}"));
    }
    // Nothing else is left: the one that cooled longest.
    let given = cluster.assign("a", &delayed("r0")).unwrap();
    assert_eq!(given.addresses[0].ip, first[1]);
    assert_eq!(given.report, [Note::Cooling { ip: first[1] }]);
    cluster.clock += 60;
    let given = cluster.assign("a", &delayed("r1")).unwrap();
    assert_eq!((given.addresses[0].ip, &given.report[..]), (first[0], &[][..]), "cool by now");
    cluster.assert_sound();
}

// REQ: A-13
#[test]
fn within_a_limit_cooling_addresses_come_before_borrowed_ones() {
    let mut cluster = two_blocks();
    let theirs = cluster.add("b", "b", V4).unwrap();
    cluster.config(|config| config.max_blocks_per_host = 1);
    let own: Vec<_> = (0..4).map(|n| add(&mut cluster, &format!("p{n}"))).collect();
    del(&mut cluster, "p2");
    assert_eq!(add(&mut cluster, "q"), own[2]);
    let borrowed = add(&mut cluster, "r");
    assert!(!own.contains(&borrowed) && borrowed != theirs);
}

#[test]
fn without_a_delay_nothing_is_recorded() {
    let mut cluster = two_blocks();
    cluster.add("a", "p", V4).unwrap();
    cluster.del("a", "p");
    assert_eq!(cluster.store.keys("/percale/").count(), 0);
}

fn sticky(name: &str, container: &str) -> Assign {
    let asks = [ask(V4), ask(Family::V6)];
    Assign { sticky: Some(name.into()), ..request("a", container, &asks) }
}

// REQ: A-13
#[test]
fn a_sticky_name_gets_its_addresses_back() {
    let mut cluster = Cluster::new(&[("p4", "10.0.0.0/24"), ("p6", "fd00::/120")]);
    let ips = |assigned: ipam::Assigned| assigned.addresses.iter().map(|given| given.ip).collect::<Vec<_>>();
    let first = ips(cluster.assign("a", &sticky("default/db-0", "one")).unwrap());
    for n in 0..3 {
        cluster.assign("a", &request("a", &format!("x{n}"), &[ask(V4), ask(Family::V6)])).unwrap();
    }
    cluster.del("a", "one");
    assert_eq!(ips(cluster.assign("a", &sticky("default/db-0", "two")).unwrap()), first);
    cluster.del("a", "two");
    // Someone else has the IPv4 address now: another one, and from then on that.
    cluster.assign("a", &request("a", "thief", &[exactly(&first[0].to_string())])).unwrap();
    let third = cluster.assign("a", &sticky("default/db-0", "three")).unwrap();
    assert_eq!(third.report, [Note::StickyTaken { ip: first[0] }]);
    let third = ips(third);
    assert!(third[0] != first[0] && third[1] == first[1]);
    cluster.del("a", "three");
    cluster.del("a", "thief");
    assert_eq!(ips(cluster.assign("a", &sticky("default/db-0", "four")).unwrap()), third);
}

#[test]
fn a_sticky_address_respects_reservations_and_pools() {
    let mut cluster = Cluster::new(&[("p4", "10.0.0.0/24"), ("p6", "fd00::/120")]);
    let first = cluster.assign("a", &sticky("n", "one")).unwrap().addresses;
    cluster.del("a", "one");
    cluster.reserve(&[&first[0].ip.to_string()]);
    cluster.pool("p6", "fd00::/120", |spec| spec.disabled = true);
    cluster.pool("q6", "fd01::/120", |_| ());
    let given = cluster.assign("a", &sticky("n", "two")).unwrap().addresses;
    assert!(given[0].ip != first[0].ip && net("fd01::/120").contains(&given[1].ip));
}
