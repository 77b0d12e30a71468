//! Pods, and the host, reach each other: both families, TCP and UDP, up to the full MTU.

#![allow(clippy::unwrap_used)]

use e2e::bed::{HOST_V4, HOST_V6};
use e2e::clean::{kernel_is_clean, nothing_held};
use e2e::cnirun::{address, addresses};
use e2e::netns::must;
use e2e::{Attachment, Bed, Netns, Network, conf, netns, probe};
use serde_json::{Value, json};
use std::net::IpAddr;

fn every_way(mtu: usize) {
    let bed = Bed::new("traffic");
    let mut plugin = conf::percale(&bed);
    plugin["mtu"] = json!(mtu);
    let network = Network::new(&bed, "net", vec![plugin]);
    let (a, b) = (bed.netns("a"), bed.netns("b"));
    let (pod_a, pod_b) = (Attachment::new("ca", &a), Attachment::new("cb", &b));
    let (of_a, of_b) = (network.add(&pod_a).unwrap(), network.add(&pod_b).unwrap());
    for v4 in [true, false] {
        let (ip_a, ip_b) = (address(&of_a, v4), address(&of_b, v4));
        let host: IpAddr = if v4 { HOST_V4 } else { HOST_V6 }.parse().unwrap();
        probe::everything(&a, &b, ip_b, mtu, Some(ip_a));
        probe::everything(&b, &a, ip_a, mtu, Some(ip_b));
        probe::everything(&bed.host, &a, ip_a, mtu, None);
        probe::everything(&a, &bed.host, host, mtu, Some(ip_a));
        probe::tcp(&a, &a, ip_a).unwrap();
        probe::udp(&a, &a, ip_a, 32).unwrap();
    }
    for pod in [&pod_a, &pod_b] {
        network.check(pod).unwrap();
        network.del(pod).unwrap();
    }
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
}

#[test]
fn pods_and_host_reach_each_other() {
    every_way(1500);
}

// REQ: C-05
#[test]
fn a_small_mtu_from_the_configuration_holds() {
    every_way(1300);
}

// REQ: C-05
#[test]
fn a_jumbo_mtu_from_the_configuration_holds() {
    every_way(9000);
}

// REQ: C-05
#[test]
fn the_mtu_file_counts_and_a_broken_one_fails_no_pod() {
    let bed = Bed::new("mtufile");
    let file = bed.write("mtu", "1420\n");
    let mut plugin = conf::percale(&bed);
    plugin["mtu"] = json!(0);
    plugin["mtu_file"] = json!(file);
    let network = Network::new(&bed, "net", vec![plugin]);
    for (content, mtu) in [("1420\n", 1420), ("garbage", 1500), ("", 1500)] {
        bed.write("mtu", content);
        let ns = bed.netns("pod");
        let pod = Attachment::new("c1", &ns);
        network.add(&pod).unwrap();
        let links = ns.ip(&["link", "show", "eth0"]);
        assert_eq!(links[0]["mtu"], mtu, "with {content:?}");
        network.del(&pod).unwrap();
    }
}

/// A pod that takes an address which it was not given cannot use it.
// REQ: D-15
#[test]
fn a_pod_cannot_send_from_a_foreign_address() {
    let bed = Bed::new("spoof");
    let network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let (a, b) = (bed.netns("a"), bed.netns("b"));
    let (of_a, of_b) =
        (network.add(&Attachment::new("ca", &a)).unwrap(), network.add(&Attachment::new("cb", &b)).unwrap());
    for (v4, stolen) in [(true, "10.91.200.200"), (false, "fd00:10:91::dead:beef")] {
        steal(&a, stolen);
        let goal = address(&of_b, v4);
        assert!(received_from(&a, stolen, &b, goal).is_none(), "{stolen} got through");
        let own = address(&of_a, v4).to_string();
        assert_eq!(received_from(&a, &own, &b, goal), Some(own.clone()), "{own} must get through");
    }
}

