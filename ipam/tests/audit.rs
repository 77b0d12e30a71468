//! What the consistency check finds, and what its repair does.
#![allow(clippy::unwrap_used, reason = "a test")]

mod cluster;

use cluster::{Cluster, ask, handle, ip, map, net, request};
use ipam::audit::{HostFacts, Report, Witness, audit, plan_repair};
use ipam::sim::SimStore;
use model::store::Plan;
use model::{Affinity, AffinityState, Attribute, Block, Family, Handle, Stored, keys};

const V4: Family = Family::V4;

/// Host `a` with containers `live` and `dead`, whose namespaces are named as they are.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(&[]);
    cluster.pool("pool", "10.0.0.0/24", |spec| spec.block_size = 30);
    cluster.node("a", &[]);
    cluster.node("b", &[]);
    for name in ["live", "dead"] {
        cluster.add("a", name, V4).unwrap();
    }
    cluster
}

fn facts() -> HostFacts {
    let netns = [("live".to_owned(), true), ("dead".to_owned(), false)].into();
    HostFacts { host: "a".into(), boot_id: "boot".into(), netns, ..HostFacts::default() }
}

fn check(cluster: &mut Cluster, facts: &HostFacts) -> Report {
    cluster.run("a", |view, cx| audit(view, cx, facts).map(Plan::Done)).unwrap()
}

/// Repairs until nothing is left to repair; the last report.
fn repair(cluster: &mut Cluster, facts: &HostFacts) -> Report {
    for _ in 0..10 {
        let report = check(cluster, facts);
        let done = cluster.run("a", |view, cx| plan_repair(view, cx, facts, &report)).unwrap();
        if !done.more {
            break;
        }
    }
    check(cluster, facts)
}

fn reasons(items: &[ipam::audit::Item]) -> Vec<&str> {
    items.iter().map(|item| item.reason.as_str()).collect()
}

// REQ: A-12
#[test]
fn an_address_whose_namespace_is_gone_is_leaked_and_freed() {
    let mut cluster = cluster();
    let report = check(&mut cluster, &facts());
    assert_eq!((report.allocations, report.blocks, report.leaked.len()), (2, 1, 1));
    let leak = &report.leaked[0];
    assert_eq!((leak.handle.as_deref(), leak.node.as_deref()), (Some("net.dead"), Some("a")));
    assert_eq!(leak.reason, "neither its namespace dead nor a host link exists");
    let repaired = repair(&mut cluster, &facts());
    assert!(repaired.clean() && repaired.allocations == 1, "{repaired:?}");
    assert_eq!(cluster.held("live").len(), 1);
    assert_eq!(cluster.held("dead"), []);
}

#[test]
fn what_lives_in_any_way_or_was_not_looked_at_is_no_leak() {
    let dead_ip = cluster().held("dead")[0].ip;
    let changes: [fn(&mut HostFacts, std::net::IpAddr); 4] = [
        |facts, _| facts.links.extend([(handle("dead"), "eth0".to_owned())]),
        |facts, ip| facts.routed.extend([ip]),
        |facts, _| facts.netns.retain(|netns, _| netns != "dead"),
        |facts, _| facts.host = "b".into(),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut facts = facts();
        change(&mut facts, dead_ip);
        assert!(check(&mut cluster(), &facts).clean(), "{number}");
    }
}

#[test]
fn an_address_of_an_earlier_boot_is_leaked() {
    let mut cluster = cluster();
    let mut old = request("a", "old", &[ask(V4)]);
    old.attrs.insert("boot_id".into(), "earlier".into());
    cluster.assign("a", &old).unwrap();
    let mut facts = facts();
    facts.netns = map(&[]).into_keys().map(|key| (key, true)).collect();
    let report = check(&mut cluster, &facts);
    assert_eq!(report.leaked.len(), 1);
    assert_eq!(report.leaked[0].handle.as_deref(), Some("net.old"));
}

#[test]
fn without_a_recorded_namespace_it_only_reports() {
    let mut cluster = cluster();
    let mut old = request("a", "calico", &[ask(V4)]);
    old.attrs.remove("netns");
    cluster.assign("a", &old).unwrap();
    let mut gone = request("gone-node", "far", &[ask(V4)]);
    gone.attrs.remove("netns");
    cluster.assign("a", &gone).unwrap();
    let report = repair(&mut cluster, &facts());
    let mut found = reasons(&report.suspected);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "no namespace is recorded, and no link or route of this host is its",
            "node gone-node does not exist"
        ]
    );
    assert!(report.suspected.iter().all(|item| !item.repairable));
    // The node's claim apart, it is no finding.
    assert_eq!(report.items().count(), 0, "{report:?}");
}

