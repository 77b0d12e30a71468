//! Where addresses come from: blocks, pools, limits, borrowing, explicit addresses.
#![allow(clippy::unwrap_used, reason = "a test")]

mod cluster;

use cluster::{Cluster, ask, exactly, ip, map, named, net, request};
use ipam::{IpamError, Note};
use model::{Block, Family};
use std::collections::BTreeSet;
use std::net::IpAddr;

const V4: Family = Family::V4;
const V6: Family = Family::V6;

fn small(cidr: &str, block_size: u8) -> Cluster {
    let mut cluster = Cluster::new(&[]);
    cluster.pool("pool", cidr, |spec| spec.block_size = block_size);
    cluster
}

// REQ: A-01
#[test]
fn a_host_fills_its_block_before_it_claims_another() {
    let mut cluster = small("10.0.0.0/16", 29);
    let given = cluster.fill("a", "pod", 20);
    let unique: BTreeSet<_> = given.iter().collect();
    assert_eq!(unique.len(), 20);
    assert_eq!(cluster.claims("a", V4).len(), 3);
    let other = cluster.add("b", "pod", V4).unwrap();
    let claims = cluster.claims("b", V4);
    assert_eq!(claims.len(), 1);
    assert!(net(&claims[0]).contains(&other) && !given.contains(&other));
    cluster.assert_sound();
}

// REQ: A-03
#[test]
fn all_block_sizes_of_both_families() {
    for (family, base, sizes) in [(V4, "10.0.0.0/18", 20..=32), (V6, "fd00::/114", 116..=128)] {
        for size in sizes {
            let mut cluster = small(base, size);
            let given: BTreeSet<_> =
                (0..5).map(|n| cluster.add("a", &format!("p{n}"), family).unwrap()).collect();
            assert_eq!(given.len(), 5, "{family} /{size}");
            cluster.assert_sound();
        }
    }
}

#[test]
fn the_answer_has_the_block_s_prefix_and_the_pool() {
    let mut cluster = small("10.0.0.0/16", 28);
    let given = cluster.assign("a", &request("a", "p", &[ask(V4)])).unwrap().addresses[0].clone();
    assert_eq!((given.prefix_len, given.gateway, given.pool), (28, None, net("10.0.0.0/16")));
    let exact = cluster.assign("a", &request("a", "q", &[exactly("10.0.9.9")])).unwrap();
    assert_eq!(exact.addresses[0].prefix_len, 32);
}

#[test]
fn asked_again_it_answers_the_same() {
    let mut cluster = Cluster::new(&[("p4", "10.0.0.0/24"), ("p6", "fd00::/120")]);
    let request = request("a", "pod", &[ask(V4), ask(V6)]);
    let first = cluster.assign("a", &request).unwrap();
    let writes = cluster.writes;
    let again = cluster.assign("a", &request).unwrap();
    assert_eq!(again.addresses, first.addresses);
    assert!(!first.repeated && again.repeated);
    assert_eq!(cluster.writes, writes, "nothing is written the second time");
    // Also after its pool was disabled.
    cluster.pool("p4", "10.0.0.0/24", |spec| spec.disabled = true);
    assert_eq!(cluster.assign("a", &request).unwrap().addresses, first.addresses);
}

#[test]
fn two_interfaces_of_a_container_and_two_networks_have_addresses_of_their_own() {
    let mut cluster = Cluster::new(&[("p", "10.0.0.0/24")]);
    let mut second = request("a", "pod", &[ask(V4)]);
    second.attrs.insert("ifname".into(), "eth1".into());
    let first = cluster.add("a", "pod", V4).unwrap();
    let given = cluster.assign("a", &second).unwrap();
    assert!(!given.repeated && given.addresses[0].ip != first);
    let mut release = ipam::Release { handle: second.handle, ..Default::default() };
    release.matches = map(&[("network", "net"), ("ifname", "eth1")]);
    assert_eq!(cluster.release("a", &release).unwrap().freed, [given.addresses[0].ip]);
    assert_eq!(cluster.held("pod").len(), 1);
    cluster.assert_sound();
}

