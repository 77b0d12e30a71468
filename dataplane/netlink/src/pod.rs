//! Wiring a pod: a veth pair from the host into the pod's namespace, and all that belongs on it.
//!
//! ```text
//!  host namespace                                  pod's namespace
//!  caliXXXXXXXXXXX ee:ee:ee:ee:ee:ee  <-- veth -->  eth0  its addresses as /32 and /128
//!  fe80::ecee:eeff:feee:eeee, proxy ARP             routes through 169.254.1.1 and that fe80::
//! ```
//!
//! Four trips to the kernel: make the pair; settings of the host end; everything in the pod, its end
//! up last; a last look that also makes the carrier take effect.

use crate::link::{self, Link, Settings};
use crate::make;
use crate::pod_requests::{self as requests};
use crate::reply::Reply;
use crate::{Error, Netns, Nl, beside, route, sysctl};
use ipnet::IpNet;
use netlink_packet_route::link::LinkAttribute;
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The gateway of every pod's IPv4 routes; exists nowhere but in the pod's neighbour table.
pub const V4_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The MAC of every host end, as Calico sets it.
pub const HOST_MAC: [u8; 6] = [0xee; 6];
/// The link-local address that follows from [`HOST_MAC`]: gateway of every pod's IPv6 routes.
pub const HOST_LL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
/// The group of a pair that was made but has no alias yet. Only a killed ADD leaves one behind.
pub const UNFINISHED_GROUP: u32 = 0x5043_0001;

/// What one pod interface should be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPlan {
    /// Of the host end; 1 to 15 bytes.
    pub host_name: String,
    /// Becomes the host end's `ifalias` (at most 255 bytes): names the attachment that owns it.
    pub alias: String,
    /// Of the pod's end; 1 to 15 bytes.
    pub pod_name: String,
    /// Chosen by the kernel where none is given.
    pub pod_mac: Option<[u8; 6]>,
    /// Bytes, both ends; the kernel's 1500 where none is given. IPv6 needs at least 1280.
    pub mtu: Option<u32>,
    /// Queues of each direction, both ends; the kernel's choice where none is given.
    pub queues: Option<u32>,
    /// The pod's own addresses, of either or both families.
    pub addresses: Vec<IpAddr>,
    /// The pod's routes, each through its family's gateway.
    pub routes: Vec<PodRoute>,
    /// Whether the pod may forward packets (`container_settings.allow_ip_forwarding`).
    pub forward_in_pod: bool,
}

/// One route inside the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodRoute {
    pub dst: IpNet,
    /// Bytes; the link's where none is given.
    pub mtu: Option<u32>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wired {
    pub host_ifindex: u32,
    /// In the pod's namespace.
    pub pod_ifindex: u32,
    pub host_mac: [u8; 6],
    pub pod_mac: [u8; 6],
    /// Bytes.
    pub pod_mtu: u32,
}

impl PodPlan {
    pub(crate) fn has_v4(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv4)
    }

    pub(crate) fn has_v6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }
}

/// Makes the pair and everything on it; a pair that is there and ours (`alias` equal) is completed.
/// A pair that a killed call left half made under this name is replaced.
///
/// `host` must be a socket in the calling thread's namespace: some settings of the host end go
/// through `/proc/sys`, which shows the thread's own.
///
/// The pod's end is set up last. Host routes are the caller's next step ([`crate::add_host_routes`]);
/// with [`crate::ensure_firewall`] done before, nothing that the pod sends passes until they are there.
///
/// # Errors
/// `PodIfaceExists`, `HostLinkTaken`, `NotPaired`; `Refused` for what the kernel does not accept (names,
/// MTU). A pair that this call made is deleted again; one that was there before stays.
pub fn wire_pod(host: &mut Nl, netns: &Netns, plan: &PodPlan) -> Result<Wired, Error> {
    check_names(plan)?;
    match create(host, netns, plan)? {
        Created::New(reply) => finish_new(host, netns, plan, &reply),
        Created::Existed(reply) => replace_or_complete(host, netns, plan, &reply),
    }
}

