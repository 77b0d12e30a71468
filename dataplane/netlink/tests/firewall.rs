//! Our nftables table, under real traffic.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use netlink::{
    Firewall, FirewallError, TableKeeper, ensure_firewall, ensure_forwarding, remove_firewall, wire_pod,
};
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::traffic::{talk_udp, udp};
use support::{PATIENCE, Pod, nets, new_netns, nl, on_new_host, plan, pod, sh};
use tempfile::TempDir;

/// Long enough for a packet between namespaces of one machine.
const SILENCE: Duration = Duration::from_millis(150);

struct Lock(TempDir);

impl Lock {
    fn new() -> Lock {
        Lock(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("firewall.lock")
    }

    fn ensure(&self, wish: &Firewall) -> bool {
        ensure_firewall(wish, &self.path(), PATIENCE).unwrap()
    }
}

fn guard() -> Firewall {
    Firewall {
        table: "percale".into(),
        prefix: "cali".into(),
        guard: true,
        masquerade: Vec::new(),
        not_to: Vec::new(),
    }
}

fn masquerade() -> Firewall {
    let pools = nets(&["10.65.0.0/16", "fd00:65::/64"]);
    Firewall { masquerade: pools.clone(), not_to: pools, ..guard() }
}

fn host_with_address() {
    ensure_forwarding(true, true).unwrap();
    sh("ip addr add 192.0.2.1/32 dev lo; ip addr add 2001:db8::1/128 dev lo");
    for interface in ["all", "default"] {
        // Not our subject: the table must not depend on it.
        support::set_sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "0");
    }
}

fn host_ip(v6: bool) -> IpAddr {
    if v6 { "2001:db8::1" } else { "192.0.2.1" }.parse().unwrap()
}

fn first() -> Pod {
    pod(1, &["10.65.0.1", "fd00:65::1"])
}

fn second() -> Pod {
    pod(2, &["10.65.0.2", "fd00:65::2"])
}

/// Whether a datagram from `from` (made the pod's for the moment) arrives.
fn arrives(pod: &Pod, from: IpAddr, to: &UdpSocket) -> bool {
    let net = ipnet::IpNet::from(from);
    let nodad = if from.is_ipv6() { "nodad" } else { "" };
    let borrowed = !pod.plan.addresses.contains(&from);
    let sender = pod.run(|| {
        if borrowed {
            sh(&format!("ip addr add {net} dev eth0 {nodad}"));
        }
        udp(from)
    });
    to.set_read_timeout(Some(SILENCE)).unwrap();
    sender.send_to(b"spoof", to.local_addr().unwrap()).unwrap();
    if borrowed {
        pod.run(|| sh(&format!("ip addr del {net} dev eth0")));
    }
    to.recv(&mut [0; 16]).is_ok()
}

/// Foreign sources: nobody's of the pool, another pod's, the world's.
fn foreign_sources(v6: bool) -> [IpAddr; 3] {
    let texts = if v6 {
        ["fd00:65::99", "fd00:65::2", "2001:db8:ffff::1"]
    } else {
        ["10.65.0.99", "10.65.0.2", "198.51.100.7"]
    };
    texts.map(|text| text.parse().unwrap())
}

// REQ: D-15
#[test]
fn a_pod_sends_only_from_its_own_addresses() {
    on_new_host(|| {
        host_with_address();
        // A default route must not make every source look right.
        sh("ip link add out0 type veth peer name out1; ip link set out0 up; ip link set out1 up; \
            ip route add default dev out0; ip -6 route add default dev out0");
        let lock = Lock::new();
        lock.ensure(&guard());
        let (a, b) = (first(), second());
        for v6 in [false, true] {
            let (on_host, in_pod) = (udp(host_ip(v6)), b.run(|| udp(b.ip(v6))));
            for from in foreign_sources(v6) {
                assert!(!arrives(&a, from, &on_host), "{from} reached the host");
                let is_its_own = from == b.ip(v6);
                assert!(is_its_own || !arrives(&a, from, &in_pod), "{from} reached a pod");
            }
            for to in [&on_host, &in_pod] {
                to.set_read_timeout(Some(PATIENCE)).unwrap();
                talk_udp(&a.run(|| udp(a.ip(v6))), to);
            }
        }
    });
}

/// The same without the table: shows that the test above is one.
#[test]
fn without_the_table_foreign_sources_pass() {
    on_new_host(|| {
        host_with_address();
        let a = first();
        for v6 in [false, true] {
            assert!(arrives(&a, foreign_sources(v6)[0], &udp(host_ip(v6))));
        }
    });
}

