//! Cluster stores in a bad state: what the audit finds and repairs there, objects that are damaged, a host with
//! a thousand claims; and host-local's keys in a cluster.

#![allow(clippy::unwrap_used)]

#[path = "cluster_stores/site.rs"]
mod site;

use e2e::clean::kernel_is_clean;
use e2e::cluster::{Cluster, Kind, key, percalectl, resource, soon};
use e2e::cnirun::address;
use e2e::netns::Netns;
use e2e::{Attachment, Network};
use model::store::{Expect, Write};
use serde_json::{Value, json};
use site::{NETWORK, Site, block_of_host, items};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// An address of a host with no node object, and of no pod: two proofs. One of a living host: one.
fn put_leaks_of_others(site: &Site, base: &str) -> [String; 2] {
    let hosts = [format!("{}-gone", site.node.name), format!("{}-other", site.node.name)];
    site.cluster.add_node(site.node.kind, &hosts[1]);
    for (n, host) in hosts.iter().enumerate() {
        let attrs = json!({"node": host, "namespace": "default", "pod": format!("none-{host}"),
            "timestamp": "2021-02-22 10:00:00.123456789 +0000 UTC"});
        let (cidr, handle) = (format!("{base}.{}.0/28", n + 1), format!("{NETWORK}.leak-{host}"));
        let text = cidr.replace('/', "-");
        site.put(
            &format!("/calico/ipam/v2/host/{host}/ipv4/block/{text}"),
            Some(json!({"state": "confirmed"})),
        );
        let handled = json!({"block": {&cidr: 1}, "deleted": false});
        site.put(&format!("/calico/ipam/v2/handle/{handle}"), Some(handled));
        let block = block_of_host(&cidr, host, &handle, attrs);
        site.put(&format!("/calico/ipam/v2/assignment/ipv4/block/{text}"), Some(block));
    }
    hosts
}

// REQ: A-12
#[test]
fn leaks_orphans_and_wrong_counts_are_found_and_put_right_and_what_lives_is_left_alone() {
    let cluster = Cluster::own();
    for kind in Kind::BOTH {
        let site = Site::new(&cluster, kind, "audit");
        let network = site.network();
        let spaces = ["lives", "leaks", "bare"].map(|tail| site.bed.netns(tail));
        let [lives, leaks, bare] = spaces.each_ref().map(|ns| Attachment::new(ns.name(), ns));
        let live_ip = address(&network.add(&lives).unwrap(), true);
        let leaked_ip = address(&network.add(&leaks).unwrap(), true);
        let bare_ip = address(&network.add(&bare).unwrap(), true);
        assert_eq!(site.check(false), (site.check(false).0, Some(0)), "{kind:?}: nothing is wrong yet");
        // A pod whose DEL never came: namespace and links are gone, by themselves. (1)
        spaces[1].unlink();
        e2e::bed::wait_for("the link to go", || site.bed.host.link_names("cali").len() == 2);
        if kind == Kind::Etcd {
            let endpoints = site.list("/calico/resources/v3/projectcalico.org/workloadendpoints/");
            let (key, _) =
                endpoints.iter().find(|(_, e)| e["spec"]["containerID"] == leaks.container.as_str()).unwrap();
            site.put(key, None);
        }
        // An administrator deletes the handle of one that lives, and all claims of its host. (2)
        site.put(&format!("/calico/ipam/v2/handle/{NETWORK}.{}", bare.container), None);
        site.claims().iter().for_each(|(key, _)| site.put(key, None));
        // A handle that counts what no block holds, and a claim to no block. (3)
        let orphan = format!("{NETWORK}.orphan-{}", site.node.name);
        site.put(&format!("/calico/ipam/v2/handle/{orphan}"), Some(json!({"block": {"10.77.0.0/28": 1}})));
        let claim = format!("/calico/ipam/v2/host/{}/ipv4/block/10.77.9.0-28", site.node.name);
        site.put(&claim, Some(json!({"state": "confirmed"})));
        let base = if kind == Kind::Etcd { "10.78" } else { "10.79" };
        let [gone, other] = put_leaks_of_others(&site, base);

        let (report, status) = site.check(false);
        assert_eq!(status, Some(2), "{kind:?}: {report:#}");
        let leaked = items(&report, "leaked", "ip");
        let of_gone = format!("{base}.1.0");
        assert_eq!(leaked.len(), 2, "{kind:?}: {report:#}");
        assert!(
            leaked.contains(&leaked_ip.to_string().as_str()) && leaked.contains(&of_gone.as_str()),
            "{leaked:?}"
        );
        let suspected = items(&report, "suspected", "node");
        assert!(suspected.contains(&other.as_str()) && !suspected.contains(&gone.as_str()), "{report:#}");
        assert_eq!(items(&report, "orphan_handles", "handle"), [orphan.as_str()], "{report:#}");
        assert!(items(&report, "orphan_affinities", "block").contains(&"10.77.9.0/28"), "{report:#}");
        let bare_handle = format!("{NETWORK}.{}", bare.container);
        assert!(items(&report, "handle_counts", "handle").contains(&bare_handle.as_str()), "{report:#}");
        assert!(
            items(&report, "lost", "node").contains(&site.node.name.as_str()),
            "its host finds no claim: {report:#}"
        );

        let (report, _) = site.check(true);
        let freed = report["fixed"]["freed"].as_array().unwrap();
        assert_eq!(freed.len(), 2, "{kind:?}: {report:#}");
        let (report, status) = site.check(false);
        assert_eq!(status, Some(0), "{kind:?}: all is put right: {report:#}");
        assert_eq!(
            items(&report, "suspected", "node"),
            [other.as_str()],
            "one proof frees nothing: {report:#}"
        );
        for (pod, ip) in [(&lives, live_ip), (&bare, bare_ip)] {
            network.check(pod).unwrap_or_else(|e| panic!("{kind:?}: {ip}: {e}"));
            network.del(pod).unwrap();
        }
        assert_eq!(site.node.given(), 0, "{kind:?}");
        kernel_is_clean(&site.bed.host);
    }
}

