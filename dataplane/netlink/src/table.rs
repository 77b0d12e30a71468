//! Routes of the daemon: the table is brought to what is wished, and nobody else's route is touched.
//!
//! Ours are told by protocol and metric. A route of another protocol or metric to the same network
//! stays; by metric it has precedence over ours, as a pod's own route must.

use crate::inspect::{self, PodRouteSeen};
use crate::make;
use crate::request::{AttrWriter, Request};
use crate::route::RouteKind;
use crate::{Error, Nl};
use ipnet::IpNet;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// `rtm_protocol` of the daemon's routes: Calico's for the same routes, so that they are taken over.
pub const NODE_PROTOCOL: u8 = 80;
/// Behind pods' routes (0; IPv6: 1024).
pub const NODE_METRIC: u32 = 2048;
/// `RT_TABLE_MAIN`.
pub const MAIN_TABLE: u32 = 254;

/// Of linux/rtnetlink.h: the gateway is on the link.
const RTNH_F_ONLINK: u8 = 4;

/// Requests in one write: their failures must fit into the socket's buffer.
const BATCH: usize = 128;

/// Where the packets to a network go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRoute {
    Blackhole,
    /// To the next table that has a route.
    Throw,
    /// Straight to the link.
    Link(u32),
    /// To a gateway that is taken to be on the link, whatever its address.
    Via {
        ifindex: u32,
        gateway: IpAddr,
    },
}

/// A routing table, or the part of one that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    pub id: u32,
    pub protocol: u8,
    pub metric: u32,
}

impl Table {
    /// The daemon's part of a table.
    pub fn of_node(id: u32) -> Self {
        Table { id, protocol: NODE_PROTOCOL, metric: NODE_METRIC }
    }
}

/// What a synchronisation did.
#[derive(Debug, Default)]
pub struct Synced {
    /// Routes set or removed.
    pub changed: usize,
    /// Those that the kernel refused; the others are in place.
    pub refused: Vec<(IpNet, Error)>,
}

/// Makes the table hold exactly these routes of ours.
///
/// # Errors
/// When the table cannot be read, or the kernel does not answer.
pub fn sync_routes(nl: &mut Nl, table: Table, wish: &BTreeMap<IpNet, NodeRoute>) -> Result<Synced, Error> {
    let seen = ours(nl, table)?;
    let mut there = BTreeMap::new();
    let mut removals = Vec::new();
    for route in seen {
        let is_wished = route.metric == table.metric
            && wish.get(&route.dst).is_some_and(|wish| wish.is(&route))
            && there.insert(route.dst, ()).is_none();
        if !is_wished {
            removals.push(route);
        }
    }
    let additions: Vec<_> = wish.iter().filter(|(dst, _)| !there.contains_key(*dst)).collect();
    let batch: Vec<_> = additions.iter().map(|(dst, route)| (**dst, put(table, **dst, **route))).collect();
    let mut synced = Synced::default();
    send(nl, batch, &mut synced)?;
    // What was replaced is gone already.
    let is_left = |route: &&PodRouteSeen| route.metric != table.metric || !wish.contains_key(&route.dst);
    let batch = removals.iter().filter(is_left).map(|r| (r.dst, removal(table, r.dst, r.metric))).collect();
    send(nl, batch, &mut synced)?;
    Ok(synced)
}

/// Sets and removes (`None`) single routes, without looking at the others.
///
/// # Errors
/// When the kernel does not answer.
pub fn change_routes(
    nl: &mut Nl,
    table: Table,
    changes: &[(IpNet, Option<NodeRoute>)],
) -> Result<Synced, Error> {
    let request = |(dst, route): &(IpNet, Option<NodeRoute>)| match route {
        Some(route) => (*dst, put(table, *dst, *route)),
        None => (*dst, removal(table, *dst, table.metric)),
    };
    let mut synced = Synced::default();
    send(nl, changes.iter().map(request).collect(), &mut synced)?;
    Ok(synced)
}

fn ours(nl: &mut Nl, table: Table) -> Result<Vec<PodRouteSeen>, Error> {
    let make = |flags| {
        let mut header = [0; 12];
        header[5] = table.protocol;
        Request::raw("list routes", "of the daemon", libc::RTM_GETROUTE, flags, &header)
    };
    let keep = |route: &PodRouteSeen| {
        route.table == table.id && route.protocol == table.protocol && !is_to_a_pod(route, table)
    };
    nl.dump_filtered(make, |reply| inspect::route(&reply).filter(keep))
}

