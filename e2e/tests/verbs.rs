//! Every verb of the specification, through the plugin binary.

#![allow(clippy::unwrap_used)]

use e2e::clean::{held, kernel_is_clean, nothing_held, pod_links};
use e2e::cnirun::{address, addresses, finish};
use e2e::netns::must;
use e2e::{Attachment, Bed, Netns, Network, conf, probe};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const VERSIONS: &[&str] = &["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn network<'a>(bed: &'a Bed, name: &str) -> Network<'a> {
    Network::new(bed, name, vec![conf::percale(bed)])
}

// REQ: C-01
#[test]
fn the_result_has_the_shape_of_the_version_that_was_asked() {
    let bed = Bed::new("versions");
    for version in VERSIONS {
        let network = network(&bed, "net").at_version(version);
        let ns = bed.netns("pod");
        let pod = Attachment::new("c1", &ns);
        let result = network.add(&pod).unwrap();
        assert_eq!(result["cniVersion"], *version, "{result}");
        let old = version.starts_with("0.1") || version.starts_with("0.2");
        assert_eq!(result["ip4"]["ip"].is_string() && result["ip6"]["ip"].is_string(), old, "{result}");
        assert_eq!(result["ips"].as_array().map_or(0, Vec::len), if old { 0 } else { 2 }, "{result}");
        assert_eq!(
            result["ips"][0]["version"].is_string(),
            version.starts_with("0.3") || *version == "0.4.0"
        );
        network.del(&pod).unwrap();
    }
    nothing_held(&bed);
}

// REQ: C-01
#[test]
fn a_missing_version_is_0_1_0() {
    let bed = Bed::new("noversion");
    let network = network(&bed, "net");
    let mut config = network.config(&network.plugins[0], None);
    config.as_object_mut().unwrap().remove("cniVersion");
    let ns = bed.netns("pod");
    let result = network.exec("ADD", &config, &Attachment::new("c1", &ns)).result().unwrap();
    assert!(result["ip4"]["ip"].is_string(), "{result}");
}

// REQ: C-01
#[test]
fn version_needs_no_configuration() {
    let bed = Bed::new("version");
    let network = network(&bed, "net");
    let nobody = Attachment { container: String::new(), ifname: String::new(), ..nowhere() };
    for stdin in [&b"{\"cniVersion\":\"1.1.0\"}"[..], b"{}"] {
        let told = network.exec_raw("VERSION", "percale", stdin, &nobody).result().unwrap();
        assert_eq!(told["supportedVersions"], json!(VERSIONS), "{told}");
    }
}

fn nowhere() -> Attachment {
    Attachment { container: "c1".into(), ifname: "eth0".into(), netns: "".into(), args: String::new() }
}

// REQ: C-16
#[test]
fn a_repeated_add_is_answered_alike() {
    let bed = Bed::new("again");
    let network = network(&bed, "net");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let first = network.add(&pod).unwrap();
    assert_eq!(network.add(&pod).unwrap(), first);
    held(&bed, 2);
    network.check(&pod).unwrap();
}

// REQ: C-16
#[test]
fn verbs_of_one_attachment_do_not_interleave() {
    let bed = Bed::new("interleave");
    let network = network(&bed, "net");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let config = network.config(&network.plugins[0], None);
    let running: Vec<_> = (0..12).map(|_| network.start("ADD", &config, &pod)).collect();
    let results: Vec<Value> = running.into_iter().map(|r| finish(r).result().unwrap()).collect();
    assert!(results.iter().all(|r| r["ips"] == results[0]["ips"]), "{results:?}");
    held(&bed, 2);
    let running: Vec<_> = (0..12).map(|i| network.start(["ADD", "DEL"][i % 2], &config, &pod)).collect();
    running.into_iter().for_each(|r| drop(finish(r).result().unwrap()));
    network.del(&pod).unwrap();
    nothing_held(&bed);
}

#[test]
fn a_foreign_interface_is_left_alone() {
    let bed = Bed::new("foreign");
    let ns = bed.netns("pod");
    must(ns.command("ip").args(["link", "add", "eth0", "type", "bridge"]));
    let failure = network(&bed, "net").add(&Attachment::new("c1", &ns)).unwrap_err();
    assert!(failure.to_string().contains("eth0"), "{failure}");
    assert_eq!(ns.link_names("eth0"), ["eth0"]);
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
}

