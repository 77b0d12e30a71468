//! Store files that are garbled, cut off, of the version before, or of one to come.
// REQ: A-16

#![allow(clippy::unwrap_used)]

use e2e::clean::{check, nothing_held, percalectl};
use e2e::cnirun::addresses;
use e2e::leases::Leases;
use e2e::netns::must;
use e2e::{Attachment, Bed, Network, bins, conf};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn files_of(store: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(store).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file());
    files.filter(|p| p.metadata().unwrap().len() > 64).collect()
}

/// Overwrites 64 bytes of every file of the store, `tenths` of the way into it.
fn garble(store: &Path, tenths: u64) {
    for path in files_of(store) {
        let len = path.metadata().unwrap().len();
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0xa5; 64], (len - 64) * tenths / 10).unwrap();
    }
}

/// Cuts the named file of the store to this many bytes.
fn cut(store: &Path, name: &str, len: u64) {
    File::options().write(true).open(store.join(name)).unwrap().set_len(len).unwrap();
}

/// One pod runs, its store is harmed, and another one is to start: nothing is given twice, DEL
/// takes the link away, and a dump of before puts everything right.
fn survives(what: &str, harm: impl Fn(&Path)) {
    let bed = Bed::new("corrupt");
    let network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let (a, b) = (bed.netns("a"), bed.netns("b"));
    let pod = Attachment::new("first-pod", &a);
    let mine = addresses(&network.add(&pod).unwrap());
    let intact = percalectl(&bed, &["store", "dump"]);
    assert!(intact.status.success());
    harm(&bed.path("state/store"));
    match network.add(&Attachment::new("second-pod", &b)) {
        Ok(result) => assert!(addresses(&result).iter().all(|ip| !mine.contains(ip)), "given twice: {what}"),
        Err(failure) => tells_of_the_store(&failure, what),
    }
    let outcome = network.del(&pod);
    link_is_gone(&bed, "first-pod", &format!("{outcome:?}: {what}"));
    let dump = bed.write("dump.json", &intact.stdout);
    let load = percalectl(&bed, &["store", "load", "--force", &dump.display().to_string()]);
    assert!(load.status.success(), "{what}: {}", String::from_utf8_lossy(&load.stderr));
    network.gc(&[]).unwrap();
    nothing_held(&bed);
}

fn tells_of_the_store(failure: &e2e::Failure, what: &str) {
    assert!(failure.code().is_some_and(|c| c >= 5), "{what}: {failure}");
    assert!(failure.to_string().contains("store"), "{what}: the message names the store: {failure}");
}

/// DEL has removed the pod's link, whatever it could do about its lease.
fn link_is_gone(bed: &Bed, container: &str, outcome: &str) {
    let alias = |l: &Value| l["ifalias"].as_str().is_some_and(|a| a.contains(container));
    let left: Vec<Value> = bed.host.links().into_iter().filter(alias).map(|l| l["ifname"].clone()).collect();
    assert_eq!(left, Vec::<Value>::new(), "DEL left the link of {container}: {outcome}");
}

#[test]
fn a_garbled_store_is_told_and_can_be_repaired() {
    for tenths in [0, 1, 2, 5, 9] {
        survives(&format!("garbled at {tenths} tenths"), |store| garble(store, tenths));
    }
}

#[test]
fn a_store_that_was_cut_off_is_told_and_can_be_repaired() {
    for len in [0, 1, 511, 4096, 5000, 100_000] {
        survives(&format!("both files cut to {len}"), |store| {
            ["a", "b"].iter().for_each(|name| cut(store, name, len));
        });
    }
    survives("one file cut to nothing", |store| cut(store, "a", 0));
    survives("the mark cut to nothing", |store| cut(store, "lock", 0));
    survives("one file gone", |store| fs::remove_file(store.join("a")).unwrap());
}

/// A store with two leases, written by the last build whose stores had format version 1.
fn of_the_version_before(bed: &Bed) {
    let archive = bins::workspace().join("testdata/stored/embedded-format-1.tar.gz");
    must(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(bed.dir()));
}

const SUBNETS: [&str; 2] = ["10.93.0.0/24", "fd00:93::/64"];

#[test]
fn a_store_of_the_version_before_goes_on() {
    let bed = Bed::new("format1");
    of_the_version_before(&bed);
    let leases = Leases::new(&bed, &SUBNETS);
    let held: BTreeSet<IpAddr> =
        ["10.93.0.2", "10.93.0.4", "fd00:93::2", "fd00:93::4"].map(|ip| ip.parse().unwrap()).into();
    let shown = percalectl(&bed, &["store", "dump"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("leases.lease2"));
    let given = addresses(&leases.call("ADD", 3).unwrap());
    assert!(given.len() == 2 && given.iter().all(|ip| !held.contains(ip)), "{given:?}");
    for i in [0, 2, 3] {
        leases.call("DEL", i).unwrap();
    }
    assert_eq!(check(&bed, false).0["allocations"], 0);
}

/// Gives every header of the store another version, as a later build would write it.
fn age(store: &Path, version: u32) {
    for name in ["a", "b"] {
        let file = File::options().read(true).write(true).open(store.join(name)).unwrap();
        for at in [0, 3584] {
            let mut sector = [0; 512];
            file.read_exact_at(&mut sector, at).unwrap();
            if sector.starts_with(b"PERCALE") {
                sector[8..12].copy_from_slice(&version.to_le_bytes());
                let sum = crc32fast::hash(&sector[..508]);
                sector[508..].copy_from_slice(&sum.to_le_bytes());
                file.write_all_at(&sector, at).unwrap();
            }
        }
    }
}

#[test]
fn a_store_of_a_version_to_come_is_refused_and_left_as_it_is() {
    let bed = Bed::new("format9");
    of_the_version_before(&bed);
    let (leases, store) = (Leases::new(&bed, &SUBNETS), bed.path("state/store"));
    age(&store, 9);
    let before = fs::read(store.join("a")).unwrap();
    let failure = leases.call("ADD", 3).unwrap_err();
    tells_of_the_store(&failure, "version 9");
    assert!(failure.to_string().contains("version 9"), "the message names the version: {failure}");
    let told = percalectl(&bed, &["ipam", "check"]);
    assert!(!told.status.success());
    assert!(String::from_utf8_lossy(&told.stderr).contains("version 9"), "{told:?}");
    leases.call("DEL", 0).expect("DEL is journaled for the build that can read it");
    assert!(fs::read(store.join("a")).unwrap() == before, "a refused store is not written to");
    age(&store, 1);
    leases.call("DEL", 2).unwrap();
    assert_eq!(check(&bed, false).0["allocations"], 0, "the journaled release was finished");
}
