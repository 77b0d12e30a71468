//! Addresses for pods: blocks, allocation, release and audit, as pure functions of what was read.
//!
//! Every `plan_*` takes a [`model::store::View`] and answers with the writes to commit, or with
//! the queries it still needs; `datastore::drive` runs them against a store.

pub mod audit;
mod error;
mod request;

pub use error::{IpamError, Nets, RangeFault};
pub use request::*;

use ipnet::IpNet;
use model::store::{Plan, Stop, View};
use std::collections::BTreeMap;

type Planned<T> = Result<Plan<T>, Stop<IpamError>>;

/// Gives an attachment its addresses: all asks in one commit, or none. Asked again for the same
/// handle, network and interface, it answers with what is held.
pub fn plan_assign(_view: &View, _cx: &Context, _request: &Assign) -> Planned<Assigned> {
    Err(Stop::Fail(IpamError::Empty))
}

/// Frees what an attachment holds. Freeing nothing is no error.
pub fn plan_release(_view: &View, _cx: &Context, _request: &Release) -> Planned<Released> {
    Err(Stop::Fail(IpamError::Empty))
}

/// Frees addresses by themselves. A failed check frees nothing at all.
pub fn plan_release_ip(
    _view: &View,
    _cx: &Context,
    _addresses: &[ReleaseIp],
    _reuse_delay: std::time::Duration,
) -> Planned<Released> {
    Err(Stop::Fail(IpamError::Empty))
}

/// Several operations in one commit; each has an answer of its own, and a failing one does not
/// fail the others.
pub fn plan_batch(
    _view: &View,
    _cx: &Context,
    _items: &[BatchItem],
) -> Planned<Vec<Result<Answer, IpamError>>> {
    Err(Stop::Fail(IpamError::Empty))
}

/// What an attachment holds. `matches` must be equal where an allocation has them.
pub fn lookup(
    _view: &View,
    _cx: &Context,
    _handle: &str,
    _matches: &BTreeMap<String, String>,
) -> Result<Vec<Held>, Stop<IpamError>> {
    Err(Stop::Fail(IpamError::Empty))
}

/// Everything allocated under the scope.
pub fn holdings(_view: &View, _cx: &Context) -> Result<Holdings, Stop<IpamError>> {
    Err(Stop::Fail(IpamError::Empty))
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

/// Gives up a host's claims to blocks, also of deleted pools. With `require_empty` blocks in use
/// keep theirs and are listed in `kept`.
pub fn plan_release_affinities(
    _view: &View,
    _cx: &Context,
    _host: &str,
    _require_empty: bool,
) -> Planned<ReleasedAffinities> {
    Err(Stop::Fail(IpamError::Empty))
}

/// Which claims were given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReleasedAffinities {
    pub released: Vec<IpNet>,
    pub kept: Vec<IpNet>,
    /// The commit would have grown too large: ask again.
    pub more: bool,
}