/// Deleted behind a DEL's back: nothing tells of the address but its block. The audit does.
#[test]
fn an_address_without_handle_and_claim_is_found_by_the_audit() {
    let cluster = Cluster::own();
    for kind in Kind::BOTH {
        let site = Site::new(&cluster, kind, "bare");
        let network = site.network();
        let ns = site.bed.netns("pod");
        let pod = Attachment::new(ns.name(), &ns);
        let ip = address(&network.add(&pod).unwrap(), true);
        site.put(&format!("/calico/ipam/v2/handle/{NETWORK}.{}", pod.container), None);
        site.claims().iter().for_each(|(key, _)| site.put(key, None));
        network.del(&pod).unwrap();
        ns.unlink();
        let left = site.node.given();
        println!("{kind:?}: after the DEL {left} addresses are left");
        let (report, status) = site.check(false);
        let leaked = items(&report, "leaked", "ip");
        assert_eq!(leaked.len(), left, "{kind:?}: {report:#}");
        assert!(left == 0 || (leaked == [ip.to_string()] && status == Some(2)), "{kind:?}: {report:#}");
        site.check(true);
        let (report, status) = site.check(false);
        assert_eq!((site.node.given(), status), (0, Some(0)), "{kind:?}: {report:#}");
        kernel_is_clean(&site.bed.host);
    }
}

/// It takes no lock of the store or the host, and what changes under it is not undone.
#[test]
fn the_audit_holds_up_nobody_and_frees_nothing_that_lives() {
    let cluster = Cluster::own();
    for kind in Kind::BOTH {
        let site = Site::new(&cluster, kind, "beside");
        let network = site.network();
        let held = site.bed.path("run/ipam.lock");
        let kept = site.bed.netns("kept");
        let kept = Attachment::new(kept.name(), &kept);
        network.add(&kept).unwrap();
        let lock = datastore::lock::Lock::acquire(&held, datastore::lock::Kind::Exclusive, soon()).unwrap();
        let begun = Instant::now();
        let (report, status) = site.check(false);
        assert_eq!(status, Some(0), "{kind:?}: {report:#}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{kind:?}: it waited for the host's lock");
        drop(lock);
        let done = AtomicBool::new(false);
        let (ns, begun) = (site.bed.netns("churn"), Instant::now());
        std::thread::scope(|scope| {
            let audits = scope.spawn(|| {
                let mut rounds = 0;
                while !done.load(Ordering::SeqCst) {
                    let (report, _) = site.check(true);
                    assert_eq!(report["leaked"], json!([]), "{kind:?}: {report:#}");
                    assert_eq!(report["fixed"]["freed"], json!([]), "{kind:?}: {report:#}");
                    rounds += 1;
                }
                rounds
            });
            for round in 0..if e2e::bins::full() { 100 } else { 8 } {
                let pod = Attachment::new(&format!("{}-{round}", ns.name()), &ns);
                network.add(&pod).unwrap_or_else(|e| panic!("{kind:?} {round}: {e}"));
                network.check(&pod).unwrap_or_else(|e| panic!("{kind:?} {round}: {e}"));
                network.del(&pod).unwrap();
            }
            done.store(true, Ordering::SeqCst);
            println!("{kind:?}: {} audits beside it in {:?}", audits.join().unwrap(), begun.elapsed());
        });
        network.check(&kept).unwrap();
        network.del(&kept).unwrap();
        assert_eq!(site.node.given(), 0, "{kind:?}");
    }
}

