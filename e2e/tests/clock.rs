//! The clock set back, a new boot, and a panic. These need the debug build, where tests can cause them.
// REQ: A-16

#![allow(clippy::unwrap_used)]

use e2e::clean::{check, held, kernel_is_clean, nothing_held};
use e2e::cnirun::addresses;
use e2e::{Attachment, Bed, Netns, Network, conf};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::IpAddr;

const OFFSET: &str = "PERCALE_TEST_CLOCK_OFFSET";

fn pods(spaces: &[Netns]) -> Vec<Attachment> {
    spaces.iter().enumerate().map(|(i, ns)| Attachment::new(&format!("c{i}"), ns)).collect()
}

#[test]
fn a_clock_set_back_or_forth_loses_no_address() {
    let bed = Bed::debug("clock");
    let mut plugin = conf::percale_with(&bed, &["10.91.0.0/29"]);
    plugin["ipam"]["pools"][0]["blockSize"] = json!(29);
    plugin["ipam"]["reuse_delay"] = json!(3600);
    let mut network = Network::new(&bed, "net", vec![plugin]);
    let spaces: Vec<Netns> = (0..8).map(|i| bed.netns(&format!("p{i}"))).collect();
    for offset in ["0", "-86400", "86400", "-864000", "0"] {
        network.env = vec![(OFFSET.to_owned(), offset.to_owned())];
        let results: Vec<_> = pods(&spaces).iter().map(|p| network.add(p).unwrap()).collect();
        let distinct: BTreeSet<IpAddr> = results.iter().flat_map(addresses).collect();
        assert_eq!(distinct.len(), 8, "with the clock at {offset}");
        network.env = vec![(OFFSET.to_owned(), format!("-{}", offset.trim_start_matches('-')))];
        pods(&spaces).iter().for_each(|p| network.del(p).unwrap());
        nothing_held(&bed);
    }
    kernel_is_clean(&bed.host);
}

// REQ: A-13
#[test]
fn a_released_address_rests_while_others_are_free() {
    let bed = Bed::debug("cool");
    let mut plugin = conf::percale_with(&bed, &["10.91.0.0/26"]);
    plugin["ipam"]["reuse_delay"] = json!(3600);
    let mut network = Network::new(&bed, "net", vec![plugin]);
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let mut given = BTreeSet::new();
    for offset in ["0", "-7200", "60"] {
        network.env = vec![(OFFSET.to_owned(), offset.to_owned())];
        for _ in 0..10 {
            assert!(
                given.insert(addresses(&network.add(&pod).unwrap())[0]),
                "given again too soon: {given:?}"
            );
            network.del(&pod).unwrap();
        }
    }
}

/// The prefix under which a program sees another boot id.
fn after_reboot(bed: &Bed) -> Vec<std::ffi::OsString> {
    let id = bed.write("boot_id", "11111111-2222-4333-8444-555555555555\n");
    let script =
        format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\"", id.display());
    ["unshare", "-m", "--propagation", "private", "sh", "-c", &script].map(Into::into).to_vec()
}

#[test]
fn leases_of_the_boot_before_are_found_and_their_pods_start_again() {
    let bed = Bed::debug("boot");
    let mut network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let spaces: Vec<Netns> = (0..4).map(|i| bed.netns(&format!("p{i}"))).collect();
    pods(&spaces).iter().for_each(|p| drop(network.add(p).unwrap()));
    held(&bed, 8);
    drop(spaces);
    network.wrap = after_reboot(&bed);
    let spaces: Vec<Netns> = (0..2).map(|i| bed.netns(&format!("q{i}"))).collect();
    let again = pods(&spaces);
    for pod in &again {
        network.add(pod).unwrap();
        network.check(pod).unwrap();
    }
    network.gc(&again.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(check(&bed, false).0["allocations"], 4, "those of the boot before are freed");
    again.iter().for_each(|p| network.del(p).unwrap());
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
}

#[test]
fn a_panic_is_answered_in_json_and_what_was_done_is_undone() {
    let bed = Bed::debug("panic");
    let mut network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let space = bed.netns("pod");
    let pod = &pods(std::slice::from_ref(&space))[0];
    network.env = vec![("PERCALE_TEST_PANIC".to_owned(), "1".to_owned())];
    let failure = network.add(pod).unwrap_err();
    assert_eq!(failure.code(), Some(100), "{failure}");
    assert!(failure.to_string().contains("a test wanted a panic"), "{failure}");
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
    network.env.clear();
    network.add(pod).unwrap();
    network.del(pod).unwrap();
    nothing_held(&bed);
}
