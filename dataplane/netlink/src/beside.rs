//! An attachment beside others in one pod.
//!
//! All of them have the same gateways, and often the same destinations. The first keeps the plain
//! routes; each later one has its own behind them (by metric), and once more in a table of its own
//! that rules choose by source address. So answers leave by the interface that was asked, and the
//! host, which takes a pod's packets only from the link that it routes their source to, lets them in.

use crate::make;
use crate::pod::{PodPlan, V4_GATEWAY};
use crate::request::Request;
use crate::{Error, Nl, inspect};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use std::net::IpAddr;

/// Links of a fresh namespace are numbered from 2 on; `lo` is 1.
const FIRST_INDEX: u32 = 2;
/// Metrics of later attachments are this and the link's index: behind every default of the kernel.
const METRIC: u32 = 4096;
/// Tables of later attachments are this and the link's index.
const TABLE: u32 = 0x5043_0000;
/// Before the main table (32766), behind what others are likely to put there.
const RULE_PRIORITY: u32 = 30_000;
/// RT_TABLE_COMPAT: the number is in the attribute.
const TABLE_IN_ATTRIBUTE: u8 = 252;

/// Whether another interface of the pod has a plain route that this attachment would take away.
pub(crate) fn is_beside(pod: &mut Nl, plan: &PodPlan, index: u32) -> Result<bool, Error> {
    if index <= FIRST_INDEX {
        return Ok(false);
    }
    let gateway = plan.has_v4().then(|| make::host_net(V4_GATEWAY.into()));
    let wanted: Vec<IpNet> = plan.routes.iter().map(|route| route.dst).chain(gateway).collect();
    let others = inspect::main_routes(pod, |route| {
        route.ifindex != Some(index) && route.metric < METRIC && wanted.contains(&route.dst)
    })?;
    Ok(!others.is_empty())
}

/// Both forms of one route of a later attachment.
pub(crate) fn routes(index: u32, plain: RouteMessage) -> [RouteMessage; 2] {
    let mut behind = plain.clone();
    behind.attributes.push(RouteAttribute::Priority(METRIC + index));
    let mut own = plain;
    own.header.table = TABLE_IN_ATTRIBUTE;
    own.attributes.push(RouteAttribute::Table(TABLE + index));
    [behind, own]
}

/// Sends what comes from the attachment's addresses through its own table. What is there is kept.
pub(crate) fn add_rules(pod: &mut Nl, plan: &PodPlan, index: u32) -> Result<(), Error> {
    let add = |ip: &IpAddr| {
        let message = RouteNetlinkMessage::NewRule(rule(*ip, index));
        Request::route("add rule for", ip, message, NLM_F_CREATE | NLM_F_EXCL)
    };
    let batch: Vec<Request> = plan.addresses.iter().map(add).collect();
    for outcome in pod.batch(&batch)? {
        match outcome.failed {
            Some(error) if error.errno() != Some(Errno::EXIST) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Takes the rules of these addresses away. There are none for a first attachment.
pub(crate) fn remove_rules(pod: &mut Nl, addresses: &[IpAddr], index: u32) -> Result<(), Error> {
    if index <= FIRST_INDEX {
        return Ok(());
    }
    let remove = |ip: &IpAddr| {
        Request::route("remove rule for", ip, RouteNetlinkMessage::DelRule(rule(*ip, index)), 0)
    };
    let batch: Vec<Request> = addresses.iter().map(remove).collect();
    pod.batch(&batch).map(drop)
}

fn rule(ip: IpAddr, index: u32) -> RuleMessage {
    let net = make::host_net(ip);
    let mut message = RuleMessage::default();
    message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.src_len = net.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Source(ip),
        RuleAttribute::Table(TABLE + index),
        RuleAttribute::Priority(RULE_PRIORITY),
    ];
    message
}
