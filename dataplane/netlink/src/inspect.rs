//! What is really there, as plain data, for CHECK.

use crate::link::{self, Link, Settings};
use crate::reply::{Reply, u32_at};
use crate::request::Request;
use crate::route::{HostRoute, RouteKind};
use crate::{Error, Netns, Nl, sysctl};
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// One interface of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodState {
    pub link: Link,
    pub addresses: Vec<PodAddress>,
    /// Of the main table, through this interface.
    pub routes: Vec<PodRouteSeen>,
    pub neighbours: Vec<Neighbour>,
    /// `net.ipv4.ip_forward`; none where it cannot be read.
    pub v4_forwarding: Option<bool>,
    /// `net.ipv6.conf.all.forwarding`; none without IPv6.
    pub v6_forwarding: Option<bool>,
}

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddress {
    pub ifindex: u32,
    /// The address with its prefix length.
    pub net: IpNet,
    /// Not usable yet: duplicate address detection runs.
    pub tentative: bool,
    /// Not usable: somebody else has it.
    pub duplicate: bool,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRouteSeen {
    pub dst: IpNet,
    pub gateway: Option<IpAddr>,
    pub ifindex: Option<u32>,
    /// Bytes, where the route has its own.
    pub mtu: Option<u32>,
    pub kind: RouteKind,
    pub protocol: u8,
    pub table: u32,
    pub metric: u32,
}

/// An entry of the neighbour table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub ifindex: u32,
    pub ip: IpAddr,
    pub mac: Option<[u8; 6]>,
    pub permanent: bool,
}

/// The host end of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState {
    pub link: Link,
    pub settings: Settings,
    pub addresses: Vec<PodAddress>,
    /// The routes in force for the addresses asked about; see [`crate::routes_to`].
    pub routes: Vec<HostRoute>,
}

/// Looks at one interface of a pod. None: it has no such interface.
///
/// # Errors
/// `Netns` when the namespace cannot be entered, else those of the kernel.
pub fn inspect_pod(netns: &Netns, ifname: &str, timeout: Duration) -> Result<Option<PodState>, Error> {
    netns.run(|| {
        let mut nl = Nl::here(timeout)?;
        let Some(link) = link::link(&mut nl, ifname)? else { return Ok(None) };
        let addresses = addresses(&mut nl, |a| a.ifindex == link.index)?;
        let routes = main_routes(&mut nl, |r| r.ifindex == Some(link.index))?;
        let neighbours = neighbours(&mut nl, |n| n.ifindex == link.index)?;
        Ok(Some(PodState {
            addresses,
            routes,
            neighbours,
            v4_forwarding: is_on("/proc/sys/net/ipv4/ip_forward"),
            v6_forwarding: is_on("/proc/sys/net/ipv6/conf/all/forwarding"),
            link,
        }))
    })?
}

/// Looks at a pod's host end and at the routes for `addresses`. None: there is no such link.
///
/// # Errors
/// Those of the kernel.
pub fn inspect_host(nl: &mut Nl, name: &str, addresses: &[IpAddr]) -> Result<Option<HostState>, Error> {
    let Some(reply) = link::one(nl.ask(link::get_by_name(name))?)? else { return Ok(None) };
    let Some(link) = link::parse(&reply) else { return Ok(None) };
    let routes = crate::routes_to(nl, addresses)?;
    let addresses = self::addresses(nl, |a| a.ifindex == link.index)?;
    Ok(Some(HostState { settings: link::settings(&reply), addresses, routes, link }))
}

const MAIN_TABLE: u32 = 254;

fn is_on(path: &str) -> Option<bool> {
    sysctl::read(path).ok().map(|value| value == "1")
}

pub(crate) fn addresses(nl: &mut Nl, keep: impl Fn(&PodAddress) -> bool) -> Result<Vec<PodAddress>, Error> {
    let make = |flags| {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        Request::route("list addresses", "of the namespace", message, flags)
    };
    nl.dump(make, |reply| address(&reply).filter(&keep))
}

fn routes(nl: &mut Nl, keep: impl Fn(&PodRouteSeen) -> bool) -> Result<Vec<PodRouteSeen>, Error> {
    let make = |flags| {
        let message = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        Request::route("list routes", "of the namespace", message, flags)
    };
    nl.dump(make, |reply| route(&reply).filter(&keep))
}

/// Routes of the main table.
pub(crate) fn main_routes(
    nl: &mut Nl,
    keep: impl Fn(&PodRouteSeen) -> bool,
) -> Result<Vec<PodRouteSeen>, Error> {
    routes(nl, |r| r.table == MAIN_TABLE && keep(r))
}

fn neighbours(nl: &mut Nl, keep: impl Fn(&Neighbour) -> bool) -> Result<Vec<Neighbour>, Error> {
    let make = |flags| {
        let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        Request::route("list neighbours", "of the namespace", message, flags)
    };
    nl.dump(make, |reply| neighbour(&reply).filter(&keep))
}

/// `struct ifaddrmsg` (linux/if_addr.h) and its attributes.
pub(crate) fn address(reply: &Reply) -> Option<PodAddress> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_FLAGS: u16 = 8;
    let (header, attrs) = reply.split(8).filter(|_| reply.kind == libc::RTM_NEWADDR)?;
    // On point-to-point links IFA_ADDRESS is the other side's; IPv6 has no IFA_LOCAL elsewhere.
    let ip = attrs.ip(IFA_LOCAL).or_else(|| attrs.ip(IFA_ADDRESS))?;
    let flags = attrs.u32(IFA_FLAGS).unwrap_or(header[2].into());
    Some(PodAddress {
        ifindex: u32_at(&header[4..])?,
        net: IpNet::new(ip, header[1]).ok()?,
        tentative: flags & libc::IFA_F_TENTATIVE != 0,
        duplicate: flags & libc::IFA_F_DADFAILED != 0,
    })
}

/// `struct rtmsg` (linux/rtnetlink.h) and its attributes.
pub(crate) fn route(reply: &Reply) -> Option<PodRouteSeen> {
    const RTAX_MTU: u16 = 2;
    let (header, attrs) = reply.split(12).filter(|_| reply.kind == libc::RTM_NEWROUTE)?;
    let any: IpAddr = match i32::from(header[0]) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    Some(PodRouteSeen {
        dst: IpNet::new(attrs.ip(libc::RTA_DST).unwrap_or(any), header[1]).ok()?,
        gateway: attrs.ip(libc::RTA_GATEWAY),
        ifindex: attrs.u32(libc::RTA_OIF),
        mtu: attrs.nested(libc::RTA_METRICS).and_then(|metrics| metrics.u32(RTAX_MTU)),
        kind: RouteKind::from_number(header[7]),
        protocol: header[5],
        table: attrs.u32(libc::RTA_TABLE).unwrap_or(header[4].into()),
        metric: attrs.u32(libc::RTA_PRIORITY).unwrap_or(0),
    })
}

/// `struct ndmsg` (linux/neighbour.h) and its attributes.
fn neighbour(reply: &Reply) -> Option<Neighbour> {
    let (header, attrs) = reply.split(12).filter(|_| reply.kind == libc::RTM_NEWNEIGH)?;
    let state = u16::from_ne_bytes([header[8], header[9]]);
    Some(Neighbour {
        ifindex: u32_at(&header[4..])?,
        ip: attrs.ip(libc::NDA_DST)?,
        mac: attrs.get(libc::NDA_LLADDR).and_then(|mac| mac.try_into().ok()),
        permanent: state & libc::NUD_PERMANENT != 0,
    })
}
