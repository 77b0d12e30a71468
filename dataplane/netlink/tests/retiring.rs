//! Taking links out of use, and deleting them.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use netlink::{
    RETIRED_GROUP, add_host_routes, delete_group, delete_link, inspect_pod, link, links, retire, routes_to,
};
use support::{PATIENCE, nl, on_new_host, pod, sh};

const BOTH: [&str; 2] = ["10.65.0.1", "fd00:65::1"];

#[test]
fn a_retired_link_frees_its_name_and_addresses_at_once() {
    on_new_host(|| {
        let old = pod(1, &BOTH);
        let found = link(&mut nl(), &old.plan.host_name).unwrap().unwrap();
        retire(&mut nl(), &found, Some(&old.netns), &old.plan.addresses).unwrap();
        assert_eq!(routes_to(&mut nl(), &old.plan.addresses).unwrap(), []);
        assert!(!sh("ip route; ip -6 route").contains("65"), "no route of any kind");
        assert!(inspect_pod(&old.netns, "eth0", PATIENCE).unwrap().is_none(), "the pod's name is free too");
        let end = format!("retired-{}", found.peer_ifindex.unwrap());
        assert!(!inspect_pod(&old.netns, &end, PATIENCE).unwrap().unwrap().link.up);
        let retired = link(&mut nl(), &format!("retired-{}", found.index)).unwrap().unwrap();
        assert!(!retired.up);
        assert_eq!((retired.alias, retired.group), (Some(old.plan.alias.clone()), RETIRED_GROUP));
        let new = pod(1, &BOTH);
        assert_ne!(new.wired.host_ifindex, found.index);
        delete_group(&mut nl(), RETIRED_GROUP).unwrap();
        assert_eq!(links(&mut nl(), "retired-").unwrap(), []);
        assert!(link(&mut nl(), &new.plan.host_name).unwrap().unwrap().lower_up, "the new one lives");
    });
}

#[test]
fn an_address_that_moved_on_keeps_its_route() {
    on_new_host(|| {
        let (old, new) = (pod(1, &BOTH[..1]), pod(2, &BOTH[1..]));
        let found = link(&mut nl(), &old.plan.host_name).unwrap().unwrap();
        add_host_routes(&mut nl(), new.wired.host_ifindex, &support::ips(&["10.65.0.9"])).unwrap();
        retire(&mut nl(), &found, None, &support::ips(&["10.65.0.1", "10.65.0.9", "fd00:65::1"])).unwrap();
        let left = routes_to(&mut nl(), &support::ips(&["10.65.0.1", "10.65.0.9", "fd00:65::1"])).unwrap();
        assert_eq!(left.len(), 2);
        assert!(left.iter().all(|route| route.ifindex == Some(new.wired.host_ifindex)));
    });
}

#[test]
fn everything_twice_and_too_late_is_success() {
    on_new_host(|| {
        let pod = pod(1, &BOTH);
        let found = link(&mut nl(), &pod.plan.host_name).unwrap().unwrap();
        for _ in 0..2 {
            retire(&mut nl(), &found, Some(&pod.netns), &pod.plan.addresses).unwrap();
        }
        for _ in 0..2 {
            delete_link(&mut nl(), found.index).unwrap();
            delete_group(&mut nl(), RETIRED_GROUP).unwrap();
        }
        retire(&mut nl(), &found, Some(&pod.netns), &pod.plan.addresses).unwrap();
        assert_eq!(links(&mut nl(), "").unwrap().len(), 1);
    });
}

#[test]
fn links_are_listed_by_prefix_with_their_owner() {
    on_new_host(|| {
        let pods = [pod(1, &["10.65.0.1"]), pod(2, &["10.65.0.2"])];
        sh("ip link add other type veth peer name other2");
        let found = links(&mut nl(), "cali").unwrap();
        let aliases: Vec<_> = found.iter().map(|l| l.alias.clone().unwrap()).collect();
        assert_eq!(aliases, pods.each_ref().map(|p| p.plan.alias.clone()));
        for (link, pod) in found.iter().zip(&pods) {
            assert_eq!(link.peer_ifindex, Some(pod.wired.pod_ifindex));
            assert!(link.peer_netnsid.is_some() && link.up && link.lower_up);
            assert_eq!((link.kind.as_deref(), link.mtu), (Some("veth"), 1500));
        }
        assert_eq!(links(&mut nl(), "").unwrap().len(), 5);
    });
}

/// 300 links are more than fit into one answer of the kernel.
#[test]
fn a_long_list_is_whole() {
    on_new_host(|| {
        let add = |n| format!("link add x{n} type veth peer name y{n}\n");
        let lines: String = (0..150).map(add).collect();
        sh(&format!("printf '{lines}' | ip -batch -"));
        assert_eq!(links(&mut nl(), "x").unwrap().len(), 150);
        assert_eq!(links(&mut nl(), "").unwrap().len(), 301);
    });
}
