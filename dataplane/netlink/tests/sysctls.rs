//! Forwarding for the whole host.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use netlink::ensure_forwarding;
use support::{on_new_host, set_sysctl, sh, sysctl};

#[test]
fn forwarding_is_turned_on_for_the_families_asked_for() {
    on_new_host(|| {
        set_sysctl("ipv4/ip_forward", "0");
        ensure_forwarding(false, true).unwrap();
        assert_eq!((sysctl("ipv4/ip_forward"), sysctl("ipv6/conf/all/forwarding")), ("0".into(), "1".into()));
        ensure_forwarding(true, true).unwrap();
        assert_eq!(sysctl("ipv4/ip_forward"), "1");
    });
}

#[test]
fn interfaces_that_took_router_advertisements_go_on_taking_them() {
    on_new_host(|| {
        sh("ip link add took type veth peer name deaf; ip link add off type veth peer name router");
        set_sysctl("ipv6/conf/deaf/accept_ra", "0");
        set_sysctl("ipv6/conf/off/accept_ra", "2");
        set_sysctl("ipv6/conf/router/forwarding", "1");
        ensure_forwarding(false, true).unwrap();
        let now =
            ["took", "deaf", "off", "router"].map(|name| sysctl(&format!("ipv6/conf/{name}/accept_ra")));
        assert_eq!(now, ["2", "0", "2", "1"], "only what listened listens on");
    });
}

#[test]
fn a_host_that_forwards_already_is_left_alone() {
    on_new_host(|| {
        sh("ip link add nic type veth peer name other");
        set_sysctl("ipv4/ip_forward", "1");
        set_sysctl("ipv6/conf/all/forwarding", "1");
        ensure_forwarding(true, true).unwrap();
        assert_eq!(sysctl("ipv6/conf/nic/accept_ra"), "1");
    });
}
