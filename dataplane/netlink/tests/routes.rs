//! Host routes: never over somebody else's living one.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use netlink::{
    Conflict, RouteError, RouteKind, add_host_routes, conflicts, local_addresses, remove_host_routes,
    replace_host_route, routes_to,
};
use std::net::IpAddr;
use support::{ips, nl, on_new_host, pod, sh};

const BOTH: [&str; 2] = ["10.65.0.1", "fd00:65::1"];

/// A veth of the host's own, both ends up; returns its index.
fn link(name: &str) -> u32 {
    sh(&format!(
        "ip link add {name} type veth peer name {name}p; ip link set {name} up; ip link set {name}p up"
    ));
    netlink::link(&mut nl(), name).unwrap().unwrap().index
}

fn conflict(result: Result<(), RouteError>) -> Conflict {
    match result {
        Err(RouteError::Conflict(conflict)) => conflict,
        other => panic!("no conflict: {other:?}"),
    }
}

fn owner(ip: IpAddr) -> Option<u32> {
    routes_to(&mut nl(), &[ip]).unwrap().first().and_then(|route| route.ifindex)
}

#[test]
fn added_twice_is_there_once_and_removed_twice_is_gone() {
    on_new_host(|| {
        let (index, addresses) = (link("one"), ips(&BOTH));
        for _ in 0..2 {
            add_host_routes(&mut nl(), index, &addresses).unwrap();
        }
        assert_eq!(routes_to(&mut nl(), &addresses).unwrap().len(), 2);
        for _ in 0..2 {
            remove_host_routes(&mut nl(), index, &addresses).unwrap();
        }
        assert_eq!(routes_to(&mut nl(), &addresses).unwrap(), []);
        remove_host_routes(&mut nl(), 999_999, &addresses).unwrap();
    });
}

#[test]
fn a_living_foreign_route_stays_and_nothing_else_was_added() {
    on_new_host(|| {
        let (ours, theirs, addresses) = (link("one"), link("two"), ips(&BOTH));
        for ip in &addresses {
            let line = format!("ip route add {ip} dev two metric 77");
            sh(&if ip.is_ipv6() { line.replace("ip route", "ip -6 route") } else { line });
            for attempt in
                [add_host_routes(&mut nl(), ours, &addresses), replace_host_route(&mut nl(), ours, *ip)]
            {
                let found = conflict(attempt);
                assert_eq!((found.ip, found.alive, found.ifindex), (*ip, true, Some(theirs)));
                assert_eq!(found.ifname.as_deref(), Some("two"));
                assert_eq!(owner(*ip), Some(theirs));
            }
            assert!(!sh("ip route; ip -6 route").contains("dev one proto boot"), "nothing was added");
            sh(&format!("ip route del {ip}"));
        }
    });
}

#[test]
fn a_dead_foreign_route_is_replaced_on_request() {
    on_new_host(|| {
        let (ours, theirs) = (link("one"), link("two"));
        for ip in ips(&BOTH) {
            let (host, family) = if ip.is_ipv6() { (128, "-6") } else { (32, "-4") };
            sh(&format!("ip {family} route add {ip}/{host} dev two; ip link set twop down"));
            let found = conflict(add_host_routes(&mut nl(), ours, &[ip]));
            assert_eq!((found.alive, found.ifindex), (false, Some(theirs)), "{found}");
            replace_host_route(&mut nl(), ours, ip).unwrap();
            assert_eq!(owner(ip), Some(ours));
            sh("ip link set twop up");
        }
    });
}

/// The same where the kernel does not show routes of dead links when asked for the one in force.
#[test]
fn a_dead_route_is_found_where_dead_links_are_passed_over() {
    on_new_host(|| {
        let (ours, ip) = (link("one"), "10.65.0.1".parse().unwrap());
        link("two");
        for name in ["all", "two"] {
            support::set_sysctl(&format!("ipv4/conf/{name}/ignore_routes_with_linkdown"), "1");
        }
        sh("ip route add 10.65.0.1 dev two; ip link set twop down");
        assert!(!conflict(add_host_routes(&mut nl(), ours, &[ip])).alive);
        replace_host_route(&mut nl(), ours, ip).unwrap();
        assert_eq!(owner(ip), Some(ours));
    });
}

#[test]
fn the_hosts_own_and_forbidden_addresses_are_conflicts() {
    on_new_host(|| {
        let ours = link("one");
        sh("ip addr add 10.65.0.1/24 dev lo; ip -6 addr add fd00:65::1/128 dev lo");
        for ip in ips(&BOTH) {
            let found = conflict(add_host_routes(&mut nl(), ours, &[ip]));
            assert_eq!((found.alive, found.kind), (true, RouteKind::Local));
            assert!(local_addresses(&mut nl()).unwrap().contains(&ip));
        }
        sh("ip route add blackhole 10.66.0.1; ip -6 route add blackhole fd00:66::1");
        sh("ip route add unreachable 10.66.0.2; ip route add prohibit 10.66.0.3");
        for (text, kind) in [
            ("10.66.0.1", RouteKind::Blackhole),
            ("fd00:66::1", RouteKind::Blackhole),
            ("10.66.0.2", RouteKind::Unreachable),
            ("10.66.0.3", RouteKind::Prohibit),
        ] {
            let found = conflict(add_host_routes(&mut nl(), ours, &ips(&[text])));
            assert_eq!((found.alive, found.kind), (true, kind), "{found}");
            assert_eq!(conflicts(&mut nl(), &ips(&[text, "10.66.9.9"])).unwrap(), [found]);
        }
    });
}

/// Calico blackholes each block of its node; single addresses in it are still to be routed.
#[test]
fn wider_routes_are_no_conflict() {
    on_new_host(|| {
        let ours = link("one");
        sh("ip route add blackhole 10.65.0.0/26; ip -6 route add unreachable fd00:65::/122");
        sh("ip route add default dev one; ip -6 route add default dev one");
        add_host_routes(&mut nl(), ours, &ips(&BOTH)).unwrap();
        assert_eq!(routes_to(&mut nl(), &ips(&BOTH)).unwrap().len(), 2);
    });
}

#[test]
fn a_conflict_in_one_family_leaves_no_route_of_the_other() {
    on_new_host(|| {
        let (ours, _) = (link("one"), link("two"));
        sh("ip -6 route add blackhole fd00:65::1");
        conflict(add_host_routes(&mut nl(), ours, &ips(&BOTH)));
        assert_eq!(owner(ips(&BOTH)[0]), None);
    });
}

#[test]
fn two_pods_cannot_have_one_address() {
    on_new_host(|| {
        let first = pod(1, &BOTH);
        let plan = support::plan(2, &BOTH);
        let wired = netlink::wire_pod(&mut nl(), &support::new_netns(), &plan).unwrap();
        let found = conflict(add_host_routes(&mut nl(), wired.host_ifindex, &plan.addresses));
        assert_eq!(found.ifname, Some(first.plan.host_name));
        assert!(found.to_string().contains("in use"), "{found}");
    });
}
