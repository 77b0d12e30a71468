//! Times of wiring a pod: `cargo run --example wire -- [N] [v4|dual]`, as root. Everything happens
//! in namespaces that end with the program.

use netlink::{Netns, Nl, PodPlan, PodRoute, add_host_routes, wire_pod};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::net::IpAddr;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(5);

fn main() {
    let count: u32 = std::env::args().nth(1).map_or(100, |n| n.parse().expect("a number of pods"));
    let dual = std::env::args().nth(2).is_none_or(|mode| mode != "v4");
    new_netns();
    netlink::ensure_forwarding(true, dual).expect("forwarding can be turned on in a new namespace");
    let mut pods: Vec<Netns> = (0..count).map(|_| other_netns()).collect();
    let mut times: Vec<[u128; 2]> = pods.iter().zip(0..).map(|(pod, n)| wire(pod, n, dual)).collect();
    report("wire_pod", times.iter().map(|t| t[0]).collect());
    report("host routes", times.iter().map(|t| t[1]).collect());
    times.clear();
    pods.clear();
}

fn wire(pod: &Netns, number: u32, dual: bool) -> [u128; 2] {
    let plan = plan(number, dual);
    let start = Instant::now();
    let mut host = Nl::here(PATIENCE).expect("a netlink socket");
    let wired = wire_pod(&mut host, pod, &plan).expect("a new pod can be wired");
    let middle = Instant::now();
    add_host_routes(&mut host, wired.host_ifindex, &plan.addresses).expect("a new address is free");
    [(middle - start).as_micros(), middle.elapsed().as_micros()]
}

fn plan(number: u32, dual: bool) -> PodPlan {
    let [_, _, high, low] = (number + 1).to_be_bytes();
    let v4 = IpAddr::from([10, 65, high, low]);
    let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from_be_bytes([high, low])]);
    let route = |dst: &str| PodRoute { dst: dst.parse().expect("a valid network"), mtu: None };
    let (addresses, routes) = if dual {
        (vec![v4, v6], vec![route("0.0.0.0/0"), route("::/0")])
    } else {
        (vec![v4], vec![route("0.0.0.0/0")])
    };
    PodPlan {
        host_name: format!("cali{number:011x}"),
        alias: format!("percale:example/{number}/eth0"),
        pod_name: "eth0".into(),
        pod_mac: None,
        mtu: Some(1450),
        addresses,
        routes,
        forward_in_pod: false,
    }
}

fn report(what: &str, mut micros: Vec<u128>) {
    micros.sort_unstable();
    let at = |percent: usize| micros[(micros.len() - 1) * percent / 100];
    println!("{what}: min {} median {} p90 {} max {} µs", at(0), at(50), at(90), at(100));
}

fn other_netns() -> Netns {
    let made = std::thread::spawn(|| {
        new_netns();
        Netns::current().expect("/proc is mounted")
    });
    made.join().expect("making a namespace does not panic")
}

fn new_netns() {
    // SAFETY: only the network namespace changes, of this thread alone; no memory or descriptors.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("run as root");
}
