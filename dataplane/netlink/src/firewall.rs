//! A table of our own in nftables: pods send only from their own addresses, and what leaves the pod
//! networks is masqueraded where that is wished.
//!
//! The rules are for all pods at once; wiring a pod changes none of them. Whether they are in place
//! is one question to the kernel: an empty chain is named after the content of the table.

use crate::error::FirewallError;
use crate::request::{AttrWriter, Request};
use crate::ruleset::Rules;
use crate::table_content::table_content;
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
    let rules = ruleset::of(wish)?;
    let mut nl = open(timeout)?;
    if is_in_place(&mut nl, &wish.table, &rules)? {
        return Ok(false);
    }
    let _lock = nft::lock(lock, timeout)?;
    if is_in_place(&mut nl, &wish.table, &rules)? {
        return Ok(false);
    }
    nft::run(&wish.table, &rules.text, timeout)?;
    Ok(true)
}

/// Keeps a table as it was written: it knows what that looks like in the kernel, so that any change is
/// noticed. The first call writes the table, since nobody knows who wrote what is there.
#[derive(Debug, Default)]
pub struct TableKeeper {
    /// The mark of what was written, and the content then.
    written: Option<(String, u64)>,
}

impl TableKeeper {
    /// As [`ensure_firewall`], and undoes what others changed in the table.
    ///
    /// # Errors
    /// As [`ensure_firewall`].
    pub fn keep_firewall(
        &mut self,
        wish: &Firewall,
        lock: &Path,
        timeout: Duration,
    ) -> Result<bool, FirewallError> {
        self.keep(&wish.table, ruleset::of(wish)?, lock, timeout)
    }

    /// As [`TableKeeper::keep_firewall`], for a table of the caller's own content: sets and chains in the
    /// language of `nft`. Names in it are the caller's to check.
    ///
    /// # Errors
    /// As [`ensure_firewall`].
    pub fn keep_table(
        &mut self,
        table: &str,
        content: &str,
        lock: &Path,
        timeout: Duration,
    ) -> Result<bool, FirewallError> {
        self.keep(table, ruleset::custom(table, content)?, lock, timeout)
    }

    fn keep(
        &mut self,
        table: &str,
        rules: Rules,
        lock: &Path,
        timeout: Duration,
    ) -> Result<bool, FirewallError> {
        let mut nl = open(timeout)?;
        if let Some((mark, content)) = &self.written
            && *mark == rules.mark
            && table_content(&mut nl, table)? == Some(*content)
        {
            return Ok(false);
        }
        let _lock = nft::lock(lock, timeout)?;
        nft::run(table, &rules.text, timeout)?;
        self.written = table_content(&mut nl, table)?.map(|content| (rules.mark, content));
        Ok(true)
    }
}

fn open(timeout: Duration) -> Result<Nl, FirewallError> {
    Ok(Nl::open(netlink_sys::protocols::NETLINK_NETFILTER, timeout)?)
}

/// Removes a table of ours, in the calling thread's namespace; an absent one is success.
///
/// # Errors
/// As [`ensure_firewall`].
pub fn remove_firewall(table: &str, timeout: Duration) -> Result<(), FirewallError> {
    nft::run(table, &ruleset::removal(table)?, timeout)
}

fn is_in_place(nl: &mut Nl, table: &str, rules: &Rules) -> Result<bool, FirewallError> {
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
