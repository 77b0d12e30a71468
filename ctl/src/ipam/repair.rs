//! The repair of what an audit finds: leaked addresses, owed releases, stray links.

use super::check::{MAX_LOCKS, facts, idle_strays};
use super::{journal, read, scopes};
use crate::cli::ScopeArgs;
use crate::host::{self, Host};
use crate::outcome::{chain, say_error};
use crate::session::{Places, Session};
use anyhow::Result;
use cni_protocol::Attachment;
use datastore::lock::AttachmentLock;
use ipam::audit::{Item, Report, Seen};
use model::Scope;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
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
        Err(error) => say_error(&format!("the journal was left as it is: {}", chain(&error))),
    }
    for scope in scopes(session, args)? {
        repair_scope(session, host, &scope, &mut fixed)?;
    }
    remove_strays(session, host, &mut fixed)?;
    Ok(fixed)
}

fn repair_scope(session: &Session, host: &Host, scope: &Scope, fixed: &mut Fixed) -> Result<()> {
    let facts = facts(session, host, scope)?;
    let report = read(session, |view| ipam::audit::audit(view, &host.context(scope), &facts))?;
    for owners in leaked(&report).chunks(MAX_LOCKS) {
        repair_batch(session, host, scope, owners, fixed)?;
    }
    // What belongs to no attachment, and what the releases left.
    repair_batch(session, host, scope, &[], fixed)
}

/// Audits again and repairs under the locks of these attachments: an ADD that finds its old lease
/// again changes nothing in the store, so that only its lock tells that the lease is alive.
fn repair_batch(
    session: &Session,
    host: &Host,
    scope: &Scope,
    owners: &[Attachment],
    fixed: &mut Fixed,
) -> Result<()> {
    let cx = host.context(scope);
    let mut locks = lock_some(&session.places, owners)?;
    let facts = facts(session, host, scope)?;
    let mut report = read(session, |view| ipam::audit::audit(view, &cx, &facts))?;
    report.leaked.retain(|item| item_holder(item).is_none_or(|at| locks.contains_key(&at)));
    let mut gone = BTreeSet::new();
    for _ in 0..MAX_ROUNDS {
        let repaired = session.commit(|view| ipam::audit::plan_repair(view, &cx, &facts, &report))?;
        fixed.writes += repaired.writes;
        fixed.freed.extend(repaired.released.iter().map(|held| held.ip));
        gone.extend(repaired.released.iter().filter_map(host::holder));
        if repaired.writes == 0 || !repaired.more {
            break;
        }
    }
    // Only now: another commit may have been about the same attachment.
    gone.iter().filter_map(|at| locks.remove(at)).try_for_each(AttachmentLock::remove_and_release)?;
    Ok(())
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
    let lock = |at: &Attachment| Ok(host::try_lock(places, at)?.map(|lock| (at.clone(), lock)));
    owners.iter().filter_map(|at| lock(at).transpose()).collect()
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
