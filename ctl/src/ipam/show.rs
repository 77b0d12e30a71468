//! `ipam show`.

use super::{node_of, read, scope_name, scopes};
use crate::cli::{Output, ShowArgs};
use crate::host::Host;
use crate::outcome::{Outcome, say, say_error, say_json};
use crate::session::{Places, Session};
use crate::table::{Table, printable};
use anyhow::Result;
use datastore::embedded::Mode;
use ipam::{BlockUse, Held, Holdings};
use ipnet::IpNet;
use model::{IpPool, Scope, Stored, ip, keys};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Prints pools and blocks, or who holds one address.
pub fn show(places: &Places, args: &ShowArgs) -> Result<Outcome> {
    let session = places.open(Mode::ReadOnly)?;
    let all = read_all(&session, places, args)?;
    if let Some(ip) = args.ip {
        return show_ip(&all, ip, args.output.output);
    }
    let pools = if args.scope.network.is_some() { Vec::new() } else { pools(&session)? };
    let shown = Shown { pools: rows(&all, &pools), blocks: args.show_blocks.then(|| block_rows(&all)) };
    match args.output.output {
        Output::Json => say_json(&shown)?,
        Output::Table => say(&shown.table())?,
    }
    let notes: Vec<_> = all.iter().flat_map(|(_, holdings)| &holdings.notes).collect();
    notes.iter().for_each(|note| say_error(&note.to_string()));
    Ok(if notes.is_empty() { Outcome::Done } else { Outcome::Found })
}

type All = Vec<(Scope, Holdings)>;

fn read_all(session: &Session, places: &Places, args: &ShowArgs) -> Result<All> {
    let host = Host::look(places)?;
    let holdings = |scope: Scope| {
        let found = read(session, |view| ipam::holdings(view, &host.context(&scope)))?;
        Ok((scope, found))
    };
    scopes(session, &args.scope)?.into_iter().map(holdings).collect()
}

fn pools(session: &Session) -> Result<Vec<(String, IpNet)>> {
    read(session, |view| {
        let pools = view.list(&keys::pools())?;
        // One that cannot be read is for `get` and `check` to report.
        let pool = |e: &model::store::Entry| {
            let pool = IpPool::decode(&e.key, &e.value).ok()?;
            Some((pool.name().to_owned(), pool.spec.net()?))
        };
        Ok(pools.filter_map(pool).collect())
    })
}

#[derive(Serialize)]
struct Shown {
    pools: Vec<PoolRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<Vec<BlockRow>>,
}

/// Use of a pool; of all blocks of a network's scope; or of blocks that no pool covers.
#[derive(Serialize)]
struct PoolRow {
    scope: String,
    pool: Option<String>,
    cidr: Option<IpNet>,
    /// Addresses. An IPv6 pool may have more than 64 bits of them.
    size: u128,
    blocks: usize,
    used: usize,
    free: u128,
}

#[derive(Serialize)]
struct BlockRow {
    scope: String,
    cidr: IpNet,
    /// `host:NAME` or `virtual:NAME`.
    affinity: Option<String>,
    size: usize,
    used: usize,
    free: usize,
}

fn rows(all: &All, pools: &[(String, IpNet)]) -> Vec<PoolRow> {
    let mut rows = Vec::new();
    for (scope, holdings) in all {
        let pools = if *scope == Scope::Cluster { pools } else { &[] };
        rows.extend(pools.iter().map(|pool| pool_row(pool, &holdings.blocks)));
        let outside = |b: &&BlockUse| !pools.iter().any(|(_, net)| net.contains(&b.cidr));
        let rest: Vec<&BlockUse> = holdings.blocks.iter().filter(outside).collect();
        if !rest.is_empty() {
            rows.push(rest_row(scope, &rest));
        }
    }
    rows
}

fn pool_row((name, net): &(String, IpNet), blocks: &[BlockUse]) -> PoolRow {
    let inside: Vec<&BlockUse> = blocks.iter().filter(|b| net.contains(&b.cidr)).collect();
    let (first, last) = ip::bounds(net);
    // The whole of IPv6 has one address more than the type can count.
    let size = (last - first).saturating_add(1);
    row(&Scope::Cluster, Some((name.clone(), *net)), size, &inside)
}

fn rest_row(scope: &Scope, blocks: &[&BlockUse]) -> PoolRow {
    let size = blocks.iter().map(|b| b.size as u128).sum();
    row(scope, None, size, blocks)
}