#[test]
fn both_families_or_none() {
    let mut cluster = Cluster::new(&[("p4", "10.0.0.0/24")]);
    let request = request("a", "pod", &[ask(V4), ask(V6)]);
    assert!(matches!(cluster.assign("a", &request), Err(IpamError::NoPools { family: V6, .. })));
    assert_eq!(cluster.writes, 0, "the IPv4 address is not kept");
    cluster.pool("p6", "fd00::/120", |_| ());
    let given = cluster.assign("a", &request).unwrap();
    assert_eq!(given.addresses.len(), 2);
    assert!(given.addresses[0].ip.is_ipv4() && given.addresses[1].ip.is_ipv6());
}

#[test]
fn one_commit_writes_few_keys() {
    let mut cluster = Cluster::new(&[("p", "10.0.0.0/24")]);
    cluster.add("a", "first", V4).unwrap();
    assert_eq!(cluster.writes, 3, "affinity, block, handle");
    cluster.writes = 0;
    cluster.add("a", "second", V4).unwrap();
    assert_eq!(cluster.writes, 2, "block, handle");
}

// REQ: A-01
#[test]
fn borrowing_and_strict_affinity() {
    let mut cluster = small("10.0.0.0/29", 30);
    cluster.fill("a", "a", 5);
    // Both blocks are a's; b borrows what is left.
    let given = cluster.assign("b", &request("b", "pod", &[ask(V4)])).unwrap();
    let ip = given.addresses[0].ip;
    assert!(given.report.iter().any(|n| matches!(n, Note::Borrowed { ip: borrowed, .. } if *borrowed == ip)));
    assert_eq!(cluster.claims("b", V4).len(), 0);
    cluster.config(|config| config.strict_affinity = true);
    let error = cluster.add("b", "other", V4).unwrap_err();
    let IpamError::Exhausted { own_blocks, foreign_blocks, strict, .. } = &error else { panic!("{error}") };
    assert_eq!((*own_blocks, *foreign_blocks, *strict), (0, 2, true));
    assert!(error.to_string().contains("strict affinity forbids borrowing"), "{error}");
    cluster.config(|config| config.strict_affinity = false);
    cluster.add("b", "other", V4).unwrap();
    cluster.add("b", "third", V4).unwrap();
    assert!(matches!(cluster.add("b", "fourth", V4), Err(IpamError::Exhausted { .. })));
    assert_eq!(cluster.del("b", "pod"), [ip], "a borrowed address goes back to its block");
    assert_eq!(cluster.add("a", "again", V4).unwrap(), ip);
    cluster.assert_sound();
}

// REQ: A-04
#[test]
fn the_limit_of_blocks_holds_per_family() {
    for (limit, addresses) in [(1, 64), (2, 128)] {
        let mut cluster = Cluster::new(&[("p", "10.0.0.0/16")]);
        cluster.config(|config| (config.max_blocks_per_host, config.strict_affinity) = (limit, true));
        cluster.fill("a", "pod", addresses);
        let error = cluster.add("a", "over", V4).unwrap_err();
        assert!(matches!(error, IpamError::BlockLimit { limit: l, .. } if l == limit), "{error}");
        assert!(error.to_string().contains("maxBlocksPerHost"));
        cluster.pool("p6", "fd00::/112", |_| ());
        cluster.add("a", "six", V6).unwrap();
    }
}

#[test]
fn the_smaller_of_both_limits_holds() {
    for (stored, asked) in [(1, Some(2)), (2, Some(1)), (0, Some(1)), (1, None), (1, Some(0))] {
        let mut cluster = small("10.0.0.0/16", 30);
        cluster.config(|config| (config.max_blocks_per_host, config.strict_affinity) = (stored, true));
        let mut results = (0..5).map(|n| {
            let mut request = request("a", &format!("p{n}"), &[ask(V4)]);
            request.max_blocks = asked;
            cluster.assign("a", &request).is_ok()
        });
        assert!(results.by_ref().take(4).all(|ok| ok), "{stored} {asked:?}");
        assert_eq!(results.next(), Some(false), "{stored} {asked:?}");
    }
}

