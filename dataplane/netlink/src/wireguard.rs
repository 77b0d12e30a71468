//! WireGuard links by generic netlink (linux/wireguard.h): key, port, mark, peers.

use crate::reply::{Attrs, Reply};
use crate::request::{AttrWriter, Request};
use crate::table::octets;
use crate::{Error, Nl};
use ipnet::IpNet;
use netlink_packet_core::NLA_F_NESTED;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Attribute and command numbers.
mod wg {
    pub const GET_DEVICE: u8 = 0;
    pub const SET_DEVICE: u8 = 1;
    pub const IFNAME: u16 = 2;
    pub const PRIVATE_KEY: u16 = 3;
    pub const PUBLIC_KEY: u16 = 4;
    pub const LISTEN_PORT: u16 = 6;
    pub const FWMARK: u16 = 7;
    pub const PEERS: u16 = 8;
    pub const PEER_PUBLIC_KEY: u16 = 1;
    pub const PEER_FLAGS: u16 = 3;
    pub const PEER_ENDPOINT: u16 = 4;
    pub const PEER_ALLOWED: u16 = 9;
    pub const ALLOWED_FAMILY: u16 = 1;
    pub const ALLOWED_IP: u16 = 2;
    pub const ALLOWED_MASK: u16 = 3;
    pub const REMOVE: u32 = 1;
    pub const REPLACE_ALLOWED: u32 = 2;
}
/// Allowed networks in one message, far below an attribute's 64 KiB.
const CHUNK: usize = 1000;

pub type WireguardKey = [u8; 32];

/// A peer of a WireGuard link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireguardPeer {
    pub endpoint: SocketAddr,
    pub allowed: BTreeSet<IpNet>,
}

/// What a WireGuard link holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WireguardState {
    pub private_key: Option<WireguardKey>,
    pub public_key: Option<WireguardKey>,
    pub port: u16,
    pub fwmark: u32,
    pub peers: BTreeMap<WireguardKey, WireguardPeer>,
}

/// Looks at a link.
///
/// # Errors
/// The kernel's; `Refused` with `ENOENT` where it has no WireGuard, `ENODEV` without the link.
pub fn wireguard_state(name: &str, timeout: std::time::Duration) -> Result<WireguardState, Error> {
    let mut nl = open(timeout)?;
    let family = family(&mut nl)?;
    state(&mut nl, family, name)
}

/// Gives the link its key (made from `random` where it has none), port, mark and exactly these peers;
/// tells its state afterwards, and whether anything was changed. Only differences are sent.
///
/// # Errors
/// As [`wireguard_state`].
pub fn sync_wireguard(
    name: &str,
    port: u16,
    fwmark: u32,
    random: WireguardKey,
    peers: &BTreeMap<WireguardKey, WireguardPeer>,
    timeout: std::time::Duration,
) -> Result<(WireguardState, bool), Error> {
    let mut nl = open(timeout)?;
    let family = family(&mut nl)?;
    let seen = state(&mut nl, family, name)?;
    let mut batch = Vec::new();
    if seen.private_key.is_none() || seen.port != port || seen.fwmark != fwmark {
        let mut body = device(wg::SET_DEVICE, name);
        if seen.private_key.is_none() {
            body = body.put(wg::PRIVATE_KEY, &clamped(random));
        }
        let body = body.put(wg::LISTEN_PORT, &port.to_ne_bytes()).put(wg::FWMARK, &fwmark.to_ne_bytes());
        batch.push(Request::raw("set up WireGuard", name, family, 0, body.bytes()));
    }
    for key in seen.peers.keys().filter(|key| !peers.contains_key(*key)) {
        batch.push(peer_request(family, name, key, Some(wg::REMOVE), None, &[]));
    }
    for (key, peer) in peers.iter().filter(|(key, peer)| seen.peers.get(*key) != Some(peer)) {
        batch.extend(peer_requests(family, name, key, peer));
    }
    if batch.is_empty() {
        return Ok((seen, false));
    }
    for request in batch {
        nl.must(std::slice::from_ref(&request))?;
    }
    Ok((state(&mut nl, family, name)?, true))
}

fn open(timeout: std::time::Duration) -> Result<Nl, Error> {
    Nl::open(netlink_sys::protocols::NETLINK_GENERIC, timeout)
}

/// The number that generic netlink gave to WireGuard.
fn family(nl: &mut Nl) -> Result<u16, Error> {
    const GENL_ID_CTRL: u16 = 16;
    const CTRL_CMD_GETFAMILY: u8 = 3;
    const FAMILY_ID: u16 = 1;
    const FAMILY_NAME: u16 = 2;
    let body = AttrWriter::with_header(&[CTRL_CMD_GETFAMILY, 1, 0, 0]).text(FAMILY_NAME, "wireguard");
    let request = Request::raw_question("look up", "WireGuard", GENL_ID_CTRL, body.bytes());
    let replies = nl.ask(request)?.ok()?;
    let id = |reply: &Reply| {
        let (_, attrs) = reply.split(4)?;
        attrs.get(FAMILY_ID)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
    };
    replies.iter().find_map(id).ok_or(Error::Malformed { op: "look up", subject: "WireGuard".into() })
}

fn device(command: u8, name: &str) -> AttrWriter {
    AttrWriter::with_header(&[command, 1, 0, 0]).text(wg::IFNAME, name)
}

