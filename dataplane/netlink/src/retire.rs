//! Taking a pod's link out of use.

use crate::link::{self, Link};
use crate::request::Request;
use crate::{Error, Netns, Nl, beside, make, route};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rustix::io::Errno;
use std::net::IpAddr;

/// The group of links that are out of use and wait for deletion; see [`delete_group`].
pub const RETIRED_GROUP: u32 = 0x5043_0002;

/// Takes `link` out of use at once, which is cheap; deleting it costs the kernel 14 to 36 ms and can
/// follow later. Afterwards: no host route to `addresses` leads to it, both ends are down, it bears
/// the name `retired-INDEX` and the group [`RETIRED_GROUP`]; its alias stays.
///
/// A link that is gone already is success. The pod's end is set down and renamed only if `netns` is given
/// and really holds it; without, the host end alone stops all traffic.
///
/// # Errors
/// `Refused`, `Io`, `TimedOut` from the host's side. A pod's namespace that fails is no error.
pub fn retire(host: &mut Nl, link: &Link, netns: Option<&Netns>, addresses: &[IpAddr]) -> Result<(), Error> {
    let mut batch: Vec<Request> = addresses.iter().map(|ip| route::removal(link.index, *ip)).collect();
    let name = format!("retired-{}", link.index);
    batch.push(make::set_link("set down link", link.index, Some(false), Vec::new()));
    batch.push(make::set_link(
        "rename link",
        link.index,
        None,
        vec![LinkAttribute::IfName(name), LinkAttribute::Group(RETIRED_GROUP)],
    ));
    for outcome in host.batch(&batch)? {
        absent_is_fine(outcome)?;
    }
    if let Some(netns) = netns {
        // Only tidiness: the host end is down, nothing passes any more.
        let _ = set_pod_end_down(netns, link, host, addresses);
    }
    Ok(())
}

fn set_pod_end_down(netns: &Netns, link: &Link, host: &Nl, addresses: &[IpAddr]) -> Result<(), Error> {
    let Some(index) = link.peer_ifindex else { return Ok(()) };
    let mut pod = netns.socket(host.timeout())?;
    let end = link::link_at(&mut pod, index)?;
    if end.is_some_and(|end| end.peer_ifindex == Some(link.index)) {
        let name = vec![LinkAttribute::IfName(format!("retired-{index}"))];
        pod.must(&[
            make::set_link("set down pod link", index, Some(false), Vec::new()),
            make::set_link("rename pod link", index, None, name),
        ])?;
        beside::remove_rules(&mut pod, addresses, index)?;
    }
    Ok(())
}

/// Deletes a link (of a veth: both ends). One that is gone already is success.
///
/// # Errors
/// `Refused`, `Io`, `TimedOut`.
pub fn delete_link(nl: &mut Nl, index: u32) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let subject = format!("#{index}");
    let request = Request::route("delete link", subject, RouteNetlinkMessage::DelLink(message), 0);
    absent_is_fine(nl.ask(request)?)
}

/// Deletes all links of `group` in one go: the kernel waits once for all of them.
///
/// # Errors
/// `Refused`, `Io`, `TimedOut`. No such link is success.
pub fn delete_group(nl: &mut Nl, group: u32) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    let request = Request::route("delete links of group", group, RouteNetlinkMessage::DelLink(message), 0);
    absent_is_fine(nl.ask(request)?)
}

fn absent_is_fine(outcome: crate::socket::Outcome) -> Result<(), Error> {
    match outcome.errno() {
        Some(Errno::NODEV | Errno::SRCH) => Ok(()),
        _ => outcome.ok().map(drop),
    }
}
