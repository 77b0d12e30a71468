//! Felix's chains, in both back ends of iptables and both families, and its nftables tables.

use anyhow::Result;
use netlink::xtables::{self, Program};
use policy::felix;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// What a look at Felix's rules led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// Chains that are gone now.
    Removed(usize),
    /// They stay: nothing else would let pods' packets through.
    ForwardDrops,
}

/// Removes them, each table of iptables in one transaction; nobody else's rule is touched.
pub(super) fn remove() -> Result<Found> {
    let mut scripts = Vec::new();
    for program in Program::ALL {
        let Some(text) = xtables::saved(program, PATIENCE)? else { continue };
        let Some(removal) = felix::removal(&text) else { continue };
        if removal.forward_drops {
            return Ok(Found::ForwardDrops);
        }
        scripts.push((program, removal));
    }
    let mut count = 0;
    for (program, removal) in scripts {
        xtables::restore(program, &removal.script, PATIENCE)?;
        count += removal.chains;
    }
    count += xtables::remove_tables("calico", PATIENCE)?;
    Ok(if count == 0 { Found::Nothing } else { Found::Removed(count) })
}

pub(super) fn are_there() -> Result<bool> {
    for program in Program::ALL {
        if xtables::saved(program, PATIENCE)?.is_some_and(|text| felix::removal(&text).is_some()) {
            return Ok(true);
        }
    }
    Ok(xtables::has_table("calico", PATIENCE)?)
}