fn steal(pod: &Netns, ip: &str) {
    let (len, nodad): (&str, &[&str]) = if ip.contains(':') { ("/128", &["nodad"]) } else { ("/32", &[]) };
    must(pod.command("ip").args(["addr", "add", &format!("{ip}{len}"), "dev", "eth0"]).args(nodad));
}

/// Sends one datagram from an address; answers the source that arrives, if one does.
fn received_from(from: &Netns, source: &str, to: &Netns, goal: IpAddr) -> Option<String> {
    use std::net::UdpSocket;
    let any = if goal.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let server = to.run(|| UdpSocket::bind(any)).unwrap();
    server.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let source: IpAddr = source.parse().unwrap();
    let client = from.run(|| UdpSocket::bind((source, 0))).unwrap();
    client.send_to(b"x", (goal, server.local_addr().unwrap().port())).ok()?;
    let mut buffer = [0; 8];
    server.recv_from(&mut buffer).ok().map(|(_, peer)| peer.ip().to_string())
}

#[test]
fn masquerade_hides_the_pod_from_what_is_outside() {
    let bed = Bed::new("masq");
    let outside = bed.netns("outside");
    netns::join(&bed.host, &outside);
    let mut plugin = conf::percale(&bed);
    plugin["ipMasq"] = json!(true);
    let network = Network::new(&bed, "net", vec![plugin]);
    let (a, b) = (bed.netns("a"), bed.netns("b"));
    let of_a = network.add(&Attachment::new("ca", &a)).unwrap();
    let of_b = network.add(&Attachment::new("cb", &b)).unwrap();
    for (v4, gateway, goal) in [(true, "192.0.2.1", "192.0.2.2"), (false, "2001:db8:1::1", "2001:db8:1::2")] {
        let seen = probe::tcp(&a, &outside, goal.parse().unwrap()).unwrap();
        assert_eq!(seen.to_string(), gateway, "the far side sees the host");
        let seen = probe::tcp(&a, &b, address(&of_b, v4)).unwrap();
        assert_eq!(seen, address(&of_a, v4), "pods see each other unmasked");
    }
}

#[test]
fn a_hundred_addresses_are_all_different() {
    let bed = Bed::new("many");
    let network = Network::new(&bed, "net", vec![conf::percale_with(&bed, &[conf::POOL_V4])]);
    let spaces: Vec<Netns> = (0..100).map(|i| bed.netns(&format!("p{i}"))).collect();
    let pods: Vec<Attachment> =
        spaces.iter().enumerate().map(|(i, ns)| Attachment::new(&format!("c{i}"), ns)).collect();
    let results: Vec<Value> = std::thread::scope(|scope| {
        let runs: Vec<_> = pods.iter().map(|pod| scope.spawn(|| network.add(pod).unwrap())).collect();
        runs.into_iter().map(|r| r.join().unwrap()).collect()
    });
    let all: std::collections::BTreeSet<IpAddr> = results.iter().flat_map(addresses).collect();
    assert_eq!(all.len(), 100);
    std::thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| network.del(pod).unwrap());
        }
    });
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
}

/// A pod forwards only when `container_settings.allow_ip_forwarding` says so.
#[test]
fn a_pod_forwards_when_the_configuration_allows_it() {
    let bed = Bed::new("forward");
    for (setting, forwards) in [(None, "0"), (Some(false), "0"), (Some(true), "1")] {
        let mut plugin = conf::percale(&bed);
        if let Some(allowed) = setting {
            plugin["container_settings"] = json!({"allow_ip_forwarding": allowed});
        }
        let network = Network::new(&bed, "net", vec![plugin]);
        let ns = bed.netns("pod");
        let pod = Attachment::new("c1", &ns);
        network.add(&pod).unwrap();
        for family in ["ipv4", "ipv6"] {
            let path = format!("/proc/sys/net/{family}/conf/eth0/forwarding");
            let told = ns.run(|| std::fs::read_to_string(&path).unwrap());
            assert_eq!(told.trim(), forwards, "{family} with {setting:?}");
        }
        network.del(&pod).unwrap();
    }
}
