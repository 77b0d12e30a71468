//! The RIB's side towards peers: noting changes, and telling them.

use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;

use crate::wire::{self, Attributes, EncodeParams, Nlri, RefreshKind};
use crate::{Family, Prefix, PrefixMap};

use super::adj_out::{Batch, Out, Sync, Told, refresh_marker};
use super::export::{Cache, Exporter};
use super::intern::Interner;
use super::neighbor::{Neighbor, NeighborOptions};
use super::path::{Node, Path, PeerId};
use super::select::Context;
use super::{Refusal, Rib};

/// Prefixes looked at in one call of [`Rib::poll_updates`]: bounds its time and lets routes share messages.
pub(super) const BATCH: usize = 4096;

impl Rib {
    /// Notes for each peer what it was told so far of a prefix that has just changed.
    pub(super) fn note(&mut self, prefix: Prefix, before: &[Path], now: &[Path]) {
        self.walks.changed();
        self.note_for_groups(prefix, before.first());
        let Rib { neighbors, options, outs, solo, exports: interner, .. } = self;
        let exporter = Exporter { neighbors, options };
        for id in solo.iter() {
            let Some(out) = outs.get_mut(id) else { continue };
            let Some(neighbor) = neighbors.get(*id).filter(|_| out.has_passed(prefix)) else { continue };
            let from_there = |p: &Path| p.peer == *id;
            if before.iter().all(from_there) && now.iter().all(from_there) {
                continue;
            }
            let Out { pending, cache, .. } = out;
            if let Entry::Vacant(entry) = pending.entry(prefix) {
                entry.insert(view(&exporter, (*id, neighbor), prefix, before, cache, interner).collect());
            }
        }
    }

    /// The table, and what it takes to tell a peer of it.
    fn teller(&mut self, id: PeerId) -> Option<(&PrefixMap<Node>, Teller<'_>)> {
        let Rib { table, neighbors, options, next_hops, exports: interner, tells_all, .. } = self;
        let neighbor = neighbors.get(id)?;
        let exporter = Exporter { neighbors, options };
        let context = Context { neighbors, next_hops, options };
        Some((table, Teller { id, neighbor, exporter, context, tells_all: *tells_all, interner }))
    }

    /// Calls `each` with what a peer is to be told of a prefix.
    fn told(&mut self, id: PeerId, prefix: Prefix, out: &mut Out, each: impl FnMut(u32, Arc<Attributes>)) {
        let Some((table, mut teller)) = self.teller(id) else { return };
        if let Some(node) = table.get(&prefix) {
            teller.tell(prefix, node, &mut out.cache, each);
        }
    }

    fn told_list(&mut self, id: PeerId, prefix: Prefix, out: &mut Out) -> Told {
        let mut list = Told::new();
        self.told(id, prefix, out, |path_id, attributes| list.push((path_id, attributes)));
        list
    }

    /// Adds to a batch what takes a peer from `last` to what it is to be told now.
    fn tell(&mut self, id: PeerId, prefix: Prefix, last: &Told, out: &mut Out, batch: &mut Batch) {
        if last.is_empty() {
            self.told(id, prefix, out, |path_id, attributes| {
                batch.announce(Nlri { prefix, path_id }, &attributes)
            });
        } else {
            let now = self.told_list(id, prefix, out);
            batch.difference(prefix, last, &now);
        }
    }

    /// The next messages for a peer, in pieces of one or more whole messages: call it when there is room to send,
    /// until it answers `None`. It may answer with no message and have more to say. Late calls lose nothing and send less.
    pub fn poll_updates(&mut self, id: PeerId) -> Option<Vec<Vec<u8>>> {
        if let Some(octets) = self.outs.get_mut(&id)?.take_queued(id) {
            return Some(vec![octets]);
        }
        match self.group_of(id) {
            Some(key) => self.poll_group(id, key),
            None => self.poll_solo(id),
        }
    }

    /// The next messages for all members of a group, and this one's part of them.
    fn poll_group(&mut self, id: PeerId, key: u32) -> Option<Vec<Vec<u8>>> {
        if !self.flush_group(key) {
            return None;
        }
        let octets = self.outs.get_mut(&id)?.take_queued(id);
        Some(octets.into_iter().collect())
    }

