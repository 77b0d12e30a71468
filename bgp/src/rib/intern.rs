//! Equal attributes are stored once.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use ahash::{AHasher, RandomState};

use crate::wire::Attributes;

/// Hash keys from a seed of the caller's: a peer that does not know it cannot make collisions, and a run repeats.
#[derive(Clone, Debug)]
pub(crate) struct Seeded(RandomState);

impl Seeded {
    fn new(seed: u64) -> Self {
        Seeded(RandomState::with_seeds(seed, !seed, seed.rotate_left(17), seed.rotate_left(41)))
    }
}

impl BuildHasher for Seeded {
    type Hasher = AHasher;

    fn build_hasher(&self) -> AHasher {
        self.0.build_hasher()
    }
}

/// The set of all attributes in use. Two handles are equal values exactly if they are the same allocation.
#[derive(Debug)]
pub(crate) struct Interner {
    known: HashSet<Arc<Attributes>, Seeded>,
    /// When to look for unused ones: growth by half keeps the cost constant per insertion.
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 1024;

impl Interner {
    pub fn new(seed: u64) -> Self {
        Interner { known: HashSet::with_hasher(Seeded::new(seed)), sweep_at: FIRST_SWEEP }
    }

    /// The one handle for these attributes.
    pub fn intern(&mut self, attributes: Attributes) -> Arc<Attributes> {
        if let Some(known) = self.known.get(&attributes) {
            return known.clone();
        }
        if self.known.len() >= self.sweep_at {
            self.sweep();
        }
        let new = Arc::new(attributes);
        self.known.insert(new.clone());
        new
    }

    fn sweep(&mut self) {
        self.known.retain(|a| Arc::strong_count(a) > 1);
        self.sweep_at = (self.known.len() / 2 * 3).max(FIRST_SWEEP);
    }

    /// Distinct values held, with those that nothing uses since the last sweep.
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_med(med: u32) -> Attributes {
        Attributes { med: Some(med), ..Attributes::local([1, 1, 1, 1].into()) }
    }

    #[test]
    fn equal_values_are_one() {
        let mut interner = Interner::new(1);
        let (a, b, c) =
            (interner.intern(with_med(1)), interner.intern(with_med(1)), interner.intern(with_med(2)));
        assert!(Arc::ptr_eq(&a, &b) && !Arc::ptr_eq(&a, &c));
    }

    #[test]
    fn unused_values_do_not_pile_up() {
        let mut interner = Interner::new(1);
        let kept = interner.intern(with_med(0));
        (1..100_000).for_each(|med| drop(interner.intern(with_med(med))));
        assert!(interner.len() <= 2 * FIRST_SWEEP, "{}", interner.len());
        assert!(Arc::ptr_eq(&kept, &interner.intern(with_med(0))));
    }
}