#[test]
fn tunnels_services_reservations_and_cooldown_are_never_leaks() {
    let mut cluster = cluster();
    let mut block = Block::new(net("10.0.1.0/30"), Some("host:a".into()));
    let entries = [
        Attribute::new(Some("ipip-tunnel-addr-a"), map(&[("node", "a"), ("type", "ipipTunnelAddress")])),
        Attribute::new(Some("windows-reserved-ipam-handle"), map(&[("note", "windows host rsvd")])),
        Attribute::default(),
    ];
    for (ordinal, entry) in (0..).zip(&entries) {
        ipam::block::assign(&mut block, ordinal, entry).unwrap();
    }
    block.attributes[2].other.insert("releasedAt".into(), serde_json::json!("2026-05-01T10:00:00Z"));
    cluster.put_block(&block);
    let key = keys::affinity(&cluster.scope, "a", &block.cidr);
    cluster.store.put(&key, Affinity::new(AffinityState::Confirmed).encode());
    let count = Handle { blocks: [(block.cidr, 1)].into(), ..Handle::default() };
    cluster.store.put(&keys::handle(&cluster.scope, "ipip-tunnel-addr-a"), count.encode());
    let mut virtual_block = Block::new(net("10.0.1.4/30"), Some("virtual:load-balancer".into()));
    let service = Attribute::new(Some("lb-1"), map(&[("node", "a"), ("service", "s"), ("netns", "dead")]));
    ipam::block::assign(&mut virtual_block, 0, &service).unwrap();
    cluster.put_block(&virtual_block);
    let count = Handle { blocks: [(virtual_block.cidr, 1)].into(), ..Handle::default() };
    cluster.store.put(&keys::handle(&cluster.scope, "lb-1"), count.encode());
    cluster.del("a", "dead");
    let report = check(&mut cluster, &facts());
    assert!(report.clean(), "{report:?}");
    assert_eq!(report.allocations, 5);
}

#[test]
fn handles_are_compared_with_the_blocks() {
    let mut cluster = cluster();
    cluster.del("a", "dead");
    let put = |store: &mut SimStore, id: &str, count: u32| {
        let block = net("10.0.0.0/30");
        let key = keys::handle(&model::Scope::Cluster, id);
        store.put(&key, Handle { blocks: [(block, count)].into(), ..Handle::default() }.encode());
    };
    put(&mut cluster.store, "net.orphan", 1);
    put(&mut cluster.store, "net.live", 3);
    let mut missing = request("a", "missing", &[ask(V4)]);
    missing.attrs.insert("netns".into(), "live".into());
    cluster.assign("a", &missing).unwrap();
    cluster.store.delete(&keys::handle(&cluster.scope, "net.missing"));
    let report = check(&mut cluster, &facts());
    assert_eq!(reasons(&report.orphan_handles), ["no address is allocated to it"]);
    let mut wrong = reasons(&report.handle_counts);
    wrong.sort_unstable();
    assert_eq!(
        wrong,
        ["it counts 3 addresses in 1 blocks, but holds 1 in 1", "it holds addresses, but has no object"]
    );
    assert!(repair(&mut cluster, &facts()).clean());
    assert_eq!(cluster.del("a", "missing").len(), 1, "it can be released again");
}

#[test]
fn affinities_are_compared_with_blocks_and_nodes() {
    let mut cluster = cluster();
    cluster.del("a", "dead");
    let own = net(&cluster.claims("a", V4)[0]);
    cluster.add("gone", "p", V4).unwrap();
    cluster.del("gone", "p");
    let confirmed = Affinity::new(AffinityState::Confirmed).encode();
    cluster.store.put(&keys::affinity(&cluster.scope, "b", &own), confirmed.clone());
    cluster.store.put(&keys::affinity(&cluster.scope, "a", &net("10.0.0.252/30")), confirmed);
    let report = check(&mut cluster, &facts());
    let mut found = reasons(&report.orphan_affinities);
    found.sort_unstable();
    assert_eq!(
        found,
        ["its block belongs to host:a", "its block does not exist", "node gone does not exist"]
    );
    assert!(repair(&mut cluster, &facts()).clean());
    assert_eq!((cluster.claims("a", V4).len(), cluster.claims("b", V4).len()), (1, 0));
    assert_eq!(cluster.holdings().blocks.len(), 1, "the empty block of the unknown node is gone");
}

#[test]
fn an_empty_block_of_a_known_host_is_fine() {
    let mut cluster = cluster();
    for name in ["live", "dead"] {
        cluster.del("a", name);
    }
    assert!(check(&mut cluster, &facts()).clean());
}

