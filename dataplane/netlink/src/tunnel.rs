//! The links that carry packets to other nodes: VXLAN, IPIP, WireGuard.

use crate::link::{self, Link};
use crate::make;
use crate::reply::{Attrs, Reply};
use crate::request::{AttrWriter, Request};
use crate::table::octets;
use crate::{Error, Nl, inspect, sysctl};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage};
use rustix::io::Errno;
use std::net::IpAddr;

/// Attribute numbers of linux/if_link.h.
mod ifla {
    pub const ADDRESS: u16 = 1;
    pub const IFNAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const LINKINFO: u16 = 18;
    pub const INFO_KIND: u16 = 1;
    pub const INFO_DATA: u16 = 2;
    pub const VXLAN_ID: u16 = 1;
    pub const VXLAN_LINK: u16 = 3;
    pub const VXLAN_LOCAL: u16 = 4;
    pub const VXLAN_LEARNING: u16 = 7;
    pub const VXLAN_PORT: u16 = 15;
    pub const VXLAN_LOCAL6: u16 = 17;
}

/// Alias of a link that the kernel makes unasked, while it is in use by us.
const OURS: &str = "percale:tunnel";

/// A VXLAN link without learning: whom it reaches is said by [`crate::sync_vteps`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanLink {
    pub name: String,
    pub vni: u32,
    pub port: u16,
    /// Source of the encapsulated packets; its family is that of the tunnel.
    pub local: IpAddr,
    /// The link that they leave by.
    pub parent: u32,
    pub mac: [u8; 6],
    /// Bytes.
    pub mtu: u32,
    /// Our only address of the tunnel's family on it.
    pub address: IpAddr,
}

/// A tunnel that exists, and whether it had to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ensured {
    pub ifindex: u32,
    pub changed: bool,
}

/// Makes the link as wished: made anew where it differs in what cannot be changed.
///
/// # Errors
/// The kernel's; `HostLinkTaken` when another kind of link has the name.
pub fn ensure_vxlan(nl: &mut Nl, wish: &VxlanLink) -> Result<Ensured, Error> {
    let mut changed = false;
    let found = look(nl, &wish.name, "vxlan")?;
    let fits = found.as_ref().is_some_and(|reply| has_data(reply, wish));
    if !fits {
        if let Some(link) = found.as_ref().and_then(link::parse) {
            remove(nl, link.index)?;
        }
        nl.must(&[creation("vxlan", &wish.name, Some(vxlan_data(wish)), Some((wish.mac, wish.mtu)))])?;
        changed = true;
    }
    let link = there(nl, &wish.name)?;
    changed |= finish(nl, &link, Some(wish.mac), wish.mtu)?;
    changed |= sync_addresses(nl, link.index, &wish.name, Some(wish.address), wish.local.is_ipv4())?;
    Ok(Ensured { ifindex: link.index, changed })
}

/// Makes an IPIP link that takes its destination from the route's gateway. (`tunl0` comes with the
/// kernel's module.)
///
/// # Errors
/// As [`ensure_vxlan`]; `Refused` with `EOPNOTSUPP` where the kernel has no IPIP.
pub fn ensure_ipip(nl: &mut Nl, name: &str, address: IpAddr, mtu: u32) -> Result<Ensured, Error> {
    let mut changed = make_plain(nl, "ipip", name)?;
    let link = there(nl, name)?;
    if link.alias.as_deref() != Some(OURS) {
        let alias = vec![LinkAttribute::IfAlias(OURS.to_owned())];
        nl.must(&[make::set_link("mark link", link.index, None, alias)])?;
    }
    changed |= finish(nl, &link, None, mtu)?;
    changed |= sync_addresses(nl, link.index, name, Some(address), true)?;
    Ok(Ensured { ifindex: link.index, changed })
}