#[test]
fn without_automatic_blocks_a_host_keeps_to_what_it_has() {
    let mut cluster = small("10.0.0.0/16", 30);
    cluster.add("a", "first", V4).unwrap();
    cluster.config(|config| (config.auto_allocate_blocks, config.strict_affinity) = (false, true));
    for n in 0..3 {
        cluster.add("a", &format!("p{n}"), V4).unwrap();
    }
    assert!(matches!(cluster.add("a", "over", V4), Err(IpamError::NoAutoAllocate { blocks: 1, .. })));
}

// REQ: A-01
#[test]
fn node_selectors_choose_pools() {
    let mut cluster = Cluster::new(&[]);
    cluster.pool("east", "10.1.0.0/24", |spec| spec.node_selector = "zone == 'east'".into());
    cluster.pool("west", "10.2.0.0/24", |spec| spec.node_selector = "zone == 'west'".into());
    cluster.node("a", &[("zone", "west")]);
    assert!(net("10.2.0.0/24").contains(&cluster.add("a", "p", V4).unwrap()));
    let error = cluster.add("unlabelled", "q", V4).unwrap_err();
    assert!(matches!(error, IpamError::NoPools { .. }), "{error}");
    // A pool that is asked for by name need not select the node.
    let by_name = request("a", "r", &[named(V4, &["east"])]);
    assert!(net("10.1.0.0/24").contains(&cluster.assign("a", &by_name).unwrap().addresses[0].ip));
    cluster.pool("east", "10.1.0.0/24", |spec| spec.node_selector = "zone = 'x'".into());
    let error = cluster.add("a", "s", V4).unwrap_err();
    assert!(error.to_string().contains("pool east") && error.to_string().contains("byte 5"), "{error}");
}

// REQ: C-15
#[test]
fn namespace_selectors_choose_pools_where_the_namespace_is_known() {
    let mut cluster = Cluster::new(&[]);
    cluster.pool("red", "10.1.0.0/24", |spec| spec.namespace_selector = "team == 'red'".into());
    cluster.pool("blue", "10.2.0.0/24", |spec| {
        spec.namespace_selector = "team == 'blue'".into();
        spec.node_selector = "zone == 'west'".into();
    });
    let mut of_team = |team: &str, name: &str| {
        let namespace = Some([("team".to_owned(), team.to_owned())].into());
        cluster.assign("a", &ipam::Assign { namespace, ..request("a", name, &[ask(V4)]) })
    };
    let given = of_team("red", "p").unwrap();
    assert!(net("10.1.0.0/24").contains(&given.addresses[0].ip) && given.report.is_empty());
    // Both selectors must match.
    assert!(matches!(of_team("blue", "q"), Err(IpamError::NoPools { .. })));
}

#[test]
fn pools_that_are_not_for_pods_are_passed_over() {
    let mut cluster = Cluster::new(&[]);
    cluster.pool("disabled", "10.1.0.0/24", |spec| spec.disabled = true);
    cluster.pool("lb", "10.2.0.0/24", |spec| spec.allowed_uses = vec!["LoadBalancer".into()]);
    cluster.pool("manual", "10.3.0.0/24", |spec| spec.assignment_mode = "Manual".into());
    cluster.pool("ns", "10.4.0.0/24", |spec| spec.namespace_selector = "team == 'x'".into());
    assert!(matches!(cluster.add("a", "p", V4), Err(IpamError::NoPools { .. })));
    cluster.pool("pods", "10.5.0.0/24", |spec| spec.allowed_uses = vec!["Workload".into()]);
    let given = cluster.assign("a", &request("a", "p", &[ask(V4)])).unwrap();
    assert!(net("10.5.0.0/24").contains(&given.addresses[0].ip));
    assert_eq!(given.report, [Note::NamespacePool { pool: "ns".into() }]);
    let asked = |cluster: &mut Cluster, pool| cluster.assign("a", &request("a", pool, &[named(V4, &[pool])]));
    assert!(matches!(asked(&mut cluster, "disabled"), Err(IpamError::PoolDisabled { .. })));
    assert!(matches!(asked(&mut cluster, "lb"), Err(IpamError::PoolNotForWorkloads { .. })));
    assert!(matches!(asked(&mut cluster, "missing"), Err(IpamError::PoolMissing { .. })));
    assert!(asked(&mut cluster, "manual").is_ok(), "a manual pool serves those who name it");
    let wrong = request("a", "six", &[named(V6, &["pods"])]);
    assert!(matches!(cluster.assign("a", &wrong), Err(IpamError::PoolFamily { .. })));
}

