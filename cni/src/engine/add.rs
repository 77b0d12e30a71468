//! ADD: addresses committed, then the kernel, then the answer. Each done step pushes its undo.

use super::addresses::{self, Own};
use super::call::Call;
use super::delegated;
use super::links::Place;
use super::pods::{self, Facts};
use super::undo::Undo;
use super::{
    endpoint, failure, firewall, former, gates, import, journal, leases, links, node, result, unsupported,
};
use cni_protocol::{CniError, CniResult, Dns};
use ipam::Given;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::Family;
use netlink::{Conflict, Netns, Nl, PodPlan, PodRoute, RouteError, Wired};
use std::net::IpAddr;

/// How often an address that the host already routes elsewhere is exchanged for another.
const MAX_EXCHANGES: usize = 8;

/// What the container gets.
pub(crate) struct Leased {
    /// Addresses with the prefix of their subnet or block.
    pub ips: Vec<IpNet>,
    /// Networks that these addresses belong to, for masquerading.
    pub networks: Vec<IpNet>,
    pub dns: Dns,
    /// The attachment had them already.
    pub repeated: bool,
}

/// Serves ADD of the main plugin.
pub(crate) fn add(call: &Call, netns: &Netns) -> Result<CniResult, CniError> {
    unsupported::check(call)?;
    let _lock = call.phase("lock", || call.lock())?;
    let mut host = Nl::here(call.kernel_timeout()).map_err(|e| failure::kernel(&e))?;
    journal::cancel(call);
    let mut undo = Undo::default();
    call.phase("ready", || prepare(call))?;
    let facts = call.phase("pod", || pods::load(call))?;
    let leased = call.phase("ipam", || lease(call, &facts, &mut host, &mut undo))?;
    call.log_addresses(&leased.ips);
    call.phase("firewall", || prepare_host(call, &leased))?;
    let place = links::place(call, &mut host)?;
    let plan = pod_plan(call, &facts, &place, &leased)?;
    let wired = call.phase("wire", || {
        let is_there = links::clear_the_way(call, &mut host, netns, &place, leased.repeated)?;
        wire(call, &mut host, netns, &plan, is_there, &mut undo)
    })?;
    call.phase("endpoint", || endpoint::write(call, &facts, &place, &plan, &wired, &mut undo))?;
    call.phase("policy", || gates::await_policy(call));
    call.phase("sync", || settle(call))?;
    panic_for_a_test();
    undo.keep();
    Ok(result::of_pod(call, &plan, &wired, &leased))
}

/// In debug builds alone: shows that a panic unwinds, in a program whose C library is not the one that
/// rustc reckons with.
fn panic_for_a_test() {
    #[cfg(debug_assertions)]
    assert!(std::env::var_os("PERCALE_TEST_PANIC").is_none(), "a test wanted a panic");
}

/// The lease is on the medium before the answer, and not before the wiring: a loss of power takes the
/// links with it.
fn settle(call: &Call) -> Result<(), CniError> {
    if delegated::is_delegated(call.conf) { Ok(()) } else { leases::settle(call) }
}

/// What must be there before anything is done.
fn prepare(call: &Call) -> Result<(), CniError> {
    if call.is_cluster() || !delegated::is_delegated(call.conf) {
        import::for_add(call)?;
    }
    gates::await_readiness(call)
}

fn lease<'a>(
    call: &'a Call<'_>,
    facts: &Facts,
    host: &mut Nl,
    undo: &mut Undo<'a>,
) -> Result<Leased, CniError> {
    if delegated::is_delegated(call.conf) {
        return delegated::add(call, undo);
    }
    if !facts.wishes.addresses_no_ipam.is_empty() {
        return unmanaged(host, &facts.wishes.addresses_no_ipam);
    }
    let own = Own::of(call)?.wished(call, facts);
    import::host_local(call, &own)?;
    former::yield_addresses(call, &facts.wishes)?;
    let mut seen = Vec::new();
    let mut excluded = Vec::new();
    for _ in 0..MAX_EXCHANGES {
        let assigned = leases::assign(call, &own, &own.assign(call, &excluded))?;
        assigned.report.iter().for_each(|note| call.note(&note.to_string()));
        let ips: Vec<IpAddr> = assigned.addresses.iter().map(|given| given.ip).collect();
        let seen_routes = if assigned.repeated { Ok(Vec::new()) } else { foreign_routes(host, &ips) };
        let conflicts = seen_routes.inspect_err(|_| give_back(call, &own))?;
        if conflicts.is_empty() {
            if !assigned.repeated {
                undo.push("release addresses", undo_release(call, &own));
            }
            return Ok(Leased { repeated: assigned.repeated, ..leased(call, &assigned.addresses) });
        }
        undo_release(call, &own)().map_err(CniError::internal)?;
        excluded.extend(conflicts.iter().map(|c| c.ip));
        let lines = conflicts.iter().map(|c| format!("address {} is not free: {c}", c.ip));
        lines.for_each(|line| {
            call.note(&line);
            seen.push(line);
        });
    }
    Err(addresses::too_many_conflicts(&seen))
}

/// Addresses that a pod brings along; nobody keeps account of them.
fn unmanaged(host: &mut Nl, ips: &[IpAddr]) -> Result<Leased, CniError> {
    if let Some(conflict) = foreign_routes(host, ips)?.first() {
        return Err(addresses::refused_unmanaged(conflict));
    }
    let ips = ips.iter().copied().map(IpNet::from).collect();
    Ok(Leased { ips, networks: Vec::new(), dns: Dns::default(), repeated: false })
}