fn state(nl: &mut Nl, family: u16, name: &str) -> Result<WireguardState, Error> {
    let body = device(wg::GET_DEVICE, name);
    let make = |flags| Request::raw("look at WireGuard", name, family, flags, body.bytes());
    Ok(read(&nl.dump(make, Some)?))
}

/// All parts of an answer.
pub(crate) fn read(parts: &[Reply]) -> WireguardState {
    let mut state = WireguardState::default();
    for attrs in parts.iter().filter_map(|reply| reply.split(4)).map(|(_, attrs)| attrs) {
        let key = |kind| attrs.get(kind).and_then(|key| WireguardKey::try_from(key).ok());
        state.private_key = key(wg::PRIVATE_KEY).filter(|key| *key != [0; 32]).or(state.private_key);
        state.public_key = key(wg::PUBLIC_KEY).filter(|key| *key != [0; 32]).or(state.public_key);
        if let Some(port) = attrs.get(wg::LISTEN_PORT).and_then(|port| port.try_into().ok()) {
            state.port = u16::from_ne_bytes(port);
        }
        state.fwmark = attrs.u32(wg::FWMARK).unwrap_or(state.fwmark);
        let peers = attrs.nested(wg::PEERS).into_iter().flat_map(Attrs::iter);
        for (key, endpoint, allowed) in peers.filter_map(|(_, peer)| read_peer(Attrs(peer))) {
            // A long list of allowed networks comes in several parts.
            let peer = state.peers.entry(key).or_insert(WireguardPeer { endpoint, allowed: BTreeSet::new() });
            peer.allowed.extend(allowed);
        }
    }
    state
}

fn read_peer(peer: Attrs) -> Option<(WireguardKey, SocketAddr, BTreeSet<IpNet>)> {
    let key = peer.get(wg::PEER_PUBLIC_KEY)?.try_into().ok()?;
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let endpoint = peer.get(wg::PEER_ENDPOINT).and_then(read_endpoint).unwrap_or(nowhere);
    let allowed = peer.nested(wg::PEER_ALLOWED).into_iter().flat_map(Attrs::iter);
    Some((key, endpoint, allowed.filter_map(|(_, net)| read_allowed(Attrs(net))).collect()))
}

fn read_allowed(net: Attrs) -> Option<IpNet> {
    IpNet::new(net.ip(wg::ALLOWED_IP)?, *net.get(wg::ALLOWED_MASK)?.first()?).ok()
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn read_endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    let family = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
    let ip: IpAddr = match family {
        libc::AF_INET => <[u8; 4]>::try_from(bytes.get(4..8)?).ok()?.into(),
        libc::AF_INET6 => <[u8; 16]>::try_from(bytes.get(8..24)?).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn endpoint(address: SocketAddr) -> Vec<u8> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u16;
    let mut bytes = family.to_ne_bytes().to_vec();
    bytes.extend(address.port().to_be_bytes());
    if address.is_ipv6() {
        bytes.extend([0; 4]);
    }
    bytes.extend(octets(address.ip()));
    bytes.resize(if address.is_ipv4() { 16 } else { 28 }, 0);
    bytes
}

fn peer_requests(family: u16, name: &str, key: &WireguardKey, peer: &WireguardPeer) -> Vec<Request> {
    let allowed: Vec<IpNet> = peer.allowed.iter().copied().collect();
    let (first, rest) = allowed.split_at(allowed.len().min(CHUNK));
    let replace = peer_request(family, name, key, Some(wg::REPLACE_ALLOWED), Some(peer.endpoint), first);
    let more = rest.chunks(CHUNK).map(|part| peer_request(family, name, key, None, None, part));
    std::iter::once(replace).chain(more).collect()
}

fn peer_request(
    family: u16,
    name: &str,
    key: &WireguardKey,
    flags: Option<u32>,
    to: Option<SocketAddr>,
    allowed: &[IpNet],
) -> Request {
    let mut peer = AttrWriter::default().put(wg::PEER_PUBLIC_KEY, key);
    if let Some(flags) = flags {
        peer = peer.put(wg::PEER_FLAGS, &flags.to_ne_bytes());
    }
    if let Some(to) = to {
        peer = peer.put(wg::PEER_ENDPOINT, &endpoint(to));
    }
    if !allowed.is_empty() {
        let list = allowed.iter().fold(AttrWriter::default(), |list, net| list.nest(0, allowed_net(*net)));
        peer = peer.put(wg::PEER_ALLOWED | NLA_F_NESTED, list.bytes());
    }
    let peers = AttrWriter::default().nest(0, peer);
    let body = device(wg::SET_DEVICE, name).nest(wg::PEERS, peers);
    Request::raw("set WireGuard peer of", name, family, 0, body.bytes())
}

fn allowed_net(net: IpNet) -> AttrWriter {
    let family = if net.addr().is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u16;
    AttrWriter::default()
        .put(wg::ALLOWED_FAMILY, &family.to_ne_bytes())
        .put(wg::ALLOWED_IP, &octets(net.network()))
        .put(wg::ALLOWED_MASK, &[net.prefix_len()])
}

/// A private key of Curve25519 (RFC 7748, section 5).
fn clamped(mut random: WireguardKey) -> WireguardKey {
    random[0] &= 248;
    random[31] = (random[31] & 127) | 64;
    random
}
