//! The rules of other programs: `iptables-save`, `iptables-restore`, and whole nftables tables, bounded in time.

use crate::error::FirewallError;
use crate::nft;
use std::time::Duration;

/// A family of one back end of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    save: &'static str,
    restore: &'static str,
    /// Lists the tables in use; without the file, or with it empty, there are none (legacy alone).
    tables: Option<&'static str>,
}

impl Program {
    pub const ALL: [Self; 4] = [
        Self { save: "iptables-nft-save", restore: "iptables-nft-restore", tables: None },
        Self { save: "ip6tables-nft-save", restore: "ip6tables-nft-restore", tables: None },
        Self {
            save: "iptables-legacy-save",
            restore: "iptables-legacy-restore",
            tables: Some("/proc/net/ip_tables_names"),
        },
        Self {
            save: "ip6tables-legacy-save",
            restore: "ip6tables-legacy-restore",
            tables: Some("/proc/net/ip6_tables_names"),
        },
    ];

    /// To ask a legacy program where no table is in use could load its modules.
    fn is_in_use(&self) -> bool {
        self.tables.is_none_or(|file| std::fs::read_to_string(file).is_ok_and(|text| !text.trim().is_empty()))
    }
}

/// All rules, as the program prints them. `None`: no table of it is in use, or, for the nftables back end, it is not
/// installed; a legacy table that cannot be looked at is an error.
///
/// # Errors
/// `NftMissing`, `NftFailed` with the program's words, `TimedOut`, `Io`.
pub fn saved(program: Program, timeout: Duration) -> Result<Option<String>, FirewallError> {
    if !program.is_in_use() {
        return Ok(None);
    }
    match nft::output(program.save, &[], timeout) {
        Ok(text) => Ok(Some(text)),
        Err(FirewallError::NftMissing) if program.tables.is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives the program its input; other rules stay.
///
/// # Errors
/// As [`saved`].
pub fn restore(program: Program, script: &str, timeout: Duration) -> Result<(), FirewallError> {
    nft::feed(program.restore, &["--noflush"], script, timeout)
}

/// Whether nftables has a table of this name, in any family.
///
/// # Errors
/// As [`saved`].
pub fn has_table(name: &str, timeout: Duration) -> Result<bool, FirewallError> {
    Ok(!families(name, timeout)?.is_empty())
}

/// Removes the tables of this name in all families; how many there were.
///
/// # Errors
/// As [`saved`].
pub fn remove_tables(name: &str, timeout: Duration) -> Result<usize, FirewallError> {
    let families = families(name, timeout)?;
    let script: String = families.iter().map(|family| format!("delete table {family} {name}\n")).collect();
    if !script.is_empty() {
        nft::feed("nft", &["-f", "-"], &script, timeout)?;
    }
    Ok(families.len())
}

/// `nft list tables` prints `table FAMILY NAME` lines.
fn families(name: &str, timeout: Duration) -> Result<Vec<String>, FirewallError> {
    let text = nft::output("nft", &["list", "tables"], timeout)?;
    let families = text.lines().filter_map(|line| line.strip_prefix("table ")?.split_once(' '));
    Ok(families.filter(|(_, table)| *table == name).map(|(family, _)| family.to_owned()).collect())
}
