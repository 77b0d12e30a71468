//! Routes that outlive their session: RFC 4724 section 4.2, RFC 9494 section 4.2, RFC 7313 section 4.

use std::sync::Arc;

use crate::wire::{Attributes, well_known};
use crate::{Family, PerFamily, Prefix};

use super::path::{Freshness, Path, PeerId};
use super::{Neighbor, Rib};

impl Rib {
    /// A peer's session is down. Routes of the families in `retain` are kept as stale, all others go.
    pub fn peer_down(&mut self, id: PeerId, retain: PerFamily<bool>) {
        self.remove_out(id);
        for family in Family::ALL {
            if retain[family] {
                // RFC 4724 section 4.2: what was stale already and was not told again goes.
                self.drop_paths(id, family, |p| p.freshness == Freshness::Stale);
                self.mark_stale(id, family);
            } else {
                self.drop_paths(id, family, |_| true);
            }
        }
        self.forget_if_empty(id);
    }

    /// The peer has told all of a family: what is still stale goes. Also at the end of an enhanced refresh.
    pub fn end_of_rib(&mut self, id: PeerId, family: Family) {
        self.drop_paths(id, family, |p| p.freshness != Freshness::Fresh);
        self.forget_if_empty(id);
    }

    /// An enhanced refresh begins: what is not told again until its end goes then.
    pub fn begin_refresh(&mut self, id: PeerId, family: Family) {
        self.mark_stale(id, family);
    }

    /// The peer did not come back in its restart time: long-lived routes stay as the last choice, marked for
    /// others; without `long_lived` all stale ones go.
    pub fn expire_stale(&mut self, id: PeerId, family: Family, long_lived: bool) {
        if long_lived {
            let unwilling = |p: &Path| p.received.has_community(well_known::NO_LLGR);
            self.drop_paths(id, family, |p| p.freshness != Freshness::Fresh && unwilling(p));
            self.mark_long_lived(id, family);
        } else {
            self.drop_paths(id, family, |p| p.freshness != Freshness::Fresh);
        }
        self.forget_if_empty(id);
    }

    /// After a restart: take routes in, but select for nobody until [`Rib::end_deferral`] (RFC 4724 section 4.1).
    pub fn defer(&mut self) {
        self.deferred = true;
    }

    pub fn is_deferred(&self) -> bool {
        self.deferred
    }

    /// All peers that were waited for have told everything, or the time is over.
    pub fn end_deferral(&mut self) {
        if std::mem::take(&mut self.deferred) {
            self.dirty.extend(self.table.keys());
            let Rib { outs, neighbors, .. } = self;
            for (id, out) in outs {
                out.begin(neighbors.get(*id).map(|n| n.families).unwrap_or_default());
            }
        }
    }

    /// Removes all of a peer, and the peer.
    pub(super) fn forget(&mut self, id: PeerId) {
        Family::ALL.into_iter().for_each(|family| self.drop_paths(id, family, |_| true));
        self.forget_if_empty(id);
    }

    fn forget_if_empty(&mut self, id: PeerId) {
        let holds = self.count(id) != PerFamily::default();
        if !holds && !self.outs.contains_key(&id) {
            self.neighbors.remove(id);
            self.counts.remove(&id);
        }
    }

    fn held(&self, id: PeerId, family: Family, wanted: impl Fn(&Path) -> bool) -> Vec<Prefix> {
        if self.count(id)[family] == 0 {
            return Vec::new();
        }
        let found = self.prefixes_with(|p| p.peer == id && wanted(p));
        found.into_iter().filter(|p| p.family() == family).collect()
    }

    fn drop_paths(&mut self, id: PeerId, family: Family, gone: impl Fn(&Path) -> bool) {
        for prefix in self.held(id, family, &gone) {
            self.remove(prefix, |p| p.peer == id && gone(p));
        }
    }

    /// Selection treats stale paths as fresh ones, so nobody needs to hear of it.
    fn mark_stale(&mut self, id: PeerId, family: Family) {
        for prefix in self.held(id, family, |p| p.freshness == Freshness::Fresh) {
            let Some(node) = self.table.get_mut(&prefix) else { continue };
            let fresh = node.paths.iter_mut().filter(|p| p.peer == id && p.freshness == Freshness::Fresh);
            fresh.for_each(|p| p.freshness = Freshness::Stale);
        }
    }

    fn mark_long_lived(&mut self, id: PeerId, family: Family) {
        let stale = |p: &Path| p.peer == id && p.freshness == Freshness::Stale;
        for prefix in self.held(id, family, stale) {
            let paths: Vec<Path> = self.table[&prefix].paths.iter().filter(|p| stale(p)).cloned().collect();
            for path in paths {
                let path = Path { freshness: Freshness::LongLived, ..path };
                let accepted = self.keep_stale_mark(&path, path.accepted.clone());
                self.change(prefix, |node| node.insert(Path { accepted, ..path }));
            }
        }
    }

    /// Long-lived stale paths carry the community that says so.
    pub(super) fn keep_stale_mark(
        &mut self,
        path: &Path,
        accepted: Option<Arc<Attributes>>,
    ) -> Option<Arc<Attributes>> {
        if path.freshness != Freshness::LongLived {
            return accepted;
        }
        let mut attributes = (*accepted?).clone();
        attributes.add_community(well_known::LLGR_STALE);
        Some(self.interner.intern(attributes))
    }

    /// The peer, while it is known.
    pub fn neighbor(&self, id: PeerId) -> Option<&Neighbor> {
        self.neighbors.get(id)
    }

    /// Peers whose session is up.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.outs.keys().copied()
    }
}
