//! Serving one request: what is held already, what is missing, and the handle's counts.

use crate::create::create_pools;
use crate::draft::{Draft, Step};
use crate::earlier;
use crate::env::{Env, ready};
use crate::error::IpamError;
use crate::held;
use crate::hunt::Hunt;
use crate::request::{Ask, Assign, Assigned, Given, Held, Note, Pools};
use crate::source::{self, Source};
use ipnet::IpNet;
use model::affinity::handle_key;
use model::ip::Family;
use model::store::{Query, Stop};
use model::{Handle, keys};
use std::net::IpAddr;

/// What every request of this kind reads, so that it is fetched at once.
pub(crate) fn queries(env: &crate::Context, request: &Assign) -> Vec<Query> {
    let mut wanted = Env::queries(env);
    wanted.push(Query::Get(handle_key(env.scope, &request.handle)));
    let pools = |ask: &Ask| !matches!(ask.pools, Pools::Given(_));
    if request.asks.iter().any(pools) || !request.create_pools.is_empty() {
        wanted.push(Query::List(keys::pools()));
    }
    for ask in request.asks.iter().filter(|ask| ask.explicit.is_none()) {
        wanted.push(Query::List(keys::affinities(env.scope, env.host, ask.family)));
    }
    if let Some(name) = &request.sticky {
        wanted.push(Query::Get(keys::sticky(env.scope, name)));
    }
    wanted
}

pub(crate) fn assign(draft: &mut Draft, env: &Env, request: &Assign) -> Step<Assigned> {
    check(request)?;
    if !request.locked {
        ready(draft.view)?;
    }
    let mut notes = env.notes.clone();
    create_pools(draft, env, &request.create_pools, &mut notes)?;
    let mut held = held::by_handle(draft, env.cx.host, &request.handle, &held::identity(&request.attrs))?;
    let kept = request.asks.iter().map(|ask| keep(&mut held, ask, &request.handle));
    let kept: Vec<Option<Held>> = kept.collect::<Result<_, _>>().map_err(Stop::Fail)?;
    let mut addresses = Vec::with_capacity(kept.len());
    for (ask, kept) in request.asks.iter().zip(&kept) {
        addresses.push(match kept {
            Some(held) => answer_held(draft, ask, held, &mut notes)?,
            None => serve(draft, env, request, ask, &mut notes)?,
        });
    }
    let found = kept.iter().all(Option::is_some);
    if !found {
        let given = addresses.iter().zip(&kept).filter(|(_, kept)| kept.is_none());
        let new: Vec<IpAddr> = given.map(|(given, _)| given.ip).collect();
        count(draft, request, &new)?;
        remember(draft, request, &addresses)?;
    }
    notes.sort();
    notes.dedup();
    let ips: Vec<IpAddr> = addresses.iter().map(|given| given.ip).collect();
    let repeated = found && !earlier::gave(draft, &ips);
    Ok(Assigned { addresses, repeated, report: notes })
}

fn check(request: &Assign) -> Step<()> {
    if request.handle.is_empty() || request.asks.is_empty() {
        return Err(Stop::Fail(IpamError::Empty));
    }
    for ask in &request.asks {
        if let Some(ip) = ask.explicit.filter(|ip| Family::of(*ip) != ask.family) {
            return Err(Stop::Fail(IpamError::WrongFamily { ip, family: ask.family }));
        }
    }
    Ok(())
}

/// Takes what answers the ask from what is held. Holding another address than the one asked for
/// is refused: the runtime must delete the attachment first.
fn keep(held: &mut Vec<Held>, ask: &Ask, handle: &str) -> Result<Option<Held>, IpamError> {
    let fits = |held: &Held| Family::of(held.ip) == ask.family && in_ranges(&ask.pools, held.ip);
    let exact = |held: &Held| ask.explicit.is_none_or(|ip| ip == held.ip);
    if let Some(found) = held.iter().position(|h| fits(h) && exact(h)) {
        return Ok(Some(held.remove(found)));
    }
    match (held.iter().find(|h| fits(h)), ask.explicit) {
        (Some(other), Some(asked)) => {
            Err(IpamError::HoldsOther { handle: handle.to_owned(), held: other.ip, asked })
        }
        _ => Ok(None),
    }
}

/// Two asks of one family differ by their ranges. Pools may have changed since; they do not matter.
fn in_ranges(pools: &Pools, ip: IpAddr) -> bool {
    match pools {
        Pools::Given(ranges) => ranges.iter().any(|range| range.cidr.contains(&ip)),
        Pools::Enabled | Pools::Named(_) => true,
    }
}

