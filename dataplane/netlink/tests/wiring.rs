//! What wiring leaves in the kernel, and what it does with what it finds there.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use ipnet::IpNet;
use netlink::{
    Error, HOST_LL, HOST_MAC, PodState, RouteKind, V4_GATEWAY, complete_pod, inspect_host, inspect_pod, link,
    wire_pod,
};
use std::net::IpAddr;
use support::{PATIENCE, Pod, new_netns, nl, on_new_host, plan, pod, set_sysctl, sh, sysctl};

const BOTH: [&str; 2] = ["10.65.0.1", "fd00:65::1"];

fn state(pod: &Pod) -> PodState {
    inspect_pod(&pod.netns, "eth0", PATIENCE).unwrap().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn the_pod_has_its_addresses_routes_and_neighbours() {
    on_new_host(|| {
        let pod = pod(1, &BOTH);
        let seen = state(&pod);
        assert!(seen.link.up && seen.link.lower_up);
        assert_eq!(seen.link.mac, Some(pod.wired.pod_mac));
        assert_eq!(seen.link.index, pod.wired.pod_ifindex);
        assert_eq!(seen.link.peer_ifindex, Some(pod.wired.host_ifindex));
        for address in ["10.65.0.1/32", "fd00:65::1/128"] {
            let found = seen.addresses.iter().find(|a| a.net == net(address)).unwrap();
            assert!(!found.tentative && !found.duplicate, "usable at once: {found:?}");
        }
        let gateways: [IpAddr; 2] = [V4_GATEWAY.into(), HOST_LL.into()];
        for (dst, gateway) in ["0.0.0.0/0", "::/0"].into_iter().zip(gateways) {
            assert!(seen.routes.iter().any(|r| r.dst == net(dst) && r.gateway == Some(gateway)), "{dst}");
            let neighbour = seen.neighbours.iter().find(|n| n.ip == gateway).unwrap();
            assert_eq!((neighbour.mac, neighbour.permanent), (Some(HOST_MAC), true));
        }
        assert_eq!((seen.v4_forwarding, seen.v6_forwarding), (Some(false), Some(false)));
        pod.run(|| assert!(sh("ip link show lo").contains("UP"), "lo is up"));
    });
}

#[test]
fn the_host_end_is_as_calicos() {
    on_new_host(|| {
        let pod = pod(1, &BOTH);
        let seen = inspect_host(&mut nl(), &pod.plan.host_name, &pod.plan.addresses).unwrap().unwrap();
        assert_eq!(seen.link.mac, Some(HOST_MAC));
        assert_eq!(seen.link.alias.as_ref(), Some(&pod.plan.alias));
        assert_eq!((seen.link.group, seen.link.kind.as_deref()), (0, Some("veth")));
        assert!(seen.link.up && seen.link.lower_up);
        let own: Vec<_> = seen.addresses.iter().map(|a| (a.net.to_string(), a.tentative)).collect();
        assert_eq!(own, [(format!("{HOST_LL}/64"), false)]);
        assert!(seen.settings.v4_forwarding && seen.settings.proxy_arp);
        let v6 = seen.settings.v6.unwrap();
        assert_eq!((v6.accept_ra, v6.forwarding, v6.proxy_ndp, v6.disabled), (0, 1, 1, 0));
        let path = |family: &str, name: &str| format!("{family}/{}/{name}", pod.plan.host_name);
        assert_eq!(sysctl(&path("ipv4/neigh", "proxy_delay")), "0");
        assert_eq!(sysctl(&path("ipv4/conf", "proxy_arp")), "1");
        assert_eq!(sysctl(&path("ipv6/conf", "accept_ra")), "0");
        let ours = |ip: &IpAddr| seen.routes.iter().find(|r| r.ip == *ip).cloned().unwrap();
        for route in pod.plan.addresses.iter().map(ours) {
            assert_eq!((route.kind, route.ifindex), (RouteKind::Unicast, Some(pod.wired.host_ifindex)));
            assert_eq!((route.gateway, route.protocol, route.table), (None, 3, 254), "boot, main");
        }
        assert!(sh("ip -4 route show 10.65.0.1").contains("scope link"));
    });
}

#[test]
fn one_family_leaves_the_other_alone() {
    on_new_host(|| {
        let v4 = pod(1, &BOTH[..1]);
        let seen = inspect_host(&mut nl(), &v4.plan.host_name, &v4.plan.addresses).unwrap().unwrap();
        assert_eq!(seen.settings.v6.unwrap().accept_ra, 1, "the kernel's default");
        let v6 = pod(2, &BOTH[1..]);
        assert!(!state(&v6).neighbours.iter().any(|n| n.ip.is_ipv4()));
        let seen = inspect_host(&mut nl(), &v6.plan.host_name, &v6.plan.addresses).unwrap().unwrap();
        assert!(!seen.settings.proxy_arp);
    });
}

#[test]
fn plan_details_are_followed() {
    on_new_host(|| {
        set_sysctl("ipv6/conf/default/disable_ipv6", "1");
        let mut plan = plan(1, &BOTH);
        plan.mtu = Some(1400);
        plan.pod_mac = Some([2, 0, 0, 0, 0, 9]);
        plan.pod_name = "net1".into();
        plan.forward_in_pod = true;
        plan.routes.push(netlink::PodRoute { dst: net("198.51.100.0/24"), mtu: Some(1300) });
        let netns = new_netns();
        netns.run(|| set_sysctl("ipv6/conf/all/disable_ipv6", "1")).unwrap();
        let wired = wire_pod(&mut nl(), &netns, &plan).unwrap();
        assert_eq!((wired.pod_mac, wired.pod_mtu), ([2, 0, 0, 0, 0, 9], 1400));
        let seen = inspect_pod(&netns, "net1", PATIENCE).unwrap().unwrap();
        let route = seen.routes.iter().find(|r| r.dst == net("198.51.100.0/24")).unwrap();
        assert_eq!((route.mtu, route.gateway), (Some(1300), Some(V4_GATEWAY.into())));
        assert_eq!((seen.v4_forwarding, seen.v6_forwarding), (Some(true), Some(true)));
        assert!(seen.addresses.iter().any(|a| a.net == net("fd00:65::1/128")), "IPv6 was switched on");
        let host = link(&mut nl(), &plan.host_name).unwrap().unwrap();
        assert_eq!(host.mtu, 1400);
    });
}

#[test]
fn forwarding_inside_is_off_even_where_the_host_passes_it_on() {
    on_new_host(|| {
        let netns = new_netns();
        netns.run(|| set_sysctl("ipv4/ip_forward", "1")).unwrap();
        wire_pod(&mut nl(), &netns, &plan(1, &BOTH)).unwrap();
        assert_eq!(netns.run(|| sysctl("ipv4/ip_forward")).unwrap(), "0");
    });
}

#[test]
fn wiring_again_changes_nothing() {
    on_new_host(|| {
        let pod = pod(1, &BOTH);
        let before = state(&pod);
        assert_eq!(wire_pod(&mut nl(), &pod.netns, &pod.plan).unwrap(), pod.wired);
        assert_eq!(complete_pod(&mut nl(), &pod.netns, &pod.plan).unwrap(), pod.wired);
        let after = state(&pod);
        assert_eq!((before.addresses, before.routes), (after.addresses, after.routes));
    });
}

#[test]
fn what_is_missing_is_added() {
    on_new_host(|| {
        let pod = pod(1, &BOTH);
        let whole = state(&pod);
        pod.run(|| {
            sh("ip link set eth0 down; ip addr flush dev eth0; ip link set lo down");
            set_sysctl("ipv4/ip_forward", "1");
        });
        sh(&format!("ip link set {} down mtu 1400", pod.plan.host_name));
        set_sysctl(&format!("ipv6/conf/{}/accept_ra", pod.plan.host_name), "1");
        complete_pod(&mut nl(), &pod.netns, &pod.plan).unwrap();
        let again = state(&pod);
        assert!(again.link.up && again.link.lower_up);
        let mut routes = [whole.routes, again.routes.clone()];
        for list in &mut routes {
            list.retain(|r| r.gateway.is_some());
        }
        assert_eq!(routes[0], routes[1]);
        assert!(again.addresses.iter().any(|a| a.net == net("10.65.0.1/32")));
        assert_eq!(again.v4_forwarding, Some(false));
        assert_eq!(sysctl(&format!("ipv6/conf/{}/accept_ra", pod.plan.host_name)), "0");
    });
}

#[test]
fn a_foreign_interface_in_the_pod_is_left_alone() {
    on_new_host(|| {
        let netns = new_netns();
        netns.run(|| sh("ip link add eth0 type veth peer name x; ip link set eth0 alias theirs")).unwrap();
        let plan = plan(1, &BOTH);
        let error = wire_pod(&mut nl(), &netns, &plan).unwrap_err();
        assert!(matches!(&error, Error::PodIfaceExists { ifname } if ifname == "eth0"), "{error}");
        assert_eq!(link(&mut nl(), &plan.host_name).unwrap(), None, "nothing was made");
        assert!(netns.run(|| sh("ip link show eth0")).unwrap().contains("theirs"));
    });
}

#[test]
fn a_foreign_host_link_is_left_alone() {
    on_new_host(|| {
        let plan = plan(1, &BOTH);
        let name = &plan.host_name;
        sh(&format!("ip link add {name} type veth peer name other; ip link set {name} alias theirs"));
        for attempt in [wire_pod, complete_pod] {
            let error = attempt(&mut nl(), &new_netns(), &plan).unwrap_err();
            assert!(
                matches!(&error, Error::HostLinkTaken { alias: Some(alias), .. } if alias == "theirs"),
                "{error}"
            );
        }
        assert_eq!(link(&mut nl(), "other").unwrap().unwrap().alias, None);
    });
}

#[test]
fn our_host_link_into_another_pod_is_not_taken_over() {
    on_new_host(|| {
        let pod = pod(1, &BOTH);
        let error = wire_pod(&mut nl(), &new_netns(), &pod.plan).unwrap_err();
        assert!(matches!(error, Error::NotPaired { .. }), "{error}");
        assert!(state(&pod).link.lower_up);
    });
}

#[test]
fn a_pair_that_a_killed_call_left_is_replaced() {
    on_new_host(|| {
        let plan = plan(1, &BOTH);
        let group = netlink::UNFINISHED_GROUP;
        sh(&format!("ip link add {} group {group} type veth peer name eth0", plan.host_name));
        let wired = wire_pod(&mut nl(), &new_netns(), &plan).unwrap();
        assert_eq!(link(&mut nl(), &plan.host_name).unwrap().unwrap().index, wired.host_ifindex);
        assert_eq!(link(&mut nl(), "eth0").unwrap(), None, "the old peer is gone");
    });
}

#[test]
fn completing_what_was_never_made_says_so() {
    on_new_host(|| {
        let error = complete_pod(&mut nl(), &new_netns(), &plan(1, &BOTH)).unwrap_err();
        assert!(matches!(error, Error::NoHostLink { .. }), "{error}");
        assert_eq!(inspect_pod(&new_netns(), "eth0", PATIENCE).unwrap(), None);
        assert_eq!(inspect_host(&mut nl(), "cali0", &[]).unwrap(), None);
    });
}

/// What users can get wrong comes back as the kernel's refusal, and leaves nothing behind.
#[test]
fn impossible_plans_are_refused() {
    on_new_host(|| {
        for spoil in [
            (|p| p.host_name = "sixteen-letters-".into()) as fn(&mut netlink::PodPlan),
            |p| p.host_name = "a/b".into(),
            |p| p.host_name = String::new(),
            |p| p.host_name = "cali%d".into(),
            |p| p.pod_name = "eth%d".into(),
            |p| p.pod_name = "sixteen-letters-".into(),
            |p| p.pod_name = "../../../x".into(),
            |p| p.pod_name = "..".into(),
            |p| p.mtu = Some(1),
            |p| p.mtu = Some(u32::MAX),
            |p| p.pod_mac = Some([1, 0, 0, 0, 0, 0]),
        ] {
            let mut plan = plan(1, &BOTH);
            spoil(&mut plan);
            let error = wire_pod(&mut nl(), &new_netns(), &plan).unwrap_err();
            assert!(matches!(error, Error::Refused { op: "create veth pair", .. }), "{plan:?}: {error}");
            assert_eq!(netlink::links(&mut nl(), "").unwrap().len(), 1, "only lo: {plan:?}");
        }
    });
}

/// Half of the work was done when the kernel refused: none of it stays.
#[test]
fn a_failure_half_way_takes_the_pair_away_again() {
    on_new_host(|| {
        let mut plan = plan(1, &BOTH[1..]);
        // No IPv4 address, so no way to the IPv4 gateway.
        plan.routes.push(netlink::PodRoute { dst: net("198.51.100.0/24"), mtu: None });
        let netns = new_netns();
        let error = wire_pod(&mut nl(), &netns, &plan).unwrap_err();
        assert!(
            matches!(&error, Error::Refused { subject, .. } if subject.starts_with("198.51.100.0")),
            "{error}"
        );
        assert_eq!(link(&mut nl(), &plan.host_name).unwrap(), None);
        assert_eq!(inspect_pod(&netns, "eth0", PATIENCE).unwrap(), None);
    });
}

#[test]
fn many_pods_at_once_are_all_wired() {
    on_new_host(|| {
        let home = netlink::Netns::current().unwrap();
        let address = |n: u32| [format!("10.65.1.{n}"), format!("fd00:65:1::{n}")];
        std::thread::scope(|scope| {
            for n in 1..=24 {
                let (home, [v4, v6]) = (&home, address(n));
                scope.spawn(move || home.run(|| drop(pod(n, &[&v4, &v6]))).unwrap());
            }
        });
        // The pods' namespaces are going, and their links with them; the host survived it all.
        assert!(support::traffic::eventually(PATIENCE, || netlink::links(&mut nl(), "cali")
            .unwrap()
            .is_empty()));
    });
}
