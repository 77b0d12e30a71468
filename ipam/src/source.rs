//! Where addresses come from: pools and ranges, reduced to what allocation needs.

use crate::draft::{Draft, Step};
use crate::env::Env;
use crate::error::{IpamError, Nets, RangeFault};
use crate::request::{Ask, Assign, Note, Pools, Range};
use ipnet::IpNet;
use model::block::{block_sizes, default_block_size};
use model::ip::{self, Family};
use model::selector::Selector;
use model::store::Stop;
use model::{IpPool, keys};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

/// A network to take addresses from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_prefix: u8,
    /// First and last address that may be given, as numbers.
    pub first: u128,
    pub last: u128,
    /// Only for ranges: what the answer says about the subnet.
    pub range: Option<RangeAnswer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeAnswer {
    pub gateway: IpAddr,
}

impl Source {
    /// Whether an address may be given from here at all.
    pub fn gives(&self, ip: IpAddr) -> bool {
        let gateway = self.range.as_ref().is_some_and(|range| range.gateway == ip);
        self.cidr.contains(&ip) && (self.first..=self.last).contains(&ip::to_u128(ip)) && !gateway
    }

    /// Whether a block belongs here.
    pub fn holds(&self, block: &IpNet) -> bool {
        self.cidr.contains(block)
    }

    /// The block that an address would be in.
    pub fn block_of(&self, ip: IpAddr) -> IpNet {
        ip::net(ip, self.block_prefix)
    }

    fn of_pool(pool: &IpPool) -> Option<Self> {
        let (cidr, block_prefix) = (pool.spec.net()?, pool.spec.block_prefix()?);
        let (first, last) = ip::bounds(&cidr);
        Some(Self { cidr, block_prefix, first, last, range: None })
    }

    fn of_range(range: &Range, family: Family) -> Result<Self, RangeFault> {
        if Family::of_net(&range.cidr) != family {
            return Err(RangeFault::Family);
        }
        if range.cidr.trunc() != range.cidr {
            return Err(RangeFault::HostBits);
        }
        let (network, broadcast) = ip::bounds(&range.cidr);
        if broadcast - network < 3 {
            return Err(RangeFault::TooSmall);
        }
        let last_usable = if family == Family::V4 { broadcast - 1 } else { broadcast };
        let inside = |ip: IpAddr, fault| {
            if range.cidr.contains(&ip) { Ok(ip::to_u128(ip)) } else { Err(fault) }
        };
        let bound = |ip: Option<IpAddr>, fault, default| ip.map_or(Ok(default), |ip| inside(ip, fault));
        let first = bound(range.start, RangeFault::Start, network + 1)?.max(network + 1);
        let last = bound(range.end, RangeFault::End, last_usable)?.min(last_usable);
        let gateway = bound(range.gateway, RangeFault::Gateway, network + 1)?;
        if first > last {
            return Err(RangeFault::Order);
        }
        let range_answer = RangeAnswer { gateway: ip::from_u128(family, gateway) };
        let block_prefix = range_block_prefix(range, family)?;
        Ok(Self { cidr: range.cidr, block_prefix, first, last, range: Some(range_answer) })
    }
}

/// The family's usual block, or the whole range where that is smaller.
fn range_block_prefix(range: &Range, family: Family) -> Result<u8, RangeFault> {
    let length = range.cidr.prefix_len();
    let prefix = range.block_size.unwrap_or_else(|| default_block_size(family).max(length));
    let fits = block_sizes(family).contains(&prefix) && prefix >= length;
    if fits { Ok(prefix) } else { Err(RangeFault::BlockSize) }
}

/// The networks of sources, for messages.
pub(crate) fn nets(sources: &[Source]) -> Nets {
    Nets(sources.iter().map(|source| source.cidr).collect())
}

/// Every pool of the draft, by name.
pub(crate) fn all_pools(draft: &mut Draft, notes: &mut Vec<Note>) -> Step<Vec<Rc<IpPool>>> {
    let prefix = keys::pools();
    let stored: Vec<String> = draft.view.list(&prefix)?.map(|entry| entry.key.clone()).collect();
    let mut pools = Vec::new();
    for key in draft.pools.overlay(&prefix, stored) {
        match draft.pools.get(draft.view, &key) {
            Ok(pool) => pools.extend(pool),
            Err(Stop::Fail(IpamError::Damaged(e))) => {
                notes.push(Note::Unreadable { key, problem: e.problem.to_string() });
            }
            Err(stop) => return Err(stop),
        }
    }
    Ok(pools)
}

