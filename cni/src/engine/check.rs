//! CHECK: compares what ADD answered with the store, the host and the container. Changes nothing.

use super::call::Call;
use super::{delegated, endpoint, failure, leases, links, node, pods};
use cni_protocol::{CniError, CniResult, Code, Verb};
use netlink::{HOST_LL, HOST_MAC, HostState, Netns, Nl, PodState, V4_GATEWAY};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Next hops of a container's routes.
const GATEWAYS: [IpAddr; 2] = [IpAddr::V4(V4_GATEWAY), IpAddr::V6(HOST_LL)];

/// What is not as it should be, each in one line.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn unless(&mut self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            self.0.push(what());
        }
    }

    /// # Errors
    /// Code 103 with every finding, if there is one.
    fn judge(self) -> Result<(), CniError> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let msg = format!("the container's network is not as ADD left it: {first}; delete and add it again");
        Err(CniError::new(Code::CheckFailed, msg).with_details(self.0.join("; ")))
    }
}

/// Serves CHECK of the main plugin.
pub(crate) fn check(call: &Call, netns: &Netns) -> Result<(), CniError> {
    let previous = previous(call)?;
    let _lock = call.lock()?;
    let expected = own_addresses(call, previous);
    let mut found = Findings::default();
    found.unless(!expected.is_empty(), || "prevResult has no address of this interface".to_owned());
    if delegated::is_delegated(call.conf) {
        delegated::run(call, Verb::Check)?;
    } else {
        check_leases(call, &expected, &mut found)?;
    }
    let adopted = check_host(call, &expected, &mut found)?;
    check_pod(call, netns, &expected, adopted, previous, &mut found)?;
    for difference in endpoint::differences(call, &expected)? {
        found.unless(false, || difference);
    }
    found.judge()
}

/// Serves CHECK of the IPAM of another plugin: the lease alone.
pub(crate) fn check_lease(call: &Call) -> Result<(), CniError> {
    let mut found = Findings::default();
    let expected: Vec<IpAddr> = match &call.conf.prev_result {
        Some(previous) => previous.ips.iter().map(|ip| ip.address.addr()).collect(),
        None => Vec::new(),
    };
    let held = leases::held_anywhere(call, call.at())?.1;
    found.unless(!held.is_empty(), || "no address is leased to it".to_owned());
    for lease in &held {
        let known = expected.is_empty() || expected.contains(&lease.ip);
        found.unless(known, || format!("{} is leased to it, but is not in prevResult", lease.ip));
    }
    found.judge()
}

fn previous<'a>(call: &'a Call) -> Result<&'a CniResult, CniError> {
    call.conf
        .prev_result
        .as_ref()
        .ok_or_else(|| CniError::config("prevResult: CHECK needs the result of ADD"))
}

/// The addresses of our interface; another plugin of the chain may have added others.
fn own_addresses(call: &Call, previous: &CniResult) -> Vec<IpAddr> {
    let is_ours = |index: Option<usize>| {
        let interface = index.and_then(|i| previous.interfaces.get(i));
        interface.is_none_or(|i| i.name == call.at().ifname)
    };
    previous.ips.iter().filter(|ip| is_ours(ip.interface)).map(|ip| ip.address.addr()).collect()
}

fn check_leases(call: &Call, expected: &[IpAddr], found: &mut Findings) -> Result<(), CniError> {
    let held: BTreeSet<IpAddr> =
        leases::held_anywhere(call, call.at())?.1.iter().map(|held| held.ip).collect();
    let unmanaged = match call.conf.features.ip_addrs_no_ipam {
        true => pods::load(call)?.wishes.addresses_no_ipam,
        false => Vec::new(),
    };
    for ip in expected.iter().filter(|ip| !unmanaged.contains(ip)) {
        found.unless(held.contains(ip), || format!("address {ip} is not allocated to it"));
    }
    for ip in held.iter().filter(|ip| !expected.contains(ip)) {
        found.unless(false, || format!("address {ip} is allocated to it, but is not in prevResult"));
    }
    Ok(())
}

/// Whether the host's end is one that Calico made and that is still as it left it.
fn check_host(call: &Call, expected: &[IpAddr], found: &mut Findings) -> Result<bool, CniError> {
    let mut host = Nl::here(call.kernel_timeout()).map_err(|e| failure::kernel(&e))?;
    let name = links::place(call, &mut host)?.name;
    let state = netlink::inspect_host(&mut host, &name, expected).map_err(|e| failure::kernel(&e))?;
    let Some(state) = state else {
        found.unless(false, || format!("host interface {name} is gone"));
        return Ok(false);
    };
    compare_host_link(call, &state, found);
    compare_host_settings(&state, expected, found);
    for ip in expected {
        let routed = state.routes.iter().any(|r| r.ip == *ip && r.ifindex == Some(state.link.index));
        found.unless(routed, || format!("the host has no route to {ip} through {name}"));
    }
    Ok(links::is_calicos(call, &state.link))
}