/// A route of newer Felix to a pod: one address, straight to a link. The pod is reached by it.
fn is_to_a_pod(route: &PodRouteSeen, table: Table) -> bool {
    let alone = route.dst.prefix_len() == route.dst.max_prefix_len();
    alone && route.kind == RouteKind::Unicast && route.gateway.is_none() && route.metric != table.metric
}

fn send(nl: &mut Nl, requests: Vec<(IpNet, Request)>, synced: &mut Synced) -> Result<(), Error> {
    let (nets, requests): (Vec<IpNet>, Vec<Request>) = requests.into_iter().unzip();
    for (nets, requests) in nets.chunks(BATCH).zip(requests.chunks(BATCH)) {
        for (net, outcome) in nets.iter().zip(nl.batch(requests)?) {
            match (outcome.errno(), outcome.failed) {
                (None, None) => synced.changed += 1,
                // Of a removal: it is gone.
                (Some(Errno::SRCH), _) => {}
                (_, Some(error)) => synced.refused.push((*net, error)),
                (Some(_), None) => {}
            }
        }
    }
    Ok(())
}

fn put(table: Table, dst: IpNet, route: NodeRoute) -> Request {
    let body = body(table, dst, table.metric, Some(route));
    Request::raw("set route", dst, libc::RTM_NEWROUTE, make::PUT, body.bytes())
}

fn removal(table: Table, dst: IpNet, metric: u32) -> Request {
    let body = body(table, dst, metric, None);
    Request::raw("remove route", dst, libc::RTM_DELROUTE, 0, body.bytes())
}

/// `struct rtmsg` and its attributes (linux/rtnetlink.h). Without a route: whatever it is.
fn body(table: Table, dst: IpNet, metric: u32, route: Option<NodeRoute>) -> AttrWriter {
    let (kind, scope, flags) = match route {
        None => (libc::RTN_UNSPEC, libc::RT_SCOPE_NOWHERE, 0),
        Some(NodeRoute::Blackhole) => (libc::RTN_BLACKHOLE, libc::RT_SCOPE_UNIVERSE, 0),
        Some(NodeRoute::Throw) => (libc::RTN_THROW, libc::RT_SCOPE_UNIVERSE, 0),
        Some(NodeRoute::Link(_)) => (libc::RTN_UNICAST, libc::RT_SCOPE_LINK, 0),
        Some(NodeRoute::Via { .. }) => (libc::RTN_UNICAST, libc::RT_SCOPE_UNIVERSE, RTNH_F_ONLINK),
    };
    let family = if dst.addr().is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let mut header = [family, dst.prefix_len(), 0, 0, 0, table.protocol, scope, kind, 0, 0, 0, 0];
    header[8..].copy_from_slice(&u32::from(flags).to_ne_bytes());
    let mut body = AttrWriter::with_header(&header)
        .put(libc::RTA_TABLE, &table.id.to_ne_bytes())
        .put(libc::RTA_DST, &octets(dst.network()))
        .put(libc::RTA_PRIORITY, &metric.to_ne_bytes());
    match route {
        Some(NodeRoute::Link(ifindex)) => body = body.put(libc::RTA_OIF, &ifindex.to_ne_bytes()),
        Some(NodeRoute::Via { ifindex, gateway }) => {
            body = body.put(libc::RTA_OIF, &ifindex.to_ne_bytes()).put(libc::RTA_GATEWAY, &octets(gateway));
        }
        _ => {}
    }
    body
}

pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

impl NodeRoute {
    /// Whether the kernel's route leads there.
    pub fn is(&self, seen: &PodRouteSeen) -> bool {
        match *self {
            NodeRoute::Blackhole => seen.kind == RouteKind::Blackhole,
            NodeRoute::Throw => seen.kind == RouteKind::Other(libc::RTN_THROW),
            NodeRoute::Link(index) => {
                seen.kind == RouteKind::Unicast && seen.ifindex == Some(index) && seen.gateway.is_none()
            }
            NodeRoute::Via { ifindex, gateway } => {
                seen.kind == RouteKind::Unicast
                    && seen.ifindex == Some(ifindex)
                    && seen.gateway == Some(gateway)
            }
        }
    }
}
