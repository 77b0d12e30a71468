//! Routes with several next hops, listed, written and removed many at a time: for a routing protocol.
//!
//! Linux, `rtnetlink(7)`. A route is named by table, network and metric: writing one replaces what has the same
//! name, whoever made it, so that an owner chooses a metric that nobody else uses.

use crate::reply::{Attrs, Reply, ip_of, u32_at};
use crate::request::{AttrWriter, Request};
use crate::{Error, Nl, RouteKind};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Requests per write; their bytes must fit the socket's buffer.
const BATCH: usize = 500;

/// linux/rtnetlink.h.
const RTNH_F_DEAD: u8 = 1;
const RTNH_F_ONLINK: u8 = 4;
const RTNH_F_LINKDOWN: u8 = 16;
const RT_TABLE_UNSPEC: u8 = 0;
const RTM_F_CLONED: u32 = 0x200;

/// One way of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FibHop {
    /// None: the network is on the link.
    pub gateway: Option<IpAddr>,
    pub ifindex: u32,
    /// The gateway is on the link although no route says so.
    pub onlink: bool,
}

/// A route as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FibRoute {
    pub net: IpNet,
    pub kind: RouteKind,
    /// Several for ECMP; none for a blackhole.
    pub hops: Vec<FibHop>,
    /// `RTPROT_*` of linux/rtnetlink.h, or one of the free numbers.
    pub protocol: u8,
    /// 254 is main.
    pub table: u32,
    /// IPv6: 0 is written as 1024 by the kernel.
    pub metric: u32,
    /// Some hop cannot be used now (its link is down).
    pub dead: bool,
}

impl FibRoute {
    fn header(&self) -> [u8; 12] {
        let scope = match (self.kind, self.hops.first()) {
            (RouteKind::Unicast, Some(FibHop { gateway: None, .. })) => libc::RT_SCOPE_LINK,
            _ => libc::RT_SCOPE_UNIVERSE,
        };
        let family = if self.net.addr().is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let (len, kind) = (self.net.prefix_len(), self.kind.number());
        [family as u8, len, 0, 0, RT_TABLE_UNSPEC, self.protocol, scope, kind, 0, 0, 0, 0]
    }

    fn name(&self, header: [u8; 12]) -> AttrWriter {
        AttrWriter::with_header(&header)
            .put(libc::RTA_DST, &octets(self.net.network()))
            .put(libc::RTA_TABLE, &self.table.to_ne_bytes())
            .put(libc::RTA_PRIORITY, &self.metric.to_ne_bytes())
    }

    fn addition(&self) -> Request {
        let named = self.name(self.header());
        let body = match &self.hops[..] {
            [] => named,
            [only] => only.alone(self.net.addr().is_ipv4(), named),
            several => named.put(libc::RTA_MULTIPATH, &multipath(self.net.addr().is_ipv4(), several)),
        };
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        Request::raw("write route", self.net, libc::RTM_NEWROUTE, flags, &on_link(self, body))
    }

    fn removal(&self) -> Request {
        let mut header = self.header();
        // Scope and type of what is there may differ; protocol must not: it is the mark.
        header[6] = libc::RT_SCOPE_NOWHERE;
        header[7] = 0;
        Request::raw("remove route", self.net, libc::RTM_DELROUTE, 0, self.name(header).bytes())
    }
}

/// A single hop's flags stand in the header (`rtm_flags`).
fn on_link(route: &FibRoute, body: AttrWriter) -> Vec<u8> {
    let mut bytes = body.bytes().to_vec();
    if let [FibHop { onlink: true, .. }] = route.hops[..] {
        bytes[8] |= RTNH_F_ONLINK;
    }
    bytes
}

impl FibHop {
    fn alone(&self, v4: bool, body: AttrWriter) -> AttrWriter {
        self.gateway_in(v4, body).put(libc::RTA_OIF, &self.ifindex.to_ne_bytes())
    }

    /// A gateway of the other family (RFC 8950) goes into RTA_VIA (since 5.2 for IPv4 routes).
    fn gateway_in(&self, v4: bool, body: AttrWriter) -> AttrWriter {
        match self.gateway {
            None => body,
            Some(gateway) if gateway.is_ipv4() == v4 => body.put(libc::RTA_GATEWAY, &octets(gateway)),
            Some(gateway) => {
                let family = if gateway.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u16;
                body.put(libc::RTA_VIA, &[&family.to_ne_bytes()[..], &octets(gateway)].concat())
            }
        }
    }
}