#[test]
fn lost_addresses_and_unclaimed_blocks_come_back() {
    let mut cluster = cluster();
    cluster.del("a", "dead");
    let cidr = cluster.claims("a", V4)[0].clone();
    let mut block = cluster.block(&cidr).unwrap();
    block.unallocated.truncate(1);
    cluster.put_block(&block);
    cluster.store.delete(&keys::affinity(&cluster.scope, "a", &block.cidr));
    let report = check(&mut cluster, &facts());
    assert_eq!(report.lost.len(), 2, "{report:?}");
    assert!(report.lost[0].reason.starts_with("2 addresses of the block"), "{report:?}");
    assert!(repair(&mut cluster, &facts()).clean());
    assert_eq!(cluster.block(&cidr).unwrap().unallocated.len(), 3);
}

#[test]
fn an_address_in_two_blocks_is_reported_and_left_to_its_owner() {
    let mut cluster = cluster();
    cluster.del("a", "dead");
    let held = cluster.held("live")[0].clone();
    let mut wide = Block::new(model::ip::net(held.ip, 29), Some("host:b".into()));
    let other = Attribute::new(Some("net.other"), map(&[("node", "b")]));
    let ordinal = wide.ordinal(held.ip).unwrap();
    ipam::block::assign(&mut wide, ordinal, &other).unwrap();
    cluster.put_block(&wide);
    let report = check(&mut cluster, &facts());
    let mut owners: Vec<_> = report.duplicated.iter().map(|item| item.handle.clone().unwrap()).collect();
    owners.sort();
    assert_eq!(owners, ["net.live", "net.other"]);
    assert!(report.duplicated.iter().all(|item| item.ip == Some(held.ip)));
    assert_eq!(repair(&mut cluster, &facts()).duplicated.len(), 2);
}

#[test]
fn a_damaged_block_is_reported_and_what_refers_to_it_is_not_judged() {
    let mut cluster = cluster();
    let key = keys::block(&cluster.scope, &net(&cluster.claims("a", V4)[0]));
    cluster.store.put(&key, b"garbage".to_vec());
    let report = repair(&mut cluster, &facts());
    assert_eq!(report.damaged.len(), 1);
    assert!(report.damaged[0].reason.contains(&key));
    assert_eq!(report.items().count(), 1, "{report:?}");
    assert_eq!(cluster.store.keys(&keys::handles(&cluster.scope)).count(), 2, "the handles stay");
}

#[test]
fn what_changed_since_the_audit_is_not_repaired() {
    let mut cluster = cluster();
    let report = check(&mut cluster, &facts());
    // The same container came back under the same name and has another allocation by now.
    let seen = cluster.held("dead")[0].ip;
    cluster.del("a", "dead");
    cluster.add("a", "x", V4).unwrap();
    let again = request("a", "dead", &[cluster::exactly(&seen.to_string())]);
    cluster.assign("a", &again).unwrap();
    let done = cluster.run("a", |view, cx| plan_repair(view, cx, &facts(), &report)).unwrap();
    assert_eq!(done.released, []);
    assert_eq!(cluster.held("dead")[0].ip, seen);
}

#[test]
fn hundreds_of_leaks_are_repaired_in_several_commits() {
    let mut cluster = cluster();
    let mut facts = facts();
    for n in 0..120 {
        let name = format!("p{n}");
        cluster.add("a", &name, V4).unwrap();
        facts.netns.insert(name, false);
    }
    let report = check(&mut cluster, &facts);
    assert_eq!(report.leaked.len(), 121);
    let mut commits = 0;
    loop {
        let before = cluster.writes;
        let report = check(&mut cluster, &facts);
        let done = cluster.run("a", |view, cx| plan_repair(view, cx, &facts, &report)).unwrap();
        assert!(cluster.writes - before <= 100);
        commits += 1;
        if !done.more {
            break;
        }
    }
    assert!(commits >= 2);
    assert_eq!(cluster.holdings().held.len(), 1);
}

#[test]
fn the_report_prints_as_documented() {
    let report = check(&mut cluster(), &facts());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["allocations"], 2);
    assert_eq!(json["blocks"], 1);
    assert_eq!(json["leaked"][0]["handle"], "net.dead");
    assert_eq!(json["leaked"][0]["node"], "a");
    assert!(json["leaked"][0]["ip"].is_string() && json["leaked"][0]["reason"].is_string());
    for name in ["duplicated", "orphan_handles", "orphan_affinities"] {
        assert_eq!(json[name], serde_json::json!([]));
    }
    assert_eq!(ip("10.0.0.1").to_string(), "10.0.0.1");
}

