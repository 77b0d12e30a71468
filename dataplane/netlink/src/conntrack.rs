//! Forgetting the flows of an address before it goes to another owner.

use crate::reply::Reply;
use crate::request::{AttrWriter, Request};
use crate::{Error, Nl};
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Numbers of linux/netfilter/nfnetlink_conntrack.h.
mod ct {
    pub const SUBSYS: u16 = 1;
    pub const MSG_GET: u16 = 1;
    pub const MSG_DELETE: u16 = 2;
    pub const TUPLE_ORIG: u16 = 1;
    pub const TUPLE_REPLY: u16 = 2;
    pub const ID: u16 = 12;
    pub const ZONE: u16 = 18;
    pub const FILTER: u16 = 25;
    pub const FILTER_ORIG_FLAGS: u16 = 1;
    pub const FILTER_REPLY_FLAGS: u16 = 2;
    pub const FILTER_IP_SRC: u32 = 1;
    pub const FILTER_IP_DST: u32 = 2;
    pub const TUPLE_IP: u16 = 1;
    pub const IP_V4_SRC: u16 = 1;
    pub const IP_V4_DST: u16 = 2;
    pub const IP_V6_SRC: u16 = 3;
    pub const IP_V6_DST: u16 = 4;
}

/// Where an address can stand in a flow that concerns its pod: it opened the flow, or was called
/// directly, or was called by a service address (then it answers, and stands nowhere else).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    OriginalSource,
    OriginalDestination,
    ReplySource,
}

impl Place {
    const ALL: [Place; 3] = [Place::OriginalSource, Place::OriginalDestination, Place::ReplySource];

    fn tuple(self) -> u16 {
        if self == Place::ReplySource { ct::TUPLE_REPLY } else { ct::TUPLE_ORIG }
    }

    fn attribute(self, v4: bool) -> u16 {
        match (v4, self == Place::OriginalDestination) {
            (true, false) => ct::IP_V4_SRC,
            (true, true) => ct::IP_V4_DST,
            (false, false) => ct::IP_V6_SRC,
            (false, true) => ct::IP_V6_DST,
        }
    }
}

/// Deletes the connection tracking entries of these addresses, in the calling thread's namespace.
/// Without connection tracking, or without any flow, it costs reading one small file.
///
/// # Errors
/// `Refused`, `Io`, `TimedOut` from the kernel.
pub fn flush_conntrack(addresses: &[IpAddr], timeout: Duration) -> Result<(), Error> {
    if addresses.is_empty() || !has_flows() {
        return Ok(());
    }
    let mut nl = Nl::open(netlink_sys::protocols::NETLINK_NETFILTER, timeout)?;
    if !by_filter(&mut nl, addresses)? {
        one_by_one(&mut nl, libc::AF_INET, addresses)?;
    }
    if addresses.iter().any(IpAddr::is_ipv6) {
        one_by_one(&mut nl, libc::AF_INET6, addresses)?;
    }
    Ok(())
}

/// Asked of `/proc` and not of netlink, which would load the module.
fn has_flows() -> bool {
    crate::sysctl::read("/proc/sys/net/netfilter/nf_conntrack_count").is_ok_and(|count| count != "0")
}

/// Lets the kernel find and delete the IPv4 ones; false when it cannot (before 6.8).
///
/// IPv6 is left out: kernels up to 6.18 at least compare IPv6 addresses the wrong way round here
/// (ctnetlink_filter_match_tuple), and would delete the flows of everybody else.
fn by_filter(nl: &mut Nl, addresses: &[IpAddr]) -> Result<bool, Error> {
    let v4 = addresses.iter().filter_map(|ip| if let IpAddr::V4(v4) = ip { Some(*v4) } else { None });
    for (ip, place) in v4.flat_map(|ip| Place::ALL.map(|place| (ip, place))) {
        let outcome = nl.ask(delete_matching(ip, place))?;
        match outcome.errno() {
            Some(Errno::OPNOTSUPP | Errno::INVAL) => return Ok(false),
            Some(Errno::NOENT) => {}
            _ => drop(outcome.ok()?),
        }
    }
    Ok(true)
}

fn delete_matching(ip: Ipv4Addr, place: Place) -> Request {
    let body = filtered(ip, place);
    Request::raw("delete flows of", ip, ct::SUBSYS << 8 | ct::MSG_DELETE, 0, body.bytes())
}

/// Goes through all flows of the family.
fn one_by_one(nl: &mut Nl, family: i32, addresses: &[IpAddr]) -> Result<(), Error> {
    let make = |flags| {
        Request::raw("list flows", "of a family", ct::SUBSYS << 8 | ct::MSG_GET, flags, &header(family))
    };
    let flows = nl.dump(make, |flow| {
        let ip = addresses.iter().find(|ip| concerns(&flow, **ip)).copied();
        ip.map(|ip| (flow, ip))
    })?;
    flows.iter().try_for_each(|(flow, ip)| delete_one(nl, flow, *ip))
}

fn concerns(flow: &Reply, ip: IpAddr) -> bool {
    Place::ALL.iter().any(|place| address_at(flow, ip.is_ipv4(), *place) == Some(ip))
}

/// Exactly this flow: the kernel's own description of it, given back.
fn delete_one(nl: &mut Nl, flow: &Reply, ip: IpAddr) -> Result<(), Error> {
    let Some((head, attrs)) = flow.split(4) else { return Ok(()) };
    let mut body = AttrWriter::with_header(head);
    for (kind, value) in attrs.iter().filter(|(kind, _)| [ct::TUPLE_ORIG, ct::ZONE, ct::ID].contains(kind)) {
        let nested = if kind == ct::TUPLE_ORIG { netlink_packet_core::NLA_F_NESTED } else { 0 };
        body = body.put(kind | nested, value);
    }
    let request = Request::raw("delete flow of", ip, ct::SUBSYS << 8 | ct::MSG_DELETE, 0, body.bytes());
    let outcome = nl.ask(request)?;
    match outcome.errno() {
        Some(Errno::NOENT) => Ok(()),
        _ => outcome.ok().map(drop),
    }
}

/// The tuple always comes along: without it a kernel that does not know the filter would take the
/// request for one to delete everything.
fn filtered(ip: Ipv4Addr, place: Place) -> AttrWriter {
    let address = AttrWriter::default().put(place.attribute(true), &ip.octets());
    let tuple = AttrWriter::default().nest(ct::TUPLE_IP, address);
    let flag = match place {
        Place::OriginalDestination => ct::FILTER_IP_DST,
        Place::OriginalSource | Place::ReplySource => ct::FILTER_IP_SRC,
    };
    let (original, reply) = if place == Place::ReplySource { (0, flag) } else { (flag, 0) };
    let filter = AttrWriter::default()
        .put(ct::FILTER_ORIG_FLAGS, &original.to_ne_bytes())
        .put(ct::FILTER_REPLY_FLAGS, &reply.to_ne_bytes());
    AttrWriter::with_header(&header(libc::AF_INET)).nest(place.tuple(), tuple).nest(ct::FILTER, filter)
}

fn address_at(flow: &Reply, v4: bool, place: Place) -> Option<IpAddr> {
    let (_, attrs) = flow.split(4)?;
    attrs.nested(place.tuple())?.nested(ct::TUPLE_IP)?.ip(place.attribute(v4))
}

/// `struct nfgenmsg`: family, version, resource. Before deletion looks at the family it wants a
/// version above 0.
fn header(family: i32) -> [u8; 4] {
    [family as u8, 1, 0, 0]
}
