//! Taking addresses from blocks of other hosts, and from blocks that nobody has a claim to.

use super::{Hunt, Open, Pick, windows};
use crate::draft::Step;
use crate::request::Note;
use ipnet::IpNet;
use model::Block;
use model::block::Owner;
use model::keys::AffinityKind;
use std::net::IpAddr;

impl Hunt<'_, '_, '_> {
    /// Blocks of others within the sources, each source from this host's start.
    pub(super) fn foreign_blocks(&mut self, own: &[IpNet]) -> Step<Vec<IpNet>> {
        let existing = self.draft.block_cidrs(self.family)?;
        let mut found = Vec::new();
        for (index, source) in self.sources.iter().enumerate() {
            let mut here: Vec<IpNet> = existing
                .iter()
                .filter(|cidr| self.source_index(cidr) == Some(index) && !own.contains(cidr))
                .copied()
                .collect();
            let turn = self.start(source) % here.len().max(1) as u128;
            here.rotate_left(turn as usize);
            found.append(&mut here);
        }
        Ok(found)
    }

    pub(super) fn borrow(&mut self, foreign: &[IpNet]) -> Step<Option<IpAddr>> {
        for pick in [Pick::Cool, Pick::Oldest] {
            if pick == Pick::Oldest && self.delay().is_none() {
                break;
            }
            for window in windows(foreign) {
                let open = self.draft.with_room(window)?;
                self.draft.require_blocks(&open, self.delay().is_some())?;
                for cidr in &open {
                    if let Some(ip) = self.borrow_from(cidr, pick)? {
                        return Ok(Some(ip));
                    }
                }
            }
        }
        Ok(None)
    }

    fn borrow_from(&mut self, cidr: &IpNet, pick: Pick) -> Step<Option<IpAddr>> {
        if self.draft.surely_full(cidr)? {
            return Ok(None);
        }
        let Some(block) = self.tolerate(|draft| draft.block(cidr))?.flatten() else { return Ok(None) };
        if !lends(&block) || !self.writable(&block) {
            return Ok(None);
        }
        let Some((ordinal, age)) = self.pick(&block, pick)? else { return Ok(None) };
        let ip = self.take(Open { block: Block::clone(&block), new: false }, ordinal)?;
        self.notes.push(Note::Borrowed { ip, block: *cidr });
        if self.delay().is_some_and(|delay| age < delay) {
            self.notes.push(Note::Cooling { ip });
        }
        Ok(Some(ip))
    }
}

/// Whether others may borrow from a block: never from one that is not a host's (modern data model 1.9).
pub(super) fn lends(block: &Block) -> bool {
    matches!(block.owner(), Owner::Nobody | Owner::Of(AffinityKind::Host, _))
}
