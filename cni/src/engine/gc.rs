//! GC (spec 1.1.0; decision 24): what this network and node hold and the runtime no longer knows.

use super::call::Call;
use super::del::{self, Owner};
use super::endpoint::{self, PodName};
use super::{delegated, failure, journal, leases};
use cni_protocol::{Attachment, CniError, Verb};
use datastore::lock::prune_attachment_locks;
use ipam::{Held, Release};
use model::Scope;
use model::veth::{self, HostNameOf};
use netlink::{Link, Nl};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Lock files that rested this long are of no running call, and mostly of nobody.
const LOCK_REST: Duration = Duration::from_secs(3600);

/// Serves GC of the main plugin. Goes on after failures and answers with the first.
pub(crate) fn gc(call: &Call) -> Result<(), CniError> {
    journal::replay(call);
    let Some(valid) = valid(call) else {
        call.note("the runtime named no valid attachments: nothing was freed");
        return forward(call);
    };
    let mut failures = Vec::new();
    let links = links(call)?;
    let mut owners: BTreeMap<Attachment, Option<String>> =
        links.keys().map(|at| (at.clone(), None)).collect();
    match holders(call) {
        Ok(holders) => owners.extend(holders),
        Err(error) => failures.push(error),
    }
    let mut pods: BTreeMap<Attachment, PodName> = BTreeMap::new();
    match endpoint::holders(call) {
        Ok(holders) => {
            for (at, pod) in holders {
                owners.entry(at.clone()).or_default();
                pods.extend(pod.map(|pod| (at, pod)));
            }
        }
        Err(error) => failures.push(error),
    }
    for (at, pod_link_name) in owners.into_iter().filter(|(at, _)| !valid.contains(at)) {
        let owner = Owner { link: links.get(&at).cloned(), pod_link_name, pod: pods.remove(&at), at };
        failures.extend(free(call, &owner).err());
    }
    failures.extend(forward(call).err());
    prune_attachment_locks(&call.req.paths.attachment_dir, LOCK_REST);
    failures.into_iter().next().map_or(Ok(()), Err)
}

/// As GC for the IPAM of another plugin: leases alone.
pub(crate) fn gc_leases(call: &Call) -> Result<(), CniError> {
    let Some(valid) = valid(call) else {
        call.note("the runtime named no valid attachments: nothing was freed");
        return Ok(());
    };
    let mut failures = Vec::new();
    for at in holders(call)?.into_keys().filter(|at| !valid.contains(at)) {
        let Some(lock) = call.try_lock(&at) else { continue };
        let [scope, _] = leases::scopes(call);
        match leases::release(call, &scope, &leases::release_of(call, &at)) {
            Ok(released) => call.log_addresses(&released.freed),
            Err(error) => failures.push(error),
        }
        let _ = lock.remove_and_release();
    }
    prune_attachment_locks(&call.req.paths.attachment_dir, LOCK_REST);
    failures.into_iter().next().map_or(Ok(()), Err)
}

fn free(call: &Call, owner: &Owner) -> Result<(), CniError> {
    // Busy: an ADD or DEL of it is running, so it is not forgotten.
    let Some(lock) = call.try_lock(&owner.at) else { return Ok(()) };
    // A delegated IPAM is told to collect by itself.
    del::take_down(call, owner, false)?;
    let _ = lock.remove_and_release();
    Ok(())
}

/// One address of an attachment that is gone, if it is still held as it was seen.
pub(crate) fn free_forgotten(
    call: &Call,
    scope: &Scope,
    at: &Attachment,
    held: &Held,
) -> Result<bool, CniError> {
    // A flow that stays times out.
    let _ = netlink::flush_conntrack(&[held.ip], call.kernel_timeout());
    endpoint::remove(call, at, None, std::slice::from_ref(held), &[held.ip])?;
    let request = Release { only: Some(vec![held.clone()]), ..leases::release_of(call, at) };
    Ok(!leases::release(call, scope, &request)?.freed.is_empty())
}

/// The runtime's list; `None` where it gave none.
fn valid(call: &Call) -> Option<BTreeSet<Attachment>> {
    let listed = call.conf.valid_attachments.listed()?;
    let network = call.conf.name.as_str();
    Some(listed.iter().map(|id| Attachment::new(network, &*id.container_id, &*id.ifname)).collect())
}

/// Our host links of this network, by owner.
fn links(call: &Call) -> Result<BTreeMap<Attachment, Link>, CniError> {
    let mut host = Nl::here(call.kernel_timeout()).map_err(|e| failure::kernel(&e))?;
    let all = netlink::links(&mut host, "").map_err(|e| failure::kernel(&e))?;
    let owned = all.into_iter().filter_map(|link| {
        let at = Attachment::from_alias(link.alias.as_deref()?)?;
        (at.network == call.conf.name).then_some((at, link))
    });
    Ok(owned.collect())
}

/// Who holds addresses of this network on this node, and what its pod's first link is called.
fn holders(call: &Call) -> Result<BTreeMap<Attachment, Option<String>>, CniError> {
    if delegated::is_delegated(call.conf) {
        return Ok(BTreeMap::new());
    }
    let store = match call.store(datastore::embedded::Mode::Existing) {
        Ok(store) => store,
        Err(e) if e.is_missing() => return Ok(BTreeMap::new()),
        Err(e) => return Err(e.into_cni()),
    };
    let [scope, _] = leases::scopes(call);
    let cx = leases::context(call, &scope);
    let holdings = leases::read(call, store.as_ref(), |view| ipam::holdings(view, &cx))?;
    Ok(holdings.held.iter().filter_map(|held| Some((holder(call, held)?, pod_link_name(held)))).collect())
}

/// The attachment behind a lease of this network and node. A lease that a Calico wrote names no
/// network and interface: its handle counts where it parses one way, as eth0.
fn holder(call: &Call, held: &Held) -> Option<Attachment> {
    let network = call.conf.name.as_str();
    let container = held.handle.as_deref()?.strip_prefix(network)?.strip_prefix('.')?;
    let attr = |key: &str| held.attrs.get(key).map(String::as_str);
    let is_here = attr("node") == Some(call.node.as_str()) && attr("type").is_none();
    let ifname = match (attr("network"), attr("ifname")) {
        (Some(of), Some(ifname)) if of == network => ifname,
        (None, None) if !container.contains('.') && attr("pod").is_some() => "eth0",
        _ => return None,
    };
    is_here.then(|| Attachment::new(network, container, ifname))
}

fn pod_link_name(held: &Held) -> Option<String> {
    let (namespace, pod) = (held.attrs.get("namespace")?, held.attrs.get("pod")?);
    Some(veth::host_name(&HostNameOf::Pod { namespace, pod }))
}

fn forward(call: &Call) -> Result<(), CniError> {
    if delegated::is_delegated(call.conf) { delegated::run(call, Verb::Gc).map(|_| ()) } else { Ok(()) }
}
