//! `ipam show`, `check`, `release`, `configure`, with leases as the plugin writes them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bed;

use bed::{Bed, Pod, soon};
use datastore::embedded::Embedded;
use datastore::journal::{Held, Journal, Release};
use datastore::{Store, lock::AttachmentLock};
use serde_json::{Value, json};

/// A lease of this boot whose namespace does not exist any more.
fn dead(bed: &Bed, container: &str) -> String {
    let boot = netlink::boot_id().unwrap();
    bed.lease(container, &[("netns", "/run/netns/pctl-gone#4026999999"), ("boot_id", &boot)]).to_string()
}

fn living(bed: &Bed, container: &str, pod: &Pod) -> String {
    let boot = netlink::boot_id().unwrap();
    bed.lease(container, &[("netns", &pod.attribute()), ("boot_id", &boot)]).to_string()
}

fn in_use(bed: &Bed, ip: &str) -> bool {
    bed.run(&["ipam", "show", "--ip", ip, "-o", "json"]).exits(0).json()["in_use"] == true
}

#[test]
fn show_counts_every_scope() {
    let bed = Bed::new().with_store();
    bed.lease("c1", &[]);
    bed.lease("c2", &[]);
    bed.network_lease("isolated", "c3");
    let shown = bed.run(&["ipam", "show", "-o", "json"]).exits(0).json();
    let pool = &shown["pools"][0];
    assert_eq!(
        (&pool["pool"], &pool["size"], &pool["used"], &pool["free"]),
        (&json!("10-91-0-0-16"), &json!(65536), &json!(2), &json!(65534))
    );
    assert_eq!(
        (&shown["pools"][1]["scope"], &shown["pools"][1]["used"]),
        (&json!("network isolated"), &json!(1))
    );
    assert!(shown.get("blocks").is_none());
    let table = bed.run(&["ipam", "show", "--show-blocks"]).exits(0).out;
    assert!(table.contains("10-91-0-0-16  10.91.0.0/16  65536  1       2     65534"), "{table}");
    assert!(table.contains("host:n1"), "{table}");
    let one = bed.run(&["ipam", "show", "--network", "isolated", "-o", "json"]).exits(0).json();
    assert_eq!(one["pools"].as_array().unwrap().len(), 1);
}

#[test]
fn a_pool_beyond_64_bits_is_shown() {
    let bed = Bed::new().with_store();
    let pool =
        "{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: p}, spec: {cidr: 'fd00:91::/48'}}";
    bed.run_with(&["apply", "-f", "-"], pool).exits(0);
    assert!(bed.run(&["ipam", "show"]).exits(0).out.contains("~2^80"));
    assert!(bed.run(&["ipam", "show", "-o", "json"]).exits(0).out.contains("1208925819614629174706176"));
}

#[test]
fn show_ip_names_the_holder() {
    let bed = Bed::new().with_store();
    let ip = bed.lease("c1", &[("pod", "web-1"), ("namespace", "shop")]).to_string();
    let text = bed.run(&["ipam", "show", "--ip", &ip]).exits(0).out;
    for wanted in ["net.c1", "web-1", "shop", "cluster"] {
        assert!(text.contains(wanted), "{text}");
    }
    assert!(bed.run(&["ipam", "show", "--ip", "10.91.255.1"]).exits(0).out.contains("is not in use"));
}

#[test]
fn release_frees_by_address_and_by_handle() {
    let bed = Bed::new().with_store();
    let ip = bed.lease("c1", &[]).to_string();
    assert_eq!(bed.run(&["ipam", "release", "--ip", &ip]).exits(0).out, format!("freed {ip} (cluster)\n"));
    assert!(bed.run(&["ipam", "release", "--ip", &ip]).exits(1).err.contains("nothing was freed"));
    let ips = [bed.lease("c2", &[]), bed.lease("c2", &[("ifname", "eth1")])].map(|ip| ip.to_string());
    let freed = bed.run(&["ipam", "release", "--handle", "net.c2", "-o", "json"]).exits(0).json();
    assert_eq!(freed["freed"].as_array().unwrap().len(), 2);
    assert!(ips.iter().all(|ip| !in_use(&bed, ip)));
    bed.run(&["ipam", "release", "--handle", "net.c2"]).exits(1);
}

