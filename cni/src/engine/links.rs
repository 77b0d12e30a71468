//! Which host link belongs to an attachment, and getting it out of the way.

use super::call::Call;
use super::del::Owner;
use super::failure;
use cni_protocol::{Attachment, CniError};
use model::veth::{self, HostNameOf};
use netlink::{Link, Netns, Nl, UNFINISHED_GROUP};
use std::net::IpAddr;

/// Where the attachment's host link belongs, and what stands there.
pub(crate) struct Place {
    pub name: String,
    pub link: Option<Link>,
}

/// The pod's name for its first attachment, else the attachment's own (decision 3).
pub(crate) fn place(call: &Call, host: &mut Nl) -> Result<Place, CniError> {
    let own = own_name(call.at());
    let own = Place { link: link(host, &own)?, name: own };
    let Some(name) = pod_name(call) else { return Ok(own) };
    if own.link.as_ref().is_some_and(|l| owns(l, call.at())) {
        return Ok(own);
    }
    let pods = Place { link: link(host, &name)?, name };
    let taken = pods.link.as_ref().is_some_and(|l| is_sibling(l.alias.as_deref(), call.at()));
    Ok(if taken { own } else { pods })
}

/// Whether a link is this attachment's.
pub(crate) fn owns(link: &Link, at: &Attachment) -> bool {
    link.alias.as_deref() == Some(at.alias().as_str())
}

/// Another attachment of the same container.
fn is_sibling(alias: Option<&str>, at: &Attachment) -> bool {
    let owner = alias.and_then(Attachment::from_alias);
    owner.is_some_and(|owner| owner.container_id == at.container_id && owner != *at)
}

/// Whether Calico made a link for this pod or container: it has no alias, and the name that Calico gives.
pub(crate) fn is_calicos(call: &Call, link: &Link) -> bool {
    let named = pod_name(call).as_deref() == Some(link.name.as_str());
    named && link.alias.is_none() && link.kind.as_deref() == Some("veth") && !is_half_made(link)
}

fn own_name(at: &Attachment) -> String {
    let (network, container_id, ifname) = (&at.network, &at.container_id, &at.ifname);
    veth::host_name(&HostNameOf::Attachment { network, container_id, ifname })
}

/// The name that only the pod, not the attachment, decides.
pub(crate) fn pod_name(call: &Call) -> Option<String> {
    let of = match call.req.args.pod() {
        Some((namespace, pod)) => HostNameOf::Pod { namespace, pod },
        None if call.calico => {
            HostNameOf::CalicoContainer { container_id: &call.req.attachment.as_ref()?.container_id }
        }
        None => return None,
    };
    Some(veth::host_name(&of))
}

/// The attachment's link, by its names, else by its alias among all (one that is out of use has
/// another name).
pub(crate) fn find(
    call: &Call,
    host: &mut Nl,
    owner: &Owner,
    held: &[IpAddr],
) -> Result<Option<Link>, CniError> {
    let at = &owner.at;
    // Nobody else makes a link of this name, and this attachment's lock is held.
    let own = link(host, &own_name(at))?.filter(|link| owns(link, at) || is_half_made(link));
    if own.is_some() {
        return Ok(own);
    }
    let pods = match owner.pod_link_name.as_deref().or(pod_name(call).as_deref()) {
        Some(name) => link(host, name)?.filter(|link| owns(link, at) || is_left_half_made(call, owner, link)),
        None => None,
    };
    if pods.is_some() {
        return Ok(pods);
    }
    let alias = at.alias();
    let all = netlink::links(host, "").map_err(|e| failure::kernel(&e))?;
    let found = all.iter().find(|l| l.alias.as_deref() == Some(alias.as_str()));
    match found {
        Some(link) => Ok(Some(link.clone())),
        None => by_route(host, &all, held),
    }
}

/// A killed ADD left it without its alias.
fn is_half_made(link: &Link) -> bool {
    link.group == UNFINISHED_GROUP && link.alias.is_none()
}

/// A half-made link of the pod's name may be a newer sandbox's: the container's end proves whose it is,
/// or, where a forgotten attachment is collected, that the pod's lease is all there is.
fn is_left_half_made(call: &Call, owner: &Owner, link: &Link) -> bool {
    let proven = match call.netns {
        Some(netns) => peer_is_in(call, netns, &owner.at.ifname, link),
        None => owner.pod_link_name.is_some(),
    };
    is_half_made(link) && proven
}