type Harm = fn(&mut Value);

/// What Calico panics over or hands out twice (lessons 1A): named, never made worse.
#[test]
fn damaged_blocks_stop_only_what_they_hold() {
    let cases: [(&str, Harm); 5] = [
        ("too short", |b| drop(b["allocations"].as_array_mut().unwrap().pop())),
        ("a repeated ordinal", |b| b["unallocated"] = json!([5, 5, 6])),
        ("a taken ordinal that is free too", |b| b["unallocated"] = json!([0, 5, 6])),
        ("an attribute out of range", |b| b["allocations"][1] = json!(7)),
        ("marked as deleted", |b| b["deleted"] = json!(true)),
    ];
    for kind in Kind::BOTH {
        let site = Site::new(&Cluster::shared(), kind, "harm");
        let network = site.network();
        for (n, (what, harm)) in cases.iter().enumerate() {
            let spaces = ["one", "two"].map(|tail| site.bed.netns(&format!("{tail}-{n}")));
            let [one, two] = spaces.each_ref().map(|ns| Attachment::new(ns.name(), ns));
            let ip = address(&network.add(&one).unwrap(), true);
            let (key, sound) = site.block_of(ip);
            let mut harmed = sound.clone();
            harm(&mut harmed);
            site.put(&key, Some(harmed));
            match network.add(&two) {
                Ok(result) => {
                    let second = address(&result, true);
                    assert_ne!(second, ip, "{kind:?}, {what}: given twice");
                    println!("{kind:?}, {what}: {ip} stays, {second} is given");
                }
                Err(refused) => println!("{kind:?}, {what}: {refused}"),
            }
            let check = percalectl(&site.bed, &site.node, &["ipam", "check"], "");
            let told = String::from_utf8_lossy(&check.stdout);
            assert!(
                *what == "marked as deleted" || check.status.code() == Some(2),
                "{kind:?}, {what}: {told}"
            );
            // The administrator puts it right; what was held is held, and can be given back.
            let is_there = site.list("/calico/ipam/v2/assignment/").iter().any(|(k, _)| *k == key);
            if is_there || *what == "marked as deleted" {
                site.put(&key, Some(sound));
            }
            network.del(&two).unwrap();
            network.del(&one).unwrap();
            site.check(true);
            assert_eq!(site.node.given(), 0, "{kind:?}, {what}");
        }
        kernel_is_clean(&site.bed.host);
    }
}

/// One host with a thousand claims, as an upgrade that went wrong left them.
#[test]
fn a_host_with_a_thousand_claims_still_serves_pods_in_time() {
    const CLAIMS: usize = 1000;
    let cluster = Cluster::own();
    for kind in Kind::BOTH {
        let site = Site::new(&cluster, kind, "claims");
        put_claims(&site, CLAIMS);
        let network = site.network();
        let spaces: [Netns; 2] = ["one", "two"].map(|tail| site.bed.netns(tail));
        for ns in &spaces {
            let pod = Attachment::new(ns.name(), ns);
            let begun = Instant::now();
            network.add(&pod).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
            let add = begun.elapsed();
            let begun = Instant::now();
            network.del(&pod).unwrap();
            println!("{kind:?}: with {CLAIMS} claims ADD {add:?}, DEL {:?}", begun.elapsed());
            assert!(
                add < Duration::from_secs(20) && begun.elapsed() < Duration::from_secs(10),
                "{kind:?}: {add:?}"
            );
        }
        // One by one, and each in two steps.
        if kind == Kind::Kubernetes && !e2e::bins::full() {
            continue;
        }
        let begun = Instant::now();
        let (report, _) = site.check(true);
        println!("{kind:?}: the audit's repair took {:?}", begun.elapsed());
        let (after, status) = site.check(false);
        assert_eq!(status, Some(0), "{kind:?}: {report:#} {after:#}");
        assert!(site.claims().len() <= 1, "{kind:?}: claims to blocks that do not exist are given up");
    }
}

