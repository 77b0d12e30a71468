//! DEL: the host first, the address last (decision 15), and nothing that it depends on.

use super::call::Call;
use super::endpoint::{self, PodName};
use super::{delegated, failure, journal, leases, links};
use cni_protocol::{Attachment, CniError, Code, Verb};
use ipam::Held;
use model::Scope;
use netlink::{Link, Nl, RETIRED_GROUP};
use std::net::IpAddr;

/// Serves DEL of the main plugin. Whatever is gone already is done.
pub(crate) fn del(call: &Call) -> Result<(), CniError> {
    let lock = call.phase("lock", || call.lock())?;
    let owner = Owner { at: call.at().clone(), link: None, pod_link_name: None, pod: None };
    take_down(call, &owner, delegated::is_delegated(call.conf))?;
    // A file that stays is taken again by the next call of this attachment.
    let _ = lock.remove_and_release();
    journal::replay(call);
    Ok(())
}

/// Whose things are taken down, and the link if it is known already.
pub(crate) struct Owner {
    pub at: Attachment,
    pub link: Option<Link>,
    /// Where GC collects it: the name that its pod's first link has.
    pub pod_link_name: Option<String>,
    /// Its pod, where neither the runtime nor a lease tells it.
    pub pod: Option<PodName>,
}

/// Everything of one attachment, under its lock: routes and link down, flows flushed, address freed
/// or owed, link deleted. Each part is tried although another failed; the first failure is answered.
pub(crate) fn take_down(call: &Call, owner: &Owner, delegated: bool) -> Result<(), CniError> {
    // Also under a delegated IPAM: the configuration may have been changed since the ADD.
    let seen = leases::held_anywhere(call, &owner.at);
    let known = addresses(call, &owner.at, seen.as_ref().map_or(&[], |(_, held)| held));
    call.log_addresses(&known);
    let mut host = Nl::here(call.kernel_timeout()).map_err(|e| failure::kernel(&e))?;
    let proven = seen.as_ref().is_ok_and(|(_, held)| !held.is_empty());
    let retired = call.phase("links", || retire(call, &mut host, owner, &known, proven));
    let freed = retired.as_ref().map_err(Clone::clone).and_then(|_| {
        let removed = call.phase("endpoint", || remove_endpoint(call, owner, &seen, &known));
        call.phase("ipam", || {
            let other = if delegated { del_delegated(call) } else { Ok(()) };
            free(call, owner, seen, removed, &known, delegated).and(other)
        })
    });
    let deleted = match &retired {
        Ok(true) if !call.reaped => call.phase("delete", || netlink::delete_group(&mut host, RETIRED_GROUP)),
        _ => Ok(()),
    };
    freed.and(deleted.map_err(|e| failure::kernel(&e)))
}

/// What the attachment had: as the store says, else as the runtime remembers it.
fn addresses(call: &Call, at: &Attachment, held: &[Held]) -> Vec<IpAddr> {
    let stored: Vec<IpAddr> = held.iter().map(|h| h.ip).collect();
    let is_own_call = call.req.attachment.as_ref() == Some(at);
    match &call.conf.prev_result {
        Some(result) if stored.is_empty() && is_own_call => {
            result.ips.iter().map(|ip| ip.address.addr()).collect()
        }
        _ => stored,
    }
}

/// Both ends down, routes and flows gone. Whether there was a link. Flows are flushed only of
/// addresses that are proven to be the attachment's, by its lease or its link.
fn retire(
    call: &Call,
    host: &mut Nl,
    owner: &Owner,
    known: &[IpAddr],
    leased: bool,
) -> Result<bool, CniError> {
    let link = match &owner.link {
        Some(link) => Some(link.clone()),
        // What the runtime remembers may be another's by now: only a lease proves an address.
        None => links::find(call, host, owner, if leased { known } else { &[] })?,
    };
    if let Some(link) = &link {
        netlink::retire(host, link, call.netns, known).map_err(|e| failure::kernel(&e))?;
    }
    if leased || link.is_some() {
        flush(call, known);
    }
    Ok(link.is_some())
}

fn flush(call: &Call, known: &[IpAddr]) {
    if let Err(e) = netlink::flush_conntrack(known, call.kernel_timeout()) {
        // A flow that stays times out; an address that stays leaks.
        call.note(&format!("conntrack: {e}"));
    }
}

/// Where the store cannot even be read, whoever finishes the release removes the endpoint too.
fn remove_endpoint(
    call: &Call,
    owner: &Owner,
    seen: &Result<(Scope, Vec<Held>), CniError>,
    known: &[IpAddr],
) -> Result<(), CniError> {
    match seen {
        Ok((_, held)) => endpoint::remove(call, &owner.at, owner.pod.as_ref(), held, known),
        Err(_) => Ok(()),
    }
}

fn free(
    call: &Call,
    owner: &Owner,
    seen: Result<(Scope, Vec<Held>), CniError>,
    removed: Result<(), CniError>,
    known: &[IpAddr],
    delegated: bool,
) -> Result<(), CniError> {
    let (scope, held) = match seen {
        Ok((_, held)) if held.is_empty() => return removed,
        Err(_) if call.store_is_missing() || delegated => return Ok(()),
        Ok(found) => found,
        Err(why) if why.code == Code::InvalidConfig => return Err(why),
        Err(why) => {
            let [scope, _] = leases::scopes(call);
            return owe(call, &scope, owner, &[], known, &why);
        }
    };
    let released = removed.and_then(|()| leases::release(call, &scope, &leases::release_of(call, &owner.at)));
    match released {
        Ok(_) => Ok(()),
        Err(why) => owe(call, &scope, owner, &held, known, &why),
    }
}

fn owe(
    call: &Call,
    scope: &Scope,
    owner: &Owner,
    held: &[Held],
    known: &[IpAddr],
    why: &CniError,
) -> Result<(), CniError> {
    call.note(&format!("the store did not take the release, journalled: {why}"));
    journal::owe(call, &owner.at, scope, held, known)
}

fn del_delegated(call: &Call) -> Result<(), CniError> {
    delegated::run(call, Verb::Del).map(|_| ())
}