// REQ: D-15
#[test]
fn nothing_passes_before_the_host_routes_are_there() {
    on_new_host(|| {
        host_with_address();
        Lock::new().ensure(&guard());
        let plan = plan(1, &["10.65.0.1", "fd00:65::1"]);
        let netns = new_netns();
        let wired = wire_pod(&mut nl(), &netns, &plan).unwrap();
        let pod = Pod { netns, plan, wired };
        let servers = [udp(host_ip(false)), udp(host_ip(true))];
        for (v6, server) in [false, true].into_iter().zip(&servers) {
            assert!(!arrives(&pod, pod.ip(v6), server));
        }
        netlink::add_host_routes(&mut nl(), pod.wired.host_ifindex, &pod.plan.addresses).unwrap();
        for (v6, server) in [false, true].into_iter().zip(&servers) {
            assert!(arrives(&pod, pod.ip(v6), server));
        }
    });
}

#[test]
fn address_detection_and_group_reports_are_not_taken_for_spoofing() {
    on_new_host(|| {
        host_with_address();
        Lock::new().ensure(&guard());
        sh("nft insert rule inet percale pod-source ip6 saddr :: icmpv6 type nd-neighbor-solicit counter; \
            nft add rule inet percale pod-source fib saddr . iif oif missing counter");
        let a = first();
        a.run(|| sh("ip addr add fd00:65::77/128 dev eth0"));
        let seen = support::traffic::eventually(PATIENCE, || {
            let rules = sh("nft list chain inet percale pod-source");
            rules.lines().any(|l| l.contains("nd-neighbor-solicit counter") && !l.contains("packets 0"))
        });
        assert!(seen, "{}", sh("nft list table inet percale"));
        let settled = support::traffic::eventually(PATIENCE, || {
            a.run(|| !sh("ip -6 addr show dev eth0").contains("tentative"))
        });
        assert!(settled, "the pod's link-local address becomes usable");
        let link_local = a.run(|| sh("ip -6 -br addr show dev eth0 scope link"));
        let own: IpAddr =
            link_local.split_whitespace().nth(2).unwrap().split('/').next().unwrap().parse().unwrap();
        assert!(own.to_string().starts_with("fe80::"));
    });
}

/// A world outside: a namespace behind a host link with addresses that know nothing of pods.
fn world() -> netlink::Netns {
    let world = new_netns();
    let fd = std::os::fd::AsFd::as_fd(&world);
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&fd));
    sh(&format!(
        "ip link add out0 type veth peer name w netns {path}; ip link set out0 up; \
        ip addr add 203.0.113.1/24 dev out0; ip addr add 2001:db8:1::1/64 dev out0 nodad"
    ));
    world
        .run(|| {
            sh("ip link set w up; ip addr add 203.0.113.2/24 dev w; ip addr add 2001:db8:1::2/64 dev w nodad")
        })
        .unwrap();
    world
}

/// The source that the server sees.
fn seen_as(from: &UdpSocket, to: &UdpSocket) -> IpAddr {
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    from.send_to(b"ping", to.local_addr().unwrap()).unwrap();
    let (_, sender) = to.recv_from(&mut [0; 16]).unwrap();
    to.send_to(b"pong", sender).unwrap();
    from.set_read_timeout(Some(PATIENCE)).unwrap();
    from.recv(&mut [0; 16]).unwrap();
    sender.ip()
}

#[test]
fn what_leaves_the_pod_networks_is_masqueraded() {
    on_new_host(|| {
        host_with_address();
        let lock = Lock::new();
        lock.ensure(&masquerade());
        let (world, a, b) = (world(), first(), second());
        let outside = world
            .run(|| [udp("203.0.113.2".parse().unwrap()), udp("2001:db8:1::2".parse().unwrap())])
            .unwrap();
        for (v6, outside) in [false, true].into_iter().zip(&outside) {
            let (client, other) = (a.run(|| udp(a.ip(v6))), b.run(|| udp(b.ip(v6))));
            let host: IpAddr = if v6 { "2001:db8:1::1" } else { "203.0.113.1" }.parse().unwrap();
            assert_eq!(seen_as(&client, outside), host);
            assert_eq!(seen_as(&client, &other), a.ip(v6), "pods see each other as they are");
            assert_eq!(seen_as(&client, &udp(host_ip(v6))), a.ip(v6), "the host too");
        }
        // The network outside learns the way back, and is named as one that needs no masquerade.
        world.run(|| sh("ip route add 10.65.0.0/16 via 203.0.113.1")).unwrap();
        let mut wish = masquerade();
        wish.not_to.extend(nets(&["203.0.113.0/24"]));
        assert!(lock.ensure(&wish));
        assert_eq!(seen_as(&a.run(|| udp(a.ip(false))), &outside[0]), a.ip(false));
    });
}

