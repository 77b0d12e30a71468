//! Peers that are told the same: what changes is worked out and written once for all of them.
//!
//! A peer that has been told everything joins the group of its likes. The group notes changed prefixes in their place,
//! makes messages once, and hands the same octets to every member. A member is not told of paths that came from itself, so
//! a piece of octets says whom it is for. A member that reads too slowly, asks for everything again, or is
//! configured anew leaves with a list of its own, and comes back once it is up to date.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;

use crate::{Family, Prefix};

use super::adj_out::{Out, Sync};
use super::chunk::{Batches, Chunk, Last, NOBODY, Stretch};
use super::export::{Cache, Exporter};
use super::neighbor::Neighbor;
use super::outbound::BATCH;
use super::path::{Path, PeerId};
use super::{Rib, intern::Interner};

/// Octets made and not yet taken by a member; beyond that it is too slow for its group, and a list of its own costs less.
/// Members share the octets. Little in tests, so that they meet it.
const MAX_QUEUED: usize = if cfg!(test) { 200 } else { 16 << 20 };

#[derive(Debug)]
pub(crate) struct Group {
    /// Any member stands for all in what they are told.
    like: Arc<Neighbor>,
    members: Vec<PeerId>,
    /// What was last told of each prefix that has changed since.
    pending: BTreeMap<Prefix, Last>,
    cache: Cache,
}

/// True if whatever one peer is told the other is told too, with the same octets.
pub(crate) fn are_told_alike(a: &Neighbor, b: &Neighbor) -> bool {
    let session =
        |n: &Neighbor| (n.internal, n.local_as, n.families, n.encode, n.extended_next_hop, n.long_lived);
    let options = |n: &Neighbor| {
        let o = &n.options;
        (o.next_hop, o.keep_next_hop, o.next_hop_self, o.client)
    };
    session(a) == session(b) && options(a) == options(b) && a.options.export == b.options.export
}

/// The path that members are told of, unless it came from them.
fn view(
    like: &Neighbor,
    exporter: &Exporter<'_>,
    prefix: Prefix,
    best: Option<&Path>,
    cache: &mut Cache,
    interner: &mut Interner,
) -> Last {
    let path = best?;
    let attributes = exporter.export((NOBODY, like), prefix, path, cache, interner).ok()?;
    Some((path.peer, attributes))
}

impl Rib {
    /// Notes for each group what its members were told so far of a prefix that has just changed.
    pub(super) fn note_for_groups(&mut self, prefix: Prefix, before: Option<&Path>) {
        let Rib { neighbors, options, groups, exports: interner, .. } = self;
        let exporter = Exporter { neighbors, options };
        for group in groups.values_mut().filter(|g| g.like.families[prefix.family()]) {
            if let Entry::Vacant(entry) = group.pending.entry(prefix) {
                entry.insert(view(&group.like, &exporter, prefix, before, &mut group.cache, interner));
            }
        }
    }

    /// Notes the whole table for every group, before its view changes.
    pub(super) fn note_all_for_groups(&mut self) {
        let Rib { table, neighbors, options, groups, exports: interner, .. } = self;
        let exporter = Exporter { neighbors, options };
        for group in groups.values_mut() {
            for (prefix, node) in table.iter().filter(|(p, _)| group.like.families[p.family()]) {
                if let Entry::Vacant(entry) = group.pending.entry(prefix) {
                    let cache = &mut group.cache;
                    entry.insert(view(&group.like, &exporter, prefix, node.best(), cache, interner));
                }
            }
            group.cache = Cache::default();
        }
    }

    /// A peer that has been told everything joins its likes. False: they have changes to be told first.
    pub(super) fn join_group(&mut self, id: PeerId) -> bool {
        let Some(neighbor) = self.neighbors.share(id).filter(|n| !n.encode.add_path.any()) else {
            return true;
        };
        let alike = self.groups.iter_mut().find(|(_, g)| are_told_alike(&g.like, &neighbor));
        let key = match alike {
            Some((_, group)) if !group.pending.is_empty() => return false,
            Some((key, group)) => {
                group.members.push(id);
                *key
            }
            None => self.found_group(id, neighbor),
        };
        if let Some(out) = self.outs.get_mut(&id) {
            out.group = Some(key);
        }
        self.solo.remove(&id);
        true
    }

    fn found_group(&mut self, id: PeerId, like: Arc<Neighbor>) -> u32 {
        let key = self.groups.last_key_value().map_or(0, |(last, _)| last + 1);
        let (members, pending, cache) = (vec![id], BTreeMap::new(), Cache::default());
        self.groups.insert(key, Group { like, members, pending, cache });
        key
    }

