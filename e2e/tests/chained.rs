//! Our plugin with others behind it, our IPAM under other plugins, other IPAMs under ours.

#![allow(clippy::unwrap_used)]

use e2e::clean::{kernel_is_clean, nothing_held};
use e2e::cnirun::{address, addresses};
use e2e::netns::must;
use e2e::{Attachment, Bed, Netns, Network, bins, conf, netns, probe};
use serde_json::{Value, json};
use std::net::IpAddr;

/// The plugin sets to go with: Debian's, which know 1.0.0, and the newest.
const SETS: [(bool, &str); 2] = [(false, "1.0.0"), (true, "1.1.0")];

fn bed_with(tag: &str, newest: bool) -> Bed {
    let bed = Bed::new(tag);
    if newest {
        bed.use_plugins_of(&bins::go_tools().join("plugins"));
    }
    bed
}

// REQ: C-17
#[test]
fn bandwidth_and_tuning_behind_ours() {
    for (newest, version) in SETS {
        let bed = bed_with("chain", newest);
        let bandwidth = json!({"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 8_000_000,
                               "egressRate": 8_000_000, "egressBurst": 8_000_000});
        let tuning = json!({"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.log_martians": "1"}});
        let network = Network::new(&bed, "net", vec![conf::percale(&bed), bandwidth, tuning]);
        let network = network.at_version(version);
        let ns = bed.netns("pod");
        let pod = Attachment::new("c1", &ns);
        let result = network.add(&pod).unwrap();
        network.check(&pod).unwrap();
        let shaped = bed.host.ip(&["-d", "link"]).iter().any(|l| l["qdisc"] == "tbf");
        assert!(shaped, "bandwidth shapes the host's end");
        let set = ns.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/log_martians")).unwrap();
        assert_eq!(set.trim(), "1");
        probe::tcp(&bed.host, &ns, address(&result, true)).unwrap();
        network.del(&pod).unwrap();
        nothing_held(&bed);
        kernel_is_clean(&bed.host);
    }
}

/// Adds two pods with another main plugin over our IPAM; both reach each other; all is freed.
fn our_ipam_under(plugin: &Value, ipam: &Value, reachable: bool) {
    for (newest, version) in SETS {
        let bed = bed_with("under", newest);
        let outside = bed.netns("outside");
        netns::join(&bed.host, &outside);
        let plugin = conf::with_our_ipam(&bed, plugin.clone(), ipam.clone());
        let network = Network::new(&bed, "net", vec![plugin]).at_version(version);
        let (a, b) = (bed.netns("a"), bed.netns("b"));
        let (pod_a, pod_b) = (Attachment::new("ca", &a), Attachment::new("cb", &b));
        let (of_a, of_b) = (network.add(&pod_a).unwrap(), network.add(&pod_b).unwrap());
        assert_subnet_and_gateway(&of_a);
        for (v4, goal) in addresses(&of_b).iter().map(|ip| (ip.is_ipv4(), *ip)) {
            if reachable {
                wait_until_usable(&b, goal);
                wait_until_usable(&a, address(&of_a, v4));
                probe::tcp(&a, &b, goal).unwrap_or_else(|e| panic!("{of_a} {of_b}: {e}"));
            }
        }
        network.check(&pod_a).unwrap();
        network.del(&pod_a).unwrap();
        network.del(&pod_b).unwrap();
        network.del(&pod_b.without_netns()).unwrap();
        nothing_held(&bed);
    }
}

/// Other plugins leave duplicate address detection on.
fn wait_until_usable(ns: &Netns, ip: IpAddr) {
    e2e::bed::wait_for("the address is no longer tentative", || {
        let text = must(ns.command("ip").args(["-o", "addr", "show", "tentative"]));
        !String::from_utf8_lossy(&text).contains(&ip.to_string())
    });
}

fn assert_subnet_and_gateway(result: &Value) {
    let expected = [("10.93.5.", "/24", "10.93.5.1"), ("fd00:10:93:", "/64", "fd00:10:93::1")];
    for ip in result["ips"].as_array().unwrap() {
        let text = ip["address"].as_str().unwrap();
        let fits = |(start, end, gateway): &(&str, &str, &str)| {
            text.starts_with(start) && text.ends_with(end) && ip["gateway"] == *gateway
        };
        assert!(expected.iter().any(fits), "subnet and gateway: {ip}");
        let bare = text.split('/').next().unwrap();
        assert!(!["10.93.5.0", "10.93.5.1", "10.93.5.255", "fd00:10:93::", "fd00:10:93::1"].contains(&bare));
    }
}

