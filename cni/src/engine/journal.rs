//! Releases that the store did not take (decision 17): written down, and carried out later.

use super::call::Call;
use super::{endpoint, leases, owed};
use cni_protocol::{Attachment, CniError, Code};
use datastore::Store;
use datastore::embedded::Mode;
use datastore::journal::{Held as Owed, Id, Journal, Release as Entry};
use ipam::{BatchItem, Held, Release};
use model::Scope;
use std::net::IpAddr;
use std::sync::Arc;

/// Owed releases that one call carries out beside its own work.
const MAX_REPLAYS: usize = 16;

/// Writes down that `at` owes its addresses. `held` is what was seen of them; where the store could
/// not even be read, the identity alone, for the addresses that the host knows.
pub(crate) fn owe(
    call: &Call,
    at: &Attachment,
    scope: &Scope,
    held: &[Held],
    known: &[IpAddr],
) -> Result<(), CniError> {
    call.gave_up();
    let addresses = match held {
        [] => known.iter().map(|ip| unseen(at, *ip)).collect(),
        held => held.iter().map(seen).collect(),
    };
    let entry = Entry {
        store: store_name(call, scope),
        network: at.network.clone(),
        container: at.container_id.clone(),
        ifname: at.ifname.clone(),
        addresses,
    };
    let written = Journal::open(&call.req.paths.state_dir).and_then(|journal| journal.append(&entry));
    written.map(|_| ()).map_err(|e| {
        CniError::new(
            Code::Io,
            "the container is cleaned up, but its addresses could be released neither in the store nor in the journal; \
             free some room in the state directory or make it writable, then try again",
        )
        .caused_by(&e)
    })
}

/// Makes the journal while there is room for it, for the DEL that finds none (decision 17).
pub(crate) fn prepare(call: &Call) -> Result<(), CniError> {
    if call.req.paths.journal.exists() {
        return Ok(());
    }
    Journal::open(&call.req.paths.state_dir).map(|_| ()).map_err(|e| super::failure::store(&e))
}

fn seen(held: &Held) -> Owed {
    Owed {
        ip: held.ip,
        handle: held.handle.clone().unwrap_or_default(),
        attrs: held.attrs.clone(),
        sequence: held.sequence.unwrap_or_default(),
    }
}

fn unseen(at: &Attachment, ip: IpAddr) -> Owed {
    Owed { ip, handle: at.handle(), attrs: at.attributes(), sequence: 0 }
}

/// Before an ADD: what others owe is carried out, for it may be what this ADD needs. An attachment that
/// owes a release itself keeps what it still holds; see [`forgive`].
pub(crate) fn cancel(call: &Call) {
    let Some((journal, pending)) = pending(call) else { return };
    let (own, others): (Vec<_>, Vec<_>) = pending.into_iter().partition(|(_, entry)| is_of(entry, call.at()));
    call.set_debts(own.into_iter().map(|(id, _)| id).collect());
    carry_out(call, &journal, others);
}

/// The attachment has its addresses again, so it owes them no longer. Not before that is committed: an
/// ADD that fails must leave the debt.
pub(crate) fn forgive(call: &Call) {
    let debts = call.take_debts();
    if debts.is_empty() {
        return;
    }
    let journal = Journal::open(&call.req.paths.state_dir);
    let done = journal.and_then(|journal| debts.into_iter().try_for_each(|id| journal.done(id)));
    if let Err(e) = done {
        call.note(&format!("journal: {e}"));
    }
}

/// Carries out what is owed to this store, oldest first, as far as it goes.
pub(crate) fn replay(call: &Call) {
    if call.has_given_up() {
        return;
    }
    if let Some((journal, pending)) = pending(call) {
        carry_out(call, &journal, pending);
    }
}

fn carry_out(call: &Call, journal: &Journal, pending: Vec<(Id, Entry)>) {
    if pending.is_empty() {
        return;
    }
    let Ok(store) = call.store(Mode::Existing) else { return };
    for (id, entry) in pending.into_iter().take(MAX_REPLAYS) {
        if let Err(why) = finish(call, journal, store, id, &entry) {
            call.note(&format!("journal: {why}"));
            return;
        }
    }
}

fn finish(
    call: &Call,
    journal: &Journal,
    store: &Arc<dyn Store>,
    id: Id,
    entry: &Entry,
) -> Result<bool, CniError> {
    let change = leases::change(call, store, &Scope::Cluster, BatchItem::Release(Release::default()));
    let first = |scope: &Scope, at: &Attachment| remove_endpoint(call, scope, at);
    let done =
        owed::finish(call.ledger, &change, &call.req.paths.attachment_dir, journal, (id, entry), &first)?;
    if done {
        call.note(&format!("finished the release of {}", owed::attachment(entry)));
    }
    Ok(done)
}

/// Carries out all that is owed to this store; how many entries are left.
///
/// # Errors
/// What the store or the journal met.
pub(crate) fn replay_all(call: &Call) -> Result<usize, CniError> {
    let Some((journal, pending)) = pending(call) else { return Ok(0) };
    let store = call.store(Mode::Existing).map_err(|e| e.into_cni())?;
    let mut left = 0;
    for (id, entry) in &pending {
        left += usize::from(!finish(call, &journal, store, *id, entry)?);
    }
    Ok(left)
}

/// An address is never free while an endpoint has it; its leases name its pod.
fn remove_endpoint(call: &Call, scope: &Scope, at: &Attachment) -> Result<(), CniError> {
    if !call.is_cluster() {
        return Ok(());
    }
    let held = leases::held(call, scope, at)?;
    let known: Vec<IpAddr> = held.iter().map(|held| held.ip).collect();
    if known.is_empty() { Ok(()) } else { endpoint::remove(call, at, None, &held, &known) }
}

/// The pending entries, where there is a journal at all.
fn pending(call: &Call) -> Option<(Journal, Vec<(Id, Entry)>)> {
    if Journal::is_unused(&call.req.paths.state_dir) || !call.req.paths.journal.exists() {
        return None;
    }
    let journal = Journal::open(&call.req.paths.state_dir);
    match journal.and_then(|journal| journal.pending().map(|pending| (journal, pending))) {
        Ok((_, pending)) if pending.is_empty() => None,
        Ok(found) => Some(found),
        Err(e) => {
            call.note(&format!("journal: {e}"));
            None
        }
    }
}

fn is_of(entry: &Entry, at: &Attachment) -> bool {
    (&entry.network, &entry.container, &entry.ifname) == (&at.network, &at.container_id, &at.ifname)
}

/// The store's identity and, after a space, the scope: an entry is for exactly one of both.
fn store_name(call: &Call, scope: &Scope) -> String {
    let store = match call.store(Mode::Existing) {
        Ok(store) => store.identity(),
        Err(_) => super::stores::expected_identity(call.req),
    };
    match scope {
        Scope::Cluster => store,
        Scope::Network(_) => format!("{store} network"),
    }
}