/// Where an ask may be served from, in order of preference.
pub(crate) fn sources(
    draft: &mut Draft,
    env: &Env,
    request: &Assign,
    ask: &Ask,
    notes: &mut Vec<Note>,
) -> Step<Vec<Source>> {
    match &ask.pools {
        Pools::Given(ranges) => ranges.iter().map(|range| given(range, ask.family)).collect(),
        Pools::Named(names) => {
            let pools = all_pools(draft, notes)?;
            names.iter().map(|name| named(&pools, name, ask.family)).collect()
        }
        Pools::Enabled => {
            let pools = all_pools(draft, notes)?;
            enabled(&pools, env, request, ask, notes)
        }
    }
}

pub(crate) fn given(range: &Range, family: Family) -> Step<Source> {
    let wrong = |fault| Stop::Fail(IpamError::BadRange { range: range.cidr, fault });
    Source::of_range(range, family).map_err(wrong)
}

/// A pool that was asked for by CIDR or name; its selectors do not matter then (reference 3.5).
fn named(pools: &[Rc<IpPool>], name: &str, family: Family) -> Step<Source> {
    let cidr = ip::parse_net(name).ok();
    let is_it = |pool: &&Rc<IpPool>| match cidr {
        Some(cidr) => pool.spec.net() == Some(cidr),
        None => pool.name() == name,
    };
    let name = || name.to_owned();
    let pool = pools.iter().find(is_it).ok_or_else(|| Stop::Fail(IpamError::PoolMissing { name: name() }))?;
    let refusal = if pool.spec.disabled || pool.metadata.deletion_timestamp.is_some() {
        IpamError::PoolDisabled { name: name() }
    } else if !pool.spec.allows_workloads() {
        IpamError::PoolNotForWorkloads { name: name() }
    } else {
        match Source::of_pool(pool) {
            Some(source) if Family::of_net(&source.cidr) == family => return Ok(source),
            _ => IpamError::PoolFamily { name: name(), family },
        }
    };
    Err(Stop::Fail(refusal))
}

/// The pools that serve this host unasked; for an explicit address those that could hold it,
/// whatever they select.
fn enabled(
    pools: &[Rc<IpPool>],
    env: &Env,
    request: &Assign,
    ask: &Ask,
    notes: &mut Vec<Note>,
) -> Step<Vec<Source>> {
    let (family, explicit) = (ask.family, ask.explicit.is_some());
    let mut sources = Vec::new();
    for pool in pools.iter().filter(|pool| in_use(pool, pools)) {
        let Some(source) = Source::of_pool(pool).filter(|s| Family::of_net(&s.cidr) == family) else {
            continue;
        };
        if explicit || serves(pool, env, request, notes)? {
            sources.push(source);
        }
    }
    if sources.is_empty() && !explicit {
        return Err(Stop::Fail(IpamError::NoPools { family, host: env.cx.host.to_owned() }));
    }
    Ok(sources)
}

/// Enabled, for workloads, not being deleted, and not masked by another pool (modern data model 3).
fn in_use(pool: &IpPool, pools: &[Rc<IpPool>]) -> bool {
    let allocatable = pool.allocatable().unwrap_or_else(|| !masked(pool, pools));
    allocatable
        && !pool.spec.disabled
        && pool.metadata.deletion_timestamp.is_none()
        && pool.spec.allows_workloads()
}

/// Whether a pool that was not judged yet lies over one that was found good.
fn masked(pool: &IpPool, pools: &[Rc<IpPool>]) -> bool {
    let Some(cidr) = pool.spec.net() else { return true };
    let masks = |other: &&Rc<IpPool>| {
        other.name() != pool.name()
            && !other.spec.disabled
            && other.allocatable() == Some(true)
            && other.spec.net().is_some_and(|net| ip::overlap(&net, &cidr))
    };
    pools.iter().any(|other| masks(&other))
}

fn serves(pool: &IpPool, env: &Env, request: &Assign, notes: &mut Vec<Note>) -> Step<bool> {
    if pool.spec.assignment_mode == "Manual" {
        return Ok(false);
    }
    let selects = |text: &str, labels: &BTreeMap<String, String>| match Selector::parse(text) {
        Ok(selector) => Ok(selector.matches(labels)),
        Err(fault) => Err(Stop::Fail(IpamError::Selector { pool: pool.name().to_owned(), fault })),
    };
    if !selects(&pool.spec.node_selector, &env.labels)? {
        return Ok(false);
    }
    match (pool.spec.namespace_selector.trim(), &request.namespace) {
        ("", _) => Ok(true),
        (selector, Some(labels)) => selects(selector, labels),
        (_, None) => {
            notes.push(Note::NamespacePool { pool: pool.name().to_owned() });
            Ok(false)
        }
    }
}