#[test]
fn named_pools_are_used_in_their_order_then_the_next() {
    let mut cluster = Cluster::new(&[]);
    cluster.pool("one", "10.1.0.0/30", |spec| spec.block_size = 30);
    cluster.pool("two", "10.2.0.0/30", |spec| spec.block_size = 30);
    let asks = [named(V4, &["10.2.0.0/30", "one"])];
    let mut given: Vec<IpAddr> = (0..8)
        .map(|n| cluster.assign("a", &request("a", &format!("p{n}"), &asks)).unwrap().addresses[0].ip)
        .collect();
    assert!(given.drain(..4).all(|ip| net("10.2.0.0/30").contains(&ip)));
    assert!(given.drain(..).all(|ip| net("10.1.0.0/30").contains(&ip)));
}

#[test]
fn a_full_pool_is_passed_over_at_once() {
    let mut cluster = Cluster::new(&[]);
    cluster.pool("full", "10.1.0.0/16", |spec| spec.block_size = 28);
    cluster.pool("next", "10.2.0.0/16", |_| ());
    for third in 0..=255u8 {
        for fourth in (0..=255u8).step_by(16) {
            let mut block = Block::new(net(&format!("10.1.{third}.{fourth}/28")), Some("host:other".into()));
            block.unallocated.clear();
            block.allocations.fill(Some(0));
            block.attributes.push(model::Attribute::new(Some("h"), map(&[])));
            cluster.put_block(&block);
        }
    }
    assert!(net("10.2.0.0/16").contains(&cluster.add("a", "p", V4).unwrap()));
    assert!(cluster.reads.len() < 12, "{} reads", cluster.reads.len());
}

// REQ: A-03
#[test]
fn huge_pools_cost_no_more_reads_than_small_ones() {
    let cost = |cidr: &str, size: u8| {
        let mut cluster = small(cidr, size);
        let family = Family::of_net(&net(cidr));
        cluster.add("a", "p", family).unwrap();
        cluster.reads.len()
    };
    let usual = cost("10.0.0.0/24", 26);
    for (cidr, size) in [("10.0.0.0/8", 26), ("10.0.0.0/8", 32), ("fd00::/48", 122), ("fd00::/48", 128)] {
        assert_eq!(cost(cidr, size), usual, "{cidr}");
    }
}

// REQ: A-13
#[test]
fn reserved_addresses_are_not_given_unasked() {
    let mut cluster = small("10.0.0.0/29", 30);
    cluster.reserve(&["10.0.0.0/31", "10.0.0.4/30"]);
    let mut given: Vec<_> = (0..2).map(|n| cluster.add("a", &format!("p{n}"), V4).unwrap()).collect();
    given.sort();
    assert_eq!(given, [ip("10.0.0.2"), ip("10.0.0.3")]);
    assert!(cluster.add("a", "over", V4).is_err());
    assert_eq!(cluster.block("10.0.0.4/30"), None, "a block that is all reserved is not claimed");
    assert!(cluster.assign("a", &request("a", "asked", &[exactly("10.0.0.0")])).is_ok());
}

#[test]
fn excluded_addresses_are_passed_over() {
    let mut cluster = small("10.0.0.0/30", 30);
    let mut request = request("a", "p", &[ask(V4)]);
    request.excluded = vec![ip("10.0.0.0"), ip("10.0.0.1")];
    assert_eq!(cluster.assign("a", &request).unwrap().addresses[0].ip, ip("10.0.0.2"));
    request.handle = "other".into();
    request.asks = vec![exactly("10.0.0.1")];
    assert!(matches!(cluster.assign("a", &request), Err(IpamError::Excluded { .. })));
}

