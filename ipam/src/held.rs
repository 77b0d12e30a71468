//! What is held: by one attachment, or by all.

use crate::draft::{Draft, Step};
use crate::request::Held;
use ipnet::IpNet;
use model::block::clean_handle;
use model::store::Query;
use model::{Attribute, Block, Family, keys};
use std::collections::BTreeMap;

/// Attributes that tell attachments of one handle apart (decision 1).
const IDENTITY: [&str; 2] = ["network", "ifname"];

/// The attributes among `attrs` that identify an attachment.
pub(crate) fn identity(attrs: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let known = |(key, _): &(&String, &String)| IDENTITY.contains(&key.as_str());
    attrs.iter().filter(known).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Whether an allocation belongs to the handle and agrees with `matches` where it says anything.
pub(crate) fn belongs(entry: &Attribute, handle: &str, matches: &BTreeMap<String, String>) -> bool {
    let agrees = |(key, value): (&String, &String)| entry.get(key).is_none_or(|found| found == value);
    entry.handle() == Some(clean_handle(handle)) && matches.iter().all(agrees)
}

pub(crate) fn held(block: &Block, ordinal: u32, entry: &Attribute) -> Held {
    Held {
        ip: block.ip(ordinal),
        handle: entry.handle().map(str::to_owned),
        attrs: entry.secondary.as_deref().cloned().unwrap_or_default(),
        sequence: block.sequence_of(ordinal),
        block: block.cidr,
    }
}

/// Blocks in which a handle may have addresses: where it says so, or, if it cannot have an object,
/// all of its host's.
pub(crate) fn blocks_of(draft: &mut Draft, host: &str, handle: &str) -> Step<Vec<IpNet>> {
    if !draft.has_object(handle) {
        return own_blocks(draft, host);
    }
    Ok(draft.handle(handle)?.map_or_else(Vec::new, |handle| handle.blocks.keys().copied().collect()))
}

/// Every block that the host claims.
pub(crate) fn own_blocks(draft: &mut Draft, host: &str) -> Step<Vec<IpNet>> {
    draft
        .view
        .require(Family::BOTH.map(|family| Query::List(keys::affinities(draft.scope, host, family))))?;
    let mut own = draft.claimed(host, Family::V4)?;
    own.extend(draft.claimed(host, Family::V6)?);
    Ok(own)
}

/// What the handle's attachment holds.
pub(crate) fn by_handle(
    draft: &mut Draft,
    host: &str,
    handle: &str,
    matches: &BTreeMap<String, String>,
) -> Step<Vec<Held>> {
    let blocks = blocks_of(draft, host, handle)?;
    draft.require_blocks(&blocks, false)?;
    let mut found = Vec::new();
    for cidr in blocks {
        let Some(block) = draft.block(&cidr)? else { continue };
        let own = block.allocated().filter(|(_, entry)| belongs(entry, handle, matches));
        found.extend(own.map(|(ordinal, entry)| held(&block, ordinal, entry)));
    }
    Ok(found)
}

/// How many addresses of a block a handle has.
pub(crate) fn count(block: &Block, handle: &str) -> u32 {
    let handle = clean_handle(handle);
    block.allocated().filter(|(_, entry)| entry.handle() == Some(handle)).count() as u32
}