#[test]
fn it_is_written_once_and_after_each_change_and_loss() {
    on_new_host(|| {
        let lock = Lock::new();
        assert!(lock.ensure(&masquerade()));
        assert!(!lock.ensure(&masquerade()));
        let mut reordered = masquerade();
        reordered.masquerade.reverse();
        reordered.masquerade.push("10.65.3.0/24".parse().unwrap());
        assert!(!lock.ensure(&reordered), "the same content");
        assert!(lock.ensure(&guard()));
        assert!(!sh("nft list ruleset").contains("masquerade"));
        sh("nft flush ruleset");
        assert!(lock.ensure(&guard()));
        remove_firewall("percale", PATIENCE).unwrap();
        remove_firewall("percale", PATIENCE).unwrap();
        assert_eq!(sh("nft list ruleset"), "");
    });
}

#[test]
fn tables_of_others_stay_as_they_are() {
    on_new_host(|| {
        let script = "add table inet filter; add set inet filter s { type ipv4_addr; elements = { 192.0.2.9 }; }; \
                      add chain inet filter input { type filter hook input priority 0; }; \
                      add rule inet filter input ip saddr @s counter accept";
        sh(&format!("echo '{script}' | nft -f -"));
        let theirs = || sh("nft -a list table inet filter");
        let before = theirs();
        let other = Firewall { table: "percale-other".into(), guard: false, ..masquerade() };
        let lock = Lock::new();
        for wish in [&guard(), &other, &masquerade()] {
            lock.ensure(wish);
        }
        assert_eq!(theirs(), before);
        assert!(!lock.ensure(&other), "a table of its own for each writer");
        remove_firewall("percale", PATIENCE).unwrap();
        assert!(!lock.ensure(&other));
        assert_eq!(theirs(), before);
    });
}

/// Replacing the table under traffic: a packet between old and new rules would be one from a source
/// that the guard drops.
#[test]
fn there_is_no_moment_without_rules() {
    on_new_host(|| {
        host_with_address();
        let lock = Lock::new();
        lock.ensure(&guard());
        let a = first();
        let server = udp(host_ip(false));
        server.set_nonblocking(true).unwrap();
        let spoofer = a.run(|| {
            sh("ip addr add 10.65.0.99/32 dev eth0");
            udp("10.65.0.99".parse().unwrap())
        });
        let to = server.local_addr().unwrap();
        let end = Instant::now() + Duration::from_secs(1);
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| {
                let mut sent = 0;
                while Instant::now() < end {
                    sent += spoofer.send_to(b"spoof", to).map_or(0, |_| 1);
                }
                sent
            });
            let mut writes = 0;
            while Instant::now() < end {
                writes += usize::from(lock.ensure(&masquerade())) + usize::from(lock.ensure(&guard()));
            }
            assert!(writes > 1 && sent.join().unwrap() > 100);
        });
        assert!(server.recv(&mut [0; 16]).is_err(), "a spoofed packet slipped through");
    });
}

#[test]
fn many_at_once_write_it_once() {
    on_new_host(|| {
        let lock = Lock::new();
        let home = netlink::Netns::current().unwrap();
        let wrote = std::thread::scope(|scope| {
            let ask = || home.run(|| lock.ensure(&masquerade())).unwrap();
            let threads: Vec<_> = (0..12).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|t| usize::from(t.join().unwrap())).sum::<usize>()
        });
        assert_eq!(wrote, 1);
    });
}

/// A holder that hangs costs the others their patience, not their pods.
#[test]
fn a_stuck_lock_holder_does_not_stop_anybody() {
    on_new_host(|| {
        let lock = Lock::new();
        let holder = std::fs::File::create(lock.path()).unwrap();
        rustix::fs::flock(&holder, rustix::fs::FlockOperation::LockExclusive).unwrap();
        assert!(ensure_firewall(&guard(), &lock.path(), Duration::from_secs(2)).unwrap());
    });
}