#[test]
fn explicit_addresses() {
    let mut cluster = Cluster::new(&[("p", "10.0.0.0/16"), ("p6", "fd00::/112")]);
    let mut assign = |host: &str, name: &str, text: &str| {
        cluster.assign(host, &request(host, name, &[exactly(text)])).map(|given| given.addresses[0].ip)
    };
    assert_eq!(assign("a", "one", "10.0.3.7"), Ok(ip("10.0.3.7")));
    assert_eq!(assign("a", "six", "fd00::17"), Ok(ip("fd00::17")));
    assert_eq!(assign("a", "one", "10.0.3.7"), Ok(ip("10.0.3.7")), "repeated");
    let taken = IpamError::AlreadyAssigned { ip: ip("10.0.3.7"), handle: Some("net.one".into()) };
    assert_eq!(assign("a", "two", "10.0.3.7"), Err(taken.clone()));
    assert!(taken.to_string().contains("net.one"));
    assert!(matches!(assign("a", "two", "10.9.0.1"), Err(IpamError::NotInPool { .. })));
    assert!(matches!(assign("a", "one", "10.0.3.8"), Err(IpamError::HoldsOther { .. })));
    assert_eq!(assign("b", "three", "10.0.3.9"), Ok(ip("10.0.3.9")), "borrowed from a's block");
    assert_eq!(cluster.claims("a", V4), ["10.0.3.0/26"], "the block was claimed for the asking host");
    cluster.config(|config| config.strict_affinity = true);
    let strict = cluster.assign("b", &request("b", "four", &[exactly("10.0.3.10")]));
    assert!(matches!(strict, Err(IpamError::ForeignBlock { .. })));
    let wrong = ipam::Ask { family: V6, ..exactly("10.0.3.11") };
    let refused = cluster.assign("a", &request("a", "five", &[wrong]));
    assert!(matches!(refused, Err(IpamError::WrongFamily { .. })));
    cluster.assert_sound();
}

#[test]
fn an_explicit_address_in_a_block_of_another_size_uses_that_block() {
    let mut cluster = small("10.0.0.0/24", 28);
    cluster.put_block(&Block::new(net("10.0.0.0/26"), Some("host:a".into())));
    cluster.assign("a", &request("a", "p", &[exactly("10.0.0.17")])).unwrap();
    assert_eq!(cluster.block("10.0.0.16/28"), None);
    assert_eq!(cluster.block("10.0.0.0/26").unwrap().allocated().count(), 1);
}

#[test]
fn a_load_balancer_s_block_lends_nothing() {
    let mut cluster = small("10.0.0.0/30", 30);
    cluster.put_block(&Block::new(net("10.0.0.0/30"), Some("virtual:load-balancer".into())));
    assert!(matches!(cluster.add("a", "p", V4), Err(IpamError::Exhausted { .. })));
    let refused = cluster.assign("a", &request("a", "p", &[exactly("10.0.0.1")]));
    assert!(matches!(refused, Err(IpamError::ForeignBlock { .. })));
}

#[test]
fn a_block_with_unknown_state_is_left_alone() {
    let mut cluster = small("10.0.0.0/29", 30);
    let first = cluster.add("a", "p", V4).unwrap();
    let claimed = cluster.claims("a", V4)[0].clone();
    let mut block = cluster.block(&claimed).unwrap();
    block.other.insert("leases".into(), serde_json::json!([1]));
    cluster.put_block(&block);
    let given = cluster.assign("a", &request("a", "q", &[ask(V4)])).unwrap();
    assert!(!net(&claimed).contains(&given.addresses[0].ip));
    assert!(matches!(&given.report[..], [Note::ReadOnly { field, .. }] if field == "leases"));
    assert_eq!(cluster.held("p")[0].ip, first, "it can be read");
    let release = ipam::Release { handle: "net.p".into(), ..Default::default() };
    assert!(matches!(cluster.release("a", &release), Err(IpamError::ReadOnlyBlock { .. })));
}