fn row(scope: &Scope, pool: Option<(String, IpNet)>, size: u128, blocks: &[&BlockUse]) -> PoolRow {
    let used: usize = blocks.iter().map(|b| b.used).sum();
    let (pool, cidr) = pool.unzip();
    let free = size.saturating_sub(used as u128);
    PoolRow { scope: scope_name(scope), pool, cidr, size, blocks: blocks.len(), used, free }
}

fn block_rows(all: &All) -> Vec<BlockRow> {
    let row = |scope: &Scope, b: &BlockUse| BlockRow {
        scope: scope_name(scope),
        cidr: b.cidr,
        affinity: b.affinity.clone(),
        size: b.size,
        used: b.used,
        free: b.size - b.used,
    };
    all.iter().flat_map(|(scope, holdings)| holdings.blocks.iter().map(move |b| row(scope, b))).collect()
}

impl Shown {
    fn table(&self) -> String {
        let mut table = Table::new(["SCOPE", "POOL", "CIDR", "SIZE", "BLOCKS", "USED", "FREE"]);
        for row in &self.pools {
            table.row([
                row.scope.clone(),
                row.pool.clone().unwrap_or_default(),
                row.cidr.map(|c| c.to_string()).unwrap_or_default(),
                count(row.size),
                row.blocks.to_string(),
                row.used.to_string(),
                count(row.free),
            ]);
        }
        let blocks = self.blocks.as_ref().map(|blocks| blocks_table(blocks));
        table.render() + &blocks.map(|text| format!("\n{text}")).unwrap_or_default()
    }
}

fn blocks_table(blocks: &[BlockRow]) -> String {
    let mut table = Table::new(["SCOPE", "BLOCK", "AFFINITY", "SIZE", "USED", "FREE"]);
    for b in blocks {
        let numbers = [b.size, b.used, b.free].map(|n| n.to_string());
        let texts = [b.scope.clone(), b.cidr.to_string(), b.affinity.clone().unwrap_or_default()];
        table.row(texts.into_iter().chain(numbers));
    }
    table.render()
}

/// Beyond a billion nobody counts.
fn count(n: u128) -> String {
    if n < 10_u128.pow(9) { n.to_string() } else { format!("~2^{:.0}", (n as f64).log2()) }
}

#[derive(Serialize)]
struct Holder {
    scope: String,
    handle: Option<String>,
    node: Option<String>,
    block: IpNet,
    sequence: Option<u64>,
    attributes: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct ShownIp {
    ip: IpAddr,
    in_use: bool,
    /// One for each scope that has given it.
    holders: Vec<Holder>,
}

fn show_ip(all: &All, ip: IpAddr, output: Output) -> Result<Outcome> {
    let holder = |scope: &Scope, held: &Held| Holder {
        scope: scope_name(scope),
        handle: held.handle.clone(),
        node: node_of(held),
        block: held.block,
        sequence: held.sequence,
        attributes: held.attrs.clone(),
    };
    let held = |(scope, holdings): &(Scope, Holdings)| {
        holdings.held.iter().filter(|h| h.ip == ip).map(|h| holder(scope, h)).collect::<Vec<_>>()
    };
    let holders: Vec<Holder> = all.iter().flat_map(held).collect();
    let shown = ShownIp { ip, in_use: !holders.is_empty(), holders };
    match output {
        Output::Json => say_json(&shown)?,
        Output::Table => say(&shown.text())?,
    }
    Ok(Outcome::Done)
}

impl ShownIp {
    fn text(&self) -> String {
        if !self.in_use {
            return format!("{} is not in use\n", self.ip);
        }
        self.holders.iter().map(|holder| self.holder_text(holder)).collect::<Vec<_>>().join("\n")
    }

    fn holder_text(&self, holder: &Holder) -> String {
        let mut lines = vec![
            format!("{} is in use", self.ip),
            format!("  scope     {}", holder.scope),
            format!("  handle    {}", printable(holder.handle.as_deref().unwrap_or_default())),
            format!("  block     {}", holder.block),
        ];
        let attribute =
            |(name, value): (&String, &String)| format!("  {:<9} {}", printable(name), printable(value));
        lines.extend(holder.attributes.iter().map(attribute));
        lines.join("\n") + "\n"
    }
}
