//! podman with its CNI back end.
// REQ: C-17

#![allow(clippy::unwrap_used)]

use e2e::clean::{held, kernel_is_clean, nothing_held};
use e2e::podman::Podman;
use e2e::{Bed, conf};
use serde_json::Value;
use std::process::Output;

const SHOW: &str = "ip -o addr show; ip route; ip -6 route";

fn told(out: &Output) -> String {
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "podman: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

fn all_gone(bed: &Bed) {
    nothing_held(bed);
    kernel_is_clean(&bed.host);
}

fn plugins(bed: &Bed, pools: &[&str]) -> Vec<Value> {
    vec![conf::percale_with(bed, pools)]
}

#[test]
fn a_container_runs_and_is_removed() {
    let bed = Bed::new("podman");
    let net = bed.unique("net");
    let podman = Podman::new(&bed, &[(&net, plugins(&bed, &[conf::POOL_V4, conf::POOL_V6]))]);
    let text = told(&podman.run_rm(&[], SHOW));
    for part in ["10.91.", "fd00:10:91:", "default via 169.254.1.1"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    all_gone(&bed);
}

#[test]
fn a_container_joins_two_networks() {
    let bed = Bed::new("podman2");
    let (one, two) = (bed.unique("one"), bed.unique("two"));
    let networks =
        [(one.as_str(), plugins(&bed, &["10.91.0.0/24"])), (two.as_str(), plugins(&bed, &["10.92.0.0/24"]))];
    let podman = Podman::new(&bed, &networks);
    let text = told(&podman.run_rm(&["--network", &one, "--network", &two], SHOW));
    assert!(text.contains("10.91.0.") && text.contains("10.92.0."), "{text}");
    all_gone(&bed);
}

#[test]
fn address_hardware_address_and_interface_can_be_asked_for() {
    let bed = Bed::new("podmanip");
    let net = bed.unique("net");
    let podman = Podman::new(&bed, &[(&net, plugins(&bed, &["10.91.0.0/16"]))]);
    let asked = format!("{net}:ip=10.91.7.7,mac=02:00:5e:00:53:01,interface_name=lan0");
    let text = told(&podman.run_rm(&["--network", &asked], "ip addr show lan0"));
    for part in ["10.91.7.7/32", "02:00:5e:00:53:01"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    all_gone(&bed);
}

#[test]
fn a_network_is_left_and_joined_while_the_container_runs() {
    let bed = Bed::new("podmanmove");
    let (one, two) = (bed.unique("one"), bed.unique("two"));
    let networks =
        [(one.as_str(), plugins(&bed, &["10.91.0.0/24"])), (two.as_str(), plugins(&bed, &["10.92.0.0/24"]))];
    let podman = Podman::new(&bed, &networks);
    let id = podman.run_detached(&["--network", &one]);
    held(&bed, 1);
    podman.must(&["network", "connect", &two, &id]);
    held(&bed, 2);
    podman.must(&["network", "disconnect", &one, &id]);
    held(&bed, 1);
    podman.must(&["rm", "-f", "-t", "0", &id]);
    all_gone(&bed);
}