fn compare_host_link(call: &Call, state: &HostState, found: &mut Findings) {
    let link = &state.link;
    let name = &link.name;
    let ours = links::owns(link, call.at()) || links::is_calicos(call, link);
    found.unless(ours, || format!("host interface {name} is not ours"));
    found.unless(link.up && link.lower_up, || format!("host interface {name} is down"));
    found.unless(link.mac == Some(HOST_MAC), || format!("host interface {name} has another MAC address"));
    found.unless(link.mtu == node::mtu(call.req).0, || format!("host interface {name} has MTU {}", link.mtu));
}

fn compare_host_settings(state: &HostState, expected: &[IpAddr], found: &mut Findings) {
    let name = &state.link.name;
    if expected.iter().any(IpAddr::is_ipv4) {
        found.unless(state.settings.v4_forwarding, || format!("IPv4 forwarding is off on {name}"));
        found.unless(state.settings.proxy_arp, || format!("proxy ARP is off on {name}"));
    }
    if expected.iter().any(IpAddr::is_ipv6) {
        let forwards = state.settings.v6.as_ref().is_some_and(|v6| v6.forwarding != 0 && v6.disabled == 0);
        found.unless(forwards, || format!("IPv6 forwarding is off on {name}"));
        let has_gateway = state.addresses.iter().any(|a| a.net.addr() == IpAddr::V6(HOST_LL));
        found.unless(has_gateway, || format!("host interface {name} lacks {HOST_LL}"));
    }
}

fn check_pod(
    call: &Call,
    netns: &Netns,
    expected: &[IpAddr],
    adopted: bool,
    previous: &CniResult,
    found: &mut Findings,
) -> Result<(), CniError> {
    let name = &call.at().ifname;
    let state = netlink::inspect_pod(netns, name, call.kernel_timeout()).map_err(|e| failure::kernel(&e))?;
    let Some(state) = state else {
        found.unless(false, || format!("interface {name} is gone from the container"));
        return Ok(());
    };
    compare_pod_link(call, &state, found);
    compare_pod_addresses(&state, expected, found);
    if !adopted {
        compare_neighbours(&state, expected, found);
    }
    compare_pod_routes(&state, previous, found);
    Ok(())
}

fn compare_pod_link(call: &Call, state: &PodState, found: &mut Findings) {
    let link = &state.link;
    let name = &link.name;
    found.unless(link.up && link.lower_up, || format!("interface {name} is down in the container"));
    found.unless(link.mtu == node::mtu(call.req).0, || format!("interface {name} has MTU {}", link.mtu));
}

fn compare_pod_addresses(state: &PodState, expected: &[IpAddr], found: &mut Findings) {
    for ip in expected {
        let seen = state.addresses.iter().find(|a| a.net.addr() == *ip);
        found.unless(seen.is_some(), || format!("address {ip} is gone from the container"));
        let usable = seen.is_none_or(|a| !a.tentative && !a.duplicate);
        found.unless(usable, || format!("address {ip} is tentative or duplicate in the container"));
    }
}

/// Calico's pods have none: there proxy ARP alone answers for the gateway (decision 19).
fn compare_neighbours(state: &PodState, expected: &[IpAddr], found: &mut Findings) {
    let used = GATEWAYS.iter().filter(|gateway| expected.iter().any(|ip| ip.is_ipv4() == gateway.is_ipv4()));
    for gateway in used {
        let known =
            state.neighbours.iter().any(|n| n.ip == *gateway && n.permanent && n.mac == Some(HOST_MAC));
        found.unless(known, || format!("the container lacks its permanent neighbour {gateway}"));
    }
}

fn compare_pod_routes(state: &PodState, previous: &CniResult, found: &mut Findings) {
    for route in &previous.routes {
        // Routes of other plugins lead elsewhere.
        let Some(gw) = route.gw.filter(|gw| GATEWAYS.contains(gw)) else { continue };
        let seen = state.routes.iter().any(|r| r.dst == route.dst && r.gateway == Some(gw));
        found.unless(seen, || format!("the container lacks its route to {} via {gw}", route.dst));
    }
}