/// Adds what is missing to a pair that [`wire_pod`] made, and makes differing settings as planned.
/// Nothing is taken away.
///
/// # Errors
/// `NoHostLink`, `HostLinkTaken`; `PodIfaceExists` when the pod's interface of this name is not the
/// other end of our host link, `NotPaired` when there is none; else as [`wire_pod`].
pub fn complete_pod(host: &mut Nl, netns: &Netns, plan: &PodPlan) -> Result<Wired, Error> {
    let reply = link::one(host.ask(link::get_by_name(&plan.host_name))?)?;
    let reply = reply.ok_or_else(|| Error::NoHostLink { name: plan.host_name.clone() })?;
    let found = parsed(&reply, plan)?;
    if !is_ours(&found, plan) {
        return Err(taken(found, plan));
    }
    complete(host, netns, plan, &reply)
}

/// Gives a link that somebody else made for this attachment its owner's name, for [`complete_pod`].
///
/// # Errors
/// `Refused`, `Io`, `TimedOut`.
pub fn adopt_link(host: &mut Nl, index: u32, alias: &str) -> Result<(), Error> {
    let attributes = vec![LinkAttribute::IfAlias(alias.to_owned())];
    host.must(&[make::set_link("name the owner of link", index, None, attributes)]).map(drop)
}

/// The kernel checks names, but takes `%d` for a wish to number the link.
fn check_names(plan: &PodPlan) -> Result<(), Error> {
    match [&plan.host_name, &plan.pod_name].into_iter().find(|name| name.contains('%')) {
        None => Ok(()),
        Some(name) => Err(Error::Refused {
            op: "create veth pair",
            subject: name.clone(),
            source: Errno::INVAL,
            hint: "a link's name may not contain %".into(),
        }),
    }
}

enum Created {
    New(Reply),
    Existed(Reply),
}

/// Creation and the first look go together: the look shows the new link, or the one in the way.
fn create(host: &mut Nl, netns: &Netns, plan: &PodPlan) -> Result<Created, Error> {
    let batch = [requests::create_pair(plan, netns), link::get_by_name(&plan.host_name)];
    let mut outcomes = host.batch(&batch)?.into_iter();
    let (Some(created), Some(seen)) = (outcomes.next(), outcomes.next()) else {
        unreachable!("a batch has as many outcomes as requests")
    };
    let exists = created.errno() == Some(Errno::EXIST);
    let seen = link::one(seen)?;
    match (created.failed, seen) {
        (None, Some(reply)) => Ok(Created::New(reply)),
        (None, None) => Err(Error::NoHostLink { name: plan.host_name.clone() }),
        (Some(_), Some(reply)) if exists => Ok(Created::Existed(reply)),
        (Some(_), None) if exists => Err(Error::PodIfaceExists { ifname: plan.pod_name.clone() }),
        (Some(error), _) => Err(error),
    }
}

fn replace_or_complete(host: &mut Nl, netns: &Netns, plan: &PodPlan, reply: &Reply) -> Result<Wired, Error> {
    let found = parsed(reply, plan)?;
    if is_ours(&found, plan) {
        return complete(host, netns, plan, reply);
    }
    if !found.is_unfinished() {
        return Err(taken(found, plan));
    }
    crate::delete_link(host, found.index)?;
    match create(host, netns, plan)? {
        Created::New(reply) => finish_new(host, netns, plan, &reply),
        Created::Existed(reply) => Err(taken(parsed(&reply, plan)?, plan)),
    }
}

fn complete(host: &mut Nl, netns: &Netns, plan: &PodPlan, reply: &Reply) -> Result<Wired, Error> {
    let ours = parsed(reply, plan)?;
    let pod_end = link::link(&mut netns.socket(host.timeout())?, &plan.pod_name)?;
    match pod_end {
        Some(end) if pairs(&ours, &end) => finish(host, netns, plan, reply),
        Some(_) => Err(Error::PodIfaceExists { ifname: plan.pod_name.clone() }),
        None => Err(Error::NotPaired { host_name: plan.host_name.clone(), pod_name: plan.pod_name.clone() }),
    }
}

/// Each end tells the index of the other.
fn pairs(host_end: &Link, pod_end: &Link) -> bool {
    pod_end.peer_ifindex == Some(host_end.index) && host_end.peer_ifindex == Some(pod_end.index)
}

fn is_ours(link: &Link, plan: &PodPlan) -> bool {
    link.alias.as_deref() == Some(plan.alias.as_str())
}

fn taken(link: Link, plan: &PodPlan) -> Error {
    Error::HostLinkTaken { name: plan.host_name.clone(), alias: link.alias }
}

fn parsed(reply: &Reply, plan: &PodPlan) -> Result<Link, Error> {
    link::parse(reply).ok_or_else(|| Error::Malformed { op: "look up link", subject: plan.host_name.clone() })
}

