//! Giving up a host's claims to blocks (reference 3.7, 3.8).

use crate::ReleasedAffinities;
use crate::block::idle;
use crate::commit::MAX_WRITES;
use crate::draft::{Draft, Step};
use ipnet::IpNet;
use model::Family;

/// Gives up every claim of the host, as far as one commit goes. Needs no pool: it may be gone.
pub(crate) fn release_all(draft: &mut Draft, host: &str, require_empty: bool) -> Step<ReleasedAffinities> {
    let mut claimed = Vec::new();
    for family in Family::BOTH {
        claimed.extend(draft.claimed(host, family)?);
    }
    let room = MAX_WRITES / 3;
    draft.require_blocks(claimed.iter(), false)?;
    let mut answer = ReleasedAffinities::default();
    for cidr in claimed {
        if answer.released.len() == room {
            answer.more = true;
            break;
        }
        let gone = release(draft, host, &cidr, require_empty)?;
        if gone { answer.released.push(cidr) } else { answer.kept.push(cidr) }
    }
    Ok(answer)
}

/// Gives up one claim. One without a block, or to another host's block, was none and goes too.
pub(crate) fn release(draft: &mut Draft, host: &str, cidr: &IpNet, require_empty: bool) -> Step<bool> {
    draft.affinity(host, cidr)?;
    let found = draft.block(cidr)?;
    if found.is_none() {
        draft.drop_claim(host, cidr);
        return Ok(true);
    }
    if let Some(block) = found.filter(|block| block.is_of_host(host)) {
        if block.unknown_state().is_some() || require_empty && !idle(&block) {
            return Ok(false);
        }
        if idle(&block) {
            draft.delete_block(cidr);
        } else {
            let mut block = (*block).clone();
            block.affinity = None;
            draft.set_block(block);
        }
    }
    draft.set_affinity(host, cidr, None);
    Ok(true)
}