fn serve(draft: &mut Draft, env: &Env, request: &Assign, ask: &Ask, notes: &mut Vec<Note>) -> Step<Given> {
    let sources = source::sources(draft, env, request, ask, notes)?;
    let former = former(draft, request, ask)?;
    let mut hunt = Hunt { draft, env, request, family: ask.family, sources: &sources, notes };
    let ip = match ask.explicit {
        Some(ip) => hunt.exactly(ip)?.map_err(Stop::Fail)?,
        None => match again(&mut hunt, &former)? {
            Some(ip) => ip,
            None => hunt.any()?,
        },
    };
    let source = sources.iter().find(|source| source.cidr.contains(&ip));
    Ok(answer(ask, ip, source.expect("addresses come from a source")))
}

/// Former addresses of the sticky name.
fn former(draft: &mut Draft, request: &Assign, ask: &Ask) -> Step<Vec<IpAddr>> {
    let Some(name) = &request.sticky else { return Ok(Vec::new()) };
    let sticky = draft.sticky.get(draft.view, &keys::sticky(draft.scope, name))?;
    Ok(sticky.map_or_else(Vec::new, |sticky| sticky.of(ask.family).collect()))
}

fn again(hunt: &mut Hunt, former: &[IpAddr]) -> Step<Option<IpAddr>> {
    for &ip in former {
        if let Some(ip) = hunt.again(ip)? {
            return Ok(Some(ip));
        }
        hunt.notes.push(Note::StickyTaken { ip });
    }
    Ok(None)
}

/// Under pools an address that was asked for by itself is answered alone, as Calico does.
fn answer(ask: &Ask, ip: IpAddr, source: &Source) -> Given {
    let (prefix_len, gateway) = match &source.range {
        Some(range) => (source.cidr.prefix_len(), Some(range.gateway)),
        None if ask.explicit.is_some() => (ask.family.bits(), None),
        None => (source.block_prefix, None),
    };
    Given { ip, prefix_len, gateway, pool: source.cidr }
}

/// The same answer for an address that is held already, also if its pool is gone.
fn answer_held(draft: &mut Draft, ask: &Ask, held: &Held, notes: &mut Vec<Note>) -> Step<Given> {
    if let Pools::Given(ranges) = &ask.pools {
        let range = ranges.iter().find(|range| range.cidr.contains(&held.ip)).expect("kept by its range");
        return Ok(answer(ask, held.ip, &source::given(range, ask.family)?));
    }
    let pools = source::all_pools(draft, notes)?;
    let pool = pools.iter().filter_map(|pool| pool.spec.net()).find(|net| net.contains(&held.ip));
    let prefix_len = if ask.explicit.is_some() { ask.family.bits() } else { held.block.prefix_len() };
    Ok(Given { ip: held.ip, prefix_len, gateway: None, pool: pool.unwrap_or(held.block) })
}

/// Counts the new addresses in the handle, which is never below what the blocks hold. (What was
/// counted before stays: the release of an address writes its block first and takes it off here
/// later.) The handle is written even if its counts stay, so that it cannot have been removed meanwhile.
fn count(draft: &mut Draft, request: &Assign, new: &[IpAddr]) -> Step<()> {
    if !draft.has_object(&request.handle) {
        return Ok(());
    }
    let stored = draft.handle(&request.handle)?;
    let mut handle = stored.map_or_else(Handle::default, |stored| Handle::clone(&stored));
    for cidr in blocks_of(draft, new) {
        let Some(block) = draft.block(&cidr)? else { continue };
        let counted = handle.blocks.entry(cidr).or_default();
        let added = new.iter().filter(|ip| cidr.contains(*ip)).count() as u32;
        *counted = (*counted + added).max(held::count(&block, &request.handle));
    }
    draft.set_handle(&request.handle, Some(handle));
    Ok(())
}

/// The blocks of the addresses, among those that the draft changed.
fn blocks_of(draft: &Draft, new: &[IpAddr]) -> Vec<IpNet> {
    let holds = |cidr: &IpNet| new.iter().any(|ip| cidr.contains(ip));
    let changed = draft.blocks.changes().filter_map(|(_, slot)| slot.now.as_ref().map(|block| block.cidr));
    changed.filter(holds).collect()
}

fn remember(draft: &mut Draft, request: &Assign, addresses: &[Given]) -> Step<()> {
    let Some(name) = &request.sticky else { return Ok(()) };
    let key = keys::sticky(draft.scope, name);
    let stored = draft.sticky.get(draft.view, &key)?;
    let before = stored.map(|sticky| (*sticky).clone()).unwrap_or_default();
    let mut sticky = before.clone();
    sticky.remember(&addresses.iter().map(|given| given.ip).collect::<Vec<_>>());
    if sticky != before {
        draft.sticky.set(&key, Some(sticky));
    }
    Ok(())
}
