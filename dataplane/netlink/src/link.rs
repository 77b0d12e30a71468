//! Looking at links.

use crate::reply::{Attrs, Reply, u32_at};
use crate::request::Request;
use crate::{Error, Nl};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rustix::io::Errno;

/// Attribute numbers of linux/if_link.h.
mod ifla {
    pub const ADDRESS: u16 = 1;
    pub const IFNAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const LINK: u16 = 5;
    pub const OPERSTATE: u16 = 16;
    pub const LINKINFO: u16 = 18;
    pub const IFALIAS: u16 = 20;
    pub const AF_SPEC: u16 = 26;
    pub const GROUP: u16 = 27;
    pub const LINK_NETNSID: u16 = 37;
    pub const INFO_KIND: u16 = 1;
    pub const INET6_CONF: u16 = 2;
    pub const INET_CONF: u16 = 1;
}

/// A network interface as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `ifalias`: names the owner of links that Percale made.
    pub alias: Option<String>,
    pub mac: Option<[u8; 6]>,
    /// Bytes.
    pub mtu: u32,
    /// Set up by its administrator (IFF_UP).
    pub up: bool,
    /// It has a carrier (IFF_LOWER_UP); of a veth: both ends are up.
    pub lower_up: bool,
    /// `veth`, `bridge`, ...; none for real hardware and `lo`.
    pub kind: Option<String>,
    /// Of a veth: the index of the other end, in the other end's namespace.
    pub peer_ifindex: Option<u32>,
    /// Of a veth: this namespace's id for the other end's; none when that is the same namespace.
    pub peer_netnsid: Option<i32>,
    pub group: u32,
}

impl Link {
    /// A pair that a killed [`crate::wire_pod`] left: made, but not yet marked with its owner. Its
    /// name alone tells whose it was.
    pub fn is_unfinished(&self) -> bool {
        self.group == crate::UNFINISHED_GROUP && self.alias.is_none() && self.kind.as_deref() == Some("veth")
    }
}

/// All links whose name begins with `prefix` (empty: all), in one dump.
///
/// # Errors
/// As every look at the kernel: `Io`, `TimedOut`, `Refused`.
pub fn links(nl: &mut Nl, prefix: &str) -> Result<Vec<Link>, Error> {
    let make = |flags| {
        let message = RouteNetlinkMessage::GetLink(without_statistics());
        Request::route("list links", prefix, message, flags)
    };
    nl.dump(make, |reply| parse(&reply).filter(|link| link.name.starts_with(prefix)))
}

/// The link of this name, if there is one.
///
/// # Errors
/// As [`links`].
pub fn link(nl: &mut Nl, name: &str) -> Result<Option<Link>, Error> {
    Ok(one(nl.ask(get_by_name(name))?)?.and_then(|reply| parse(&reply)))
}

pub(crate) fn link_at(nl: &mut Nl, index: u32) -> Result<Option<Link>, Error> {
    Ok(one(nl.ask(get_by_index(index))?)?.and_then(|reply| parse(&reply)))
}

/// The kernel has acted on the link's carrier: packets go out (IF_OPER_UP of linux/if.h).
pub(crate) fn is_operational(reply: &Reply) -> bool {
    const IF_OPER_UP: u8 = 6;
    reply
        .split(16)
        .and_then(|(_, attrs)| attrs.get(ifla::OPERSTATE))
        .is_some_and(|state| state == [IF_OPER_UP])
}

/// The answer to a request for one link; no such link is no error.
pub(crate) fn one(outcome: crate::socket::Outcome) -> Result<Option<Reply>, Error> {
    match outcome.errno() {
        // ERANGE, EINVAL: a name that no link can have.
        Some(Errno::NODEV | Errno::RANGE | Errno::INVAL) => Ok(None),
        _ => Ok(outcome.ok()?.into_iter().find(is_link)),
    }
}

pub(crate) fn is_link(reply: &Reply) -> bool {
    reply.kind == libc::RTM_NEWLINK
}

pub(crate) fn get_by_name(name: &str) -> Request {
    let mut message = without_statistics();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    Request::question("look up link", name, RouteNetlinkMessage::GetLink(message))
}

pub(crate) fn get_by_index(index: u32) -> Request {
    let mut message = without_statistics();
    message.header.index = index;
    Request::question("look up link", format_args!("#{index}"), RouteNetlinkMessage::GetLink(message))
}

fn without_statistics() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

/// `struct ifinfomsg` and its attributes.
pub(crate) fn parse(reply: &Reply) -> Option<Link> {
    let (header, attrs) = reply.split(16).filter(|_| is_link(reply))?;
    let flags = u32_at(&header[8..])?;
    Some(Link {
        index: u32_at(&header[4..])?,
        name: attrs.text(ifla::IFNAME)?,
        alias: attrs.text(ifla::IFALIAS),
        mac: attrs.get(ifla::ADDRESS).and_then(|mac| mac.try_into().ok()),
        mtu: attrs.u32(ifla::MTU).unwrap_or(0),
        up: flags & libc::IFF_UP as u32 != 0,
        lower_up: flags & libc::IFF_LOWER_UP as u32 != 0,
        kind: attrs.nested(ifla::LINKINFO).and_then(|info| info.text(ifla::INFO_KIND)),
        peer_ifindex: attrs.u32(ifla::LINK),
        peer_netnsid: attrs.u32(ifla::LINK_NETNSID).map(|id| id as i32),
        group: attrs.u32(ifla::GROUP).unwrap_or(0),
    })
}

/// Settings of an interface (`net.ipv4.conf.IF`, `net.ipv6.conf.IF`) that matter for a pod's host end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    pub v4_forwarding: bool,
    pub proxy_arp: bool,
    /// None when the interface has no IPv6 at all.
    pub v6: Option<SettingsV6>,
}

/// `net.ipv6.conf.IF.*`, with the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingsV6 {
    pub forwarding: u32,
    pub accept_ra: u32,
    pub proxy_ndp: u32,
    pub disabled: u32,
}

pub(crate) fn settings(reply: &Reply) -> Settings {
    let Some((_, attrs)) = reply.split(16) else { return Settings::default() };
    let spec = attrs.nested(ifla::AF_SPEC).unwrap_or(Attrs(&[]));
    let v4 = spec.nested(libc::AF_INET as u16).and_then(|a| a.get(ifla::INET_CONF)).unwrap_or(&[]);
    let v6 = spec.nested(libc::AF_INET6 as u16).and_then(|a| a.get(ifla::INET6_CONF));
    Settings {
        // linux/ip.h counts from 1: IPV4_DEVCONF_FORWARDING, IPV4_DEVCONF_PROXY_ARP.
        v4_forwarding: number(v4, 0) != 0,
        proxy_arp: number(v4, 2) != 0,
        v6: v6.map(settings_v6),
    }
}

/// Positions of linux/ipv6.h: DEVCONF_*.
fn settings_v6(conf: &[u8]) -> SettingsV6 {
    SettingsV6 {
        forwarding: number(conf, 0),
        accept_ra: number(conf, 3),
        proxy_ndp: number(conf, 22),
        disabled: number(conf, 26),
    }
}

fn number(conf: &[u8], position: usize) -> u32 {
    conf.get(position * 4..).and_then(u32_at).unwrap_or(0)
}