#[test]
fn a_damaged_block_is_passed_over_and_reported() {
    let mut cluster = small("10.0.0.0/29", 30);
    cluster.add("a", "p", V4).unwrap();
    let claimed = cluster.claims("a", V4)[0].clone();
    let key = model::keys::block(&cluster.scope, &net(&claimed));
    cluster.store.put(&key, b"{\"cidr\":".to_vec());
    let given = cluster.assign("a", &request("a", "q", &[ask(V4)])).unwrap();
    assert!(!net(&claimed).contains(&given.addresses[0].ip));
    assert!(given.report.iter().any(|note| matches!(note, Note::Unreadable { key: k, .. } if *k == key)));
    let error = cluster.assign("a", &request("a", "p", &[ask(V4)])).unwrap_err();
    assert!(matches!(error, IpamError::Damaged(_)), "what p holds cannot be known: {error}");
}

#[test]
fn a_locked_store_is_not_written() {
    let mut cluster = Cluster::new(&[("p", "10.0.0.0/24")]);
    cluster.add("a", "p", V4).unwrap();
    let key = model::keys::cluster_information();
    for (value, ready) in [
        (r#"{"spec":{"datastoreReady":false}}"#, false),
        ("{}", false),
        (r#"{"spec":{"datastoreReady":true}}"#, true),
    ] {
        cluster.store.put(&key, value.as_bytes().to_vec());
        let release = ipam::Release { handle: "none".into(), ..Default::default() };
        assert_eq!(cluster.release("a", &release).is_ok(), ready);
        assert_eq!(cluster.add("a", "q", V4).is_ok(), ready, "{value}");
    }
}

#[test]
fn leftovers_of_a_broken_claim_are_used() {
    use model::{Affinity, AffinityState, Stored};
    let cidr = net("10.0.0.0/30");
    for state in [AffinityState::Pending, AffinityState::Confirmed, AffinityState::PendingDeletion] {
        for with_block in [false, true] {
            let mut cluster = small("10.0.0.0/30", 30);
            let key = model::keys::affinity(&cluster.scope, "a", &cidr);
            cluster.store.put(&key, Affinity::new(state).encode());
            if with_block {
                cluster.put_block(&Block::new(cidr, Some("host:a".into())));
            }
            cluster.add("a", "p", V4).unwrap();
            let stored = cluster.store.entry(&key).unwrap();
            assert_eq!(Affinity::decode(&key, &stored.value).unwrap().state(), AffinityState::Confirmed);
            cluster.assert_sound();
        }
    }
}

#[test]
fn a_stale_claim_to_another_host_s_block_goes() {
    use model::{Affinity, AffinityState, Stored};
    let mut cluster = small("10.0.0.0/29", 30);
    let taken = cluster.add("b", "p", V4).unwrap();
    let block = net(&cluster.claims("b", V4)[0]);
    let key = model::keys::affinity(&cluster.scope, "a", &block);
    cluster.store.put(&key, Affinity::new(AffinityState::Confirmed).encode());
    let given = cluster.add("a", "q", V4).unwrap();
    assert!(!block.contains(&given) && block.contains(&taken));
    assert_eq!(cluster.store.entry(&key), None);
    cluster.assert_sound();
}

#[test]
fn a_request_must_say_who_and_what() {
    let mut cluster = Cluster::new(&[("p", "10.0.0.0/24")]);
    assert_eq!(cluster.assign("a", &request("a", "p", &[])), Err(IpamError::Empty));
    let nobody = ipam::Assign { handle: String::new(), ..request("a", "p", &[ask(V4)]) };
    assert_eq!(cluster.assign("a", &nobody), Err(IpamError::Empty));
}

#[test]
fn twenty_thousand_addresses_of_one_host() {
    let full = std::env::var_os("PERCALE_FULL").is_some();
    let count = if full { 20_000 } else { 2_000 };
    let mut cluster = Cluster::new(&[("p", "10.0.0.0/16")]);
    let given: BTreeSet<_> = cluster.fill("a", "pod", count).into_iter().collect();
    assert_eq!(given.len(), count);
    assert_eq!(cluster.holdings().held.len(), count);
}
