//! Forgetting the flows of an address before it goes to another owner.

use crate::reply::{Attrs, Reply};
use crate::request::{AttrWriter, Request};
use crate::{Error, Nl};
use rustix::io::Errno;
use std::net::IpAddr;
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
const PLACES: [Place; 3] = [Place::OriginalSource, Place::OriginalDestination, Place::ReplySource];

#[derive(Debug, Clone, Copy)]
enum Place {
    OriginalSource,
    OriginalDestination,
    ReplySource,
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
    for (ip, place) in addresses.iter().flat_map(|ip| PLACES.map(|place| (*ip, place))) {
        flush_place(&mut nl, ip, place)?;
    }
    Ok(())
}

/// Asked of `/proc` and not of netlink, which would load the module.
fn has_flows() -> bool {
    crate::sysctl::read("/proc/sys/net/netfilter/nf_conntrack_count").is_ok_and(|count| count != "0")
}

fn flush_place(nl: &mut Nl, ip: IpAddr, place: Place) -> Result<(), Error> {
    let outcome = nl.ask(delete_matching(ip, place))?;
    match outcome.errno() {
        Some(Errno::NOENT) => Ok(()),
        // Before 6.8 the kernel deletes one entry or all, but none by a filter.
        Some(Errno::OPNOTSUPP | Errno::INVAL) => flush_one_by_one(nl, ip, place),
        _ => outcome.ok().map(drop),
    }
}

fn flush_one_by_one(nl: &mut Nl, ip: IpAddr, place: Place) -> Result<(), Error> {
    let body = filtered(ip, place);
    let flows = nl.dump(|flags| {
        Request::raw("list flows of", ip, ct::SUBSYS << 8 | ct::MSG_GET, flags, body.bytes())
    })?;
    // A kernel before 5.8 ignores the filter and lists all.
    for flow in flows.iter().filter(|flow| address_at(flow, ip, place) == Some(ip)) {
        let outcome = nl.ask(delete_one(flow, ip))?;
        match outcome.errno() {
            Some(Errno::NOENT) => {}
            _ => drop(outcome.ok()?),
        }
    }
    Ok(())
}

fn delete_matching(ip: IpAddr, place: Place) -> Request {
    let body = filtered(ip, place);
    Request::raw("delete flows of", ip, ct::SUBSYS << 8 | ct::MSG_DELETE, 0, body.bytes())
}

/// The tuple always comes along: without it a kernel that does not know the filter would take the
/// request for one to delete everything.
fn filtered(ip: IpAddr, place: Place) -> AttrWriter {
    let tuple = AttrWriter::default()
        .nest(ct::TUPLE_IP, AttrWriter::default().put(address_attribute(ip, place), &octets(ip)));
    let flags =
        if matches!(place, Place::OriginalDestination) { ct::FILTER_IP_DST } else { ct::FILTER_IP_SRC };
    let (tuple_kind, original, reply) = match place {
        Place::OriginalSource | Place::OriginalDestination => (ct::TUPLE_ORIG, flags, 0),
        Place::ReplySource => (ct::TUPLE_REPLY, 0, flags),
    };
    let filter = AttrWriter::default()
        .put(ct::FILTER_ORIG_FLAGS, &original.to_ne_bytes())
        .put(ct::FILTER_REPLY_FLAGS, &reply.to_ne_bytes());
    AttrWriter::with_header(&header(ip)).nest(tuple_kind, tuple).nest(ct::FILTER, filter)
}

/// Exactly this flow: the kernel's own description of it, given back.
fn delete_one(flow: &Reply, ip: IpAddr) -> Request {
    let mut body = AttrWriter::with_header(&header(ip));
    if let Some((_, attrs)) = flow.split(4) {
        for (kind, value) in
            attrs.iter().filter(|(kind, _)| [ct::TUPLE_ORIG, ct::ZONE, ct::ID].contains(kind))
        {
            let nested = if kind == ct::TUPLE_ORIG { netlink_packet_core::NLA_F_NESTED } else { 0 };
            body = body.put(kind | nested, value);
        }
    }
    Request::raw("delete flow of", ip, ct::SUBSYS << 8 | ct::MSG_DELETE, 0, body.bytes())
}

fn address_at(flow: &Reply, ip: IpAddr, place: Place) -> Option<IpAddr> {
    let (_, attrs) = flow.split(4)?;
    let tuple = match place {
        Place::OriginalSource | Place::OriginalDestination => ct::TUPLE_ORIG,
        Place::ReplySource => ct::TUPLE_REPLY,
    };
    let addresses: Attrs<'_> = attrs.nested(tuple)?.nested(ct::TUPLE_IP)?;
    addresses.ip(address_attribute(ip, place))
}

fn address_attribute(ip: IpAddr, place: Place) -> u16 {
    match (ip, place) {
        (IpAddr::V4(_), Place::OriginalDestination) => ct::IP_V4_DST,
        (IpAddr::V4(_), _) => ct::IP_V4_SRC,
        (IpAddr::V6(_), Place::OriginalDestination) => ct::IP_V6_DST,
        (IpAddr::V6(_), _) => ct::IP_V6_SRC,
    }
}

/// `struct nfgenmsg`: family, version, resource.
fn header(ip: IpAddr) -> [u8; 4] {
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    [family as u8, 0, 0, 0]
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
