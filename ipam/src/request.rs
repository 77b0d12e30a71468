//! What callers ask and what they are told.

use ipnet::IpNet;
use model::{Family, Scope};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// The moment of planning, as three clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now<'a> {
    /// Nanoseconds since 1970 (UTC) by the host's clock, which may jump.
    pub wall_ns: u64,
    /// The kernel's boot id.
    pub boot_id: &'a str,
    /// Milliseconds since boot, sleep included; never jumps.
    pub boottime_ms: u64,
}

/// Who plans, when, and against which kind of store.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub scope: &'a Scope,
    /// The node's name.
    pub host: &'a str,
    pub now: Now<'a>,
    /// Random bits; they decide only where single-address blocks are looked for, and uids.
    pub chance: u64,
    /// Whether the store applies a commit as a whole. If not, the plan has an order of writes of
    /// which every prefix is legal; a key may then be written twice, the second time with
    /// `Expect::Any`, which means "as the first write left it".
    pub transactional: bool,
}

/// A wish for addresses. All asks are served in one commit, or none is.
#[derive(Clone, Debug, Default)]
pub struct Assign {
    /// Owner of the addresses, `NETWORK.CONTAINER`.
    pub handle: String,
    /// Secondary attributes, with at least `node`, `network` and `ifname`.
    pub attrs: BTreeMap<String, String>,
    pub asks: Vec<Ask>,
    /// Addresses that must not be given (this host already routes them elsewhere).
    pub excluded: Vec<IpAddr>,
    /// Least time since an address's release before it is given again while others are free.
    pub reuse_delay: Duration,
    /// Name under which the last address is remembered and preferred.
    pub sticky: Option<String>,
    /// Blocks of one family that this host may have, beside the stored limit.
    pub max_blocks: Option<u32>,
    /// Pools to create where they do not exist (decision 30).
    pub create_pools: Vec<PoolSpec>,
    /// The caller itself has locked the store, to take over what another IPAM gave out.
    pub locked: bool,
    /// Labels of the pod's namespace, where they are known: pools may select by them.
    pub namespace: Option<BTreeMap<String, String>>,
}

/// One address of one family.
#[derive(Clone, Debug)]
pub struct Ask {
    pub family: Family,
    /// This address and no other.
    pub explicit: Option<IpAddr>,
    pub pools: Pools,
}

/// Where an address may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pools {
    /// Every enabled pool that selects this node.
    Enabled,
    /// These pools, by CIDR or name, in this order.
    Named(Vec<String>),
    /// Ranges of host-local's configuration; they need no pool objects.
    Given(Vec<Range>),
}

/// A range as host-local's configuration has it. Network, broadcast and gateway address are never
/// given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub cidr: IpNet,
    /// First address that may be given; default: the one after the network's.
    pub start: Option<IpAddr>,
    /// Last address that may be given; default: the last one (IPv4: before the broadcast address).
    pub end: Option<IpAddr>,
    /// Default: the first address after the network's.
    pub gateway: Option<IpAddr>,
    /// Prefix length of the blocks it is cut into; default: the family's, or the whole range if smaller.
    pub block_size: Option<u8>,
}

impl Range {
    pub fn new(cidr: IpNet) -> Self {
        Self { cidr, start: None, end: None, gateway: None, block_size: None }
    }
}

/// A pool from the network configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    pub cidr: IpNet,
    /// Prefix length of its blocks; default: the family's.
    pub block_size: Option<u8>,
    pub nat_outgoing: bool,
}

/// The addresses an attachment now has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// In the order of the asks.
    pub addresses: Vec<Given>,
    /// All of them were there already.
    pub repeated: bool,
    /// What was passed over and why, for the log.
    pub report: Vec<Note>,
}

/// One address and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub ip: IpAddr,
    /// Of the block, or of the range's subnet.
    pub prefix_len: u8,
    /// Only for ranges.
    pub gateway: Option<IpAddr>,
    /// The pool's or range's network.
    pub pool: IpNet,
}

/// Something passed over while planning; none of these stops a request that can be served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// A stored object cannot be read.
    Unreadable { key: String, problem: String },
    /// A block has state that this build does not know, and is left alone.
    ReadOnly { block: IpNet, field: String },
    /// A pool is for certain namespaces, which are not known here.
    NamespacePool { pool: String },
    /// The address was taken from another host's block.
    Borrowed { ip: IpAddr, block: IpNet },
    /// The address had been released less than the reuse delay ago.
    Cooling { ip: IpAddr },
    /// The sticky name's last address could not be given.
    StickyTaken { ip: IpAddr },
    /// An existing pool differs from the configuration in a member that was left as it is.
    PoolDiffers { pool: String, field: &'static str },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Note::Unreadable { key, problem } => write!(f, "passed over {key}: {problem}"),
            Note::ReadOnly { block, field } => {
                write!(f, "passed over block {block}: its member {field} is not known to this version")
            }
            Note::NamespacePool { pool } => write!(f, "passed over pool {pool}: it selects namespaces"),
            Note::Borrowed { ip, block } => write!(f, "{ip} is borrowed from block {block}"),
            Note::Cooling { ip } => {
                write!(f, "{ip} is given again before its reuse delay: nothing else is free")
            }
            Note::StickyTaken { ip } => write!(f, "the former address {ip} cannot be given"),
            Note::PoolDiffers { pool, field } => {
                write!(f, "pool {pool} exists with another {field}, which is kept")
            }
        }
    }
}

/// A wish to free what an attachment holds.
#[derive(Clone, Debug, Default)]
pub struct Release {
    pub handle: String,
    /// Attributes that must be equal where an allocation has them (`network`, `ifname`).
    pub matches: BTreeMap<String, String>,
    /// Free only these, and each only if address, attributes and sequence number are unchanged.
    pub only: Option<Vec<Held>>,
    /// Above zero: the time of release is recorded.
    pub reuse_delay: Duration,
}

/// A wish to free addresses whoever holds them.
#[derive(Clone, Debug)]
pub struct ReleaseIp {
    pub ip: IpAddr,
    /// The owner it must have.
    pub handle: Option<String>,
    /// The sequence number it must have been given under.
    pub sequence: Option<u64>,
}

impl ReleaseIp {
    pub fn new(ip: IpAddr) -> Self {
        Self { ip, handle: None, sequence: None }
    }
}

/// What was freed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    pub freed: Vec<IpAddr>,
    /// Asked for, but free already or held by another.
    pub kept: Vec<IpAddr>,
}

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub ip: IpAddr,
    /// `None`: a reservation, or an address in Calico's own cooldown.
    pub handle: Option<String>,
    pub attrs: BTreeMap<String, String>,
    /// Sequence number of the allocation, where the block records one.
    pub sequence: Option<u64>,
    pub block: IpNet,
}

/// One operation of a batch.
#[derive(Clone, Debug)]
pub enum BatchItem {
    Assign(Assign),
    Release(Release),
}

/// The answer to a [`BatchItem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Assigned(Assigned),
    Released(Released),
    /// Not in this commit, which would have grown too large: ask again.
    Deferred,
}