/// Makes a WireGuard link; its keys and peers are [`crate::sync_wireguard`]'s.
///
/// # Errors
/// As [`ensure_ipip`].
pub fn ensure_wireguard(
    nl: &mut Nl,
    name: &str,
    address: Option<IpAddr>,
    is_v4: bool,
    mtu: u32,
) -> Result<Ensured, Error> {
    let mut changed = make_plain(nl, "wireguard", name)?;
    let link = there(nl, name)?;
    changed |= finish(nl, &link, None, mtu)?;
    changed |= sync_addresses(nl, link.index, name, address, is_v4)?;
    Ok(Ensured { ifindex: link.index, changed })
}

/// Removes a tunnel of ours; an absent one, or another kind of link of that name, is left. The one
/// that the kernel keeps (`tunl0`) is set down and loses its addresses. True when there was one.
///
/// # Errors
/// The kernel's.
pub fn remove_tunnel(nl: &mut Nl, name: &str, kind: &str) -> Result<bool, Error> {
    let Some(link) = link::link(nl, name)?.filter(|link| link.kind.as_deref() == Some(kind)) else {
        return Ok(false);
    };
    if kind != "ipip" {
        remove(nl, link.index)?;
        return Ok(true);
    }
    if link.alias.as_deref() != Some(OURS) {
        return Ok(false);
    }
    sync_addresses(nl, link.index, name, None, true)?;
    let alias = vec![LinkAttribute::IfAlias(String::new())];
    nl.must(&[make::set_link("set down link", link.index, Some(false), alias)])?;
    Ok(true)
}

/// Sets a link's MTU where it differs; true when it did.
///
/// # Errors
/// The kernel's.
pub fn ensure_mtu(nl: &mut Nl, link: &Link, mtu: u32) -> Result<bool, Error> {
    if link.mtu == mtu {
        return Ok(false);
    }
    nl.must(&[make::set_link("set MTU", link.index, None, vec![LinkAttribute::Mtu(mtu)])])?;
    Ok(true)
}

/// Every address of the namespace with its link and the prefix of its subnet.
///
/// # Errors
/// The kernel's.
pub fn addresses(nl: &mut Nl) -> Result<Vec<(u32, IpNet)>, Error> {
    let seen = inspect::addresses(nl, |_| true)?;
    Ok(seen.into_iter().map(|address| (address.ifindex, address.net)).collect())
}

fn there(nl: &mut Nl, name: &str) -> Result<Link, Error> {
    link::link(nl, name)?.ok_or_else(|| Error::NoHostLink { name: name.to_owned() })
}

/// The link of this name, if it is of this kind.
fn look(nl: &mut Nl, name: &str, kind: &str) -> Result<Option<Reply>, Error> {
    let Some(reply) = link::one(nl.ask(link::get_by_name(name))?)? else { return Ok(None) };
    match link::parse(&reply) {
        Some(link) if link.kind.as_deref() == Some(kind) => Ok(Some(reply)),
        Some(link) => Err(Error::HostLinkTaken { name: link.name, alias: link.alias }),
        None => Ok(None),
    }
}

fn make_plain(nl: &mut Nl, kind: &str, name: &str) -> Result<bool, Error> {
    if look(nl, name, kind)?.is_some() {
        return Ok(false);
    }
    let outcome = nl.ask(creation(kind, name, None, None))?;
    match outcome.errno() {
        // The module brought it along.
        Some(Errno::EXIST) => Ok(true),
        _ => outcome.ok().map(|_| true),
    }
}

fn creation(
    kind: &str,
    name: &str,
    data: Option<AttrWriter>,
    mac_and_mtu: Option<([u8; 6], u32)>,
) -> Request {
    let mut info = AttrWriter::default().text(ifla::INFO_KIND, kind);
    if let Some(data) = data {
        info = info.nest(ifla::INFO_DATA, data);
    }
    let mut body = AttrWriter::with_header(&[0; 16]).text(ifla::IFNAME, name);
    if let Some((mac, mtu)) = mac_and_mtu {
        body = body.put(ifla::ADDRESS, &mac).put(ifla::MTU, &mtu.to_ne_bytes());
    }
    let body = body.nest(ifla::LINKINFO, info);
    Request::raw("make link", name, libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body.bytes())
}

