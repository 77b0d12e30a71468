//! What the IPAM gives out, through the plugin and `percalectl`.

#![allow(clippy::unwrap_used)]

use e2e::clean::{held, nothing_held, percalectl, pod_links};
use e2e::cnirun::{address, addresses};
use e2e::{Attachment, Bed, Failure, Netns, Network, conf};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

fn with_pools<'a>(bed: &'a Bed, pools: Value) -> Network<'a> {
    let mut plugin = conf::percale(bed);
    plugin["ipam"] = json!({"type": "percale-ipam", "pools": pools});
    Network::new(bed, "net", vec![plugin])
}

/// Several interfaces of one namespace, which cost less than as many namespaces.
fn add_many(network: &Network, ns: &Netns, count: usize) -> Vec<Result<Value, Failure>> {
    (0..count).map(|i| network.add(&Attachment::new(&format!("c{i}"), ns).named(&format!("x{i}")))).collect()
}

fn told(bed: &Bed, args: &[&str]) -> String {
    let out = percalectl(bed, args);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "percalectl {args:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

// REQ: A-03
#[test]
fn every_block_size_works() {
    for (v4, v6) in (20..=32).zip(116..=128) {
        let bed = Bed::new("blocks");
        let pools =
            json!([{"cidr": "10.91.0.0/16", "blockSize": v4}, {"cidr": "fd00:10:91::/64", "blockSize": v6}]);
        let network = with_pools(&bed, pools);
        let ns = bed.netns("pod");
        let given: BTreeSet<IpAddr> =
            add_many(&network, &ns, 5).into_iter().flat_map(|r| addresses(&r.unwrap())).collect();
        assert_eq!(given.len(), 10, "blocks of /{v4} and /{v6}");
        held(&bed, 10);
        network.gc(&[]).unwrap();
        nothing_held(&bed);
    }
}

// REQ: A-01
#[test]
fn a_second_pool_is_used_when_the_first_is_empty() {
    let bed = Bed::new("pools");
    let pools = json!([{"cidr": "10.91.0.0/29", "blockSize": 29}, {"cidr": "10.92.0.0/29", "blockSize": 29}]);
    let network = with_pools(&bed, pools);
    let ns = bed.netns("pod");
    let results = add_many(&network, &ns, 17);
    let given: BTreeSet<IpAddr> = results[..16].iter().flat_map(|r| addresses(r.as_ref().unwrap())).collect();
    assert_eq!(given.len(), 16);
    let failure = results[16].as_ref().unwrap_err().to_string();
    assert!(failure.contains("10.91.0.0/29") && failure.contains("10.92.0.0/29"), "{failure}");
}

/// The time of an ADD does not grow with the pool; generous, since machines differ.
// REQ: A-01
#[test]
fn a_huge_pool_costs_no_more_than_a_small_one() {
    let mut times = Vec::new();
    for pools in
        [json!([{"cidr": "10.91.0.0/24"}]), json!([{"cidr": "10.0.0.0/8"}, {"cidr": "fd00:10:91::/48"}])]
    {
        let bed = Bed::new("huge");
        let network = with_pools(&bed, pools);
        let ns = bed.netns("pod");
        let begun = Instant::now();
        add_many(&network, &ns, 20).into_iter().for_each(|r| drop(r.unwrap()));
        times.push(begun.elapsed());
    }
    assert!(times[1] < times[0] * 4 + Duration::from_millis(500), "{times:?}");
}

#[test]
fn an_address_can_be_asked_for_and_has_one_owner() {
    let bed = Bed::new("asked");
    let network = with_pools(&bed, json!([{"cidr": "10.91.0.0/16"}, {"cidr": "fd00:10:91::/64"}]));
    let (a, b) = (bed.netns("a"), bed.netns("b"));
    let ask = |ns: &Netns, id: &str, ip: &str| {
        network.add(&Attachment::new(id, ns).with_args(&format!("IgnoreUnknown=1;IP={ip}")))
    };
    let result = ask(&a, "ca", "10.91.3.4").unwrap();
    assert_eq!(address(&result, true).to_string(), "10.91.3.4");
    let failure = ask(&b, "cb", "10.91.3.4").unwrap_err();
    assert!(failure.to_string().contains("10.91.3.4"), "{failure}");
    let failure = ask(&b, "cb", "172.16.0.1").unwrap_err();
    assert!(failure.to_string().contains("172.16.0.1"), "{failure}");
}

#[test]
fn addresses_are_shown_and_released_by_hand() {
    let bed = Bed::new("ctl");
    let network = with_pools(&bed, json!([{"cidr": "10.91.0.0/16"}, {"cidr": "fd00:10:91::/64"}]));
    let (a, b) = (bed.netns("a"), bed.netns("b"));
    let of_a = network.add(&Attachment::new("container-a", &a)).unwrap();
    let of_b = network.add(&Attachment::new("container-b", &b)).unwrap();
    let shown = told(&bed, &["ipam", "show", "--ip", &address(&of_a, true).to_string()]);
    assert!(shown.contains("container-a"), "{shown}");
    assert!(told(&bed, &["ipam", "show", "--show-blocks"]).contains("10.91."));
    told(&bed, &["ipam", "release", "--ip", &address(&of_a, true).to_string()]);
    let (report, _) = e2e::clean::check(&bed, false);
    assert_eq!(report["allocations"], 3, "{report}");
    told(&bed, &["ipam", "release", "--handle", &format!("net.{}", "container-b")]);
    let (report, _) = e2e::clean::check(&bed, false);
    assert_eq!(report["allocations"], 1, "{report}");
    drop(of_b);
}

// REQ: A-12
#[test]
fn the_check_finds_the_leases_of_dead_pods_and_frees_them() {
    find_leaks(json!({}));
}

/// The node's name stands in the plugin's configuration, which `percalectl` does not read.
// REQ: A-12
#[test]
fn the_check_finds_leaks_of_a_node_that_was_named() {
    find_leaks(json!({"nodename": "node-1"}));
}

fn find_leaks(keys: Value) {
    let bed = Bed::new("leaks");
    let mut network = with_pools(&bed, json!([{"cidr": "10.91.0.0/16"}, {"cidr": "fd00:10:91::/64"}]));
    conf::put_all(&mut network.plugins[0], keys);
    let (alive, dead) = (bed.netns("alive"), bed.netns("dead"));
    network.add(&Attachment::new("alive", &alive)).unwrap();
    let of_dead = network.add(&Attachment::new("dead", &dead)).unwrap();
    drop(dead);
    e2e::bed::wait_for("the kernel has removed the link", || e2e::clean::pod_links(&bed.host).len() == 1);
    let (report, status) = e2e::clean::check(&bed, false);
    let leaked: BTreeSet<IpAddr> = report["leaked"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["ip"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!((leaked, status), (addresses(&of_dead).into_iter().collect(), Some(2)), "{report}");
    let (report, _) = e2e::clean::check(&bed, true);
    assert!(report.is_object());
    held(&bed, 2);
    network.check(&Attachment::new("alive", &alive)).unwrap();
}

#[test]
fn a_dumped_store_is_loaded_again() {
    let bed = Bed::new("dump");
    let network = with_pools(&bed, json!([{"cidr": "10.91.0.0/16"}, {"cidr": "fd00:10:91::/64"}]));
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    network.add(&pod).unwrap();
    let dump = told(&bed, &["store", "dump"]);
    let file = bed.write("dump.json", &dump);
    std::fs::remove_dir_all(bed.path("state/store")).unwrap();
    told(&bed, &["store", "load", &file.display().to_string()]);
    held(&bed, 2);
    network.check(&pod).unwrap();
    network.del(&pod).unwrap();
    nothing_held(&bed);
}

// REQ: A-13
#[test]
fn a_reserved_address_is_not_given_out() {
    let bed = Bed::new("reserved");
    let network = with_pools(&bed, json!([{"cidr": "10.91.0.0/29", "blockSize": 29}]));
    let ns = bed.netns("pod");
    let first = Attachment::new("first", &ns);
    network.add(&first).unwrap();
    let reservation = bed.write(
        "reservation.yaml",
        "apiVersion: projectcalico.org/v3\nkind: IPReservation\nmetadata:\n  name: kept\nspec:\n  reservedCIDRs:\n  - 10.91.0.2/31\n",
    );
    told(&bed, &["apply", "-f", &reservation.display().to_string()]);
    network.del(&first).unwrap();
    let results = add_many(&network, &ns, 7);
    let given: BTreeSet<IpAddr> =
        results.iter().filter_map(|r| r.as_ref().ok()).flat_map(addresses).collect();
    assert_eq!(given.len(), 6, "{results:?}");
    for kept in ["10.91.0.2", "10.91.0.3"] {
        assert!(!given.contains(&kept.parse().unwrap()), "{kept} was given out");
    }
}

/// A commit that is not durable would be lost by the crash that follows it.
// REQ: A-16
#[test]
fn an_answered_add_survives_the_death_of_everything() {
    let bed = Bed::new("durable");
    let network = with_pools(&bed, json!([{"cidr": "10.91.0.0/24"}]));
    let ns = bed.netns("pod");
    let trace = bed.path("trace");
    network.add(&Attachment::new("warm", &ns).named("x0")).unwrap();
    let mut traced = with_pools(&bed, json!([{"cidr": "10.91.0.0/24"}]));
    traced.wrap = e2e::strace::write_into(&trace);
    traced.add(&Attachment::new("c1", &ns)).unwrap();
    let text = std::fs::read_to_string(trace).unwrap();
    let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
    // The lease is written before the kernel is changed, for the death of the process, and synced before the
    // answer, for a loss of power, which takes the link as well.
    assert!(place("ifname\\\":\\\"eth0") < place("RTM_NEWLINK"), "{text}");
    assert!(place("fdatasync(") < place("write(1, "), "{text}");
}

/// The medium refuses the lease when the link is there already: the ADD fails and takes everything back.
// REQ: A-16
#[test]
fn an_add_whose_sync_fails_leaves_nothing() {
    let bed = Bed::new("syncfails");
    let mut network = with_pools(&bed, json!([{"cidr": "10.91.0.0/24"}]));
    let ns = bed.netns("pod");
    network.add(&Attachment::new("warm", &ns).named("x0")).unwrap();
    network.wrap = e2e::strace::fail_at("fdatasync", 1, "EIO");
    let failure = network.add(&Attachment::new("c1", &ns)).unwrap_err();
    assert!(failure.to_string().contains("commit to store"), "{failure}");
    network.wrap.clear();
    held(&bed, 1);
    assert_eq!(pod_links(&bed.host).len(), 1);
    network.add(&Attachment::new("c1", &ns)).unwrap();
    held(&bed, 2);
}

/// A pod that comes back under its name, with another sandbox, has its addresses again, though
/// others came and went meanwhile; a name whose address is taken gets another one.
// REQ: A-13
#[test]
fn a_sticky_name_has_its_addresses_again() {
    let bed = Bed::new("sticky");
    let mut plugin = conf::percale(&bed);
    plugin["ipam"]["sticky"] = json!(true);
    let network = Network::new(&bed, "net", vec![plugin]);
    let spaces: Vec<Netns> = (0..3).map(|i| bed.netns(&format!("p{i}"))).collect();
    let named = |sandbox: &str, ns: &Netns, name: &str| {
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=space;K8S_POD_NAME={name}");
        Attachment::new(sandbox, ns).with_args(&args)
    };
    let (web, other) = (named("s1", &spaces[0], "web-0"), named("s2", &spaces[1], "web-1"));
    let had = addresses(&network.add(&web).unwrap());
    assert_eq!(had.len(), 2);
    network.add(&other).unwrap();
    network.del(&web).unwrap();
    for i in 0..5 {
        let passing = named(&format!("x{i}"), &spaces[2], &format!("job-{i}"));
        let given = addresses(&network.add(&passing).unwrap());
        assert!(given.iter().all(|ip| !had.contains(ip)), "an address that a name may want again: {given:?}");
        network.del(&passing).unwrap();
    }
    let again = named("s3", &spaces[0], "web-0");
    assert_eq!(addresses(&network.add(&again).unwrap()), had);
    let twin = named("s4", &spaces[2], "web-0");
    let given = addresses(&network.add(&twin).unwrap());
    assert!(given.iter().all(|ip| !had.contains(ip)), "the living sandbox keeps {had:?}, not {given:?}");
    [&again, &other, &twin].iter().for_each(|pod| network.del(pod).unwrap());
    nothing_held(&bed);
}