#[test]
fn two_networks_and_two_interfaces_are_freed_one_by_one() {
    let bed = Bed::new("several");
    let (one, two) = (network(&bed, "one"), network(&bed, "two"));
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let attachments = [(&one, pod.clone()), (&one, pod.clone().named("eth1")), (&two, pod.named("eth2"))];
    let results: Vec<Value> = attachments.iter().map(|(n, a)| n.add(a).unwrap()).collect();
    let distinct: std::collections::BTreeSet<_> = results.iter().flat_map(addresses).collect();
    assert_eq!(distinct.len(), 6);
    for ip in results.iter().flat_map(addresses) {
        probe::tcp(&bed.host, &ns, ip).unwrap_or_else(|e| panic!("{ip}: {e}"));
    }
    for (gone, (network, attachment)) in attachments.iter().enumerate() {
        network.del(attachment).unwrap();
        held(&bed, 2 * (attachments.len() - gone - 1));
        attachments[gone + 1..].iter().for_each(|(n, a)| n.check(a).unwrap());
    }
    kernel_is_clean(&bed.host);
}

// REQ: C-08
#[test]
fn del_needs_nothing_that_may_be_gone() {
    let bed = Bed::new("del");
    let network = network(&bed, "net");
    type Lose = fn(&Bed, &Netns);
    let cases: [(&str, Lose); 4] = [
        ("the namespace", |_, ns| ns.unlink()),
        ("the pod's link", |_, ns| drop(must(ns.command("ip").args(["link", "del", "eth0"])))),
        ("the host's link", |bed, _| {
            let link = &pod_links(&bed.host)[0];
            drop(must(bed.host.command("ip").args(["link", "del", link])));
        }),
        ("the locks", |bed, _| drop(std::fs::remove_dir_all(bed.path("run")))),
    ];
    for (what, lose) in cases {
        let ns = bed.netns("pod");
        let pod = Attachment::new("c1", &ns);
        network.add(&pod).unwrap();
        lose(&bed, &ns);
        network.forget(&pod);
        network.del(&pod).unwrap_or_else(|e| panic!("DEL without {what}: {e}"));
        network.del(&pod.without_netns()).unwrap_or_else(|e| panic!("second DEL without {what}: {e}"));
        nothing_held(&bed);
        kernel_is_clean(&bed.host);
    }
}

// REQ: C-08
#[test]
fn del_of_what_never_was_succeeds_and_creates_nothing() {
    let bed = Bed::new("never");
    let ns = bed.netns("pod");
    network(&bed, "net").del(&Attachment::new("c1", &ns)).unwrap();
    network(&bed, "net").gc(&[]).unwrap();
    assert!(!bed.path("state/store").exists(), "DEL and GC create no store");
}

// REQ: C-08
#[test]
fn del_succeeds_after_the_configuration_changed() {
    let bed = Bed::new("changed");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    network(&bed, "net").add(&pod).unwrap();
    let changed = Network::new(&bed, "net", vec![conf::percale_with(&bed, &["10.92.0.0/16"])]);
    changed.del(&pod).unwrap();
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
}

/// What to do to a pod's network, as arguments of `ip`; `V4`, `V6` and `LINK` stand for its own.
const HARM: [(&str, bool, &str); 8] = [
    ("IPv4 address", true, "addr del V4/32 dev eth0"),
    ("IPv6 address", true, "-6 addr del V6/128 dev eth0"),
    ("IPv4 route", true, "route del default"),
    ("IPv6 route", true, "-6 route del default"),
    ("neighbour", true, "neigh del 169.254.1.1 dev eth0"),
    ("MTU", true, "link set eth0 mtu 1280"),
    ("host's IPv4 route", false, "route del V4"),
    ("host's link", false, "link set LINK down"),
];