#[test]
fn an_address_of_two_networks_is_freed_only_where_it_is_meant() {
    let bed = Bed::new().with_store();
    let ip = bed.network_lease("a", "c1").to_string();
    assert_eq!(bed.network_lease("b", "c2").to_string(), ip, "equal subnets do not collide");
    let ran = bed.run(&["ipam", "release", "--ip", &ip]).exits(64);
    assert!(ran.err.contains("network a and network b"), "{}", ran.err);
    bed.run(&["ipam", "release", "--ip", &ip, "--network", "b"]).exits(0);
    let left = bed.run(&["ipam", "show", "--ip", &ip, "-o", "json"]).exits(0).json();
    assert_eq!(left["holders"][0]["scope"], "network a");
}

#[test]
fn check_of_a_sound_store_has_the_promised_shape() {
    let bed = Bed::with_host().with_store();
    let pod = Pod::new();
    living(&bed, "c1", &pod);
    let report = bed.run(&["ipam", "check", "-o", "json"]).exits(0).json();
    assert_eq!((&report["allocations"], &report["blocks"]), (&json!(1), &json!(1)));
    for kind in ["leaked", "duplicated", "orphan_handles", "orphan_affinities"] {
        assert_eq!(report[kind], json!([]), "{kind}");
    }
    assert!(bed.run(&["ipam", "check"]).exits(0).out.ends_with("nothing is wrong\n"));
}

// REQ: A-12
#[test]
fn leaks_are_found_and_freed_and_living_leases_are_not_touched() {
    let bed = Bed::with_host().with_store();
    let pod = Pod::new();
    let (lives, leaked) = (living(&bed, "c1", &pod), dead(&bed, "c2"));
    let report = bed.run(&["ipam", "check", "-o", "json"]).exits(2).json();
    let item = &report["leaked"][0];
    assert_eq!(
        (&item["ip"], &item["handle"], &item["node"]),
        (&json!(leaked), &json!("net.c2"), &json!("n1"))
    );
    assert_eq!(report["leaked"].as_array().unwrap().len(), 1);
    let text = bed.run(&["ipam", "check"]).exits(2).out;
    assert!(text.contains("`percalectl ipam check --fix` repairs 1 of them"), "{text}");

    let fixed = bed.run(&["ipam", "check", "--fix", "-o", "json"]).exits(0).json();
    assert_eq!((&fixed["fixed"]["freed"], &fixed["leaked"]), (&json!([leaked]), &json!([])));
    assert!(in_use(&bed, &lives) && !in_use(&bed, &leaked));
    bed.run(&["ipam", "check"]).exits(0);
}

#[test]
fn a_host_link_keeps_a_lease_whose_namespace_cannot_be_found() {
    let bed = Bed::with_host().with_store();
    let ip = dead(&bed, "c1");
    bed.ip("link add cali0000000001 type veth peer name peer1");
    bed.ip("link set cali0000000001 alias percale:net/c1/eth0");
    bed.run(&["ipam", "check", "--fix"]).exits(0);
    assert!(in_use(&bed, &ip));
    bed.ip("link del cali0000000001");
    bed.run(&["ipam", "check", "--fix"]).exits(0);
    assert!(!in_use(&bed, &ip));
}

#[test]
fn what_a_plugin_works_on_is_left_alone() {
    let bed = Bed::with_host().with_store();
    let ip = dead(&bed, "c1");
    let at = cni_protocol::Attachment::new("net", "c1", "eth0");
    let lock = AttachmentLock::acquire(&bed.path("attachments"), &at.file_name(), soon()).unwrap();
    let text = bed.run(&["ipam", "check", "--fix"]).exits(2).out;
    assert!(text.contains("while a plugin works on them"), "{text}");
    assert!(in_use(&bed, &ip));
    drop(lock);
    bed.run(&["ipam", "check", "--fix"]).exits(0);
    assert!(!in_use(&bed, &ip));
}

