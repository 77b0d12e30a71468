//! Times of wiring a pod: `cargo run --example wire -- [N] [v4|dual]`, as root. Everything happens
//! in namespaces that end with the program.

use netlink::{Netns, Nl, PodPlan, PodRoute};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::net::IpAddr;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(5);

fn main() {
    let count: u32 = std::env::args().nth(1).map_or(100, |n| n.parse().expect("a number of pods"));
    let dual = std::env::args().nth(2).is_none_or(|mode| mode != "v4");
    new_netns();
    netlink::ensure_forwarding(true, dual).expect("forwarding can be turned on in a new namespace");
    let mut pods: Vec<Pod> = (0..count).map(|n| Pod { netns: other_netns(), plan: plan(n, dual) }).collect();
    for (what, step) in STEPS {
        report(what, pods.iter().map(|pod| time(step, pod)).collect());
    }
    pods.clear();
}

struct Pod {
    netns: Netns,
    plan: PodPlan,
}

type Step = fn(&mut Nl, &Pod);

/// In the order of a pod's life, the opening of the host's socket included each time.
const STEPS: [(&str, Step); 7] = [
    ("firewall (first: nft)", firewall),
    ("wire_pod", wire),
    ("host routes", routes),
    ("inspect both ends", inspect),
    ("flush_conntrack", |_, pod| netlink::flush_conntrack(&pod.plan.addresses, PATIENCE).expect("root may")),
    ("retire", retire),
    ("delete retired", |host, _| netlink::delete_group(host, netlink::RETIRED_GROUP).expect("root may")),
];

fn wire(host: &mut Nl, pod: &Pod) {
    netlink::wire_pod(host, &pod.netns, &pod.plan).expect("a new pod can be wired");
}

fn firewall(_: &mut Nl, pod: &Pod) {
    let pools = vec!["10.65.0.0/16".parse().expect("a network"), "fd00::/16".parse().expect("a network")];
    let (table, prefix) = ("percale".to_owned(), "cali".to_owned());
    let wish = netlink::Firewall { table, prefix, guard: true, masquerade: pools.clone(), not_to: pools };
    let lock = std::env::temp_dir().join(format!("wire-{}.lock", std::process::id()));
    netlink::ensure_firewall(&wish, &lock, PATIENCE).expect("nft is installed");
    if pod.plan.host_name.ends_with("0000") {
        std::fs::remove_file(lock).expect("it was made a moment ago");
    }
}

fn routes(host: &mut Nl, pod: &Pod) {
    let index = link(host, pod).index;
    netlink::add_host_routes(host, index, &pod.plan.addresses).expect("a new address is free");
}

fn inspect(host: &mut Nl, pod: &Pod) {
    netlink::inspect_host(host, &pod.plan.host_name, &pod.plan.addresses).expect("root may look");
    netlink::inspect_pod(&pod.netns, &pod.plan.pod_name, PATIENCE).expect("root may look");
}

fn retire(host: &mut Nl, pod: &Pod) {
    let link = link(host, pod);
    netlink::retire(host, &link, Some(&pod.netns), &pod.plan.addresses).expect("root may");
}

fn link(host: &mut Nl, pod: &Pod) -> netlink::Link {
    netlink::link(host, &pod.plan.host_name).expect("root may look").expect("it was wired")
}

fn time(step: Step, pod: &Pod) -> u128 {
    let start = Instant::now();
    let mut host = Nl::here(PATIENCE).expect("a netlink socket");
    step(&mut host, pod);
    start.elapsed().as_micros()
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
        queues: None,
        addresses,
        routes,
        forward_in_pod: false,
    }
}

fn report(what: &str, mut micros: Vec<u128>) {
    micros.sort_unstable();
    let at = |percent: usize| micros[(micros.len() - 1) * percent / 100];
    println!("{what:>22}: min {} median {} p90 {} max {} µs", at(0), at(50), at(90), at(100));
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
