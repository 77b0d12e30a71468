//! Releases that a DEL could not write to the store (decision 17).

use crate::host::{self, Host};
use crate::session::{Places, Session};
use anyhow::Result;
use datastore::ErrorKind;
use datastore::journal::{Id, Journal, Release as Entry};
use std::net::IpAddr;

pub use cni::engine::owed::{attachment, requests, scope_of};

/// The entries that are owed, oldest first; none where there is no journal.
pub fn pending(places: &Places) -> Result<Vec<(Id, Entry)>> {
    match Journal::open_existing(&places.state_dir).and_then(|journal| journal.pending()) {
        Err(error) if error.kind == ErrorKind::Missing => Ok(Vec::new()),
        other => Ok(other?),
    }
}

/// Carries out what is owed to this store. The answer is what was freed.
/// An entry of an attachment that a plugin works on is left to that plugin.
pub fn replay(session: &Session, host: &Host) -> Result<Vec<IpAddr>> {
    let mut freed = Vec::new();
    for (id, entry) in pending(&session.places)? {
        let Some(scope) = scope_of(&session.store.identity(), &entry) else { continue };
        let at = attachment(&entry);
        let Some(_lock) = host::try_lock(&session.places, &at)? else { continue };
        // Since it was read, an ADD may have taken the addresses into use again.
        if !pending(&session.places)?.iter().any(|(pending, _)| *pending == id) {
            continue;
        }
        for request in requests(&entry) {
            let cx = host.context(&scope);
            let released = session.commit(|view| ipam::plan_release(view, &cx, &request))?;
            freed.extend(released.freed);
        }
        Journal::open_existing(&session.places.state_dir)?.done(id)?;
    }
    Ok(freed)
}