#[test]
fn leases_without_a_recorded_namespace_are_never_freed_by_a_repair() {
    let bed = Bed::with_host().with_store();
    let ip = bed.lease("c1", &[]).to_string();
    bed.run(&["ipam", "check", "--fix"]);
    assert!(in_use(&bed, &ip));
}

#[test]
fn orphan_handles_and_affinities_are_found_and_removed() {
    let bed = Bed::with_host().with_store();
    let pod = Pod::new();
    living(&bed, "c1", &pod);
    bed.put("/calico/ipam/v2/handle/net.gone", br#"{"block":{"10.91.0.0/26":1},"deleted":false}"#);
    bed.put("/calico/ipam/v2/host/n1/ipv4/block/10.91.9.0-26", br#"{"state":"confirmed","deleted":false}"#);
    let report = bed.run(&["ipam", "check", "-o", "json"]).exits(2).json();
    assert_eq!(report["orphan_handles"][0]["handle"], "net.gone");
    assert_eq!(report["orphan_affinities"][0]["node"], "n1");
    bed.run(&["ipam", "check", "--fix"]).exits(0);
    let keys = bed.store().keys("/", soon()).unwrap();
    assert!(!keys.iter().any(|k| k.contains("gone") || k.contains("10.91.9.0")), "{keys:?}");
}

#[test]
fn damage_is_reported_and_left_for_its_owner() {
    let bed = Bed::with_host().with_store();
    bed.lease("c1", &[]);
    bed.put("/calico/ipam/v2/assignment/ipv4/block/10.91.77.0-26", b"\xff\x00{");
    let report = bed.run(&["ipam", "check", "--fix", "-o", "json"]).exits(2).json();
    assert!(!report["damaged"].as_array().unwrap().is_empty(), "{report}");
    assert!(bed.run(&["ipam", "show"]).exits(2).err.contains("10.91.77.0-26"));
}

#[test]
fn many_leaks_are_freed_in_one_run() {
    let bed = Bed::with_host().with_store();
    for n in 0..230 {
        dead(&bed, &format!("c{n}"));
    }
    let fixed = bed.run(&["ipam", "check", "--fix", "-o", "json"]).exits(0).json();
    assert_eq!((fixed["fixed"]["freed"].as_array().unwrap().len(), &fixed["allocations"]), (230, &json!(0)));
}

#[test]
fn stray_links_are_removed_with_their_routes() {
    let bed = Bed::with_host().with_store();
    let pod = Pod::new();
    bed.lease("kept", &[("netns", &pod.attribute())]);
    for (name, container) in [("cali000000000a", "kept"), ("cali000000000b", "gone")] {
        bed.ip(&format!("link add {name} type veth peer name p{}", &name[9..]));
        bed.ip(&format!("link set {name} up alias percale:net/{container}/eth0"));
    }
    bed.ip("link add foreign0 type veth peer name pforeign");
    bed.ip("route add 10.91.200.1/32 dev cali000000000b");
    let report = bed.run(&["ipam", "check", "-o", "json"]).exits(2).json();
    let links: Vec<&Value> = report["stray_links"].as_array().unwrap().iter().map(|l| &l["link"]).collect();
    assert_eq!(links, ["cali000000000b"]);
    bed.run(&["ipam", "check", "--fix"]).exits(0);
    let left = bed::finish(bed.command("ip").args(["-o", "link"]), "").out;
    assert!(
        left.contains("cali000000000a") && left.contains("foreign0") && !left.contains("cali000000000b"),
        "{left}"
    );
    assert!(!bed::finish(bed.command("ip").arg("route"), "").out.contains("10.91.200.1"));
}

#[test]
fn a_connected_pod_without_a_lease_is_told_but_not_cut_off() {
    let bed = Bed::with_host().with_store();
    let pod = Pod::new();
    bed.lease("kept", &[("netns", &pod.attribute())]);
    bed.ip(&format!("link add cali000000000c type veth peer name eth0 netns {}", pod.0));
    bed.ip("link set cali000000000c up alias percale:net/lost/eth0");
    bed::ip(&format!("-n {} link set eth0 up", pod.0));
    let report = bed.run(&["ipam", "check", "--fix", "-o", "json"]).exits(2).json();
    assert_eq!(
        (&report["stray_links"][0]["link"], &report["stray_links"][0]["repairable"]),
        (&json!("cali000000000c"), &json!(false))
    );
}

fn owe(bed: &Bed, ip: &str, store: &Embedded, sequence: u64) {
    let held = Held {
        ip: ip.parse().unwrap(),
        handle: "net.c1".into(),
        attrs: bed.run(&["ipam", "show", "--ip", ip, "-o", "json"]).json()["holders"][0]["attributes"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()))
            .collect(),
        sequence,
    };
    let entry = Release {
        store: store.identity(),
        network: "net".into(),
        container: "c1".into(),
        ifname: "eth0".into(),
        addresses: vec![held],
    };
    Journal::open(&bed.path("")).unwrap().append(&entry).unwrap();
}

#[test]
fn releases_that_wait_in_the_journal_are_finished() {
    let bed = Bed::with_host().with_store();
    let pod = Pod::new();
    let ip = living(&bed, "c1", &pod);
    let sequence = bed.run(&["ipam", "show", "--ip", &ip, "-o", "json"]).json()["holders"][0]["sequence"]
        .as_u64()
        .unwrap();
    owe(&bed, &ip, &bed.store(), sequence);
    let report = bed.run(&["ipam", "check", "-o", "json"]).exits(2).json();
    assert_eq!(report["owed_releases"], json!(["net/c1/eth0"]));
    let fixed = bed.run(&["ipam", "check", "--fix", "-o", "json"]).exits(0).json();
    assert_eq!(fixed["fixed"]["freed"], json!([ip]));
    assert!(!in_use(&bed, &ip));
}

#[test]
fn a_damaged_journal_is_told_and_stops_no_repair() {
    let bed = Bed::with_host().with_store();
    drop(Journal::open(&bed.path("")).unwrap());
    for slot in ["a", "b"] {
        std::fs::write(bed.path("journal").join(slot), [0xff; 5000]).unwrap();
    }
    let ip = dead(&bed, "c1");
    let ran = bed.run(&["ipam", "check", "--fix"]).exits(2);
    assert!(ran.out.contains("journal") && !in_use(&bed, &ip), "{ran:?}");
}

#[test]
fn a_journal_entry_frees_nothing_that_was_given_again() {
    let bed = Bed::with_host().with_store();
    let pod = Pod::new();
    let ip = living(&bed, "c1", &pod);
    owe(&bed, &ip, &bed.store(), 12345);
    let fixed = bed.run(&["ipam", "check", "--fix", "-o", "json"]).exits(0).json();
    assert_eq!(fixed["fixed"]["freed"], json!([]));
    assert!(in_use(&bed, &ip));
}

#[test]
fn configure_shows_and_changes_settings() {
    let bed = Bed::new().with_store();
    let shown = bed.run(&["ipam", "configure", "-o", "json"]).exits(0).json();
    assert_eq!(shown, json!({"strictAffinity": false, "autoAllocateBlocks": true, "maxBlocksPerHost": 0}));
    let refused = bed.run(&["ipam", "configure", "--max-blocks-per-host", "3"]).exits(1);
    assert!(refused.err.contains("needs strictAffinity true"), "{}", refused.err);
    bed.run(&["ipam", "configure", "--strictaffinity", "true", "--max-blocks-per-host", "3"]).exits(0);
    bed.run(&["ipam", "configure", "--strictaffinity=true"]).exits(0);
    assert_eq!(
        bed.run(&["get", "ipamconfig", "default", "-o", "json"]).exits(0).json()["spec"]["maxBlocksPerHost"],
        3
    );
    let stored = bed.store().get(&["/calico/ipam/v2/config"], soon()).unwrap().remove(0).unwrap();
    assert_eq!(
        String::from_utf8(stored.value).unwrap(),
        r#"{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":3}"#
    );
    bed.run(&["ipam", "configure", "--strictaffinity", "maybe"]).exits(64);
}