    fn poll_solo(&mut self, id: PeerId) -> Option<Vec<Vec<u8>>> {
        if self.outs.get(&id)?.may_join() {
            return self.poll_joining(id);
        }
        let (encode, enhanced) = self.neighbors.get(id).map(|n| (n.encode, n.enhanced_refresh))?;
        let mut out = self.outs.remove(&id)?;
        let busy = !out.is_idle();
        let mut messages = Vec::new();
        if !out.pending.is_empty() {
            let mut batch = Batch::default();
            self.tell_pending(id, &mut out, &mut batch);
            batch.write(&encode, &mut messages);
        } else if busy {
            self.tell_walk(id, &mut out, &encode, enhanced, &mut messages);
        }
        self.outs.insert(id, out);
        busy.then_some(messages)
    }

    /// Joins those that are told the same; first they are told what they do not know yet.
    fn poll_joining(&mut self, id: PeerId) -> Option<Vec<Vec<u8>>> {
        if self.join_group(id) {
            return None;
        }
        let key = self.group_like(id)?;
        self.flush_group(key).then(Vec::new)
    }

    fn tell_pending(&mut self, id: PeerId, out: &mut Out, batch: &mut Batch) {
        for _ in 0..BATCH {
            let Some((prefix, last)) = out.pending.pop_first() else { break };
            self.tell(id, prefix, &last, out, batch);
        }
    }

    /// One stretch of telling a whole family, with the markers around it.
    fn tell_walk(
        &mut self,
        id: PeerId,
        out: &mut Out,
        encode: &EncodeParams,
        enhanced: bool,
        messages: &mut Vec<Vec<u8>>,
    ) {
        let Some((family, from)) = out.walk() else { return };
        if matches!(out.sync[family], Sync::Again { begun: false, .. }) && enhanced {
            messages.push(refresh_marker(RefreshKind::Begin, family));
        }
        let last = match encode.add_path[family] {
            true => self.tell_all_paths(id, out, family, from, messages),
            false => self.stretch(id, family, from).and_then(|(octets, last)| {
                messages.extend((!octets.is_empty()).then_some(octets));
                last
            }),
        };
        advance(out, family, last, enhanced, messages);
    }

    /// A stretch of the table for a peer with add-path. The last prefix in it.
    fn tell_all_paths(
        &mut self,
        id: PeerId,
        out: &mut Out,
        family: Family,
        from: Bound<Prefix>,
        messages: &mut Vec<Vec<u8>>,
    ) -> Option<Prefix> {
        let (table, mut teller) = self.teller(id)?;
        let (mut batch, mut last) = (Batch::default(), None);
        for (prefix, node) in table.from(family, from).take(BATCH) {
            let announce = |path_id, a| batch.announce(Nlri { prefix, path_id }, &a);
            teller.tell(prefix, node, &mut out.cache, announce);
            last = Some(prefix);
        }
        batch.write(&teller.neighbor.encode, messages);
        last
    }

    /// True if a peer has been told everything.
    pub fn is_told(&self, id: PeerId) -> bool {
        let behind = |out: &Out| out.group.is_some_and(|key| self.group_is_behind(key));
        self.outs.get(&id).is_none_or(|out| out.is_idle() && out.queue.is_empty() && !behind(out))
    }

    /// The peer asks for a family again (RFC 2918).
    pub fn refresh(&mut self, id: PeerId, family: Family) {
        self.leave_group(id);
        if let Some(out) = self.outs.get_mut(&id) {
            out.again(family);
        }
    }

    /// All that a peer has been told, or will be once [`Rib::poll_updates`] is drained: its Adj-RIB-Out.
    pub fn advertised(&mut self, id: PeerId) -> Vec<(Prefix, u32, Arc<Attributes>)> {
        let prefixes: Vec<Prefix> = self.table.keys().collect();
        let mut out = Out::new();
        let mut all = Vec::new();
        for prefix in prefixes {
            self.told(id, prefix, &mut out, |path_id, a| all.push((prefix, path_id, a)));
        }
        all
    }

    /// Puts changed options of a peer into force, without touching its session: its routes are judged anew, and
    /// it is told what differs.
    pub fn reconfigure(&mut self, id: PeerId, options: NeighborOptions) {
        let Some(old) = self.neighbors.share(id).filter(|n| n.options != options) else { return };
        let import_changed = old.options.import != options.import
            || old.options.next_hop != options.next_hop
            || old.options.allowed_own_as != options.allowed_own_as;
        self.leave_group(id);
        self.note_all(id);
        if old.options.client != options.client {
            // Whether its routes are reflected to others depends on it.
            self.others(id).into_iter().for_each(|other| self.note_all(other));
            self.note_all_for_groups();
        }
        self.walks.changed();
        self.neighbors.insert(id, Neighbor { options, ..(*old).clone() });
        if let Some(out) = self.outs.get_mut(&id) {
            out.cache = Default::default();
        }
        if import_changed {
            self.import_again(id);
        }
    }

