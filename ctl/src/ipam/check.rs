//! `ipam check`: the audit of every scope, of the journal and of host links, and their repair.

use super::{journal, read, scope_name, scopes, stray};
use crate::cli::{CheckArgs, Output, ScopeArgs};
use crate::host::{self, Host};
use crate::outcome::{Outcome, say, say_json};
use crate::session::{Places, Session};
use crate::table::Table;
use anyhow::Result;
use cni_protocol::Attachment;
use datastore::Store;
use datastore::embedded::Mode;
use datastore::lock::AttachmentLock;
use ipam::Held;
use ipam::audit::{HostFacts, Item, Report, Seen};
use model::Scope;
use netlink::Link;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use stray::Stray;

/// Attachments that are locked at once: each costs a file descriptor.
const MAX_LOCKS: usize = 200;
/// Bound on the rounds of repair, at 100 writes each.
const MAX_ROUNDS: usize = 2000;

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
    /// Attachments whose release waits in the journal, with the store it is owed to.
    pub owed: Vec<(Attachment, String)>,
}

impl Findings {
    pub fn clean(&self) -> bool {
        self.count() == 0
    }

    pub fn count(&self) -> usize {
        let items: usize = self.scopes.iter().map(|(_, report)| report.items().count()).sum();
        items + self.strays.len() + self.owed.len()
    }

    fn repairable(&self) -> usize {
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
        let (facts, ..) = facts(session, host, &scope)?;
        let report = read(session, |view| ipam::audit::audit(view, &host.context(&scope), &facts))?;
        reports.push((scope, report));
    }
    Ok(Findings { scopes: reports, strays: idle_strays(session, host)?, owed: owed(session)? })
}

/// Facts are gathered after the allocations were read: what came later is not judged by them.
fn facts(session: &Session, host: &Host, scope: &Scope) -> Result<(HostFacts, Vec<Held>, Vec<Link>)> {
    let held = read(session, |view| ipam::holdings(view, &host.context(scope)))?.held;
    let links = host::links()?;
    Ok((host.facts(&held, &links)?, held, links))
}

fn owed(session: &Session) -> Result<Vec<(Attachment, String)>> {
    let identity = session.store.identity();
    let pending = journal::pending(&session.places)?;
    let ours = pending.iter().filter(|(_, entry)| journal::scope_of(&identity, entry).is_some());
    Ok(ours.map(|(_, entry)| (journal::attachment(entry), entry.store.clone())).collect())
}

/// Every lease of every scope: a link may belong to any of them.
fn strays(session: &Session, host: &Host) -> Result<Vec<Stray>> {
    // Links first: an ADD commits its lease before it makes the link.
    let links = host::links()?;
    let mut held = Vec::new();
    for scope in scopes(session, &ScopeArgs { network: None })? {
        held.extend(read(session, |view| ipam::holdings(view, &host.context(&scope)))?.held);
    }
    Ok(stray::find(&links, &held))
}

/// Strays that no plugin is working on right now.
fn idle_strays(session: &Session, host: &Host) -> Result<Vec<Stray>> {
    let mut idle = Vec::new();
    for stray in strays(session, host)? {
        match &stray.owner {
            None => idle.push(stray),
            Some(at) => {
                if let Some(lock) = host::try_lock(&session.places, at)? {
                    drop(lock);
                    idle.push(stray);
                }
            }
        }
    }
    Ok(idle)
}

/// What a repair did.
#[derive(Debug, Default, Serialize)]
struct Fixed {
    /// Addresses freed, leaked ones and those that the journal owed.
    freed: Vec<IpAddr>,
    /// Objects written or deleted.
    writes: usize,
    links_removed: Vec<String>,
}

fn repair(session: &Session, host: &Host, args: &ScopeArgs) -> Result<Fixed> {
    let mut fixed = Fixed::default();
    fixed.freed.extend(journal::replay(session, host)?.into_iter().map(|(_, ip)| ip));
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
    let (facts_before, ..) = facts(session, host, scope)?;
    let suspects = leaked(&read(session, |view| ipam::audit::audit(view, &cx, &facts_before))?);
    let mut locks = lock_some(&session.places, &suspects)?;
    let (facts, ..) = facts(session, host, scope)?;
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

/// Removes strays, each under its owner's lock and only if it still is one. Routes go with it.
fn remove_strays(session: &Session, host: &Host, fixed: &mut Fixed) -> Result<()> {
    for stray in strays(session, host)?.into_iter().filter(|s| s.removable) {
        let lock = match &stray.owner {
            None => None,
            Some(at) => match host::try_lock(&session.places, at)? {
                None => continue,
                lock => lock,
            },
        };
        if strays(session, host)?.contains(&stray) {
            host::delete_link(&stray.link)?;
            fixed.links_removed.push(stray.link.name);
        }
        drop(lock);
    }
    Ok(())
}

/// The JSON that scripts rely on, and what this build knows beside it.
#[derive(Serialize)]
struct Printed<'a> {
    allocations: usize,
    blocks: usize,
    leaked: Vec<PrintedItem<'a>>,
    duplicated: Vec<PrintedItem<'a>>,
    orphan_handles: Vec<PrintedItem<'a>>,
    orphan_affinities: Vec<PrintedItem<'a>>,
    handle_counts: Vec<PrintedItem<'a>>,
    lost: Vec<PrintedItem<'a>>,
    damaged: Vec<PrintedItem<'a>>,
    stray_links: Vec<PrintedLink<'a>>,
    owed_releases: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<&'a Fixed>,
}

