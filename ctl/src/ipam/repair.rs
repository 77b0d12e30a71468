//! The repair of what an audit finds: leaked addresses, owed releases, stray links.

use super::check::{MAX_LOCKS, facts, idle_strays};
use super::{journal, read, scopes};
use crate::cli::ScopeArgs;
use crate::host::{self, Host};
use crate::outcome::say_error;
use crate::session::{Places, Session};
use anyhow::Result;
use cni_protocol::Attachment;
use datastore::lock::AttachmentLock;
use ipam::audit::{Item, Report, Seen};
use model::Scope;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Bound on the rounds of repair, at 100 writes each.
const MAX_ROUNDS: usize = 2000;

/// What a repair did.
#[derive(Debug, Default, Serialize)]
pub struct Fixed {
    /// Addresses freed, leaked ones and those that the journal owed.
    pub freed: Vec<IpAddr>,
    /// Objects written or deleted.
    pub writes: usize,
    pub links_removed: Vec<String>,
}

/// Repairs what can be repaired. A journal that cannot be read stops nothing else.
pub fn repair(session: &Session, host: &Host, args: &ScopeArgs) -> Result<Fixed> {
    let mut fixed = Fixed::default();
    match journal::replay(session, host) {
        Ok(freed) => fixed.freed.extend(freed),
        Err(error) => say_error(&format!("the journal was left as it is: {error:#}")),
    }
    for scope in scopes(session, args)? {
        for _ in 0..MAX_ROUNDS {
            if !repair_round(session, host, &scope, &mut fixed)? {
                break;
            }
        }
    }
    remove_strays(session, host, &mut fixed)?;
    Ok(fixed)
}

/// One audit and repair under the locks of the attachments concerned: an ADD that finds its old
/// lease again changes nothing in the store, so that only its lock tells that the lease is alive.
/// True when there may be more to do.
fn repair_round(session: &Session, host: &Host, scope: &Scope, fixed: &mut Fixed) -> Result<bool> {
    let cx = host.context(scope);
    let before = facts(session, host, scope)?;
    let suspects = leaked(&read(session, |view| ipam::audit::audit(view, &cx, &before))?);
    let mut locks = lock_some(&session.places, &suspects)?;
    let facts = facts(session, host, scope)?;
    let mut report = read(session, |view| ipam::audit::audit(view, &cx, &facts))?;
    report.leaked.retain(|item| item_holder(item).is_none_or(|at| locks.contains_key(&at)));
    let repaired = session.commit(|view| ipam::audit::plan_repair(view, &cx, &facts, &report))?;
    fixed.writes += repaired.writes;
    for held in &repaired.released {
        fixed.freed.push(held.ip);
        if let Some(lock) = host::holder(held).and_then(|at| locks.remove(&at)) {
            lock.remove_and_release()?;
        }
    }
    Ok(repaired.writes > 0 && (repaired.more || suspects.len() > MAX_LOCKS))
}

/// The attachments of leaked addresses.
fn leaked(report: &Report) -> Vec<Attachment> {
    let mut owners: Vec<_> = report.leaked.iter().filter(|i| i.repairable).filter_map(item_holder).collect();
    owners.sort();
    owners.dedup();
    owners
}

fn item_holder(item: &Item) -> Option<Attachment> {
    match &item.seen {
        Seen::Held(held) => host::holder(held),
        _ => None,
    }
}

fn lock_some(places: &Places, owners: &[Attachment]) -> Result<BTreeMap<Attachment, AttachmentLock>> {
    let mut locks = BTreeMap::new();
    for at in owners {
        if locks.len() == MAX_LOCKS {
            break;
        }
        if let Some(lock) = host::try_lock(places, at)? {
            locks.insert(at.clone(), lock);
        }
    }
    Ok(locks)
}

/// Removes strays, each under its owner's lock. The routes through a link go with it.
fn remove_strays(session: &Session, host: &Host, fixed: &mut Fixed) -> Result<()> {
    for _ in 0..MAX_ROUNDS {
        let mut strays = idle_strays(session, host)?;
        strays.retain(|(stray, _)| stray.removable);
        if strays.is_empty() {
            break;
        }
        for (stray, lock) in strays {
            host::delete_link(&stray.link)?;
            fixed.links_removed.push(stray.link.name);
            lock.map(AttachmentLock::remove_and_release).transpose()?;
        }
    }
    Ok(())
}
