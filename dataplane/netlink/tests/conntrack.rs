//! Flows of an address that goes to another owner are forgotten, others live on.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use netlink::{ensure_forwarding, flush_conntrack};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use support::traffic::{talk_udp, udp};
use support::{PATIENCE, Pod, ips, on_new_host, pod, sh};

/// Connection tracking runs where a rule asks for it.
fn tracking_host() {
    ensure_forwarding(true, true).unwrap();
    sh("nft add table inet track; \
        nft add chain inet track on-forward '{ type filter hook forward priority 0; }'; \
        nft add rule inet track on-forward ct state established accept; \
        nft add chain inet track on-output '{ type nat hook output priority -100; }'; \
        nft add chain inet track on-arrival '{ type nat hook prerouting priority -100; }'");
}

fn first() -> Pod {
    pod(1, &["10.65.0.1", "fd00:65::1"])
}

fn second() -> Pod {
    pod(2, &["10.65.0.2", "fd00:65::2"])
}

/// The flows that concern an address, as the kernel lists them.
fn flows(ip: &str) -> usize {
    let wished: IpAddr = ip.parse().unwrap();
    let list = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
    let addresses = |line: &str| {
        let fields =
            line.split_whitespace().filter_map(|f| f.strip_prefix("src=").or(f.strip_prefix("dst=")));
        fields.filter_map(|f| f.parse::<IpAddr>().ok()).collect::<Vec<_>>()
    };
    list.lines().filter(|line| addresses(line).contains(&wished)).count()
}

fn talk(from: &Pod, to: &Pod) {
    for v6 in [false, true] {
        talk_udp(&from.run(|| udp(from.ip(v6))), &to.run(|| udp(to.ip(v6))));
    }
}

#[test]
fn flows_of_an_address_are_forgotten_and_only_those() {
    on_new_host(|| {
        tracking_host();
        let (a, b, c) = (first(), second(), pod(3, &["10.65.0.3", "fd00:65::3"]));
        talk(&a, &b);
        talk(&b, &a);
        talk(&b, &c);
        for (gone, kept) in [("10.65.0.1", "10.65.0.3"), ("fd00:65::1", "fd00:65::3")] {
            assert_eq!((flows(gone), flows(kept)), (2, 1));
            flush_conntrack(&ips(&[gone]), PATIENCE).unwrap();
            assert_eq!((flows(gone), flows(kept)), (0, 1));
        }
    });
}

/// Behind a service address a pod stands only where the answers come from.
#[test]
fn flows_through_a_service_address_are_forgotten() {
    on_new_host(|| {
        tracking_host();
        sh("nft add rule inet track on-arrival ip daddr 10.96.0.1 udp dport 53 dnat ip to 10.65.0.2:5353");
        sh(
            "nft add rule inet track on-arrival ip6 daddr fd00:96::1 udp dport 53 dnat ip6 to [fd00:65::2]:5353",
        );
        let (a, b) = (first(), second());
        for (v6, service) in [(false, "10.96.0.1"), (true, "fd00:96::1")] {
            let server = b.run(|| UdpSocket::bind((b.ip(v6), 5353)).unwrap());
            let client = a.run(|| udp(a.ip(v6)));
            let service: SocketAddr = (service.parse::<IpAddr>().unwrap(), 53).into();
            client.send_to(b"ping", service).unwrap();
            let (_, sender) = server.recv_from(&mut [0; 16]).unwrap();
            server.send_to(b"pong", sender).unwrap();
            assert_eq!(client.recv_from(&mut [0; 16]).unwrap().1, service);
            let backend = b.ip(v6).to_string();
            assert_eq!(flows(&backend), 1);
            flush_conntrack(&[b.ip(v6)], PATIENCE).unwrap();
            assert_eq!(flows(&backend), 0);
        }
    });
}

#[test]
fn nothing_to_forget_is_success() {
    on_new_host(|| {
        flush_conntrack(&ips(&["10.65.0.1", "fd00:65::1"]), PATIENCE).unwrap();
        tracking_host();
        let (a, b) = (first(), second());
        talk(&a, &b);
        flush_conntrack(&[], PATIENCE).unwrap();
        flush_conntrack(&ips(&["10.65.0.77", "fd00:65::77"]), PATIENCE).unwrap();
        assert_eq!(flows("10.65.0.1"), 1);
    });
}
