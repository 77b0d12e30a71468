//! A pod's plan as netlink requests.

use crate::Netns;
use crate::beside;
use crate::link::Settings;
use crate::make;
use crate::pod::{HOST_LL, HOST_MAC, PodPlan, PodRoute, UNFINISHED_GROUP, V4_GATEWAY};
use crate::request::Request;
use ipnet::{IpNet, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, InfoData, InfoKind, InfoVeth,
    LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour_table::{
    NeighbourTableAttribute, NeighbourTableMessage, NeighbourTableParameter,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use std::net::IpAddr;

/// `lo` has this index in every namespace (LOOPBACK_IFINDEX, net/net_namespace.h).
const LOOPBACK: u32 = 1;

/// The pair, host end here, pod end directly in `netns`: no later move. Neither is up: a peer may not
/// be up at creation (ENOTCONN), and the host end has settings to get first. Alias and AF_SPEC are
/// ignored at creation, hence the group as a mark.
pub(crate) fn create_pair(plan: &PodPlan, netns: &Netns) -> Request {
    let peer = InfoVeth::Peer(pod_message(plan, netns));
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(plan.host_name.clone()),
        LinkAttribute::Address(HOST_MAC.to_vec()),
        LinkAttribute::Group(UNFINISHED_GROUP),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(peer))]),
    ];
    message.attributes.extend(plan.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(queues(plan));
    let message = RouteNetlinkMessage::NewLink(message);
    Request::route("create veth pair", &plan.host_name, message, NLM_F_CREATE | NLM_F_EXCL)
}

fn pod_message(plan: &PodPlan, netns: &Netns) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![LinkAttribute::IfName(plan.pod_name.clone()), LinkAttribute::NetNsFd(netns.raw())];
    peer.attributes.extend(plan.pod_mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    peer.attributes.extend(plan.mtu.map(LinkAttribute::Mtu));
    peer.attributes.extend(queues(plan));
    peer
}

/// Both directions, of each end; they can only be given at creation.
fn queues(plan: &PodPlan) -> impl Iterator<Item = LinkAttribute> + use<> {
    let both = |count| [LinkAttribute::NumTxQueues(count), LinkAttribute::NumRxQueues(count)];
    plan.queues.into_iter().flat_map(both)
}

/// Owner, settings, state and link-local address of the host end.
pub(crate) fn host_end(plan: &PodPlan, index: u32, now: Settings) -> Vec<Request> {
    let mut attributes = vec![LinkAttribute::IfAlias(plan.alias.clone()), LinkAttribute::Group(0)];
    let family_settings = host_settings(plan, now);
    if !family_settings.is_empty() {
        attributes.push(LinkAttribute::AfSpecUnspec(family_settings));
    }
    attributes.extend(plan.mtu.map(LinkAttribute::Mtu));
    let mut batch = vec![make::set_link("set up link", index, Some(true), attributes)];
    if plan.has_v4() {
        batch.push(no_proxy_delay(index));
    }
    if plan.has_v6() {
        batch.push(make::address(index, host_ll_net()));
    }
    batch
}

fn host_ll_net() -> IpNet {
    IpNet::V6(Ipv6Net::new(HOST_LL, 64).expect("64 is a prefix length of IPv6"))
}

fn host_settings(plan: &PodPlan, now: Settings) -> Vec<AfSpecUnspec> {
    let mut families = Vec::new();
    if plan.has_v4() && !(now.v4_forwarding && now.proxy_arp) {
        let mut conf = InetDevConf::default();
        conf.forwarding = 1;
        conf.proxy_arp = 1;
        families.push(AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(conf)]));
    }
    if plan.has_v6() {
        // The link-local address is given, not generated: no duplicate detection, no other form.
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        families.push(AfSpecUnspec::Inet6(vec![mode]));
    }
    families
}

/// Proxied ARP answers are otherwise held back for up to 0.8 s.
fn no_proxy_delay(index: u32) -> Request {
    let mut message = NeighbourTableMessage::default();
    message.header.family = netlink_packet_route::AddressFamily::Inet;
    message.attributes = vec![
        NeighbourTableAttribute::Name("arp_cache".into()),
        NeighbourTableAttribute::Parms(vec![
            NeighbourTableParameter::Ifindex(index),
            NeighbourTableParameter::ProxyDelay(0),
        ]),
    ];
    let message = RouteNetlinkMessage::SetNeighbourTable(message);
    Request::route("set proxy_delay of", format_args!("#{index}"), message, 0)
}

/// Everything inside the pod. `beside`: another interface has the plain routes.
pub(crate) fn pod_end(plan: &PodPlan, index: u32, beside: bool) -> Vec<Request> {
    let mtu = plan.mtu.map(LinkAttribute::Mtu).into_iter().collect();
    let mut batch = vec![
        make::set_link("set up lo", LOOPBACK, Some(true), Vec::new()),
        make::set_link("set up pod link", index, Some(true), mtu),
    ];
    batch.extend(plan.addresses.iter().map(|ip| make::address(index, make::host_net(*ip))));
    for gateway in gateways(plan) {
        batch.push(make::permanent_neighbour(index, gateway, HOST_MAC));
    }
    for route in pod_routes(plan, index) {
        match beside {
            false => batch.push(put_route(route)),
            true => batch.extend(beside::routes(index, route).map(put_route)),
        }
    }
    batch
}

fn pod_routes(plan: &PodPlan, index: u32) -> impl Iterator<Item = RouteMessage> {
    // The gateway is in no subnet of the pod's: this makes it reachable.
    let gateway = plan.has_v4().then(|| make::route(index, make::host_net(V4_GATEWAY.into()), None, None));
    gateway.into_iter().chain(plan.routes.iter().map(move |route| pod_route(index, route)))
}

fn gateways(plan: &PodPlan) -> impl Iterator<Item = IpAddr> {
    let v4 = plan.has_v4().then_some(IpAddr::V4(V4_GATEWAY));
    let v6 = plan.has_v6().then_some(IpAddr::V6(HOST_LL));
    v4.into_iter().chain(v6)
}

fn pod_route(index: u32, route: &PodRoute) -> RouteMessage {
    let gateway = if route.dst.addr().is_ipv4() { IpAddr::V4(V4_GATEWAY) } else { IpAddr::V6(HOST_LL) };
    make::route(index, route.dst, Some(gateway), route.mtu)
}

fn put_route(message: RouteMessage) -> Request {
    let dst = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    let subject = dst.map(|ip| ip.to_string()).unwrap_or_default();
    Request::route("add pod route to", subject, RouteNetlinkMessage::NewRoute(message), make::PUT)
}
