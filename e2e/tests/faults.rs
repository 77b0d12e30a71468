//! Faults of the disk, of the configuration and of the namespace. Each gets a clear error with
//! the right code and valid JSON; nothing is lost or leaked; DEL stays possible.

#![allow(clippy::unwrap_used)]

use e2e::clean::{held, kernel_is_clean, nothing_held, percalectl};
use e2e::cnirun::addresses;
use e2e::leases::Leases;
use e2e::netns::must;
use e2e::{Attachment, Bed, Netns, Network, conf, netns};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

fn network(bed: &Bed) -> Network<'_> {
    Network::new(bed, "net", vec![conf::percale(bed)])
}

/// A small file system for the state directory.
fn small_disk(bed: &Bed, size: &str) -> PathBuf {
    let dir = bed.path("state");
    fs::create_dir(&dir).unwrap();
    let options = format!("size={size},mode=0700");
    must(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&dir));
    dir
}

/// Fills the file system to its last byte.
fn fill(dir: &Path) {
    let mut file = File::create(dir.join("ballast")).unwrap();
    for piece in [65_536, 4096, 512, 1] {
        let zeros = vec![0; piece];
        while file.write(&zeros).is_ok_and(|n| n > 0) {}
    }
}

// REQ: A-16
#[test]
fn every_lease_can_be_deleted_on_a_full_disk() {
    let bed = Bed::new("full");
    let dir = small_disk(&bed, "8m");
    let leases = Leases::new(&bed, &["10.93.0.0/20"]);
    let count = 300;
    let given: BTreeSet<IpAddr> =
        (0..count).flat_map(|i| addresses(&leases.call("ADD", i).unwrap())).collect();
    assert_eq!(given.len(), count);
    fill(&dir);
    let refused = (count..count + 2000).find_map(|i| leases.call("ADD", i).err().map(|e| (i, e)));
    let (end, failure) = refused.expect("a full disk refuses an ADD at last");
    assert_eq!(failure.code(), Some(5), "{failure}");
    assert!(failure.to_string().to_lowercase().contains("space"), "the message names the cause: {failure}");
    for i in 0..=end {
        leases.call("DEL", i).unwrap_or_else(|e| panic!("DEL of lease {i} on a full disk: {e}"));
    }
    fs::remove_file(dir.join("ballast")).unwrap();
    nothing_held(&bed);
}

// REQ: A-16
#[test]
fn a_disk_that_is_full_from_the_start_refuses_and_leaves_nothing() {
    let bed = Bed::new("fullfirst");
    fill(&small_disk(&bed, "64k"));
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let failure = network(&bed).add(&pod).unwrap_err();
    assert_eq!(failure.code(), Some(5), "{failure}");
    assert_eq!(ns.link_names("eth0"), Vec::<String>::new());
    network(&bed).del(&pod).unwrap();
    kernel_is_clean(&bed.host);
}

/// Neither store nor journal can be written: DEL cleans the host and says what to do.
#[test]
fn a_read_only_store_refuses_add_and_del_cleans_the_host() {
    let bed = Bed::new("readonly");
    let network = network(&bed);
    let (a, b) = (bed.netns("a"), bed.netns("b"));
    let (old, new) = (Attachment::new("ca", &a), Attachment::new("cb", &b));
    network.add(&old).unwrap();
    let dir = bed.path("state");
    must(Command::new("mount").args(["--bind"]).args([&dir, &dir]));
    must(Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&dir));
    assert_eq!(network.add(&new).unwrap_err().code(), Some(5));
    network.check(&old).unwrap();
    assert_eq!(network.del(&old).unwrap_err().code(), Some(5));
    kernel_is_clean(&bed.host);
    must(Command::new("umount").arg(&dir));
    network.del(&old).unwrap();
    nothing_held(&bed);
}

#[test]
fn a_missing_store_is_created_by_add_alone() {
    let bed = Bed::new("missing");
    let network = network(&bed);
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let result = network.add(&pod).unwrap();
    fs::remove_dir_all(bed.path("state/store")).unwrap();
    assert!(network.check(&pod).is_err(), "CHECK tells that the allocation is gone");
    assert!(!bed.path("state/store").exists(), "CHECK creates nothing");
    assert_ne!(percalectl(&bed, &["ipam", "show"]).status.code(), Some(0));
    assert!(!bed.path("state/store").exists(), "percalectl creates nothing");
    let other = bed.netns("other");
    let second = network.add(&Attachment::new("c2", &other)).unwrap();
    assert!(
        addresses(&second).iter().all(|ip| !addresses(&result).contains(ip)),
        "an address that is in use"
    );
    network.del(&pod).unwrap();
}

