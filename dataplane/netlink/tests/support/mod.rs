//! Throw-away hosts and pods: every namespace lives as long as its descriptor, and has no name.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod traffic;

use ipnet::IpNet;
use netlink::{Netns, Nl, PodPlan, PodRoute, Wired, add_host_routes, wire_pod};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::net::IpAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(5);

/// A namespace of its own, with `lo` up.
pub fn new_netns() -> Netns {
    let made = std::thread::spawn(|| {
        enter_new_netns();
        Netns::current().unwrap()
    });
    made.join().unwrap()
}

fn enter_new_netns() {
    // SAFETY: only the network namespace changes, of this thread alone; no memory or descriptors.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
    sh("ip link set lo up");
}

/// Runs a test on a thread whose namespace is a fresh host: no links but `lo`, no routes.
pub fn on_new_host(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            enter_new_netns();
            test();
        });
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// A shell line in the calling thread's namespace; it must succeed.
pub fn sh(line: &str) -> String {
    let output = try_sh(line);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

pub fn try_sh(line: &str) -> Output {
    Command::new("sh").args(["-ec", line]).stdin(Stdio::null()).output().unwrap()
}

pub fn sysctl(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned()
}

pub fn set_sysctl(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
}

pub fn nl() -> Nl {
    Nl::here(PATIENCE).unwrap()
}

pub fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The plan of a usual pod: default routes of its families.
pub fn plan(number: u32, addresses: &[&str]) -> PodPlan {
    let addresses = ips(addresses);
    let default = |dst: &str| PodRoute { dst: dst.parse().unwrap(), mtu: None };
    let v4 = addresses.iter().any(IpAddr::is_ipv4).then(|| default("0.0.0.0/0"));
    let v6 = addresses.iter().any(IpAddr::is_ipv6).then(|| default("::/0"));
    PodPlan {
        host_name: format!("cali{number:011x}"),
        alias: format!("percale:test/{number}/eth0"),
        pod_name: "eth0".to_owned(),
        pod_mac: None,
        mtu: None,
        queues: None,
        addresses,
        routes: v4.into_iter().chain(v6).collect(),
        forward_in_pod: false,
    }
}

/// A wired pod with its host routes.
pub struct Pod {
    pub netns: Netns,
    pub plan: PodPlan,
    pub wired: Wired,
}

pub fn pod(number: u32, addresses: &[&str]) -> Pod {
    wire(plan(number, addresses))
}

pub fn wire(plan: PodPlan) -> Pod {
    let netns = new_netns();
    let mut host = nl();
    let wired = wire_pod(&mut host, &netns, &plan).unwrap();
    add_host_routes(&mut host, wired.host_ifindex, &plan.addresses).unwrap();
    Pod { netns, plan, wired }
}

impl Pod {
    pub fn ip(&self, v6: bool) -> IpAddr {
        *self.plan.addresses.iter().find(|ip| ip.is_ipv6() == v6).unwrap()
    }

    /// Runs something on this thread inside the pod.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.netns.run(f).unwrap()
    }
}
