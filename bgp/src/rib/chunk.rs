//! Octets made once for many peers, and whom each part is for.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, Range};
use std::sync::Arc;

use crate::wire::Attributes;
use crate::{Family, Prefix};

use super::adj_out::Batch;
use super::group::are_told_alike;
use super::neighbor::Neighbor;
use super::path::PeerId;

/// Stands for a member that no path came from.
pub(crate) const NOBODY: PeerId = PeerId(u32::MAX - 1);

/// A route as members know it: the peer that it came from, and the attributes that all others are told.
pub(crate) type Last = Option<(PeerId, Arc<Attributes>)>;

/// Which members a piece of octets is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Audience {
    /// All but the peers that the old and the new path came from.
    AllBut(PeerId, PeerId),
    Only(PeerId),
}

impl Audience {
    fn includes(self, id: PeerId) -> bool {
        match self {
            Audience::AllBut(a, b) => id != a && id != b,
            Audience::Only(only) => id == only,
        }
    }
}

/// Messages made in one go, with whom each part is for.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    octets: Vec<u8>,
    parts: Vec<(Audience, Range<usize>)>,
}

impl Chunk {
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// What one member gets of it, as whole messages in a row.
    pub fn of(&self, id: PeerId) -> Vec<u8> {
        let mine = || self.parts.iter().filter(|(audience, _)| audience.includes(id));
        let mut out = Vec::with_capacity(mine().map(|(_, range)| range.len()).sum());
        mine().for_each(|(_, range)| out.extend_from_slice(&self.octets[range.clone()]));
        out
    }

    fn push(&mut self, audience: Audience, messages: &[Vec<u8>]) {
        let from = self.octets.len();
        messages.iter().for_each(|m| self.octets.extend_from_slice(m));
        self.parts.push((audience, from..self.octets.len()));
    }
}

/// Stretches of the table, written for peers that walk it at the same time, as after a restart.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    /// Counts what may change the octets.
    pub version: u64,
    made: VecDeque<Stretch>,
}

/// How many stretches are kept for peers that have not come as far.
const MAX_STRETCHES: usize = 16;

#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub like: Arc<Neighbor>,
    pub version: u64,
    pub from: Bound<Prefix>,
    pub family: Family,
    pub chunk: Arc<Chunk>,
    /// The last prefix in it.
    pub last: Option<Prefix>,
}

impl Walks {
    /// What was made is no longer true.
    pub fn changed(&mut self) {
        self.version += 1;
    }

    pub fn find(&self, like: &Neighbor, family: Family, from: Bound<Prefix>) -> Option<Stretch> {
        let fits = |s: &&Stretch| {
            (s.version, s.family, s.from) == (self.version, family, from) && are_told_alike(&s.like, like)
        };
        self.made.iter().find(fits).cloned()
    }

    pub fn keep(&mut self, stretch: &Stretch) {
        self.made.truncate(MAX_STRETCHES - 1);
        self.made.push_front(stretch.clone());
    }
}

/// The changes of one flush by audience.
#[derive(Default)]
pub(crate) struct Batches(BTreeMap<Audience, Batch>);

impl Batches {
    /// Adds what takes every member from `last` to `now`.
    pub fn change(&mut self, prefix: Prefix, last: &Last, now: &Last) {
        let peer = |route: &Last| route.as_ref().map_or(NOBODY, |(peer, _)| *peer);
        let (from, to) = (peer(last), peer(now));
        let [attributes, told] = [now, last].map(|route| route.as_ref().map(|(_, a)| a));
        self.step(Audience::AllBut(from, to), prefix, told, attributes);
        if from != to {
            // Who gave the old path was told of none; who gave the new one loses what it was told.
            self.step(Audience::Only(from), prefix, None, attributes);
            self.step(Audience::Only(to), prefix, told, None);
        }
    }

    /// Adds a route for all who were never told of the prefix.
    pub fn first(&mut self, prefix: Prefix, now: &Last) {
        if let Some((peer, attributes)) = now {
            self.batch(Audience::AllBut(*peer, NOBODY)).announce(prefix.into(), attributes);
        }
    }

    fn step(
        &mut self,
        audience: Audience,
        prefix: Prefix,
        last: Option<&Arc<Attributes>>,
        now: Option<&Arc<Attributes>>,
    ) {
        if audience == Audience::Only(NOBODY) || audience == Audience::Only(PeerId::LOCAL) {
            return;
        }
        match (last, now) {
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => {}
            (_, Some(now)) => self.batch(audience).announce(prefix.into(), now),
            (Some(_), None) => self.batch(audience).withdraw(prefix.into()),
            (None, None) => {}
        }
    }

    fn batch(&mut self, audience: Audience) -> &mut Batch {
        self.0.entry(audience).or_default()
    }

    /// The octets, without what is for peers that are not there.
    pub fn write(self, like: &Neighbor, is_there: impl Fn(PeerId) -> bool) -> Chunk {
        let mut chunk = Chunk::default();
        for (audience, batch) in self.0 {
            if matches!(audience, Audience::Only(id) if !is_there(id)) {
                continue;
            }
            let mut messages = Vec::new();
            batch.write(&like.encode, &mut messages);
            chunk.push(audience, &messages);
        }
        chunk
    }
}
