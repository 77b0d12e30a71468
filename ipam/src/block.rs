//! Assigning and releasing addresses of one block, as functions of the block alone
//! (reference 3.2; modern data model 1.3, 1.5, 1.7).

use model::{Attribute, Block};
use std::net::IpAddr;

/// The address is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ordinal {0} is not free")]
pub struct Taken(pub u32);

/// The first free ordinal in the queue that `usable` accepts; the others keep their places.
pub fn next_free(block: &Block, mut usable: impl FnMut(u32, IpAddr) -> bool) -> Option<u32> {
    block.unallocated.iter().copied().find(|&ordinal| usable(ordinal, block.ip(ordinal)))
}

/// Gives an ordinal away. It carries the sequence number that the block had when it was read.
pub fn assign(block: &mut Block, ordinal: u32, attribute: &Attribute) -> Result<(), Taken> {
    match block.allocations.get(ordinal as usize) {
        Some(None) => {}
        _ => return Err(Taken(ordinal)),
    }
    let index = attribute_index(block, attribute);
    block.allocations[ordinal as usize] = Some(index);
    block.unallocated.retain(|&free| free != ordinal);
    block.sequence_for_allocation.insert(ordinal.to_string(), block.sequence_number);
    Ok(())
}

/// An equal entry is shared, unless it says more than handle and attributes.
fn attribute_index(block: &mut Block, attribute: &Attribute) -> u32 {
    let equal = |entry: &Attribute| {
        entry.handle_id == attribute.handle_id && entry.secondary == attribute.secondary && entry.plain()
    };
    let index = block.attributes.iter().position(equal).unwrap_or_else(|| {
        block.attributes.push(attribute.clone());
        block.attributes.len() - 1
    });
    index as u32
}

/// Takes ordinals back: they go to the end of the queue, in the given order. Free ones stay as they are.
pub fn release(block: &mut Block, ordinals: &[u32]) {
    for &ordinal in ordinals {
        let Some(slot) = block.allocations.get_mut(ordinal as usize) else { continue };
        if slot.take().is_some() {
            block.unallocated.push(ordinal);
            block.sequence_for_allocation.remove(&ordinal.to_string());
        }
    }
    drop_unused_attributes(block);
}

/// Removes attributes that no ordinal refers to, and renumbers the rest.
fn drop_unused_attributes(block: &mut Block) {
    let mut used = vec![false; block.attributes.len()];
    for index in block.allocations.iter().flatten() {
        used[*index as usize] = true;
    }
    if used.iter().all(|used| *used) {
        return;
    }
    let mut kept = used.iter();
    block.attributes.retain(|_| *kept.next().expect("one flag for each attribute"));
    // New index of each kept attribute: how many kept ones stand before it.
    let before = used.iter().scan(0, |count, used| Some(std::mem::replace(count, *count + u32::from(*used))));
    let renumbered: Vec<u32> = before.collect();
    for index in block.allocations.iter_mut().flatten() {
        *index = renumbered[*index as usize];
    }
}

/// Puts ordinals that are neither allocated nor queued back at the end of the queue.
pub fn requeue_lost(block: &mut Block) {
    let lost = lost(block);
    block.unallocated.extend(lost);
}

/// Ordinals that are neither allocated nor queued.
pub fn lost(block: &Block) -> Vec<u32> {
    let mut queued = vec![false; block.size()];
    for &ordinal in &block.unallocated {
        queued[ordinal as usize] = true;
    }
    let free = block.allocations.iter().zip(0..).filter(|(slot, _)| slot.is_none());
    free.map(|(_, ordinal)| ordinal).filter(|&ordinal| !queued[ordinal as usize]).collect()
}

/// Counts an update. A block that never counted starts at the present, as Calico's new blocks do.
pub fn bump(block: &mut Block, wall_ns: u64) {
    block.sequence_number = match block.sequence_number {
        0 => wall_ns.max(1),
        number => number.saturating_add(1),
    };
}

/// Whether nothing but what Windows reserves is allocated: such a block may be given up.
pub fn idle(block: &Block) -> bool {
    block.allocated().all(|(_, attribute)| attribute.handle().is_some_and(is_windows_reserved))
}

/// The handle of the addresses that each Windows block keeps (reference 3.4).
pub fn is_windows_reserved(handle: &str) -> bool {
    handle.eq_ignore_ascii_case("windows-reserved-ipam-handle")
}

#[cfg(test)]
mod tests;