/// A link that Calico made has no alias; a host route to an address of this lease proves it.
fn by_route(host: &mut Nl, all: &[Link], held: &[IpAddr]) -> Result<Option<Link>, CniError> {
    if held.is_empty() {
        return Ok(None);
    }
    let routes = netlink::routes_to(host, held).map_err(|e| failure::kernel(&e))?;
    let proven = |l: &&Link| l.alias.is_none() && routes.iter().any(|r| r.ifindex == Some(l.index));
    Ok(all.iter().find(proven).cloned())
}

fn link(host: &mut Nl, name: &str) -> Result<Option<Link>, CniError> {
    netlink::link(host, name).map_err(|e| failure::kernel(&e))
}

/// Deals with what stands in the link's place. True: it is the attachment's own, in the right
/// namespace, and only wants completing. Its own from another namespace, and an older sandbox's of the
/// same pod, are removed. With `leased_before`, a link that Calico made for this container becomes ours.
///
/// # Errors
/// Code 104 for a link of somebody else.
pub(crate) fn clear_the_way(
    call: &Call,
    host: &mut Nl,
    netns: &Netns,
    place: &Place,
    leased_before: bool,
) -> Result<bool, CniError> {
    let Some(existing) = &place.link else { return Ok(false) };
    let ours = owns(existing, call.at());
    let calicos = leased_before && is_calicos(call, existing);
    if calicos && peer_is_in(call, netns, &call.at().ifname, existing) {
        call.note(&format!("took over host link {}, which Calico made", existing.name));
        netlink::adopt_link(host, existing.index, &call.at().alias()).map_err(|e| failure::kernel(&e))?;
        return Ok(true);
    }
    if ours && peer_is_in(call, netns, &call.at().ifname, existing) {
        return Ok(true);
    }
    if is_half_made(existing) {
        // Wiring replaces what a killed call left half made.
        return Ok(false);
    }
    if !ours && !is_older_sandbox(call, existing) {
        let (name, alias) = (existing.name.clone(), existing.alias.clone());
        return Err(failure::kernel(&netlink::Error::HostLinkTaken { name, alias }));
    }
    call.note(&format!("replaced host link {} of an earlier container", existing.name));
    netlink::retire(host, existing, None, &[]).map_err(|e| failure::kernel(&e))?;
    netlink::delete_link(host, existing.index).map_err(|e| failure::kernel(&e))?;
    Ok(false)
}

fn peer_is_in(call: &Call, netns: &Netns, ifname: &str, host_end: &Link) -> bool {
    let pod = netlink::inspect_pod(netns, ifname, call.kernel_timeout());
    pod.is_ok_and(|pod| pod.is_some_and(|pod| pod.link.peer_ifindex == Some(host_end.index)))
}

/// A name that only this pod has, on a veth of ours or of Calico's: the pod's former sandbox.
fn is_older_sandbox(call: &Call, existing: &Link) -> bool {
    let ours_or_calicos = match existing.alias.as_deref() {
        None => true,
        Some(alias) => Attachment::from_alias(alias).is_some(),
    };
    existing.kind.as_deref() == Some("veth")
        && ours_or_calicos
        && pod_name(call).as_deref() == Some(existing.name.as_str())
}

/// Removes what a killed DEL of this attachment left: a link that is out of use and has another name,
/// whose other end still holds the interface's name in the container. Whether there was one.
pub(crate) fn remove_leftover(call: &Call, host: &mut Nl) -> Result<bool, CniError> {
    let all = netlink::links(host, "").map_err(|e| failure::kernel(&e))?;
    let Some(left) = all.iter().find(|link| owns(link, call.at())) else { return Ok(false) };
    call.note(&format!("removed {}, which an earlier call left", left.name));
    netlink::delete_link(host, left.index).map_err(|e| failure::kernel(&e))?;
    Ok(true)
}

/// Undo of a link that this call made; absent is done.
pub(crate) fn delete_by_name(call: &Call, name: &str) -> Result<(), String> {
    let mut host = Nl::here(call.kernel_timeout()).map_err(|e| e.to_string())?;
    match netlink::link(&mut host, name).map_err(|e| e.to_string())? {
        Some(link) if owns(&link, call.at()) => {
            netlink::delete_link(&mut host, link.index).map_err(|e| e.to_string())
        }
        _ => Ok(()),
    }
}
