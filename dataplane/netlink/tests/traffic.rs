//! A wired pod talks, from its first moment, on a host without a default route.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use std::net::IpAddr;
use support::traffic::{connect, listen, talk_tcp, talk_udp, udp};
use support::{Pod, on_new_host, pod, sh};

const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn host_with_address() {
    netlink::ensure_forwarding(true, true).unwrap();
    sh(&format!("ip addr add {}/32 dev lo; ip addr add {}/128 dev lo", HOST[0], HOST[1]));
}

fn host_ip(v6: bool) -> IpAddr {
    HOST[usize::from(v6)].parse().unwrap()
}

fn first(number: u32) -> Pod {
    pod(number, &["10.65.0.1", "fd00:65::1"])
}

fn second(number: u32) -> Pod {
    pod(number, &["10.65.0.2", "fd00:65::2"])
}

/// A lost packet of the first moment would show as a second of waiting for its repetition.
#[test]
fn the_first_packets_of_both_directions_arrive() {
    on_new_host(|| {
        host_with_address();
        for (round, v6) in (0..12).zip([false, true].into_iter().cycle()) {
            let pod = first(round);
            if round % 4 < 2 {
                let server = pod.run(|| listen(pod.ip(v6)));
                connect(server.local_addr().unwrap()).unwrap();
            } else {
                let server = listen(host_ip(v6));
                pod.run(|| connect(server.local_addr().unwrap())).unwrap();
            }
            netlink::delete_link(&mut support::nl(), pod.wired.host_ifindex).unwrap();
        }
    });
}

#[test]
fn host_and_pod_talk_in_both_directions() {
    on_new_host(|| {
        host_with_address();
        let pod = first(1);
        for v6 in [false, true] {
            let (in_pod, on_host) = (pod.run(|| listen(pod.ip(v6))), listen(host_ip(v6)));
            talk_tcp(connect(in_pod.local_addr().unwrap()).unwrap(), &in_pod);
            talk_tcp(pod.run(|| connect(on_host.local_addr().unwrap())).unwrap(), &on_host);
            let (in_pod, on_host) = (pod.run(|| udp(pod.ip(v6))), udp(host_ip(v6)));
            talk_udp(&in_pod, &on_host);
            talk_udp(&on_host, &in_pod);
        }
    });
}

#[test]
fn pods_talk_to_each_other() {
    on_new_host(|| {
        host_with_address();
        let (a, b) = (first(1), second(2));
        for v6 in [false, true] {
            let server = b.run(|| listen(b.ip(v6)));
            talk_tcp(a.run(|| connect(server.local_addr().unwrap())).unwrap(), &server);
            talk_udp(&a.run(|| udp(a.ip(v6))), &b.run(|| udp(b.ip(v6))));
        }
    });
}

#[test]
fn a_pod_of_one_family_talks() {
    on_new_host(|| {
        host_with_address();
        for (number, address) in [(1, "10.65.0.1"), (2, "fd00:65::2")] {
            let pod = pod(number, &[address]);
            let v6 = pod.plan.addresses[0].is_ipv6();
            let server = listen(host_ip(v6));
            talk_tcp(pod.run(|| connect(server.local_addr().unwrap())).unwrap(), &server);
        }
    });
}

/// Packets of the full MTU that may not be fragmented.
#[test]
fn the_planned_mtu_passes_whole_and_no_more() {
    on_new_host(|| {
        host_with_address();
        let mut plan = support::plan(1, &["10.65.0.1", "fd00:65::1"]);
        plan.mtu = Some(1390);
        let a = support::wire(plan);
        let b = second(2);
        assert_eq!((a.wired.pod_mtu, b.wired.pod_mtu), (1390, 1500));
        for (v6, headers) in [(false, 28), (true, 48)] {
            let sender = a.run(|| udp(a.ip(v6)));
            forbid_fragments(&sender);
            let receiver = b.run(|| udp(b.ip(v6)));
            let to = receiver.local_addr().unwrap();
            let mut buf = [0; 2000];
            sender.send_to(&vec![7; 1390 - headers], to).unwrap();
            assert_eq!(receiver.recv(&mut buf).unwrap(), 1390 - headers);
            sender.send_to(&vec![7; 1391 - headers], to).unwrap_err();
        }
    });
}

fn forbid_fragments(socket: &std::net::UdpSocket) {
    use std::os::fd::AsRawFd;
    let value: libc::c_int = libc::IP_PMTUDISC_DO;
    let (level, name) = match socket.local_addr().unwrap().ip() {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    // SAFETY: `value` is an int that lives through the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as u32,
        )
    };
    assert_eq!(result, 0);
}
