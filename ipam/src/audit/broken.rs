//! Objects that cannot be used as they are, and what puts them right without a guess.

use super::objects::Objects;
use super::{Item, Seen};
use model::affinity::handle_key;
use model::block::{clean_handle, mend};
use model::keys::{self, AffinityKind, Key};
use model::store::{Entry, Expect, Write};
use model::{Affinity, AffinityState, Block, Handle, Stored};

/// A broken object.
pub(super) struct Broken {
    pub entry: Entry,
    pub why: String,
}

impl Broken {
    pub fn item(&self, objects: &Objects) -> Item {
        let block = match keys::parse(&self.entry.key) {
            Some(Key::Block { cidr, .. } | Key::Affinity { cidr, .. }) => Some(cidr),
            _ => None,
        };
        Item {
            block,
            reason: self.why.clone(),
            repairable: self.cure(objects, 0).is_some(),
            seen: Seen::Key(self.entry.key.clone(), self.entry.revision),
            ..Item::default()
        }
    }

    /// The write that puts it right, if the rest of the store tells how.
    pub fn cure(&self, objects: &Objects, wall_ns: u64) -> Option<Write> {
        let value = match keys::parse(&self.entry.key)? {
            Key::Block { .. } => self.cure_block(wall_ns)?,
            Key::Handle { id, .. } => cure_handle(objects, &id)?,
            Key::Affinity { kind: AffinityKind::Host, name, cidr, .. } => {
                if objects.unreadable.contains(&cidr) {
                    return None;
                }
                let block = objects.blocks.get(&cidr);
                let ours = block.is_some_and(|found| found.value.is_of_host(&name));
                ours.then(|| Affinity::new(AffinityState::Confirmed).encode())
            }
            _ => return None,
        };
        Some(Write { key: self.entry.key.clone(), expect: Expect::At(self.entry.revision), value })
    }

    /// A block that was marked as deleted goes if it is empty; a wrong queue is made anew.
    fn cure_block(&self, wall_ns: u64) -> Option<Option<Vec<u8>>> {
        if let Ok(block) = Block::decode(&self.entry.key, &self.entry.value) {
            return (block.deleted && block.is_empty()).then_some(None);
        }
        let mut block = mend(&self.entry.key, &self.entry.value)?;
        if block.unknown_state().is_some() {
            return None;
        }
        crate::block::bump(&mut block, wall_ns);
        Some(Some(block.encode()))
    }
}

/// What the blocks hold; nothing under an id as no handle should have it.
fn cure_handle(objects: &Objects, id: &str) -> Option<Option<Vec<u8>>> {
    if !objects.unreadable.is_empty() {
        return None;
    }
    let blocks = objects.actual().get(id).cloned().filter(|_| clean_handle(id) == id);
    Some(blocks.map(|blocks| Handle { blocks, ..Handle::default() }.encode()))
}

/// Why a handle that can be read is broken nevertheless.
pub(super) fn odd_handle(scope: &model::Scope, entry: &Entry, id: &str) -> Option<String> {
    let cut = handle_key(scope, id) != entry.key;
    cut.then(|| format!("handle {id:?}: its id ends in what an old migration appended to it"))
}