    fn others(&self, id: PeerId) -> Vec<PeerId> {
        self.solo.iter().copied().filter(|other| *other != id).collect()
    }

    /// Notes the whole table for a peer, before its view changes.
    fn note_all(&mut self, id: PeerId) {
        let Some(mut out) = self.outs.remove(&id) else { return };
        let prefixes: Vec<Prefix> = self.table.keys().filter(|p| out.notes(*p)).collect();
        for prefix in prefixes {
            let told = self.told_list(id, prefix, &mut out);
            out.pending.insert(prefix, told);
        }
        self.outs.insert(id, out);
    }

    fn import_again(&mut self, id: PeerId) {
        let Some(neighbor) = self.neighbors.share(id) else { return };
        let options = self.options;
        for prefix in self.prefixes_with(|p| p.peer == id) {
            let paths: Vec<Path> =
                self.table[&prefix].paths.iter().filter(|p| p.peer == id).cloned().collect();
            for path in paths {
                let mut importer = super::Importer::new(&neighbor, &options, path.received.clone());
                let accepted = importer.import(prefix, &mut self.interner);
                let accepted = self.keep_stale_mark(&path, accepted);
                self.change(prefix, |node| node.insert(Path { accepted, ..path }));
            }
        }
    }

    /// Why a route of a peer is not used, if import refused it.
    pub(super) fn refusal(&self, prefix: Prefix, path: &Path) -> Option<Refusal> {
        let neighbor = self.neighbors.get(path.peer)?;
        super::import::judge(neighbor, &self.options, prefix, &path.received).err()
    }
}

/// Tells one peer of many prefixes.
struct Teller<'a> {
    id: PeerId,
    neighbor: &'a Neighbor,
    exporter: Exporter<'a>,
    context: Context<'a>,
    tells_all: bool,
    interner: &'a mut Interner,
}

impl Teller<'_> {
    fn tell(
        &mut self,
        prefix: Prefix,
        node: &Node,
        cache: &mut Cache,
        mut each: impl FnMut(u32, Arc<Attributes>),
    ) {
        let all = if self.tells_all { super::usable(node, &self.context) } else { Vec::new() };
        let paths = if self.tells_all { &all[..] } else { node.multipath() };
        let told = view(&self.exporter, (self.id, self.neighbor), prefix, paths, cache, self.interner);
        told.for_each(|(path_id, attributes)| each(path_id, attributes));
    }
}

/// What a peer is told of these paths; the best comes first, and a peer without add-path is told only that one.
fn view<'a>(
    exporter: &'a Exporter<'a>,
    (id, neighbor): (PeerId, &'a Neighbor),
    prefix: Prefix,
    paths: &'a [Path],
    cache: &'a mut Cache,
    interner: &'a mut Interner,
) -> impl Iterator<Item = (u32, Arc<Attributes>)> + 'a {
    let add_path = neighbor.encode.add_path[prefix.family()];
    let paths = if add_path { paths } else { &paths[..paths.len().min(1)] };
    paths.iter().filter_map(move |path| {
        let attributes = exporter.export((id, neighbor), prefix, path, cache, interner).ok()?;
        Some((if add_path { path.local_id } else { 0 }, attributes))
    })
}

/// Moves a walk on; after its last stretch comes the End-of-RIB or the end of the refresh.
fn advance(out: &mut Out, family: Family, last: Option<Prefix>, enhanced: bool, messages: &mut Vec<Vec<u8>>) {
    out.sync[family] = match (out.sync[family], last) {
        (Sync::First { .. }, Some(last)) => Sync::First { after: Some(last) },
        (Sync::Again { .. }, Some(last)) => Sync::Again { after: Some(last), begun: true },
        (Sync::First { .. }, None) => {
            messages.push(wire::end_of_rib_marker(family));
            Sync::Done
        }
        (Sync::Again { .. }, None) => {
            if enhanced {
                messages.push(refresh_marker(RefreshKind::End, family));
            }
            Sync::Done
        }
        (other @ (Sync::Waiting | Sync::Done), _) => other,
    };
}
