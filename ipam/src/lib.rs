//! Addresses for pods: blocks, allocation, release and audit, as pure functions of what was read.
//!
//! Every `plan_*` takes a [`model::store::View`] and answers with the writes to commit, or with
//! the queries it still needs; `datastore::drive` runs them against a store.

mod affinities;
mod assign;
pub mod audit;
mod batch;
pub mod block;
mod commit;
mod cooling;
mod create;
mod draft;
mod earlier;
mod env;
mod error;
mod held;
mod hunt;
mod release;
mod request;
mod search;
mod selected;
#[doc(hidden)]
pub mod sim;
mod source;
mod sticky;

pub use commit::is_within_kept_blocks;
pub use error::{IpamError, Nets, RangeFault};
pub use request::*;

use draft::Draft;
use ipnet::IpNet;
use model::store::{Plan, Stop, View};
use model::{Block, Family, Scope, keys};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

type Planned<T> = Result<Plan<T>, Stop<IpamError>>;

/// Gives an attachment its addresses: all asks in one commit, or none. Asked again for the same
/// handle, network and interface, it answers with what is held.
pub fn plan_assign(view: &View, cx: &Context, request: &Assign) -> Planned<Assigned> {
    single(view, cx, BatchItem::Assign(request.clone()), |answer| match answer {
        Answer::Assigned(assigned) => assigned,
        _ => unreachable!("an assignment is answered as one"),
    })
}

/// Frees what an attachment holds. Freeing nothing is no error.
pub fn plan_release(view: &View, cx: &Context, request: &Release) -> Planned<Released> {
    single(view, cx, BatchItem::Release(request.clone()), |answer| match answer {
        Answer::Released(released) => released,
        _ => unreachable!("a release is answered as one"),
    })
}

/// A batch of one.
fn single<T>(view: &View, cx: &Context, item: BatchItem, cast: impl FnOnce(Answer) -> T) -> Planned<T> {
    let (writes, mut answers) = match plan_batch(view, cx, &[item])? {
        Plan::Commit(writes, answers) => (writes, answers),
        Plan::Done(answers) => (Vec::new(), answers),
        Plan::Step(writes) => return Ok(Plan::Step(writes)),
    };
    match answers.remove(0) {
        Ok(answer) => Ok(planned(writes, cast(answer))),
        Err(error) if writes.is_empty() => Err(Stop::Fail(error)),
        // What earlier rounds left is taken back first.
        Err(_) => Ok(Plan::Step(writes)),
    }
}

fn planned<T>(writes: Vec<model::store::Write>, out: T) -> Plan<T> {
    if writes.is_empty() { Plan::Done(out) } else { Plan::Commit(writes, out) }
}

/// Frees addresses by themselves. A failed check frees nothing at all.
pub fn plan_release_ip(
    view: &View,
    cx: &Context,
    addresses: &[ReleaseIp],
    reuse_delay: Duration,
) -> Planned<Released> {
    env::ready(view)?;
    let mut draft = Draft::new(view, cx);
    let released = release::release_ips(&mut draft, cx, addresses, reuse_delay)?;
    earlier::take_back(&mut draft, cx)?;
    Ok(planned(commit::writes(&draft, cx), released))
}

/// Several operations in one commit; each has an answer of its own, and a failing one does not
/// fail the others. What no longer fits into one commit is answered with [`Answer::Deferred`].
pub fn plan_batch(view: &View, cx: &Context, items: &[BatchItem]) -> Planned<Vec<Result<Answer, IpamError>>> {
    batch::plan(view, cx, items)
}

/// What an attachment holds. `matches` must be equal where an allocation has them.
pub fn lookup(
    view: &View,
    cx: &Context,
    handle: &str,
    matches: &BTreeMap<String, String>,
) -> Result<Vec<Held>, Stop<IpamError>> {
    held::by_handle(&mut Draft::new(view, cx), cx.host, handle, matches)
}

/// Everything allocated under the scope. Damaged blocks are noted and passed over.
pub fn holdings(view: &View, cx: &Context) -> Result<Holdings, Stop<IpamError>> {
    view.require(Family::BOTH.map(|family| model::store::Query::List(keys::blocks(cx.scope, family))))?;
    let mut all = Holdings::default();
    for family in Family::BOTH {
        for entry in view.list(&keys::blocks(cx.scope, family))? {
            if let Some(block) = env::lenient::<Block>(Some(entry), &mut all.notes) {
                all.held.extend(block.allocated().map(|(ordinal, entry)| held::held(&block, ordinal, entry)));
                all.blocks.push(BlockUse::of(&block));
            }
        }
    }
    Ok(all)
}

/// Every allocation and block of a scope.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    pub held: Vec<Held>,
    pub blocks: Vec<BlockUse>,
    /// What could not be read.
    pub notes: Vec<Note>,
}

/// One block, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockUse {
    pub cidr: IpNet,
    /// `host:NAME` or `virtual:NAME`.
    pub affinity: Option<String>,
    pub size: usize,
    pub used: usize,
}

impl BlockUse {
    fn of(block: &Block) -> Self {
        let (affinity, used) = (block.affinity.clone(), block.allocated().count());
        Self { cidr: block.cidr, affinity, size: block.size(), used }
    }
}

/// Every scope that has anything stored: the cluster, and each network with keys of its own.
pub fn scopes(view: &View) -> Result<Vec<Scope>, Stop<IpamError>> {
    let keys = view.keys(keys::networks())?;
    let networks: BTreeSet<String> = keys.iter().filter_map(|key| keys::network_of(key)).collect();
    Ok(std::iter::once(Scope::Cluster).chain(networks.into_iter().map(Scope::Network)).collect())
}

/// Gives up a host's claims to blocks, also of deleted pools. With `require_empty` blocks in use
/// keep theirs and are listed in `kept`.
pub fn plan_release_affinities(
    view: &View,
    cx: &Context,
    host: &str,
    require_empty: bool,
) -> Planned<ReleasedAffinities> {
    env::ready(view)?;
    let mut draft = Draft::new(view, cx);
    let released = affinities::release_all(&mut draft, host, require_empty)?;
    earlier::take_back(&mut draft, cx)?;
    Ok(planned(commit::writes(&draft, cx), released))
}

/// Which claims were given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReleasedAffinities {
    pub released: Vec<IpNet>,
    pub kept: Vec<IpNet>,
    /// The commit would have grown too large: ask again.
    pub more: bool,
}

/// The stored pools, for display and for STATUS; damaged ones are noted and passed over.
pub fn pools(view: &View) -> Result<(Vec<model::IpPool>, Vec<Note>), Stop<IpamError>> {
    let mut notes = Vec::new();
    let entries = view.list(&keys::pools())?;
    let pools = entries.filter_map(|entry| env::lenient(Some(entry), &mut notes)).collect();
    Ok((pools, notes))
}