    /// Makes the peer one with a list of its own: what its group still had to tell it.
    pub(super) fn leave_group(&mut self, id: PeerId) {
        let Some(out) = self.outs.get_mut(&id) else { return };
        self.solo.insert(id);
        let Some(key) = out.group.take() else { return };
        let Some(group) = self.groups.get_mut(&key) else { return };
        for (prefix, last) in &group.pending {
            let told = last.iter().filter(|(peer, _)| *peer != id);
            out.pending.insert(*prefix, told.map(|(_, attributes)| (0, attributes.clone())).collect());
        }
        group.members.retain(|member| *member != id);
        if group.members.is_empty() {
            self.groups.remove(&key);
        }
    }

    /// Forgets how far a peer was told.
    pub(super) fn remove_out(&mut self, id: PeerId) {
        self.leave_group(id);
        self.solo.remove(&id);
        self.outs.remove(&id);
    }

    /// Makes one helping of messages for all members. False if there was nothing to tell.
    pub(super) fn flush_group(&mut self, key: u32) -> bool {
        let Some(group) = self.groups.get_mut(&key).filter(|g| !g.pending.is_empty()) else { return false };
        let chunk = {
            let exporter = Exporter { neighbors: &self.neighbors, options: &self.options };
            let mut batches = Batches::default();
            for _ in 0..BATCH {
                let Some((prefix, last)) = group.pending.pop_first() else { break };
                let best = self.table.get(&prefix).and_then(|node| node.best());
                let cache = &mut group.cache;
                let now = view(&group.like, &exporter, prefix, best, cache, &mut self.exports);
                batches.change(prefix, &last, &now);
            }
            batches.write(&group.like, |id| group.members.contains(&id))
        };
        let members = group.members.clone();
        self.hand_out(&members, Arc::new(chunk));
        true
    }

    /// A stretch of the table for a peer without add-path: its octets, and the last prefix in it.
    pub(super) fn stretch(
        &mut self,
        id: PeerId,
        family: Family,
        from: Bound<Prefix>,
    ) -> Option<(Vec<u8>, Option<Prefix>)> {
        let like = self.neighbors.share(id)?;
        let found = self.walks.find(&like, family, from);
        let stretch = found.unwrap_or_else(|| self.make_stretch(like, family, from));
        Some((stretch.chunk.of(id), stretch.last))
    }

    fn make_stretch(&mut self, like: Arc<Neighbor>, family: Family, from: Bound<Prefix>) -> Stretch {
        let Rib { table, neighbors, options, exports: interner, walks, .. } = self;
        let exporter = Exporter { neighbors, options };
        let (mut batches, mut cache, mut last) = (Batches::default(), Cache::default(), None);
        for (prefix, node) in table.from(family, from).take(BATCH) {
            let route = view(&like, &exporter, prefix, node.best(), &mut cache, interner);
            batches.first(prefix, &route);
            last = Some(prefix);
        }
        let chunk = Arc::new(batches.write(&like, |_| false));
        let stretch = Stretch { version: walks.version, like, from, family, chunk, last };
        walks.keep(&stretch);
        stretch
    }

    fn hand_out(&mut self, members: &[PeerId], chunk: Arc<Chunk>) {
        if chunk.len() == 0 {
            return;
        }
        for id in members {
            let Some(out) = self.outs.get_mut(id) else { continue };
            out.queued += chunk.len();
            out.queue.push_back(chunk.clone());
            if out.queued > MAX_QUEUED {
                self.leave_group(*id);
            }
        }
    }

    /// The group of a peer that is in one.
    pub(super) fn group_of(&self, id: PeerId) -> Option<u32> {
        self.outs.get(&id)?.group
    }

    /// True if members of the group have something to be told.
    pub(super) fn group_is_behind(&self, key: u32) -> bool {
        self.groups.get(&key).is_some_and(|g| !g.pending.is_empty())
    }

    /// The group that a peer would join.
    pub(super) fn group_like(&self, id: PeerId) -> Option<u32> {
        let neighbor = self.neighbors.get(id)?;
        self.groups.iter().find(|(_, g)| are_told_alike(&g.like, neighbor)).map(|(key, _)| *key)
    }
}

impl Out {
    /// True if nothing is left of its own to tell, so that it may join its likes.
    pub fn may_join(&self) -> bool {
        self.group.is_none() && self.is_idle() && Family::ALL.iter().any(|f| self.sync[*f] == Sync::Done)
    }

    /// The next octets that its group made for it.
    pub fn take_queued(&mut self, id: PeerId) -> Option<Vec<u8>> {
        let chunk = self.queue.pop_front()?;
        self.queued -= chunk.len();
        Some(chunk.of(id))
    }
}
