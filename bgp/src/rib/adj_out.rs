//! What a peer still has to be told.
//!
//! The Adj-RIB-Out of RFC 4271 is not stored: it is a function of the Loc-RIB and the peer. Stored are only
//! the prefixes that changed since the peer was last told, each with what it was last told. So a peer that is up to
//! date costs nothing, and one that flaps or reads slowly gets only the difference that is left.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::wire::{self, Attributes, EncodeParams, Nlri, Refresh, RefreshKind};
use crate::{Family, PerFamily, Prefix};

use super::chunk::Chunk;
use super::export::Cache;

/// Path identifier and attributes, as a peer has them.
pub(crate) type Told = Vec<(u32, Arc<Attributes>)>;

/// How far the telling of a whole family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Not begun: selection is put off after a restart.
    Waiting,
    /// The first time; prefixes behind `after` were never told.
    First {
        after: Option<Prefix>,
    },
    /// Once more, because the peer asked.
    Again {
        after: Option<Prefix>,
        begun: bool,
    },
    Done,
}

#[derive(Debug)]
pub(crate) struct Out {
    pub sync: PerFamily<Sync>,
    /// What was last told of each prefix that has changed since.
    pub pending: BTreeMap<Prefix, Told>,
    pub cache: Cache,
    /// The group that notes changes in its place.
    pub group: Option<u32>,
    /// What groups made for it and it has not taken; goes before all else.
    pub queue: VecDeque<Arc<Chunk>>,
    /// Octets in `queue`.
    pub queued: usize,
}

impl Out {
    pub fn new() -> Self {
        Out {
            sync: PerFamily { v4: Sync::Waiting, v6: Sync::Waiting },
            pending: BTreeMap::new(),
            cache: Cache::default(),
            group: None,
            queue: VecDeque::new(),
            queued: 0,
        }
    }

    /// Begins to tell everything, where that has not begun.
    pub fn begin(&mut self, families: PerFamily<bool>) {
        for family in families.iter().filter(|f| self.sync[*f] == Sync::Waiting).collect::<Vec<_>>() {
            self.sync[family] = Sync::First { after: None };
        }
    }

    /// Tells everything of a family again; while the first time is going on that is enough.
    pub fn again(&mut self, family: Family) {
        if matches!(self.sync[family], Sync::Done | Sync::Again { .. }) {
            self.sync[family] = Sync::Again { after: None, begun: false };
        }
    }

    /// True if the peer knows of a prefix or of its absence, so that a change has to be noted.
    pub fn has_passed(&self, prefix: Prefix) -> bool {
        match self.sync[prefix.family()] {
            Sync::Waiting => false,
            Sync::First { after } => after.is_some_and(|a| prefix <= a),
            Sync::Again { .. } | Sync::Done => true,
        }
    }

    /// The same, and it was not noted yet.
    pub fn notes(&self, prefix: Prefix) -> bool {
        self.has_passed(prefix) && !self.pending.contains_key(&prefix)
    }

    /// The family to walk next and where.
    pub fn walk(&self) -> Option<(Family, Bound<Prefix>)> {
        Family::ALL.into_iter().find_map(|f| match self.sync[f] {
            Sync::First { after } | Sync::Again { after, .. } => {
                Some((f, after.map_or(Bound::Included(Prefix::all(f)), Bound::Excluded)))
            }

            Sync::Waiting | Sync::Done => None,
        })
    }

    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.walk().is_none()
    }
}

/// Collects changes for one peer and writes them in as few messages as possible.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    withdrawn: PerFamily<Vec<Nlri>>,
    /// Routes with the same attributes, in the order in which these first came.
    groups: Vec<(Arc<Attributes>, Family, Vec<Nlri>)>,
    index: BTreeMap<(usize, Family), usize>,
}

impl Batch {
    pub fn withdraw(&mut self, nlri: Nlri) {
        self.withdrawn[nlri.prefix.family()].push(nlri);
    }

    pub fn announce(&mut self, nlri: Nlri, attributes: &Arc<Attributes>) {
        let family = nlri.prefix.family();
        let at = self.group(attributes, family);
        self.groups[at].2.push(nlri);
    }

    /// Where routes with these attributes are collected. Mostly that is where the last one went.
    fn group(&mut self, attributes: &Arc<Attributes>, family: Family) -> usize {
        let is_last =
            |(a, f, _): &(Arc<Attributes>, Family, Vec<Nlri>)| Arc::ptr_eq(a, attributes) && *f == family;
        if self.groups.last().is_some_and(is_last) {
            return self.groups.len() - 1;
        }
        // Handles are interned: the same value is the same address.
        let key = (Arc::as_ptr(attributes) as usize, family);
        let at = *self.index.entry(key).or_insert(self.groups.len());
        if at == self.groups.len() {
            self.groups.push((attributes.clone(), family, Vec::new()));
        }
        at
    }

    /// Adds what takes a peer from `last` to `now`.
    pub fn difference(&mut self, prefix: Prefix, last: &Told, now: &Told) {
        for (path_id, _) in last.iter().filter(|(id, _)| now.iter().all(|(have, _)| have != id)) {
            self.withdraw(Nlri { prefix, path_id: *path_id });
        }
        for (path_id, attributes) in now {
            let same = |(id, a): &(u32, Arc<Attributes>)| id == path_id && Arc::ptr_eq(a, attributes);
            if !last.iter().any(same) {
                self.announce(Nlri { prefix, path_id: *path_id }, attributes);
            }
        }
    }

    /// Withdrawals first. A route whose attributes fit no message is withdrawn: the peer must not keep an older one.
    pub fn write(mut self, params: &EncodeParams, out: &mut Vec<Vec<u8>>) {
        let mut announced = Vec::new();
        for (attributes, family, nlri) in &self.groups {
            match wire::announce(attributes, *family, nlri, params) {
                Ok(messages) => announced.extend(messages),
                Err(wire::TooLong) => self.withdrawn[*family].extend(nlri),
            }
        }
        for family in Family::ALL {
            out.extend(wire::withdraw(family, &self.withdrawn[family], params));
        }
        out.extend(announced);
    }
}

/// The marker at the beginning or end of a refresh (RFC 7313).
pub(crate) fn refresh_marker(kind: RefreshKind, family: Family) -> Vec<u8> {
    wire::encode_refresh(&Refresh { kind, family: family.into() })
}
