//! `ipam check`: the audit of every scope, of the journal and of host links.

use super::repair::repair;
use super::report::{Printed, text};
use super::stray::{self, Stray};
use super::{journal, read, scopes};
use crate::cli::{CheckArgs, Output, ScopeArgs};
use crate::host::{self, Host};
use crate::outcome::{Outcome, chain, say, say_json};
use crate::session::{Places, Session};
use anyhow::Result;
use cni_protocol::Attachment;
use datastore::embedded::Mode;
use datastore::lock::{AttachmentLock, Kind, Lock};
use ipam::audit::{HostFacts, Report, Witness};
use model::Scope;
use netlink::Link;

/// Attachments that are locked at once: each costs a file descriptor.
pub(super) const MAX_LOCKS: usize = 200;

/// Prints what is wrong, after repairing it where that was asked for.
pub fn check(places: &Places, args: &CheckArgs) -> Result<Outcome> {
    let session = places.open(if args.fix { Mode::Existing } else { Mode::ReadOnly })?;
    let host = Host::look(places)?;
    let fixed = if args.fix { Some(repair(&session, &host, &args.scope)?) } else { None };
    let findings = examine(&session, &host, &args.scope)?;
    match args.output.output {
        Output::Json => say_json(&Printed::of(&findings, fixed.as_ref()))?,
        Output::Table => say(&text(&findings, fixed.as_ref()))?,
    }
    Ok(if findings.clean() { Outcome::Done } else { Outcome::Found })
}

/// Everything that was found in one look.
pub struct Findings {
    pub scopes: Vec<(Scope, Report)>,
    pub strays: Vec<Stray>,
    /// Attachments whose release waits in the journal.
    pub owed: Vec<Attachment>,
    /// Why the journal could not be read.
    pub journal_problem: Option<String>,
}

impl Findings {
    pub fn clean(&self) -> bool {
        self.count() == 0
    }

    pub fn count(&self) -> usize {
        let items: usize = self.scopes.iter().map(|(_, report)| report.items().count()).sum();
        items + self.strays.len() + self.owed.len() + usize::from(self.journal_problem.is_some())
    }

    pub fn repairable(&self) -> usize {
        let items = self.scopes.iter().flat_map(|(_, report)| report.items());
        items.filter(|item| item.repairable).count()
            + self.strays.iter().filter(|s| s.removable).count()
            + self.owed.len()
    }
}

/// Looks at the store, the journal and this host. Changes nothing.
pub fn examine(session: &Session, host: &Host, args: &ScopeArgs) -> Result<Findings> {
    let mut reports = Vec::new();
    for scope in scopes(session, args)? {
        let facts = facts(session, host, &scope)?;
        let report = read(session, |view| ipam::audit::audit(view, &host.context(&scope), &facts))?;
        reports.push((scope, report));
    }
    let (owed, journal_problem) = match owed(session) {
        Ok(owed) => (owed, None),
        Err(error) => (Vec::new(), Some(chain(&error))),
    };
    Ok(Findings { scopes: reports, strays: seen_strays(session, host)?, owed, journal_problem })
}

/// Facts are gathered after the allocations were read: what came later is not judged by them.
pub(super) fn facts(session: &Session, host: &Host, scope: &Scope) -> Result<HostFacts> {
    let held = read(session, |view| ipam::holdings(view, &host.context(scope)))?.held;
    let facts = host.facts(&held, &host::links()?)?;
    Ok(HostFacts { witness: witness(&session.store.identity()), ..facts })
}

/// What a kind of store knows of the owners of addresses: Kubernetes its pods, etcd the endpoints that
/// the plugins write, the embedded store nothing.
fn witness(identity: &str) -> Witness {
    match identity.split(':').next() {
        Some("kubernetes") => Witness::Pods,
        Some("etcdv3") => Witness::Endpoints,
        _ => Witness::Nothing,
    }
}

fn owed(session: &Session) -> Result<Vec<Attachment>> {
    let identity = session.store.identity();
    let pending = journal::pending(&session.places)?;
    let ours = pending.iter().filter(|(_, entry)| journal::scope_of(&identity, entry).is_some());
    Ok(ours.map(|(_, entry)| journal::attachment(entry)).collect())
}

/// Every lease of every scope: a link may belong to any of them.
fn strays(session: &Session, host: &Host) -> Result<Vec<Stray>> {
    // Links first: an ADD commits its lease before it makes the link.
    let links = host::links()?;
    let mut held = Vec::new();
    for scope in scopes(session, &ScopeArgs { network: None })? {
        held.extend(read(session, |view| ipam::holdings(view, &host.context(&scope)))?.held);
    }
    Ok(stray::find(&awaited(session, links), &held))
}

/// Strays that no plugin is working on, each with its owner's lock: looked for again under the locks,
/// because a DEL may just have removed what was seen.
pub(super) fn idle_strays(session: &Session, host: &Host) -> Result<Vec<(Stray, Option<AttachmentLock>)>> {
    let mut idle = Vec::new();
    for stray in strays(session, host)?.into_iter().take(MAX_LOCKS) {
        match &stray.owner {
            None => idle.push((stray, None)),
            Some(at) => match host::try_lock(&session.places, at)? {
                None => {}
                lock => idle.push((stray, lock)),
            },
        }
    }
    if !idle.is_empty() {
        let still = strays(session, host)?;
        idle.retain(|(stray, _)| still.contains(stray));
    }
    Ok(idle)
}

/// As `idle_strays`, for a look alone: leaves no lock file behind.
fn seen_strays(session: &Session, host: &Host) -> Result<Vec<Stray>> {
    let mut seen = Vec::new();
    for (stray, lock) in idle_strays(session, host)? {
        lock.map(AttachmentLock::remove_and_release).transpose()?;
        seen.push(stray);
    }
    Ok(seen)
}

/// Without the links that a running daemon is about to delete (decision 16): it holds its lock.
fn awaited(session: &Session, mut links: Vec<Link>) -> Vec<Link> {
    let lock = session.places.state_dir.join("percaled.lock");
    let runs = lock.exists() && matches!(Lock::try_acquire(&lock, Kind::Shared), Ok(None));
    if runs {
        links.retain(|link| link.group != netlink::RETIRED_GROUP);
    }
    links
}