fn ranges() -> Value {
    json!({"type": "percale-ipam",
           "ranges": [[{"subnet": "10.93.5.0/24"}], [{"subnet": "fd00:10:93::/64"}]],
           "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]})
}

// REQ: A-14
#[test]
fn our_ipam_under_bridge() {
    our_ipam_under(&json!({"type": "bridge", "bridge": "br0", "isGateway": true}), &ranges(), true);
}

// REQ: A-14
#[test]
fn our_ipam_under_ptp() {
    our_ipam_under(&json!({"type": "ptp"}), &ranges(), true);
}

// REQ: A-14
#[test]
fn our_ipam_under_macvlan() {
    our_ipam_under(&json!({"type": "macvlan", "master": "up0", "mode": "bridge"}), &ranges(), true);
}

// REQ: A-14
#[test]
fn the_old_spelling_of_one_subnet_works() {
    let ipam = json!({"type": "percale-ipam", "subnet": "10.93.5.0/24", "rangeStart": "10.93.5.100",
                      "rangeEnd": "10.93.5.101", "gateway": "10.93.5.1", "routes": [{"dst": "0.0.0.0/0"}]});
    our_ipam_under(&json!({"type": "bridge", "bridge": "br0", "isGateway": true}), &ipam, true);
}

// REQ: A-14
#[test]
fn a_range_gives_out_every_address_once_and_then_says_so() {
    let bed = Bed::new("range");
    let ipam = json!({"type": "percale-ipam", "ranges": [[{"subnet": "10.93.5.0/28"}]]});
    let plugin = conf::with_our_ipam(&bed, json!({"type": "ptp"}), ipam);
    let network = Network::new(&bed, "net", vec![plugin]);
    let config = network.config(&network.plugins[0], None);
    let stdin = config.to_string();
    let ns = bed.netns("pod");
    let add = |i: usize| {
        let pod = Attachment::new(&format!("c{i}"), &ns);
        network.exec_raw("ADD", "percale-ipam", stdin.as_bytes(), &pod).result()
    };
    let given: std::collections::BTreeSet<IpAddr> = (0..13).map(|i| addresses(&add(i).unwrap())[0]).collect();
    let wished = (2..15).map(|i| IpAddr::from([10, 93, 5, i])).collect();
    assert_eq!(given, wished, "all but network, gateway and broadcast");
    let failure = add(13).unwrap_err();
    assert!(failure.to_string().contains("10.93.5.0/28"), "the message names the range: {failure}");
}

#[test]
fn host_local_under_ours() {
    let bed = Bed::new("delegated");
    let mut plugin = conf::percale(&bed);
    plugin["ipam"] = conf::host_local(&bed, &["10.94.0.0/24", "fd00:10:94::/64"]);
    let network = Network::new(&bed, "net", vec![plugin]).at_version("1.0.0");
    let (a, b) = (bed.netns("a"), bed.netns("b"));
    let (pod_a, pod_b) = (Attachment::new("ca", &a), Attachment::new("cb", &b));
    let (of_a, of_b) = (network.add(&pod_a).unwrap(), network.add(&pod_b).unwrap());
    for v4 in [true, false] {
        probe::everything(&a, &b, address(&of_b, v4), 1500, Some(address(&of_a, v4)));
    }
    network.check(&pod_a).unwrap();
    network.del(&pod_a).unwrap();
    network.del(&pod_b).unwrap();
    kernel_is_clean(&bed.host);
    let leases = std::fs::read_dir(bed.path("host-local/net")).unwrap();
    let left: Vec<_> = leases.map(|e| e.unwrap().file_name()).filter(|n| looks_like_ip(n)).collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new());
}

fn looks_like_ip(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|n| n.parse::<IpAddr>().is_ok())
}

#[test]
fn a_delegated_ipam_that_fails_or_is_missing_leaves_nothing() {
    let bed = Bed::new("nodelegate");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    for ipam in [json!({"type": "absent"}), conf::host_local(&bed, &["10.94.0.0/33"])] {
        let mut plugin = conf::percale(&bed);
        plugin["ipam"] = ipam;
        let network = Network::new(&bed, "net", vec![plugin]).at_version("1.0.0");
        let failure = network.add(&pod).unwrap_err();
        assert!(failure.code().is_some(), "{failure}");
        kernel_is_clean(&bed.host);
        assert_eq!(ns.link_names("eth0"), Vec::<String>::new());
    }
}

#[test]
fn leases_of_a_host_local_directory_are_taken_over() {
    let bed = Bed::new("import");
    let subnet = "10.93.5.0/24";
    let old = json!({"type": "bridge", "bridge": "br0", "isGateway": true,
                     "ipam": {"type": "host-local", "dataDir": bed.path("hl"), "ranges": [[{"subnet": subnet}]]}});
    let ours = json!({"type": "percale-ipam", "dataDir": bed.path("hl"), "ranges": [[{"subnet": subnet}]]});
    let new = conf::with_our_ipam(&bed, old.clone(), ours);
    let old = Network::new(&bed, "net", vec![old]).at_version("1.0.0");
    let new = Network::new(&bed, "net", vec![new]).at_version("1.0.0");
    let spaces: Vec<Netns> = (0..6).map(|i| bed.netns(&format!("p{i}"))).collect();
    let pods: Vec<Attachment> =
        spaces.iter().enumerate().map(|(i, ns)| Attachment::new(&format!("c{i}"), ns)).collect();
    let before: Vec<IpAddr> = pods[..3].iter().flat_map(|p| addresses(&old.add(p).unwrap())).collect();
    let after: Vec<IpAddr> = pods[3..].iter().flat_map(|p| addresses(&new.add(p).unwrap())).collect();
    assert!(after.iter().all(|ip| !before.contains(ip)), "{before:?} {after:?}");
    pods.iter().for_each(|pod| new.del(pod).unwrap());
    nothing_held(&bed);
}
