//! Host routes: one `/32` or `/128` per pod address.

use crate::link;
use crate::make;
use crate::reply::Reply;
use crate::request::Request;
use crate::socket::Outcome;
use crate::{Error, Nl, RouteError};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rustix::io::Errno;
use std::fmt;
use std::net::IpAddr;

/// How often a route is looked at again that changes while it is replaced.
const REPLACE_TRIES: usize = 4;

/// A route for one address alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    pub ip: IpAddr,
    pub kind: RouteKind,
    /// None for routes without a link, or with several.
    pub ifindex: Option<u32>,
    pub gateway: Option<IpAddr>,
    /// `RTPROT_*` of linux/rtnetlink.h.
    pub protocol: u8,
    /// 254 is main, 255 local.
    pub table: u32,
    pub metric: u32,
}

/// What a route does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    Unicast,
    /// The address is the host's own.
    Local,
    Blackhole,
    Unreachable,
    Prohibit,
    /// Another `RTN_*` of linux/rtnetlink.h.
    Other(u8),
}

/// What is in the way of a host route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub ip: IpAddr,
    pub kind: RouteKind,
    pub ifname: Option<String>,
    pub ifindex: Option<u32>,
    /// False: the link is gone, down or without carrier, so that [`replace_host_route`] may take over.
    pub alive: bool,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.alive { "in use" } else { "dead" };
        match (&self.ifname, self.ifindex) {
            (Some(name), _) => write!(f, "{} is routed to {name} already ({state})", self.ip),
            (None, Some(index)) => write!(f, "{} is routed to link #{index} already ({state})", self.ip),
            (None, None) => write!(f, "{} has a route of kind {:?} already", self.ip, self.kind),
        }
    }
}

/// Adds a route to the link for each address: scope link, protocol boot, main table.
///
/// All or none: at the first conflict or failure, those that this call added are removed again.
/// A route that is there and leads to the link is success.
///
/// # Errors
/// `Conflict` when the host has the address itself, or a route for it alone that leads elsewhere.
pub fn add_host_routes(nl: &mut Nl, ifindex: u32, addresses: &[IpAddr]) -> Result<(), RouteError> {
    let there = routes_to(nl, addresses)?;
    if let Some(foreign) = there.iter().find(|route| !leads_to(route, ifindex)) {
        return Err(RouteError::Conflict(conflict(nl, foreign)?));
    }
    let is_missing = |ip: &&IpAddr| !there.iter().any(|route| route.ip == **ip);
    let missing: Vec<IpAddr> = addresses.iter().filter(is_missing).copied().collect();
    add_missing(nl, ifindex, &missing)
}

fn add_missing(nl: &mut Nl, ifindex: u32, missing: &[IpAddr]) -> Result<(), RouteError> {
    let batch: Vec<Request> = missing.iter().map(|ip| addition(ifindex, *ip)).collect();
    let outcomes = nl.batch(&batch)?;
    let (mut added, mut failed) = (Vec::new(), Vec::new());
    for (ip, outcome) in missing.iter().zip(outcomes) {
        match outcome.failed {
            None => added.push(*ip),
            Some(error) => failed.push((*ip, error)),
        }
    }
    for (ip, error) in failed {
        if let Err(error) = explain(nl, ifindex, ip, error) {
            remove_host_routes(nl, ifindex, &added)?;
            return Err(error);
        }
    }
    Ok(())
}

/// The kernel says only that something exists: finds out what. Whoever else restores the routes of this
/// host's pods may just have added the very route.
fn explain(nl: &mut Nl, ifindex: u32, ip: IpAddr, error: Error) -> Result<(), RouteError> {
    if error.errno() != Some(Errno::EXIST) {
        return Err(error.into());
    }
    match search(nl, ip, None)? {
        Some(route) if leads_to(&route, ifindex) => Ok(()),
        Some(route) => Err(RouteError::Conflict(conflict(nl, &route)?)),
        None => Err(error.into()),
    }
}