#[derive(Serialize)]
struct PrintedItem<'a> {
    ip: Option<IpAddr>,
    handle: Option<&'a str>,
    node: Option<&'a str>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<String>,
    scope: String,
    repairable: bool,
}

#[derive(Serialize)]
struct PrintedLink<'a> {
    link: &'a str,
    owner: Option<String>,
    reason: &'a str,
    repairable: bool,
}

impl<'a> Printed<'a> {
    fn of(findings: &'a Findings, fixed: Option<&'a Fixed>) -> Self {
        let sum = |count: fn(&Report) -> usize| findings.scopes.iter().map(|(_, r)| count(r)).sum();
        let items = |part: fn(&Report) -> &Vec<Item>| {
            let all = findings.scopes.iter().flat_map(|(scope, r)| part(r).iter().map(move |i| (scope, i)));
            all.map(|(scope, item)| PrintedItem::of(scope, item)).collect()
        };
        Self {
            allocations: sum(|r| r.allocations),
            blocks: sum(|r| r.blocks),
            leaked: items(|r| &r.leaked),
            duplicated: items(|r| &r.duplicated),
            orphan_handles: items(|r| &r.orphan_handles),
            orphan_affinities: items(|r| &r.orphan_affinities),
            handle_counts: items(|r| &r.handle_counts),
            lost: items(|r| &r.lost),
            damaged: items(|r| &r.damaged),
            stray_links: findings.strays.iter().map(PrintedLink::of).collect(),
            owed_releases: findings.owed.iter().map(|(at, _)| at.to_string()).collect(),
            fixed,
        }
    }
}

impl<'a> PrintedItem<'a> {
    fn of(scope: &Scope, item: &'a Item) -> Self {
        Self {
            ip: item.ip,
            handle: item.handle.as_deref(),
            node: item.node.as_deref(),
            reason: &item.reason,
            block: item.block.map(|b| b.to_string()),
            scope: scope_name(scope),
            repairable: item.repairable,
        }
    }
}

impl<'a> PrintedLink<'a> {
    fn of(stray: &'a Stray) -> Self {
        let owner = stray.owner.as_ref().map(ToString::to_string);
        Self { link: &stray.link.name, owner, reason: stray.reason, repairable: stray.removable }
    }
}

fn text(findings: &Findings, fixed: Option<&Fixed>) -> String {
    let printed = Printed::of(findings, fixed);
    let mut text = format!("{} addresses in use, {} blocks\n", printed.allocations, printed.blocks);
    if let Some(fixed) = fixed {
        text += &format!(
            "repaired: {} addresses freed, {} objects written, {} links removed\n",
            fixed.freed.len(),
            fixed.writes,
            fixed.links_removed.len()
        );
    }
    if findings.clean() {
        return text + "nothing is wrong\n";
    }
    text += &items_table(&printed);
    let advice = match (findings.repairable(), fixed) {
        (0, _) => String::new(),
        (n, None) => format!("; `percalectl ipam check --fix` repairs {n} of them"),
        (n, Some(_)) => format!("; {n} of them could not be repaired now: a plugin works on them"),
    };
    text + &format!("{} things are wrong{advice}\n", findings.count())
}

fn items_table(printed: &Printed<'_>) -> String {
    let mut table = Table::new(["PROBLEM", "ADDRESS", "HANDLE", "NODE", "SCOPE", "REASON"]);
    let kinds = [
        ("leaked", &printed.leaked),
        ("duplicated", &printed.duplicated),
        ("orphan handle", &printed.orphan_handles),
        ("orphan affinity", &printed.orphan_affinities),
        ("handle count", &printed.handle_counts),
        ("lost", &printed.lost),
        ("damaged", &printed.damaged),
    ];
    for (kind, item) in kinds.into_iter().flat_map(|(kind, items)| items.iter().map(move |i| (kind, i))) {
        let address = item.ip.map(|ip| ip.to_string()).or_else(|| item.block.clone()).unwrap_or_default();
        let (handle, node) = (item.handle.unwrap_or_default(), item.node.unwrap_or_default());
        table.row([kind, &address, handle, node, &item.scope, item.reason]);
    }
    for link in &printed.stray_links {
        let owner = link.owner.as_deref().unwrap_or_default();
        table.row(["stray link", link.link, owner, "", "", link.reason]);
    }
    for owner in &printed.owed_releases {
        table.row(["owed release", "", owner, "", "", "a DEL could not write it to the store"]);
    }
    table.render()
}
