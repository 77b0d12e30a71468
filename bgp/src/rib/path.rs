//! What is known about a prefix: its paths, in 32 octets for the usual case of one.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::wire::Attributes;

/// A peer, named by the owner of the RIB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

impl PeerId {
    /// Stands for this speaker itself in routes that start here.
    pub const LOCAL: PeerId = PeerId(u32::MAX);
}

/// Whether a path outlives its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    Fresh,
    /// Kept while its peer restarts or refreshes; selected like a fresh one (RFC 4724 section 4.2).
    Stale,
    /// Kept beyond that; the last choice (RFC 9494 section 4.2).
    LongLived,
}

/// A route as one peer told it.
#[derive(Clone, Debug)]
pub struct Path {
    pub peer: PeerId,
    /// The identifier that the peer gave it; 0 without add-path.
    pub path_id: u32,
    /// The identifier that we give it towards peers with add-path; unique for the prefix.
    pub(crate) local_id: u32,
    /// As it came, so that a changed import policy needs no refresh.
    pub(crate) received: Arc<Attributes>,
    /// As policy left it; `None` if it may not be used.
    pub(crate) accepted: Option<Arc<Attributes>>,
    pub freshness: Freshness,
    /// Packets take it: it is the best, or as good and used together with it.
    pub(crate) used: bool,
}

/// One path or several. A vector for every prefix would cost an allocation for each of a million.
#[derive(Clone, Debug)]
pub(crate) enum Paths {
    One(Path),
    Many(Vec<Path>),
}

impl Deref for Paths {
    type Target = [Path];
    fn deref(&self) -> &[Path] {
        match self {
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(list) => list,
        }
    }
}

impl DerefMut for Paths {
    fn deref_mut(&mut self) -> &mut [Path] {
        match self {
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(list) => list,
        }
    }
}

impl Paths {
    const EMPTY: Paths = Paths::Many(Vec::new());

    /// A copy of some paths.
    pub fn of(paths: &[Path]) -> Paths {
        match paths {
            [one] => Paths::One(one.clone()),
            _ => Paths::Many(paths.to_vec()),
        }
    }

    fn push(&mut self, path: Path) {
        *self = match std::mem::replace(self, Paths::EMPTY) {
            Paths::Many(list) if list.is_empty() => Paths::One(path),
            Paths::One(first) => Paths::Many(vec![first, path]),
            Paths::Many(mut list) => {
                list.push(path);
                Paths::Many(list)
            }
        };
    }

    /// Keeps the paths that `keep` wants; one left is stored as one.
    pub fn retain(&mut self, mut keep: impl FnMut(&Path) -> bool) {
        *self = match std::mem::replace(self, Paths::EMPTY) {
            Paths::One(path) if keep(&path) => Paths::One(path),
            Paths::One(_) => Paths::EMPTY,
            Paths::Many(mut list) => {
                list.retain(keep);
                if list.len() == 1 { list.pop().map_or(Paths::EMPTY, Paths::One) } else { Paths::Many(list) }
            }
        };
    }
}

/// A prefix's entry: the paths, best first.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub paths: Paths,
}

impl Node {
    pub const EMPTY: Node = Node { paths: Paths::EMPTY };

    pub fn best(&self) -> Option<&Path> {
        self.paths.first().filter(|path| path.used)
    }

    /// The paths that packets take.
    pub fn multipath(&self) -> &[Path] {
        let used = self.paths.iter().take_while(|path| path.used).count();
        &self.paths[..used]
    }

    pub fn find(&mut self, peer: PeerId, path_id: u32) -> Option<&mut Path> {
        self.paths.iter_mut().find(|p| p.peer == peer && p.path_id == path_id)
    }

    /// Puts in a path or replaces the same peer's one of that identifier. True if it is a new one.
    pub fn insert(&mut self, mut path: Path) -> bool {
        if let Some(old) = self.find(path.peer, path.path_id) {
            path.local_id = old.local_id;
            *old = path;
            return false;
        }
        path.local_id =
            (1..).find(|id| self.paths.iter().all(|p| p.local_id != *id)).expect("paths are finite");
        self.paths.push(path);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Path>(), 32);
        assert_eq!(size_of::<Node>(), 32);
    }

    #[test]
    fn identifiers_are_unique_and_stay() {
        let a = Arc::new(Attributes::local([1, 1, 1, 1].into()));
        let path = |peer| Path {
            peer: PeerId(peer),
            path_id: 0,
            local_id: 0,
            received: a.clone(),
            accepted: None,
            freshness: Freshness::Fresh,
            used: false,
        };
        let mut node = Node::EMPTY;
        assert!(node.insert(path(1)) && node.insert(path(2)) && node.insert(path(3)));
        node.paths.retain(|p| p.peer != PeerId(2));
        assert!(!node.insert(path(3)) && node.insert(path(4)));
        let mut ids: Vec<_> = node.paths.iter().map(|p| (p.peer.0, p.local_id)).collect();
        ids.sort();
        assert_eq!(ids, [(1, 1), (3, 3), (4, 2)]);
    }
}