/// A pod as Kubernetes stores it, on node `a` unless said otherwise.
fn pod(cluster: &mut Cluster, name: &str, node: &str, uid: &str, ip: &str) {
    let pod = serde_json::json!({
        "metadata": {"name": name, "namespace": "ns", "uid": uid},
        "spec": {"nodeName": node}, "status": {"podIPs": [{"ip": ip}]},
    });
    cluster.store.put(&model::pod::key("ns", name), pod.to_string().into_bytes());
}

/// What a Calico wrote for a pod: no namespace, no interface.
fn of_calico(cluster: &mut Cluster, node: &str, pod: &str, timestamp: &str) -> std::net::IpAddr {
    let mut request = request("a", pod, &[ask(V4)]);
    request.attrs =
        map(&[("node", node), ("pod", pod), ("namespace", "ns"), ("poduid", "u1"), ("timestamp", timestamp)]);
    cluster.assign("a", &request).unwrap().addresses[0].ip
}

const LONG_AGO: &str = "2021-02-22 10:00:00.5 +0000 UTC";

fn with_pods() -> HostFacts {
    HostFacts { witness: Witness::Pods, now_ns: 1_700_000_000_000_000_000, ..facts() }
}

// REQ: A-12
#[test]
fn two_proofs_make_a_leak_and_one_makes_a_suspicion() {
    let mut cluster = cluster();
    cluster.del("a", "dead");
    let expected = [
        // Node, pod that exists (node, uid, with its address), when given, verdict.
        ("a", None, LONG_AGO, "leaked"),
        ("a", Some(("a", "u1", true)), LONG_AGO, ""),
        ("a", Some(("a", "u2", true)), LONG_AGO, "leaked"),
        ("a", Some(("b", "u1", true)), LONG_AGO, "leaked"),
        ("a", Some(("a", "u1", false)), LONG_AGO, "leaked"),
        ("a", None, "2023-11-14 22:13:00 +0000 UTC", "suspected"),
        ("b", None, LONG_AGO, "suspected"),
        ("b", Some(("b", "u1", true)), LONG_AGO, ""),
        ("gone", None, LONG_AGO, "leaked"),
        ("gone", Some(("gone", "u1", true)), LONG_AGO, ""),
    ];
    for (number, (node, exists, given, _)) in expected.iter().enumerate() {
        let name = format!("p{number}");
        let ip = of_calico(&mut cluster, node, &name, given).to_string();
        if let Some((runs_on, uid, own)) = exists {
            pod(&mut cluster, &name, runs_on, uid, if *own { &ip } else { "192.0.2.1" });
        }
    }
    let report = check(&mut cluster, &with_pods());
    for (number, (.., verdict)) in expected.iter().enumerate() {
        let of = |items: &[ipam::audit::Item]| {
            items.iter().any(|i| i.handle == Some(handle(&format!("p{number}"))))
        };
        let found = (of(&report.leaked), of(&report.suspected));
        assert_eq!(found, (*verdict == "leaked", *verdict == "suspected"), "{number}: {report:#?}");
    }
    let repaired = repair(&mut cluster, &with_pods());
    assert!(repaired.clean() && repaired.suspected.len() == 2, "{repaired:#?}");
    assert_eq!(repaired.allocations, 6);
}