#[test]
fn a_store_that_is_no_directory_is_named() {
    let bed = Bed::new("nodir");
    bed.write("state/store", "a file");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let failure = network(&bed).add(&pod).unwrap_err();
    assert!(failure.to_string().contains("state/store"), "{failure}");
    assert_eq!(ns.link_names("eth0"), Vec::<String>::new());
    kernel_is_clean(&bed.host);
}

#[test]
fn garbage_for_a_configuration_is_told() {
    let bed = Bed::new("garbage");
    let network = network(&bed);
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let whole = network.config(&network.plugins[0], None).to_string();
    let truncated = whole.as_bytes()[..whole.len() / 2].to_vec();
    let texts: [&[u8]; 6] = [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", &truncated];
    for text in texts {
        let failure = network.exec_raw("ADD", "percale", text, &pod).result().unwrap_err();
        assert!(matches!(failure.code(), Some(6 | 7)), "{:?}: {failure}", String::from_utf8_lossy(text));
    }
    nothing_is_there(&bed, &ns);
}

fn nothing_is_there(bed: &Bed, ns: &Netns) {
    assert_eq!(ns.link_names("eth0"), Vec::<String>::new());
    kernel_is_clean(&bed.host);
    if bed.path("state/store").exists() {
        nothing_held(bed);
    }
}

// REQ: C-12
#[test]
fn absurd_values_are_refused_by_name() {
    let bed = Bed::new("absurd");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let pool =
        |cidr: &str, size: u32| json!({"type": "percale-ipam", "pools": [{"cidr": cidr, "blockSize": size}]});
    let range = |subnet: &str| json!({"type": "percale-ipam", "ranges": [[{"subnet": subnet}]]});
    let cases = [
        ("ipam", pool("10.91.0.0/33", 26), "cidr"),
        ("ipam", pool("10.91.0.0/28", 26), "blockSize"),
        ("ipam", pool("10.91.0.0/16", 33), "blockSize"),
        ("ipam", pool("fe80::%eth0/64", 122), "cidr"),
        ("ipam", range("10.93.0.0/40"), "subnet"),
        ("ipam", range("10.93.0.300/24"), "subnet"),
        ("ipam", json!({"type": "percale-ipam", "pools": "all"}), "pools"),
        ("mtu", json!("large"), "mtu"),
        ("mtu", json!(-1), "mtu"),
        ("mtu", json!(1_000_000), "mtu"),
        ("ipam_lock_timeout", json!("soon"), "ipam_lock_timeout"),
        ("state_dir", json!(7), "state_dir"),
        ("datastore_type", json!("floppy"), "datastore_type"),
    ];
    for (key, value, named) in cases {
        let mut plugin = conf::percale(&bed);
        plugin[key] = value.clone();
        let failure = Network::new(&bed, "net", vec![plugin]).add(&pod).unwrap_err();
        assert_eq!(failure.code(), Some(7), "{key} = {value}: {failure}");
        assert!(failure.to_string().contains(named), "{key} = {value} is named by {named}: {failure}");
    }
    nothing_is_there(&bed, &ns);
}

#[test]
fn absurd_names_are_refused() {
    let bed = Bed::new("names");
    let network = network(&bed);
    let ns = bed.netns("pod");
    let good = Attachment::new("c1", &ns);
    let cases = [
        good.clone().named("sixteen-bytes-xx"),
        good.clone().named(""),
        good.clone().named("a/b"),
        good.clone().named(".."),
        Attachment::new("with/slash", &ns),
        Attachment::new("", &ns),
        Attachment::new("with space", &ns),
    ];
    for pod in cases {
        let failure = network.add(&pod).unwrap_err();
        assert_eq!(failure.code(), Some(4), "{pod:?}: {failure}");
    }
    nothing_is_there(&bed, &ns);
}

#[test]
fn a_namespace_that_is_none_is_refused_and_del_succeeds() {
    let bed = Bed::new("nons");
    let network = network(&bed);
    let ns = bed.netns("pod");
    let file = bed.write("file", "not a namespace");
    let paths = [
        file,
        bed.dir().to_owned(),
        "/proc/self/ns/mnt".into(),
        "/run/netns/gone".into(),
        "/dev/null".into(),
    ];
    for path in paths {
        let pod = Attachment { netns: path.clone(), ..Attachment::new("c1", &ns) };
        let failure = network.add(&pod).unwrap_err();
        assert!(matches!(failure.code(), Some(3 | 4)), "{}: {failure}", path.display());
        network.del(&pod).unwrap_or_else(|e| panic!("DEL with {}: {e}", path.display()));
        nothing_is_there(&bed, &ns);
    }
}

/// The first family is there, the second is not: no address and no link stays.
// REQ: C-04
#[test]
fn when_one_family_fails_the_other_is_given_back() {
    let bed = Bed::new("half");
    let mut plugin = conf::percale_with(&bed, &["10.91.0.0/26", "fd00:10:91::/122"]);
    plugin["ipam"]["pools"][1]["blockSize"] = json!(122);
    let network = Network::new(&bed, "net", vec![plugin.clone()]);
    let ns = bed.netns("pod");
    let mut only_v6 = plugin;
    only_v6["ipam"]["assign_ipv4"] = json!("false");
    let only_v6 = Network::new(&bed, "net", vec![only_v6]);
    let taken = (0..64).map(|i| only_v6.add(&Attachment::new("full", &ns).named(&format!("x{i}"))));
    assert!(taken.into_iter().all(|r| r.is_ok()));
    held(&bed, 64);
    let failure = network.add(&Attachment::new("c1", &ns)).unwrap_err();
    assert!(failure.to_string().contains("fd00:10:91::/122"), "the empty pool is named: {failure}");
    held(&bed, 64);
    assert_eq!(ns.link_names("eth0"), Vec::<String>::new());
    only_v6.gc(&[]).unwrap();
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
}

/// A route of somebody else to an address that the pool would give.
#[test]
fn an_address_that_the_host_already_routes_is_passed_over() {
    let bed = Bed::new("taken");
    let network = network(&bed);
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let first = addresses(&network.add(&pod).unwrap());
    network.del(&pod).unwrap();
    let v4 = first.iter().find(|ip| ip.is_ipv4()).unwrap();
    let outside = bed.netns("outside");
    netns::join(&bed.host, &outside);
    for third in 0..64 {
        let IpAddr::V4(v4) = v4 else { unreachable!() };
        let octets = v4.octets();
        let dst = format!("{}.{}.{}.{}/32", octets[0], octets[1], octets[2], (octets[3] & 0xc0) + third);
        if third % 2 == 1 {
            must(bed.host.command("ip").args(["route", "add", &dst, "dev", "up0"]));
        }
    }
    let given = addresses(&network.add(&pod).unwrap());
    let IpAddr::V4(given) = given.iter().find(|ip| ip.is_ipv4()).unwrap() else { unreachable!() };
    assert_eq!(given.octets()[3] % 2, 0, "{given} is routed to another link");
    let log = fs::read_to_string(bed.path("log/cni.log")).unwrap();
    assert!(log.lines().any(|line| line.contains("up0")), "the log names the route in the way: {log}");
    held(&bed, 2);
    network.del(&pod).unwrap();
}

#[test]
fn a_route_to_a_dead_link_is_replaced() {
    let bed = Bed::new("deadroute");
    let network = network(&bed);
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let given = addresses(&network.add(&pod).unwrap());
    network.del(&pod).unwrap();
    let outside = bed.netns("outside");
    netns::join(&bed.host, &outside);
    for ip in &given {
        must(bed.host.command("ip").args(["route", "add", &ip.to_string(), "dev", "up0"]));
    }
    must(outside.command("ip").args(["link", "set", "up0", "down"]));
    let wanted = given.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    let again = pod.clone().with_args(&format!("IP={wanted}"));
    assert_eq!(addresses(&network.add(&again).unwrap()), given);
    for ip in &given {
        e2e::probe::tcp(&bed.host, &ns, *ip).unwrap_or_else(|e| panic!("{ip}: {e}"));
    }
    network.del(&again).unwrap();
    nothing_held(&bed);
}
