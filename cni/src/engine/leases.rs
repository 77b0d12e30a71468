//! The stored side of an attachment: its handle, its attributes, what it holds.

use super::addresses::{self, Own, Role};
use super::call::Call;
use super::ledger::{Change, Moment};
use super::{failure, journal};
use cni_protocol::{Attachment, CniError};
use datastore::embedded::Mode;
use datastore::{Store, drive};
use ipam::{Answer, Assign, Assigned, BatchItem, Context, Held, Release, Released};
use model::Scope;
use model::store::{Plan, Stop, View};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `attributes.secondary` of a new lease: Calico's keys and ours (decision 2).
pub(crate) fn attributes(call: &Call) -> BTreeMap<String, String> {
    let args = &call.req.args;
    let mut attrs = call.at().attributes();
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            attrs.insert(key.to_owned(), value);
        }
    };
    set("node", Some(call.node.clone()));
    set("timestamp", Some(model::time::go_string(call.clock.wall_ns)));
    if let Some((namespace, pod)) = args.pod() {
        set("namespace", Some(namespace.to_owned()));
        set("pod", Some(pod.to_owned()));
    }
    set("poduid", args.pod_uid.clone());
    set("netns", netns(call));
    set("boot_id", (call.role == Role::Main).then(|| call.clock.boot_id.clone()));
    attrs
}

/// The namespace's path, and its inode where the caller's values mean something here (decision 25).
fn netns(call: &Call) -> Option<String> {
    let path = call.req.netns.as_ref()?.display().to_string();
    let inode = call.netns_inode.filter(|_| call.role == Role::Main);
    Some(inode.map_or(path.clone(), |inode| model::netns::render(&path, inode)))
}

/// Under which name a sticky address is kept: the pod's, else the container's.
pub(crate) fn sticky_name(call: &Call) -> String {
    let at = call.at();
    let owner = call.req.args.pod().map_or(at.container_id.clone(), |(ns, pod)| format!("{ns}.{pod}"));
    format!("{}.{owner}.{}", at.network, at.ifname)
}

/// What the allocator is told of this host and moment.
pub(crate) fn context<'a>(call: &'a Call, scope: &'a Scope) -> Context<'a> {
    // Where there is no store, nothing is planned for it.
    let transactional = call.store(Mode::Existing).map_or(true, |store| store.is_transactional());
    Context { scope, host: &call.node, now: call.clock.now(), chance: call.chance, transactional }
}

/// Commits addresses for the attachment, or finds the ones it has. Durable after [`settle`], which must
/// come before the answer: until then they survive the death of this process, which is all that
/// the kernel's side of the attachment survives.
pub(crate) fn assign(call: &Call, own: &Own, request: &Assign) -> Result<Assigned, CniError> {
    let store = call.store(Mode::Create).map_err(|e| e.into_cni())?;
    let change = change(call, store, &own.scope, BatchItem::Assign(request.clone()));
    match call.ledger.change(Change { known: call.known(), ..change })? {
        Answer::Assigned(assigned) => Ok(assigned),
        _ => Err(CniError::internal("an assignment was answered as something else")),
    }
}

/// Makes durable what [`assign`] committed, and then forgets what the attachment owed before.
pub(crate) fn settle(call: &Call) -> Result<(), CniError> {
    let store = call.store(Mode::Existing).map_err(|e| e.into_cni())?;
    store.settle(call.deadline).map_err(|e| failure::store(&e))?;
    journal::forgive(call);
    Ok(())
}

/// Frees what the attachment holds. Durable when it returns; the sync holds up nobody.
pub(crate) fn release(call: &Call, scope: &Scope, request: &Release) -> Result<Released, CniError> {
    let store = call.store(Mode::Existing).map_err(|e| e.into_cni())?;
    match call.ledger.change(change(call, store, scope, BatchItem::Release(request.clone())))? {
        Answer::Released(released) => {
            store.settle(call.deadline).map_err(|e| failure::store(&e))?;
            Ok(released)
        }
        _ => Err(CniError::internal("a release was answered as something else")),
    }
}

/// What the ledger is asked to commit for this call.
pub(crate) fn change(call: &Call, store: &Arc<dyn Store>, scope: &Scope, item: BatchItem) -> Change {
    let clock = &call.clock;
    Change {
        store: store.clone(),
        scope: scope.clone(),
        host: call.node.clone(),
        moment: Moment {
            wall_ns: clock.wall_ns,
            boot_id: clock.boot_id.clone(),
            boottime_ms: clock.boottime_ms,
            chance: call.chance,
        },
        item,
        lock_file: call.req.paths.ipam_lock_file.clone(),
        lock_limit: call.conf.ipam_lock_timeout,
        deadline: call.deadline,
        is_cluster: call.is_cluster(),
        known: View::new(),
        hints: call.hints(store),
    }
}

/// What the attachment holds, without the lock: a reader needs none.
pub(crate) fn held(call: &Call, scope: &Scope, at: &Attachment) -> Result<Vec<Held>, CniError> {
    let store = call.store(Mode::Existing).map_err(|e| e.into_cni())?;
    let cx = context(call, scope);
    read(call, store.as_ref(), |view| ipam::lookup(view, &cx, &at.handle(), &at.attributes()))
}

/// Runs a reading plan.
pub(crate) fn read<T>(
    call: &Call,
    store: &dyn Store,
    plan: impl Fn(&View) -> Result<T, Stop<ipam::IpamError>>,
) -> Result<T, CniError> {
    let mut view = View::new();
    drive(store, &mut view, call.deadline, |view| plan(view).map(Plan::Done))
        .map(|(out, _)| out)
        .map_err(failure::drive)
}

/// The release of everything that an attachment holds.
pub(crate) fn release_of(call: &Call, at: &Attachment) -> Release {
    Release {
        handle: at.handle(),
        matches: at.attributes(),
        only: None,
        reuse_delay: call.conf.ipam.reuse_delay,
    }
}

/// Where this configuration's leases are, and where else they may be if it was changed since: pools
/// are the cluster's, ranges, and pools under another plugin, the network's.
pub(crate) fn scopes(call: &Call) -> [Scope; 2] {
    let network = Scope::Network(call.conf.name.clone());
    match addresses::is_scoped(call.conf, call.role) {
        true => [network, Scope::Cluster],
        false => [Scope::Cluster, network],
    }
}

/// What the attachment holds, in which scope; of a changed configuration too.
pub(crate) fn held_anywhere(call: &Call, at: &Attachment) -> Result<(Scope, Vec<Held>), CniError> {
    let [first, second] = scopes(call);
    let held = held(call, &first, at)?;
    if !held.is_empty() {
        return Ok((first, held));
    }
    match self::held(call, &second, at)? {
        held if held.is_empty() => Ok((first, held)),
        held => Ok((second, held)),
    }
}

/// A random UUID (RFC 9562, version 4) of 64 random bits and the call's moment.
pub(crate) fn uid(call: &Call) -> String {
    let (high, low) = (call.chance, call.clock.wall_ns);
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | ((low >> 48) & 0x3fff),
        low & 0xffff_ffff_ffff
    )
}