fn vxlan_data(wish: &VxlanLink) -> AttrWriter {
    let local = if wish.local.is_ipv4() { ifla::VXLAN_LOCAL } else { ifla::VXLAN_LOCAL6 };
    AttrWriter::default()
        .put(ifla::VXLAN_ID, &wish.vni.to_ne_bytes())
        .put(ifla::VXLAN_LINK, &wish.parent.to_ne_bytes())
        .put(local, &octets(wish.local))
        .put(ifla::VXLAN_LEARNING, &[0])
        .put(ifla::VXLAN_PORT, &wish.port.to_be_bytes())
}

fn has_data(reply: &Reply, wish: &VxlanLink) -> bool {
    let data = || {
        let (_, attrs) = reply.split(16)?;
        attrs.nested(ifla::LINKINFO)?.nested(ifla::INFO_DATA)
    };
    let Some(data): Option<Attrs> = data() else { return false };
    let local = data.ip(ifla::VXLAN_LOCAL).or_else(|| data.ip(ifla::VXLAN_LOCAL6));
    data.u32(ifla::VXLAN_ID) == Some(wish.vni)
        && data.u32(ifla::VXLAN_LINK) == Some(wish.parent)
        && local == Some(wish.local)
        && data.get(ifla::VXLAN_LEARNING) == Some(&[0])
        && data.get(ifla::VXLAN_PORT) == Some(&wish.port.to_be_bytes())
}

/// MAC, MTU, up; no generated link-local address, which nobody could reach.
fn finish(nl: &mut Nl, link: &Link, mac: Option<[u8; 6]>, mtu: u32) -> Result<bool, Error> {
    let mut attributes = Vec::new();
    if link.mtu != mtu {
        attributes.push(LinkAttribute::Mtu(mtu));
    }
    attributes
        .extend(mac.filter(|mac| link.mac != Some(*mac)).map(|mac| LinkAttribute::Address(mac.to_vec())));
    if attributes.is_empty() && link.up {
        return Ok(false);
    }
    if !link.up {
        let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let request =
            make::set_link("prepare link", link.index, None, vec![LinkAttribute::AfSpecUnspec(vec![mode])]);
        // Where the host has no IPv6 there is nothing to prepare.
        let _ = nl.ask(request)?;
    }
    nl.must(&[make::set_link("set up link", link.index, Some(true), attributes)])?;
    Ok(true)
}

/// The wished address alone of its family.
fn sync_addresses(
    nl: &mut Nl,
    index: u32,
    name: &str,
    wish: Option<IpAddr>,
    is_v4: bool,
) -> Result<bool, Error> {
    if wish.is_some_and(|ip| ip.is_ipv6()) {
        sysctl::allow_v6(name)?;
    }
    let of_family = |net: &IpNet| match net {
        IpNet::V4(_) => is_v4,
        IpNet::V6(net) => !is_v4 && !net.addr().is_unicast_link_local(),
    };
    let seen = inspect::addresses(nl, |a| a.ifindex == index && of_family(&a.net))?;
    let wish = wish.map(IpNet::from);
    let mut batch: Vec<Request> =
        seen.iter().filter(|a| Some(a.net) != wish).map(|a| address_removal(index, a.net)).collect();
    if let Some(wish) = wish.filter(|wish| !seen.iter().any(|a| a.net == *wish)) {
        batch.insert(0, make::address(index, wish));
    }
    nl.must(&batch)?;
    Ok(!batch.is_empty())
}

fn address_removal(index: u32, net: IpNet) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = make::family(net.addr());
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![AddressAttribute::Address(net.addr())];
    if net.addr().is_ipv4() {
        message.attributes.push(AddressAttribute::Local(net.addr()));
    }
    Request::route("remove address", net, RouteNetlinkMessage::DelAddress(message), 0)
}

fn remove(nl: &mut Nl, index: u32) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let request =
        Request::route("delete link", format_args!("#{index}"), RouteNetlinkMessage::DelLink(message), 0);
    let outcome = nl.ask(request)?;
    match outcome.errno() {
        Some(Errno::NODEV) => Ok(()),
        _ => outcome.ok().map(drop),
    }
}