/// Adds a route to the link for one address, in place of routes for it whose links are dead.
///
/// # Errors
/// `Conflict` when a route for the address lives; it is left alone.
pub fn replace_host_route(nl: &mut Nl, ifindex: u32, ip: IpAddr) -> Result<(), RouteError> {
    let mut result = Ok(());
    for _ in 0..REPLACE_TRIES {
        result = add_host_routes(nl, ifindex, &[ip]);
        match &result {
            Err(RouteError::Conflict(conflict)) if !conflict.alive => remove_dead(nl, conflict)?,
            _ => break,
        }
    }
    result
}

fn remove_dead(nl: &mut Nl, dead: &Conflict) -> Result<(), Error> {
    match dead.ifindex {
        Some(ifindex) => remove_host_routes(nl, ifindex, &[dead.ip]),
        None => Ok(()),
    }
}

/// Removes the routes for these addresses that lead to this link; absent ones are fine.
///
/// # Errors
/// `Refused`, `Io`, `TimedOut`.
pub fn remove_host_routes(nl: &mut Nl, ifindex: u32, addresses: &[IpAddr]) -> Result<(), Error> {
    let batch: Vec<Request> = addresses.iter().map(|ip| removal(ifindex, *ip)).collect();
    for outcome in nl.batch(&batch)? {
        match outcome.errno() {
            Some(Errno::SRCH | Errno::NODEV) => {}
            _ => drop(outcome.ok()?),
        }
    }
    Ok(())
}

/// For each address the route in force, if it is one for this address alone. The cost does not depend
/// on how many routes there are, except below a wide blackhole or the like.
///
/// # Errors
/// `Refused`, `Io`, `TimedOut`.
pub fn routes_to(nl: &mut Nl, addresses: &[IpAddr]) -> Result<Vec<HostRoute>, Error> {
    let batch: Vec<Request> = addresses.iter().map(|ip| lookup(*ip, None)).collect();
    let mut found = Vec::new();
    for (ip, outcome) in addresses.iter().zip(nl.batch(&batch)?) {
        match (outcome.errno(), outcome.errno().and_then(forbidding)) {
            (Some(Errno::NETUNREACH), _) => {}
            // The answer of such a route is its error: whether it is for this address alone is not in it.
            (_, Some(kind)) => found.extend(search(nl, *ip, Some(kind))?),
            _ => found.extend(outcome.ok()?.iter().filter_map(parse)),
        }
    }
    Ok(found)
}

/// The kind of route that answers a look-up with this error (fib_props, net/ipv4/fib_semantics.c).
fn forbidding(errno: Errno) -> Option<RouteType> {
    match errno {
        Errno::INVAL => Some(RouteType::BlackHole),
        Errno::HOSTUNREACH => Some(RouteType::Unreachable),
        Errno::ACCESS => Some(RouteType::Prohibit),
        _ => None,
    }
}

/// What is in the way of host routes to these addresses: routes for them alone, whatever they lead to.
///
/// # Errors
/// `Refused`, `Io`, `TimedOut`.
pub fn conflicts(nl: &mut Nl, addresses: &[IpAddr]) -> Result<Vec<Conflict>, Error> {
    let routes = routes_to(nl, addresses)?;
    routes.iter().map(|route| conflict(nl, route)).collect()
}

/// Every address of the host's own, link-local and loopback ones too.
///
/// # Errors
/// `Refused`, `Io`, `TimedOut`.
pub fn local_addresses(nl: &mut Nl) -> Result<Vec<IpAddr>, Error> {
    let seen = crate::inspect::addresses(nl, |_| true)?;
    Ok(seen.iter().map(|address| address.net.addr()).collect())
}

fn leads_to(route: &HostRoute, ifindex: u32) -> bool {
    route.kind == RouteKind::Unicast && route.ifindex == Some(ifindex) && route.gateway.is_none()
}

