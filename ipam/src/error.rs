//! Why a request was refused, by kind. Each message ends with what to do.

use ipnet::IpNet;
use model::selector::SelectorError;
use model::{DecodeError, Family};
use std::net::IpAddr;

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    #[error(
        "no free {family} address for {host} in {pools}: {own_blocks} own blocks are full, \
         {foreign_blocks} blocks belong to others{}; release addresses, add a pool or enlarge one",
        borrowing(.strict)
    )]
    Exhausted {
        family: Family,
        host: String,
        pools: Nets,
        own_blocks: usize,
        foreign_blocks: usize,
        strict: bool,
    },
    #[error(
        "no free {family} address: {host} has {blocks} blocks, all in use, and its limit is {limit}; \
         raise maxBlocksPerHost or release addresses"
    )]
    BlockLimit { family: Family, host: String, blocks: usize, limit: u32 },
    #[error(
        "no free {family} address for {host} in its {blocks} blocks, and autoAllocateBlocks is off; \
         give the host a block or turn it on"
    )]
    NoAutoAllocate { family: Family, host: String, blocks: usize },
    #[error(
        "{host} has no {family} pool: none is enabled, for workloads, and selects it; create or enable one"
    )]
    NoPools { family: Family, host: String },
    #[error("pool {name} does not exist; create it or correct the configuration")]
    PoolMissing { name: String },
    #[error("pool {name} is disabled; enable it or name another one")]
    PoolDisabled { name: String },
    #[error("pool {name} is not for workloads (allowedUses); name another one")]
    PoolNotForWorkloads { name: String },
    #[error("pool {name} has no {family} addresses; list it with its own family")]
    PoolFamily { name: String, family: Family },
    #[error("the selector of pool {pool} is wrong {fault}; correct it")]
    Selector { pool: String, fault: SelectorError },
    #[error("{ip} is not in {pools}; ask for another address")]
    NotInPool { ip: IpAddr, pools: Nets },
    #[error("{ip} has another family than the {family} that was asked for")]
    WrongFamily { ip: IpAddr, family: Family },
    #[error("{ip} is assigned to {}; release it there or ask for another address", holder(.handle.as_deref()))]
    AlreadyAssigned { ip: IpAddr, handle: Option<String> },
    #[error("{ip} is never given out in {range} (network, broadcast, gateway or outside its limits)")]
    Withheld { ip: IpAddr, range: IpNet },
    #[error("{ip} is in use on this host by an interface that is not ours; ask for another address")]
    Excluded { ip: IpAddr },
    #[error("{handle} already holds {held}, but {asked} was asked for; delete the attachment first")]
    HoldsOther { handle: String, held: IpAddr, asked: IpAddr },
    #[error("block {block} of {ip} belongs to {owner}, and strict affinity forbids to use it")]
    ForeignBlock { ip: IpAddr, block: IpNet, owner: String },
    #[error(
        "block {block} is not written because its member {field} is not known to this version; upgrade Percale"
    )]
    ReadOnlyBlock { block: IpNet, field: String },
    #[error("range {range} is wrong: {fault}")]
    BadRange { range: IpNet, fault: RangeFault },
    #[error(
        "pool {cidr} cannot be cut into blocks of /{block_size}; IPv4 takes /20 to /32, IPv6 /116 to /128"
    )]
    BadBlockSize { cidr: IpNet, block_size: u8 },
    #[error("pool {cidr} exists with blocks of /{existing}, not /{wanted}; use that size or another pool")]
    PoolBlockSize { cidr: IpNet, existing: u8, wanted: u8 },
    #[error("pool {cidr} overlaps pool {name} ({other}); use one of them")]
    PoolOverlap { cidr: IpNet, name: String, other: IpNet },
    #[error("pool {cidr} overlaps block {block}, which is of another size; release its addresses first")]
    PoolOverBlock { cidr: IpNet, block: IpNet },
    #[error("{ip} was given again since (sequence number {found:?}, not {wanted}); look again")]
    Sequence { ip: IpAddr, wanted: u64, found: Option<u64> },
    #[error("{ip} is held by {}, not by {wanted}; look again", holder(.found.as_deref()))]
    Handle { ip: IpAddr, wanted: String, found: Option<String> },
    #[error(
        "the datastore is not ready: ClusterInformation default is missing or says so; wait for the migration or \
         upgrade to end, and try again"
    )]
    NotReady,
    #[error("a stored object is damaged: {0}; see `percalectl ipam check`")]
    Damaged(DecodeError),
    #[error("a request needs a handle and at least one address")]
    Empty,
}

/// What is wrong with a [`crate::Range`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeFault {
    #[error("it is too small to have addresses beside network, gateway and broadcast")]
    TooSmall,
    #[error("its start is not inside")]
    Start,
    #[error("its end is not inside")]
    End,
    #[error("its start is behind its end")]
    Order,
    #[error("its gateway is not inside")]
    Gateway,
    #[error("its block size does not fit it or the family")]
    BlockSize,
    #[error("its host bits are set")]
    HostBits,
    #[error("it has another family than was asked for")]
    Family,
}

/// Networks in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nets(pub Vec<IpNet>);

impl std::fmt::Display for Nets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("no pool"),
            nets => {
                let texts: Vec<_> = nets.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(", "))
            }
        }
    }
}

fn borrowing(strict: &bool) -> &'static str {
    if *strict { " (strict affinity forbids borrowing)" } else { "" }
}

fn holder(handle: Option<&str>) -> &str {
    handle.unwrap_or("a reservation")
}