/// As the undo of a lease that is not on the stack yet.
fn give_back(call: &Call, own: &Own) {
    if let Err(why) = undo_release(call, own)() {
        call.note(&format!("release addresses: {why}"));
    }
}

/// Live routes of others for these addresses; a dead one is replaced later.
fn foreign_routes(host: &mut Nl, ips: &[IpAddr]) -> Result<Vec<Conflict>, CniError> {
    let conflicts = netlink::conflicts(host, ips).map_err(|e| failure::kernel(&e))?;
    Ok(conflicts.into_iter().filter(|conflict| conflict.alive).collect())
}

fn undo_release<'a, 'b>(call: &'a Call<'b>, own: &Own) -> impl FnOnce() -> Result<(), String> + use<'a, 'b> {
    let scope = own.scope.clone();
    move || {
        let request = leases::release_of(call, call.at());
        let released = leases::release(call, &scope, &request).map(|_| ());
        let owed = released.or_else(|_| journal::owe(call, call.at(), &scope, &[], &[]));
        owed.map_err(|e| e.to_string())
    }
}

fn leased(call: &Call, given: &[Given]) -> Leased {
    let ips = given.iter().map(|g| ip_net(g.ip, g.prefix_len)).collect();
    let networks = given.iter().map(|g| g.pool).collect();
    Leased { ips, networks, dns: result::dns(call.conf), repeated: false }
}

fn ip_net(ip: IpAddr, prefix_len: u8) -> IpNet {
    IpNet::new(ip, prefix_len).unwrap_or_else(|_| IpNet::from(ip))
}

/// Forwarding and our table, before the pod can send its first packet.
fn prepare_host(call: &Call, leased: &Leased) -> Result<(), CniError> {
    let has = |family| leased.ips.iter().any(|net| Family::of_net(net) == family);
    netlink::ensure_forwarding(has(Family::V4), has(Family::V6)).map_err(|e| failure::kernel(&e))?;
    firewall::ensure(call, &leased.networks)
}

fn pod_plan(call: &Call, facts: &Facts, place: &Place, leased: &Leased) -> Result<PodPlan, CniError> {
    let (mtu, warning) = node::mtu(call.req);
    if call.conf.require_mtu_file && call.conf.mtu == 0 && !call.req.paths.mtu_file.exists() {
        let file = call.req.paths.mtu_file.display();
        return Err(CniError::try_again(format!(
            "require_mtu_file: {file} is not there yet; is the host's agent running?"
        )));
    }
    warning.iter().for_each(|w| call.note(w));
    Ok(PodPlan {
        host_name: place.name.clone(),
        alias: call.at().alias(),
        pod_name: call.at().ifname.clone(),
        pod_mac: result::wished_mac(call.req).or(pods::mac(&facts.wishes)?),
        mtu: Some(mtu),
        queues: Some(call.conf.num_queues).filter(|queues| *queues != 0),
        addresses: leased.ips.iter().map(IpNet::addr).collect(),
        routes: pod_routes(call, leased),
        forward_in_pod: call.conf.allow_ip_forwarding,
    })
}

/// The configured destinations, or everything, through the gateway of the family.
fn pod_routes(call: &Call, leased: &Leased) -> Vec<PodRoute> {
    let conf = call.conf;
    let has = |dst: &IpNet| leased.ips.iter().any(|ip| Family::of_net(ip) == Family::of_net(dst));
    let configured = conf.ipam.routes.iter().map(|r| PodRoute { dst: r.dst, mtu: r.mtu });
    let defaults = Family::BOTH.map(|family| PodRoute { dst: everything(family), mtu: None });
    let with_defaults = conf.ipam.routes.is_empty() || conf.include_default_routes;
    let mut routes: Vec<PodRoute> = defaults.into_iter().filter(|_| with_defaults).collect();
    for route in configured {
        if !routes.iter().any(|known| known.dst == route.dst) {
            routes.push(route);
        }
    }
    routes.retain(|route| has(&route.dst));
    routes
}

/// Makes the link, or completes the one that is there and ours, then the host routes.
fn wire<'a>(
    call: &'a Call<'_>,
    host: &mut Nl,
    netns: &Netns,
    plan: &PodPlan,
    is_there: bool,
    undo: &mut Undo<'a>,
) -> Result<Wired, CniError> {
    let wired = if is_there {
        netlink::complete_pod(host, netns, plan)
    } else {
        let name = plan.host_name.clone();
        undo.push("delete host link", move || links::delete_by_name(call, &name));
        netlink::wire_pod(host, netns, plan)
    };
    let wired = match wired {
        Err(netlink::Error::PodIfaceExists { .. }) if links::remove_leftover(call, host)? => {
            netlink::wire_pod(host, netns, plan)
        }
        wired => wired,
    };
    let wired = wired.map_err(|e| failure::kernel(&e))?;
    match netlink::add_host_routes(host, wired.host_ifindex, &plan.addresses) {
        Ok(()) => Ok(wired),
        Err(RouteError::Conflict(conflict)) if !conflict.alive => {
            call.note(&format!("replaced a dead route: {conflict}"));
            let mut each = plan.addresses.iter();
            each.try_for_each(|ip| netlink::replace_host_route(host, wired.host_ifindex, *ip))
                .map(|()| wired)
                .map_err(|e| failure::route(&e))
        }
        Err(error) => Err(failure::route(&error)),
    }
}

/// Every destination of a family.
fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Ipv4Net::default()),
        Family::V6 => IpNet::V6(Ipv6Net::default()),
    }
}