/// Half of them to blocks that do not exist, half to another host's.
fn put_claims(site: &Site, count: usize) {
    let store = site.cluster.store(site.node.kind);
    let (other, pool) = (format!("{}-other", site.node.name), format!("{}-many", site.node.name));
    site.cluster.add_node(site.node.kind, &other);
    let spec = json!({"cidr": "10.80.0.0/16", "blockSize": 28, "nodeSelector": "all()", "disabled": true});
    site.put(&key("ippools", &pool), Some(resource("IPPool", &pool, spec)));
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (store, other, site) = (store.as_ref(), &other, &site);
            scope.spawn(move || {
                for n in (worker..count).step_by(8) {
                    let cidr = format!("10.80.{}.{}/28", n / 16, n % 16 * 16);
                    let text = cidr.replace('/', "-");
                    let put = |key: String, value: Value| Write {
                        key,
                        expect: Expect::Any,
                        value: Some(value.to_string().into()),
                    };
                    let claim = format!("/calico/ipam/v2/host/{}/ipv4/block/{text}", site.node.name);
                    let mut writes = vec![put(claim, json!({"state": "confirmed"}))];
                    if n % 2 == 0 {
                        let mut block = block_of_host(&cidr, other, "none", json!({}));
                        block["allocations"] = json!(vec![Value::Null; 16]);
                        block["unallocated"] = json!((0..16).collect::<Vec<_>>());
                        block["attributes"] = json!([]);
                        let theirs = format!("/calico/ipam/v2/host/{other}/ipv4/block/{text}");
                        writes.push(put(theirs, json!({"state": "confirmed"})));
                        writes.push(put(format!("/calico/ipam/v2/assignment/ipv4/block/{text}"), block));
                    }
                    store.commit(&writes, soon()).unwrap_or_else(|e| panic!("{cidr}: {e}"));
                }
            });
        }
    });
}

// REQ: C-09
#[test]
fn a_node_s_pod_network_is_asked_of_kubernetes() {
    let site = Site::new(&Cluster::shared(), Kind::Kubernetes, "podcidr");
    let spec = json!({"podCIDR": "10.81.7.0/24", "podCIDRs": ["10.81.7.0/24", "fd00:81:7::/64"]});
    let ipams = [
        json!({"type": "host-local", "subnet": "usePodCidr", "dataDir": site.bed.path("host-local")}),
        json!({"type": "host-local", "dataDir": site.bed.path("host-local"),
            "ranges": [[{"subnet": "usepodcidr"}], [{"subnet": "usePodCidrIPv6"}]]}),
        json!({"type": "percale-ipam", "ranges": [[{"subnet": "usePodCidr"}], [{"subnet": "usePodCidrIPv6"}]]}),
    ];
    let ns = site.bed.netns("pod");
    let pod = Attachment::new(ns.name(), &ns);
    let network = |ipam: &Value| {
        let mut plugin = site.node.plugin(&site.bed);
        plugin["ipam"] = ipam.clone();
        // The newest that Debian's host-local knows.
        Network::new(&site.bed, NETWORK, vec![plugin]).at_version("1.0.0")
    };
    let refused = network(&ipams[0]).add(&pod).unwrap_err();
    assert!(refused.code() == Some(11) && refused.to_string().contains("podCIDRs"), "{refused}");
    let path = format!("/api/v1/nodes/{}", site.node.name);
    let patched = site.cluster.api("PATCH", &path, Some(&json!({"spec": spec})));
    assert_eq!(patched["spec"]["podCIDR"], "10.81.7.0/24", "{patched}");
    for ipam in &ipams {
        let network = network(ipam);
        let result = network.add(&pod).unwrap_or_else(|e| panic!("{ipam}: {e}"));
        let v4 = address(&result, true);
        assert!("10.81.7.0/24".parse::<ipnet::IpNet>().unwrap().contains(&v4), "{ipam}: {result}");
        if ipam["ranges"].is_array() {
            let v6 = address(&result, false);
            assert!("fd00:81:7::/64".parse::<ipnet::IpNet>().unwrap().contains(&v6), "{ipam}: {result}");
        }
        network.check(&pod).unwrap_or_else(|e| panic!("{ipam}: {e}"));
        // A DEL asks nobody for it.
        site.node.bridge.refuse(ipam["type"] == "host-local");
        network.del(&pod).unwrap_or_else(|e| panic!("{ipam}: {e}"));
        site.node.bridge.refuse(false);
        kernel_is_clean(&site.bed.host);
    }
    let left = std::fs::read_dir(site.bed.path("host-local").join(NETWORK)).unwrap();
    let left: Vec<_> = left
        .filter_map(|f| f.ok()?.file_name().into_string().ok())
        .filter(|f| f.starts_with("10.") || f.starts_with("fd"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