#[test]
fn names_that_would_change_the_script_are_refused() {
    let spoiled = [
        Firewall { table: "x {}; flush ruleset; table y".into(), ..guard() },
        Firewall { table: String::new(), ..guard() },
        Firewall { prefix: "cali\" accept #".into(), ..guard() },
        Firewall { prefix: "0123456789abcde".into(), ..guard() },
        Firewall { prefix: "*".into(), ..guard() },
    ];
    for wish in spoiled {
        let error = ensure_firewall(&wish, &Lock::new().path(), PATIENCE).unwrap_err();
        assert!(matches!(error, FirewallError::BadField { .. }), "{error}");
    }
}

#[test]
fn a_lock_that_cannot_be_made_is_named() {
    on_new_host(|| {
        let error = ensure_firewall(&guard(), std::path::Path::new("/nowhere/lock"), PATIENCE).unwrap_err();
        assert!(matches!(&error, FirewallError::Lock { path, .. } if path == "/nowhere/lock"), "{error}");
    });
}

#[test]
fn large_and_odd_sets_are_accepted() {
    on_new_host(|| {
        let lock = Lock::new();
        let many = (0..2000u32).map(|n| format!("10.{}.{}.0/26", n / 256, n % 256).parse().unwrap());
        let wish = Firewall { masquerade: many.collect(), not_to: Vec::new(), ..guard() };
        assert!(lock.ensure(&wish));
        let odd = nets(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "224.0.0.0/4",
            "0.0.0.0/0",
            "::/0",
            "fd00::/8",
            "fd00::1/128",
        ]);
        let wish = Firewall { masquerade: odd.clone(), not_to: odd, ..guard() };
        assert!(lock.ensure(&wish));
        assert!(!lock.ensure(&wish));
    });
}

/// In a mount namespace whose program directories are empty.
#[test]
fn without_the_program_nft_the_error_says_what_to_install() {
    on_new_host(|| {
        // SAFETY: only mounts and the working directory's sharing change, of this thread alone.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
        sh("mount --make-rprivate /; mkdir -p /usr/local/sbin");
        sh("for d in /usr/local/sbin /usr/local/bin /usr/sbin; do mount -t tmpfs none $d; done");
        let error = ensure_firewall(&guard(), &Lock::new().path(), PATIENCE).unwrap_err();
        assert!(matches!(error, FirewallError::NftMissing), "{error}");
        assert!(error.to_string().contains("install"), "{error}");
    });
}

/// Whatever somebody changes in our tables is noticed, also where the number of rules is the same.
#[test]
fn every_change_of_a_kept_table_is_undone_and_counters_are_none() {
    const NODES: &str = "\tset nodes { type ipv4_addr; flags interval; elements = { 10.9.0.1, 10.9.0.4/30 }; }\n\
        \tset ports { type inet_service; elements = { 1, 2, 3, 4, 5, 6, 7, 8 }; }\n\
        \tchain in {\n\t\ttype filter hook input priority -310; policy accept;\n\
        \t\tudp dport 4789 ip saddr != @nodes counter drop\n\t\ttcp dport @ports counter accept\n\
        \t\tip daddr 127.0.0.1 counter accept\n\t}\n";
    on_new_host(|| {
        let (lock, mut keeper) = (Lock::new(), TableKeeper::default());
        let mut keep = || keeper.keep_table("kept", NODES, &lock.path(), PATIENCE).unwrap();
        let table = || sh("nft --stateless list table inet kept");
        assert!(keep());
        let whole = table();
        assert!(!keep());
        talk_udp(&udp("127.0.0.1".parse().unwrap()), &udp("127.0.0.1".parse().unwrap()));
        assert!(sh("nft list table inet kept").contains("packets 2"), "{}", sh("nft list table inet kept"));
        assert!(!keep(), "a counter is no change");
        for change in [
            "replace rule inet kept in handle $(nft -a list table inet kept | sed -n 's/.*daddr.* # handle //p') \
             ip daddr 127.0.0.2 counter accept",
            "add rule inet kept in accept",
            "delete rule inet kept in handle $(nft -a list table inet kept | sed -n 's/.*saddr.* # handle //p')",
            "delete element inet kept nodes { 10.9.0.1 }; nft add element inet kept nodes { 10.9.0.2 }",
            "add element inet kept ports { 9 }",
            "chain inet kept in { policy drop\\; }",
            "add table inet kept { flags dormant\\; }",
            "add chain inet kept another",
            "add set inet kept another { type ipv4_addr\\; }",
            "delete table inet kept",
            "flush ruleset",
        ] {
            sh(&format!("nft {change}"));
            assert!(keep(), "{change}");
            assert_eq!(table(), whole, "{change}");
            assert!(!keep(), "{change}: once");
        }
    });
}
