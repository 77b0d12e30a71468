//! What `ipam check` prints.

use super::check::Findings;
use super::repair::Fixed;
use super::scope_name;
use super::stray::Stray;
use crate::table::Table;
use ipam::audit::{Item, Report};
use model::Scope;
use serde::Serialize;
use std::net::IpAddr;

/// The JSON that scripts rely on, and what this build knows beside it.
#[derive(Serialize)]
pub struct Printed<'a> {
    allocations: usize,
    blocks: usize,
    leaked: Vec<PrintedItem<'a>>,
    suspected: Vec<PrintedItem<'a>>,
    duplicated: Vec<PrintedItem<'a>>,
    orphan_handles: Vec<PrintedItem<'a>>,
    orphan_affinities: Vec<PrintedItem<'a>>,
    handle_counts: Vec<PrintedItem<'a>>,
    lost: Vec<PrintedItem<'a>>,
    damaged: Vec<PrintedItem<'a>>,
    stray_links: Vec<PrintedLink<'a>>,
    owed_releases: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal_problem: Option<&'a str>,
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
    pub fn of(findings: &'a Findings, fixed: Option<&'a Fixed>) -> Self {
        let sum = |count: fn(&Report) -> usize| findings.scopes.iter().map(|(_, r)| count(r)).sum();
        let items = |part: fn(&Report) -> &Vec<Item>| {
            let all = findings.scopes.iter().flat_map(|(scope, r)| part(r).iter().map(move |i| (scope, i)));
            all.map(|(scope, item)| PrintedItem::of(scope, item)).collect()
        };
        Self {
            allocations: sum(|r| r.allocations),
            blocks: sum(|r| r.blocks),
            leaked: items(|r| &r.leaked),
            suspected: items(|r| &r.suspected),
            duplicated: items(|r| &r.duplicated),
            orphan_handles: items(|r| &r.orphan_handles),
            orphan_affinities: items(|r| &r.orphan_affinities),
            handle_counts: items(|r| &r.handle_counts),
            lost: items(|r| &r.lost),
            damaged: items(|r| &r.damaged),
            stray_links: findings.strays.iter().map(PrintedLink::of).collect(),
            owed_releases: findings.owed.iter().map(ToString::to_string).collect(),
            journal_problem: findings.journal_problem.as_deref(),
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

/// The same for people.
pub fn text(findings: &Findings, fixed: Option<&Fixed>) -> String {
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
    if !findings.clean() || !printed.suspected.is_empty() {
        text += &items_table(&printed);
    }
    if findings.clean() {
        return text + "nothing is wrong\n";
    }
    let advice = match (findings.repairable(), fixed) {
        (0, _) => String::new(),
        (n, None) => format!("; `percalectl ipam check --fix` repairs {n} of them"),
        (n, Some(_)) => format!("; {n} of them could not be repaired now, while a plugin works on them"),
    };
    let verdict = match findings.count() {
        1 => "1 thing is wrong".to_owned(),
        n => format!("{n} things are wrong"),
    };
    text + &format!("{verdict}{advice}\n")
}

fn items_table(printed: &Printed<'_>) -> String {
    let mut table = Table::new(["PROBLEM", "ADDRESS", "HANDLE", "NODE", "SCOPE", "REASON"]);
    let kinds = [
        ("leaked", &printed.leaked),
        ("suspected", &printed.suspected),
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
    if let Some(problem) = printed.journal_problem {
        table.row(["journal", "", "", "", "", problem]);
    }
    table.render()
}