/// `struct rtnexthop` for each hop, its gateway behind it.
fn multipath(v4: bool, hops: &[FibHop]) -> Vec<u8> {
    let mut out = Vec::new();
    for hop in hops {
        let attrs = hop.gateway_in(v4, AttrWriter::default());
        let len = 8 + attrs.bytes().len() as u16;
        out.extend(len.to_ne_bytes());
        out.extend([if hop.onlink { RTNH_F_ONLINK } else { 0 }, 0]);
        out.extend(hop.ifindex.to_ne_bytes());
        out.extend(attrs.bytes());
    }
    out
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Writes routes, each in place of what has its table, network and metric; the answers have their order.
///
/// # Errors
/// `Io`, `TimedOut` for all of them; `Refused` for each.
pub fn put_fib_routes(nl: &mut Nl, routes: &[FibRoute]) -> Result<Vec<Result<(), Error>>, Error> {
    let mut results = Vec::with_capacity(routes.len());
    for some in routes.chunks(BATCH) {
        let batch: Vec<Request> = some.iter().map(FibRoute::addition).collect();
        results.extend(nl.batch(&batch)?.into_iter().map(|outcome| outcome.ok().map(drop)));
    }
    Ok(results)
}

/// Removes routes of their protocol, table, network and metric; absent ones are fine.
///
/// # Errors
/// As [`put_fib_routes`].
pub fn remove_fib_routes(nl: &mut Nl, routes: &[FibRoute]) -> Result<Vec<Result<(), Error>>, Error> {
    let mut results = Vec::with_capacity(routes.len());
    for some in routes.chunks(BATCH) {
        let batch: Vec<Request> = some.iter().map(FibRoute::removal).collect();
        let removed = nl.batch(&batch)?.into_iter().map(|outcome| match outcome.errno() {
            Some(Errno::SRCH | Errno::NODEV) => Ok(()),
            _ => outcome.ok().map(drop),
        });
        results.extend(removed);
    }
    Ok(results)
}

/// The routes of one table, both families, without the kernel's caches.
///
/// # Errors
/// `Refused`, `Io`, `TimedOut`.
pub fn fib_routes(nl: &mut Nl, table: u32) -> Result<Vec<FibRoute>, Error> {
    let make = |flags| Request::raw("list routes", "of a table", libc::RTM_GETROUTE, flags, &[0; 12]);
    debug_assert_eq!(NLM_F_DUMP, 0x300);
    nl.dump(make, |reply| parse_fib(&reply).filter(|route| route.table == table))
}

/// `struct rtmsg` and its attributes, of a new or a removed route.
pub(crate) fn parse_fib(reply: &Reply) -> Option<FibRoute> {
    let known = [libc::RTM_NEWROUTE, libc::RTM_DELROUTE].contains(&reply.kind);
    let (header, attrs) = reply.split(12).filter(|_| known)?;
    let any: IpAddr = match i32::from(header[0]) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let flags = u32_at(&header[8..])?;
    if flags & RTM_F_CLONED != 0 {
        return None;
    }
    let (hops, dead) = hops(attrs, flags as u8);
    Some(FibRoute {
        net: IpNet::new(attrs.ip(libc::RTA_DST).unwrap_or(any), header[1]).ok()?,
        kind: RouteKind::from_number(header[7]),
        hops,
        protocol: header[5],
        table: attrs.u32(libc::RTA_TABLE).unwrap_or(header[4].into()),
        metric: attrs.u32(libc::RTA_PRIORITY).unwrap_or(0),
        dead,
    })
}

fn hops(attrs: Attrs<'_>, flags: u8) -> (Vec<FibHop>, bool) {
    if let Some(several) = attrs.get(libc::RTA_MULTIPATH) {
        return several_hops(several);
    }
    let hop = attrs.u32(libc::RTA_OIF).map(|ifindex| FibHop {
        gateway: gateway(attrs),
        ifindex,
        onlink: flags & RTNH_F_ONLINK != 0,
    });
    (hop.into_iter().collect(), is_dead(flags))
}

fn several_hops(mut rest: &[u8]) -> (Vec<FibHop>, bool) {
    let (mut hops, mut dead) = (Vec::new(), false);
    while let Some(head) = rest.first_chunk::<8>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let (Some(attrs), Some(ifindex)) = (rest.get(8..len), u32_at(&head[4..])) else { break };
        dead |= is_dead(head[2]);
        hops.push(FibHop { gateway: gateway(Attrs(attrs)), ifindex, onlink: head[2] & RTNH_F_ONLINK != 0 });
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    (hops, dead)
}

fn is_dead(flags: u8) -> bool {
    flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) != 0
}

fn gateway(attrs: Attrs<'_>) -> Option<IpAddr> {
    let via = || ip_of(attrs.get(libc::RTA_VIA)?.get(2..)?);
    attrs.ip(libc::RTA_GATEWAY).or_else(via)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(gateway: &str, ifindex: u32) -> FibHop {
        FibHop { gateway: Some(gateway.parse().unwrap()), ifindex, onlink: false }
    }

    fn route(net: &str, hops: Vec<FibHop>) -> FibRoute {
        let kind = if hops.is_empty() { RouteKind::Blackhole } else { RouteKind::Unicast };
        let net = net.parse().unwrap();
        FibRoute { net, kind, hops, protocol: 179, table: 254, metric: 32, dead: false }
    }

    /// What is written reads back the same.
    #[test]
    fn requests_read_as_routes() {
        let onlink = FibHop { onlink: true, ..hop("10.0.0.9", 3) };
        let routes = [
            route("10.1.0.0/16", vec![hop("10.0.0.2", 3)]),
            route("10.1.0.0/16", vec![hop("10.0.0.2", 3), hop("10.0.1.2", 4)]),
            route("10.2.0.0/16", vec![onlink.clone()]),
            route("10.2.0.0/16", vec![onlink, hop("10.0.1.2", 4)]),
            route("10.3.0.0/24", vec![hop("fd00::1", 3)]),
            route("fd01::/64", vec![hop("fe80::1", 3), hop("fe80::1", 4)]),
            route("10.4.0.0/26", vec![]),
            route("10.5.0.1/32", vec![FibHop { gateway: None, ifindex: 7, onlink: false }]),
        ];
        for route in routes {
            let mut bytes = Vec::new();
            route.addition().append(&mut bytes, 1, false);
            let (header, body, _) = crate::reply::next_message(&bytes).unwrap();
            let reply = Reply { kind: header.kind, body: body.to_vec() };
            assert_eq!(parse_fib(&reply), Some(route));
        }
    }

    #[test]
    fn cut_messages_are_survived() {
        let mut bytes = Vec::new();
        route("10.1.0.0/16", vec![hop("10.0.0.2", 3), hop("10.0.1.2", 4)])
            .addition()
            .append(&mut bytes, 1, false);
        for end in 16..bytes.len() {
            let _ = parse_fib(&Reply { kind: libc::RTM_NEWROUTE, body: bytes[16..end].to_vec() });
        }
    }
}
