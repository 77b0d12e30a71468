//! A table of our own in nftables: pods send only from their own addresses, and what leaves the pod
//! networks is masqueraded where that is wished.
//!
//! The rules are for all pods at once; wiring a pod changes none of them. Whether they are in place
//! is one question to the kernel: an empty chain is named after the content of the table.

use crate::error::FirewallError;
use crate::request::{AttrWriter, Request};
use crate::{Nl, nft, ruleset};
use ipnet::IpNet;
use rustix::io::Errno;
use std::path::Path;
use std::time::Duration;

/// What one table should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// The table's name in family `inet`: 1 to 64 letters, digits, `-` and `_`, a letter first. A table
    /// belongs to one writer: networks with wishes of their own take tables of their own.
    pub table: String,
    /// How the names of pods' host ends begin: 1 to 14 letters, digits, `.`, `-` and `_`.
    pub prefix: String,
    /// Whether packets from such a link are dropped unless the host routes their source to that link.
    pub guard: bool,
    /// Sources that are masqueraded when they leave for anything but a pod.
    pub masquerade: Vec<IpNet>,
    /// Destinations that these reach under their own address.
    pub not_to: Vec<IpNet>,
}

/// Puts the table in place, in the calling thread's namespace; true when it had to be written.
///
/// Usually it is there and one request finds that out. Otherwise the program `nft` replaces the whole
/// table in one transaction: no packet passes between old and new rules. No other table is touched.
/// Writers of one host wait for each other at `lock` (a file, created if absent), at most `timeout`;
/// then they go on, since a second write of the same table does no harm.
///
/// # Errors
/// `BadField` for a name that nftables could not take; `NftMissing` when the program is not
/// installed; `NftFailed` with its words; `TimedOut` after `timeout`; `Lock`, `Io`; `Kernel`.
pub fn ensure_firewall(wish: &Firewall, lock: &Path, timeout: Duration) -> Result<bool, FirewallError> {
    ensure(&wish.table, &ruleset::of(wish)?, false, lock, timeout)
}

/// As [`ensure_firewall`], and notices also when somebody removed or added single rules in the table.
///
/// # Errors
/// As [`ensure_firewall`].
pub fn restore_firewall(wish: &Firewall, lock: &Path, timeout: Duration) -> Result<bool, FirewallError> {
    ensure(&wish.table, &ruleset::of(wish)?, true, lock, timeout)
}

/// As [`restore_firewall`], for a table of the caller's own content: sets and chains in the language of
/// `nft`, each rule on a line with two tabs before it. Names in it are the caller's to check.
///
/// # Errors
/// As [`ensure_firewall`].
pub fn ensure_table(
    table: &str,
    content: &str,
    lock: &Path,
    timeout: Duration,
) -> Result<bool, FirewallError> {
    ensure(table, &ruleset::custom(table, content)?, true, lock, timeout)
}

fn ensure(
    table: &str,
    rules: &ruleset::Rules,
    count: bool,
    lock: &Path,
    timeout: Duration,
) -> Result<bool, FirewallError> {
    let mut nl = Nl::open(netlink_sys::protocols::NETLINK_NETFILTER, timeout)?;
    let mut is_whole = || -> Result<bool, FirewallError> {
        Ok(is_in_place(&mut nl, table, rules)? && (!count || count_rules(&mut nl, table)? == rules.count))
    };
    if is_whole()? {
        return Ok(false);
    }
    let _lock = nft::lock(lock, timeout)?;
    if is_whole()? {
        return Ok(false);
    }
    nft::run(table, &rules.text, timeout)?;
    Ok(true)
}

/// Removes a table of ours, in the calling thread's namespace; an absent one is success.
///
/// # Errors
/// As [`ensure_firewall`].
pub fn remove_firewall(table: &str, timeout: Duration) -> Result<(), FirewallError> {
    nft::run(table, &ruleset::removal(table)?, timeout)
}

fn is_in_place(nl: &mut Nl, table: &str, rules: &ruleset::Rules) -> Result<bool, FirewallError> {
    let outcome = nl.ask(get_chain(table, &rules.mark))?;
    match outcome.errno() {
        // INVAL: nf_tables is not loaded, so there is nothing yet.
        Some(Errno::NOENT | Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
        _ => Ok(!outcome.ok()?.is_empty()),
    }
}

/// NFT_MSG_GETCHAIN of linux/netfilter/nf_tables.h.
fn get_chain(table: &str, chain: &str) -> Request {
    const NFNL_SUBSYS_NFTABLES: u16 = 10;
    const NFT_MSG_GETCHAIN: u16 = 4;
    const NFPROTO_INET: u8 = 1;
    const NFTA_CHAIN_TABLE: u16 = 1;
    const NFTA_CHAIN_NAME: u16 = 3;
    let body = AttrWriter::with_header(&[NFPROTO_INET, 0, 0, 0])
        .text(NFTA_CHAIN_TABLE, table)
        .text(NFTA_CHAIN_NAME, chain);
    let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN;
    Request::raw("look up nftables chain", chain, kind, 0, body.bytes())
}

/// NFT_MSG_GETRULE of linux/netfilter/nf_tables.h, for one table.
fn count_rules(nl: &mut Nl, table: &str) -> Result<usize, FirewallError> {
    const NFNL_SUBSYS_NFTABLES: u16 = 10;
    const NFT_MSG_NEWRULE: u16 = 6;
    const NFT_MSG_GETRULE: u16 = 7;
    const NFPROTO_INET: u8 = 1;
    const NFTA_RULE_TABLE: u16 = 1;
    let make = |flags| {
        let body = AttrWriter::with_header(&[NFPROTO_INET, 0, 0, 0]).text(NFTA_RULE_TABLE, table);
        let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE;
        Request::raw("list nftables rules", table, kind, flags, body.bytes())
    };
    let rules = nl.dump(make, |reply| (reply.kind & 0xff == NFT_MSG_NEWRULE).then_some(()))?;
    Ok(rules.len())
}