/// A pair that this call made does not outlive its failure.
fn finish_new(host: &mut Nl, netns: &Netns, plan: &PodPlan, reply: &Reply) -> Result<Wired, Error> {
    let index = parsed(reply, plan)?.index;
    finish(host, netns, plan, reply).inspect_err(|_| {
        // The first error is the one to tell; a pair that stays is known by its name and group.
        let _ = crate::delete_link(host, index);
    })
}

/// Everything after creation. Each request makes or keeps, so that it can be repeated.
fn finish(host: &mut Nl, netns: &Netns, plan: &PodPlan, reply: &Reply) -> Result<Wired, Error> {
    let host_end = parsed(reply, plan)?;
    let unknown = || Error::Malformed { op: "look up peer of", subject: plan.host_name.clone() };
    let pod_ifindex = host_end.peer_ifindex.ok_or_else(unknown)?;
    prepare_host_end(host, plan, host_end.index, link::settings(reply))?;
    let mut pod = fill_pod(netns, plan, pod_ifindex, host.timeout())?;
    // The kernel's workers use the time that the host end takes.
    settle_host_end(host, plan, host_end.index)?;
    let pod_end = settle_pod_end(&mut pod, plan, pod_ifindex)?.ok_or_else(unknown)?;
    Ok(Wired {
        host_ifindex: host_end.index,
        pod_ifindex,
        host_mac: HOST_MAC,
        pod_mac: pod_end.mac.ok_or_else(unknown)?,
        pod_mtu: pod_end.mtu,
    })
}

fn prepare_host_end(host: &mut Nl, plan: &PodPlan, index: u32, now: Settings) -> Result<(), Error> {
    if plan.has_v6() {
        sysctl::host_end_v6(&plan.host_name, now.v6)?;
    }
    host.must(&requests::host_end(plan, index, now))?;
    Ok(())
}

fn fill_pod(netns: &Netns, plan: &PodPlan, index: u32, timeout: Duration) -> Result<Nl, Error> {
    let mut pod = netns.run(|| {
        sysctl::pod(plan.has_v4(), plan.has_v6(), plan.forward_in_pod)?;
        Nl::here(timeout)
    })??;
    let beside = beside::is_beside(&mut pod, plan, index)?;
    pod.must(&requests::pod_end(plan, index, beside))?;
    if beside {
        beside::add_rules(&mut pod, plan, index)?;
    }
    Ok(pod)
}

fn settle_pod_end(pod: &mut Nl, plan: &PodPlan, index: u32) -> Result<Option<Link>, Error> {
    let v6: Vec<IpAddr> = plan.addresses.iter().copied().filter(IpAddr::is_ipv6).collect();
    await_ready(pod, index, &v6, |_| true)
}

/// The host end's carrier came last, and a kernel worker acts on it in its own time (linkwatch):
/// until then packets into the pod are dropped. Since 6.8 looking at the link does the worker's part.
fn settle_host_end(host: &mut Nl, plan: &PodPlan, index: u32) -> Result<(), Error> {
    let own = plan.has_v6().then_some(IpAddr::V6(HOST_LL));
    await_ready(host, index, own.as_slice(), link::is_operational).map(drop)
}

/// Looks at the link until it is ready and its IPv6 addresses work, and returns it. Without duplicate
/// detection they are not tentative, and yet a kernel worker has to join their groups and add their
/// local routes before a packet to them is taken (addrconf_dad_work). It usually needs 0.1 ms; a
/// neighbour solicitation lost before that would be repeated after a second.
fn await_ready(
    nl: &mut Nl,
    index: u32,
    addresses: &[IpAddr],
    is_ready: impl Fn(&Reply) -> bool,
) -> Result<Option<Link>, Error> {
    let mut batch = vec![link::get_by_index(index)];
    batch.extend(addresses.iter().map(|ip| route::lookup(*ip, Some(index))));
    let end = Instant::now() + nl.timeout();
    let mut pause = Duration::from_micros(20);
    loop {
        let outcomes = nl.batch(&batch)?;
        let seen = outcomes[0].replies.first().filter(|reply| is_ready(reply));
        if seen.is_some() && outcomes[1..].iter().all(route::is_local) {
            return Ok(seen.and_then(link::parse));
        }
        if Instant::now() > end {
            return Err(Error::TimedOut {
                op: "wait for carrier and addresses of",
                subject: format!("#{index}"),
            });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}
