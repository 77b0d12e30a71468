//! Whom a VXLAN link reaches: forwarding entries (MAC to node) and permanent neighbours (inner address
//! to MAC). Everything on the link is ours.

use crate::make;
use crate::reply::{Reply, ip_of, u32_at};
use crate::request::{AttrWriter, Request};
use crate::table::octets;
use crate::{Error, Nl};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::net::IpAddr;

const NTF_SELF: u8 = 2;
const NUD_PERMANENT: u16 = 0x80;
/// Requests in one write.
const BATCH: usize = 128;

/// The other end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VtepEntry {
    pub mac: [u8; 6],
    /// Inside the tunnel.
    pub inner: IpAddr,
    /// The node's own.
    pub outer: IpAddr,
}

/// Makes the link know exactly these; the number of entries that were changed.
///
/// # Errors
/// The kernel's.
pub fn sync_vteps(nl: &mut Nl, ifindex: u32, is_v4: bool, wish: &[VtepEntry]) -> Result<usize, Error> {
    let forwarding: BTreeMap<[u8; 6], IpAddr> = wish.iter().map(|v| (v.mac, v.outer)).collect();
    let neighbours: BTreeMap<IpAddr, [u8; 6]> = wish.iter().map(|v| (v.inner, v.mac)).collect();
    let mut batch = forwarding_changes(nl, ifindex, &forwarding)?;
    batch.extend(neighbour_changes(nl, ifindex, is_v4, &neighbours)?);
    for part in batch.chunks(BATCH) {
        for outcome in nl.batch(part)? {
            match outcome.errno() {
                // Of a removal: it is gone.
                Some(Errno::NOENT) => {}
                _ => drop(outcome.ok()?),
            }
        }
    }
    Ok(batch.len())
}

fn forwarding_changes(
    nl: &mut Nl,
    ifindex: u32,
    wish: &BTreeMap<[u8; 6], IpAddr>,
) -> Result<Vec<Request>, Error> {
    let make = |flags| {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        Request::route("list forwarding entries", ifindex, RouteNetlinkMessage::GetNeighbour(message), flags)
    };
    let seen = nl.dump(make, |reply| entry(&reply).filter(|entry| entry.ifindex == ifindex))?;
    let mut batch = Vec::new();
    let mut there = BTreeMap::new();
    for entry in &seen {
        let (Some(mac), Some(ip)) = (entry.mac, entry.ip) else { continue };
        if wish.get(&mac) == Some(&ip) && entry.permanent {
            there.insert(mac, ip);
        } else if !wish.contains_key(&mac) || there.contains_key(&mac) {
            batch.push(forwarding(libc::RTM_DELNEIGH, 0, ifindex, mac, ip));
        }
    }
    let missing = wish.iter().filter(|(mac, _)| !there.contains_key(*mac));
    batch.extend(missing.map(|(mac, ip)| forwarding(libc::RTM_NEWNEIGH, make::PUT, ifindex, *mac, *ip)));
    Ok(batch)
}

fn neighbour_changes(
    nl: &mut Nl,
    ifindex: u32,
    is_v4: bool,
    wish: &BTreeMap<IpAddr, [u8; 6]>,
) -> Result<Vec<Request>, Error> {
    let make = |flags| {
        let mut message = NeighbourMessage::default();
        message.header.family = if is_v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        Request::route("list neighbours", ifindex, RouteNetlinkMessage::GetNeighbour(message), flags)
    };
    let seen = nl.dump(make, |reply| entry(&reply).filter(|entry| entry.ifindex == ifindex))?;
    let is_wished = |entry: &&Entry| {
        entry.permanent
            && entry.ip.is_some_and(|ip| wish.get(&ip).copied() == entry.mac && entry.mac.is_some())
    };
    let there: Vec<IpAddr> = seen.iter().filter(is_wished).filter_map(|entry| entry.ip).collect();
    let is_ours = |entry: &&Entry| entry.permanent && entry.ip.is_some_and(|ip| !ip.is_multicast());
    let stray = seen.iter().filter(is_ours).filter_map(|entry| entry.ip).filter(|ip| !wish.contains_key(ip));
    let mut batch: Vec<Request> = stray.map(|ip| neighbour_removal(ifindex, ip)).collect();
    let missing = wish.iter().filter(|(ip, _)| !there.contains(ip));
    batch.extend(missing.map(|(ip, mac)| make::permanent_neighbour(ifindex, *ip, *mac)));
    Ok(batch)
}

/// `struct ndmsg` (linux/neighbour.h) and its attributes.
struct Entry {
    ifindex: u32,
    ip: Option<IpAddr>,
    mac: Option<[u8; 6]>,
    permanent: bool,
}

fn entry(reply: &Reply) -> Option<Entry> {
    let (header, attrs) = reply.split(12).filter(|_| reply.kind == libc::RTM_NEWNEIGH)?;
    let state = u16::from_ne_bytes([header[8], header[9]]);
    Some(Entry {
        ifindex: u32_at(&header[4..])?,
        ip: attrs.get(libc::NDA_DST).and_then(ip_of),
        mac: attrs.get(libc::NDA_LLADDR).and_then(|mac| mac.try_into().ok()),
        permanent: state & NUD_PERMANENT != 0,
    })
}

fn forwarding(kind: u16, flags: u16, ifindex: u32, mac: [u8; 6], ip: IpAddr) -> Request {
    let body = header(libc::AF_BRIDGE as u8, ifindex, NTF_SELF)
        .put(libc::NDA_LLADDR, &mac)
        .put(libc::NDA_DST, &octets(ip));
    Request::raw("set forwarding entry", ip, kind, flags, body.bytes())
}

fn neighbour_removal(ifindex: u32, ip: IpAddr) -> Request {
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let body = header(family as u8, ifindex, 0).put(libc::NDA_DST, &octets(ip));
    Request::raw("remove neighbour", ip, libc::RTM_DELNEIGH, 0, body.bytes())
}

fn header(family: u8, ifindex: u32, flags: u8) -> AttrWriter {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    header[10] = flags;
    AttrWriter::with_header(&header)
}