#[test]
fn an_endpoint_vouches_for_its_containers_address() {
    let mut cluster = cluster();
    cluster.del("a", "dead");
    for name in ["c1", "c2"] {
        of_calico(&mut cluster, "a", name, LONG_AGO);
    }
    let mut endpoint = model::WorkloadEndpointSpec::default();
    (endpoint.container_id, endpoint.node) = ("c1".into(), "a".into());
    let value = serde_json::json!({"kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "a-cni-c1-eth0", "namespace": "default"}, "spec": endpoint});
    let key = model::endpoint::key("default", "a-cni-c1-eth0");
    cluster.store.put(&key, value.to_string().into_bytes());
    let facts = HostFacts { witness: Witness::Endpoints, ..with_pods() };
    let report = check(&mut cluster, &facts);
    let leaked: Vec<_> = report.leaked.iter().filter_map(|item| item.handle.clone()).collect();
    assert_eq!(leaked, [handle("c2")], "{report:#?}");
}

#[test]
fn virtual_machines_keep_their_addresses() {
    let mut cluster = cluster();
    cluster.del("a", "dead");
    let mut machine = request("a", "x", &[ask(V4)]);
    machine.handle = "k8s-pod-network.vmi.ns.vm".into();
    machine.attrs = map(&[("node", "gone"), ("pod", "virt-launcher"), ("namespace", "ns")]);
    cluster.assign("a", &machine).unwrap();
    let report = check(&mut cluster, &with_pods());
    assert!(report.clean() && report.suspected.is_empty(), "{report:#?}");
}

/// Changes the JSON of the first block.
fn harm(cluster: &mut Cluster, change: impl FnOnce(&mut serde_json::Value)) -> String {
    let key = keys::block(&cluster.scope, &net(&cluster.claims("a", V4)[0]));
    let mut block: serde_json::Value =
        serde_json::from_slice(&cluster.store.entry(&key).unwrap().value).unwrap();
    change(&mut block);
    cluster.store.put(&key, block.to_string().into_bytes());
    key
}

#[test]
fn broken_objects_are_named_and_put_right_where_no_guess_is_needed() {
    type Harm = fn(&mut serde_json::Value);
    let cases: [(&str, Harm, bool); 6] = [
        ("repeated ordinals", |b| b["unallocated"] = serde_json::json!([2, 2, 3]), true),
        ("a taken ordinal in the queue", |b| b["unallocated"] = serde_json::json!([0, 2, 3]), true),
        ("an ordinal out of range", |b| b["unallocated"] = serde_json::json!([2, 9]), true),
        ("a short block", |b| b["allocations"] = serde_json::json!([0, null]), false),
        ("an attribute out of range", |b| b["allocations"][1] = serde_json::json!(7), false),
        ("marked as deleted", |b| b["deleted"] = serde_json::json!(true), false),
    ];
    for (name, change, curable) in cases {
        let mut cluster = cluster();
        cluster.del("a", "dead");
        let key = harm(&mut cluster, change);
        let report = check(&mut cluster, &facts());
        assert_eq!(report.damaged.len(), 1, "{name}: {report:#?}");
        assert!(report.damaged[0].reason.contains(&key), "{name}: {report:#?}");
        assert_eq!(report.damaged[0].repairable, curable, "{name}: {report:#?}");
        let repaired = repair(&mut cluster, &facts());
        assert_eq!(repaired.clean(), curable, "{name}: {repaired:#?}");
        if curable {
            assert_eq!(cluster.held("live").len(), 1, "{name}");
            assert_eq!(cluster.fill("a", "more", 3).len(), 3, "{name}");
        }
    }
}

#[test]
fn handles_and_claims_that_cannot_be_read_are_made_anew() {
    let mut cluster = cluster();
    cluster.del("a", "dead");
    let own = net(&cluster.claims("a", V4)[0]);
    let scope = cluster.scope.clone();
    let marked = br#"{"block":{"10.0.0.0/30":1},"deleted":true}"#;
    let broken = [
        (keys::handle(&scope, "net.live"), &b"garbage"[..]),
        (keys::handle(&scope, "net.odd\r\neth0"), br#"{"block":{"10.0.0.0/30":1}}"#),
        (keys::handle(&scope, "net.marked"), marked),
        (keys::affinity(&scope, "a", &own), b"[]"),
        (keys::affinity(&scope, "b", &own), br#"{"state":"dubious"}"#),
    ];
    for (key, value) in &broken {
        cluster.store.put(key, value.to_vec());
    }
    let report = check(&mut cluster, &facts());
    assert_eq!(report.damaged.len(), broken.len(), "{report:#?}");
    assert!(repair(&mut cluster, &facts()).clean());
    assert_eq!(cluster.del("a", "live").len(), 1);
    assert_eq!((cluster.claims("a", V4).len(), cluster.claims("b", V4).len()), (1, 0));
}

// REQ: A-05
// REQ: A-06
#[test]
fn empty_blocks_of_a_deleted_node_are_given_up_though_others_are_in_use_and_the_pool_is_gone() {
    let mut cluster = cluster();
    cluster.del("a", "dead");
    let names: Vec<String> = (0..9).map(|n| format!("p{n}")).collect();
    for name in &names {
        cluster.add("gone", name, V4).unwrap();
    }
    names.iter().skip(1).for_each(|name| drop(cluster.del("gone", name)));
    cluster.store.delete(&keys::pool("pool"));
    assert_eq!(cluster.claims("gone", V4).len(), 3);
    repair(&mut cluster, &facts());
    assert_eq!(cluster.claims("gone", V4).len(), 1, "the one in use is left to its owner");
    let given_up = cluster.run("a", |v, cx| ipam::plan_release_affinities(v, cx, "gone", false)).unwrap();
    assert_eq!((given_up.released.len(), cluster.claims("gone", V4).len()), (1, 0));
    assert_eq!(cluster.held("p0").len(), 1);
}