fn conflict(nl: &mut Nl, route: &HostRoute) -> Result<Conflict, Error> {
    let link = match route.ifindex {
        Some(index) => link::link_at(nl, index)?,
        None => None,
    };
    let may_die = route.kind == RouteKind::Unicast && route.ifindex.is_some();
    let works = link.as_ref().is_some_and(|link| link.up && link.lower_up);
    Ok(Conflict {
        ip: route.ip,
        kind: route.kind,
        ifname: link.map(|link| link.name),
        ifindex: route.ifindex,
        alive: works || !may_die,
    })
}

/// The route for this address alone, by going through all routes of its family, or those of one kind.
/// Only after the kernel said that there is, or may be, one.
fn search(nl: &mut Nl, ip: IpAddr, kind: Option<RouteType>) -> Result<Option<HostRoute>, Error> {
    let make = |flags| {
        let mut message = RouteMessage::default();
        message.header.address_family = make::family(ip);
        message.header.kind = kind.unwrap_or_default();
        Request::route("list routes", ip, RouteNetlinkMessage::GetRoute(message), flags)
    };
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    let wished = |reply| parse(&reply).filter(|route| route.ip == ip && route.table == main);
    Ok(nl.dump_filtered(make, wished)?.into_iter().next())
}

fn addition(ifindex: u32, ip: IpAddr) -> Request {
    let message = make::route(ifindex, make::host_net(ip), None, None);
    let message = RouteNetlinkMessage::NewRoute(message);
    Request::route("add host route", ip, message, NLM_F_CREATE | NLM_F_EXCL)
}

pub(crate) fn removal(ifindex: u32, ip: IpAddr) -> Request {
    let mut message = make::route(ifindex, make::host_net(ip), None, None);
    // Whoever made it: NOWHERE and UNSPEC stand for any.
    message.header.scope = RouteScope::NoWhere;
    message.header.protocol = RouteProtocol::Unspec;
    Request::route("remove host route", ip, RouteNetlinkMessage::DelRoute(message), 0)
}

/// Whether an answer to [`lookup`] shows that the kernel takes packets to the address.
pub(crate) fn is_local(outcome: &Outcome) -> bool {
    outcome.replies.iter().filter_map(parse).any(|route| route.kind == RouteKind::Local)
}

/// The route in force for an address, on one link alone if one is named.
pub(crate) fn lookup(ip: IpAddr, ifindex: Option<u32>) -> Request {
    let net: IpNet = make::host_net(ip);
    let mut message = RouteMessage::default();
    message.header.address_family = make::family(ip);
    message.header.destination_prefix_length = net.prefix_len();
    message.header.flags = RouteFlags::FibMatch | RouteFlags::LookupTable;
    message.attributes.push(RouteAttribute::Destination(make::route_address(ip)));
    message.attributes.extend(ifindex.map(RouteAttribute::Oif));
    Request::question("look up route", ip, RouteNetlinkMessage::GetRoute(message))
}

fn parse(reply: &Reply) -> Option<HostRoute> {
    let seen = crate::inspect::route(reply)?;
    let ip = seen.dst.addr();
    (seen.dst == make::host_net(ip)).then_some(HostRoute {
        ip,
        kind: seen.kind,
        ifindex: seen.ifindex,
        gateway: seen.gateway,
        protocol: seen.protocol,
        table: seen.table,
        metric: seen.metric,
    })
}

impl RouteKind {
    /// `RTN_*` of linux/rtnetlink.h.
    pub(crate) fn from_number(number: u8) -> Self {
        match number {
            1 => RouteKind::Unicast,
            2 => RouteKind::Local,
            6 => RouteKind::Blackhole,
            7 => RouteKind::Unreachable,
            8 => RouteKind::Prohibit,
            other => RouteKind::Other(other),
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            RouteKind::Unicast => 1,
            RouteKind::Local => 2,
            RouteKind::Blackhole => 6,
            RouteKind::Unreachable => 7,
            RouteKind::Prohibit => 8,
            RouteKind::Other(other) => other,
        }
    }
}
