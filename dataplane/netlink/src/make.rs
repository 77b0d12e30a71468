//! The requests that change something, each from plain values.

use crate::request::Request;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::IpAddr;

/// Makes the object, or makes an existing one equal to it.
pub(crate) const PUT: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// The network that holds just this address.
pub(crate) fn host_net(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// A change of the link at `index`. With `up`, its state as well.
pub(crate) fn set_link(
    op: &'static str,
    index: u32,
    up: Option<bool>,
    attributes: Vec<LinkAttribute>,
) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if let Some(up) = up {
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    }
    message.attributes = attributes;
    Request::route(op, format_args!("#{index}"), RouteNetlinkMessage::SetLink(message), 0)
}

/// An address on a link. IPv6 goes without duplicate address detection: the two ends are alone.
pub(crate) fn address(index: u32, net: IpNet) -> Request {
    let ip = net.addr();
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes.push(AddressAttribute::Address(ip));
    match ip {
        IpAddr::V4(_) => message.attributes.push(AddressAttribute::Local(ip)),
        IpAddr::V6(v6) => {
            message.header.flags = AddressHeaderFlags::Nodad;
            if v6.is_unicast_link_local() {
                message.header.scope = AddressScope::Link;
            }
        }
    }
    Request::route("add address", net, RouteNetlinkMessage::NewAddress(message), PUT)
}

/// A neighbour that is never asked for and never forgotten.
pub(crate) fn permanent_neighbour(index: u32, ip: IpAddr, mac: [u8; 6]) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let destination = match ip {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes = vec![
        NeighbourAttribute::Destination(destination),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    Request::route("add neighbour", ip, RouteNetlinkMessage::NewNeighbour(message), PUT)
}

/// A unicast route of the main table through a link; protocol boot, as Calico's plugin sets it.
pub(crate) fn route(index: u32, dst: IpNet, via: Option<IpAddr>, mtu: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(dst.addr());
    message.header.destination_prefix_length = dst.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.attributes.push(RouteAttribute::Destination(route_address(dst.network())));
    message.attributes.push(RouteAttribute::Oif(index));
    message.attributes.extend(via.map(|gateway| RouteAttribute::Gateway(route_address(gateway))));
    message.attributes.extend(mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

pub(crate) fn route_address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}