#[test]
fn check_finds_what_was_changed() {
    let bed = Bed::new("check");
    let network = network(&bed, "net");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    for (what, inside, command) in HARM {
        let result = network.add(&pod).unwrap();
        network.check(&pod).unwrap_or_else(|e| panic!("CHECK before the loss of the {what}: {e}"));
        let link = pod_links(&bed.host)[0].clone();
        let own = [
            ("V4", address(&result, true).to_string()),
            ("V6", address(&result, false).to_string()),
            ("LINK", link),
        ];
        let command = own.iter().fold(command.to_owned(), |text, (word, value)| text.replace(word, value));
        must(if inside { &ns } else { &bed.host }.command("ip").args(command.split(' ')));
        let failure = network.check(&pod).expect_err(&format!("CHECK misses the {what}"));
        assert!(failure.code().is_some(), "{what}: {failure}");
        network.del(&pod).unwrap();
    }
}

// REQ: C-02
#[test]
fn gc_frees_what_is_not_listed() {
    let bed = Bed::new("gc");
    let (network, other) = (network(&bed, "net"), network(&bed, "other"));
    let spaces: Vec<Netns> = (0..4).map(|i| bed.netns(&format!("p{i}"))).collect();
    let pods: Vec<Attachment> =
        spaces.iter().enumerate().map(|(i, ns)| Attachment::new(&format!("c{i}"), ns)).collect();
    pods[..3].iter().for_each(|pod| drop(network.add(pod).unwrap()));
    other.add(&pods[3]).unwrap();
    network.gc_with(json!({})).unwrap();
    held(&bed, 8);
    network.gc(&[&pods[0]]).unwrap();
    held(&bed, 4);
    network.check(&pods[0]).unwrap();
    network.gc_with(json!({"cni.dev/valid-attachments": null})).unwrap();
    held(&bed, 2);
    other.check(&pods[3]).unwrap();
    other.gc_with(json!({"cni.dev/attachments": []})).unwrap();
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
}

// REQ: C-02
#[test]
fn status_tells_whether_an_add_can_be_served() {
    let bed = Bed::new("status");
    network(&bed, "net").status().unwrap();
    assert!(!bed.path("state/store").exists(), "STATUS creates nothing");
    bed.write("state/store", "a file in the store's place");
    let failure = network(&bed, "net").status().unwrap_err();
    assert!(matches!(failure.code(), Some(50 | 51)), "{failure}");
}

/// A starving waiter would be seen here: every one of 200 callers is served.
// REQ: C-03
#[test]
fn two_hundred_adds_at_once_all_finish() {
    let bed = Bed::new("crowd");
    let network = Network::new(&bed, "net", vec![conf::percale_with(&bed, &["10.91.0.0/20"])]);
    let config = network.config(&network.plugins[0], None);
    let spaces: Vec<Netns> = (0..200).map(|i| bed.netns(&format!("p{i}"))).collect();
    let begun = Instant::now();
    let running: Vec<_> = spaces
        .iter()
        .enumerate()
        .map(|(i, ns)| network.start("ADD", &config, &Attachment::new(&format!("c{i}"), ns)))
        .collect();
    let failed: Vec<String> =
        running.into_iter().filter_map(|r| finish(r).result().err()).map(|e| e.to_string()).collect();
    assert_eq!(failed, Vec::<String>::new());
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    held(&bed, 200);
    network.gc(&[]).unwrap();
    nothing_held(&bed);
}

// REQ: C-06
// REQ: C-07
#[test]
fn the_log_has_a_line_for_every_call_and_error() {
    let bed = Bed::new("log");
    let network = network(&bed, "net");
    let ns = bed.netns("pod");
    let pod =
        Attachment::new("c1", &ns).with_args("IgnoreUnknown=1;K8S_POD_NAMESPACE=space;K8S_POD_NAME=web");
    let result = network.add(&pod).unwrap();
    let failed = Attachment::new("c2", &ns);
    network.add(&failed).unwrap_err();
    let log = std::fs::read_to_string(bed.path("log/cni.log")).unwrap();
    let line = |id: &str| log.lines().find(|l| l.contains(id)).unwrap_or_else(|| panic!("no line: {log}"));
    assert!(line("c1").contains("web") && line("c1").contains(&addresses(&result)[0].to_string()), "{log}");
    assert!(log.lines().any(|l| l.contains("c2") && l.contains("eth0")), "{log}");
}
