//! An ordered map by prefix for tables of a million: pages of sorted entries without gaps.
//!
//! A B-tree that is filled in order, as peers fill it, keeps its nodes half empty. Here a full page that grows at its
//! end is left full, keys of IPv4 are five octets, and keys and values lie apart, so an entry costs little more than its
//! value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Bound, Index};

use crate::{Family, Prefix};

/// Entries of a page: more cost more to move, fewer make the list of pages longer.
const PAGE: usize = 256;

/// A prefix of one family as its address octets and length, which sort as prefixes do.
trait Key: Copy + Ord {
    fn of(prefix: Prefix) -> Self;
    fn prefix(self) -> Prefix;
}

impl Key for [u8; 5] {
    fn of(prefix: Prefix) -> Self {
        let [a, b, c, d, ..] = prefix.bits();
        [a, b, c, d, prefix.prefix_len()]
    }

    fn prefix(self) -> Prefix {
        let [a, b, c, d, len] = self;
        known(Ipv4Addr::new(a, b, c, d).into(), len)
    }
}

impl Key for ([u8; 16], u8) {
    fn of(prefix: Prefix) -> Self {
        (prefix.bits(), prefix.prefix_len())
    }

    fn prefix(self) -> Prefix {
        known(Ipv6Addr::from(self.0).into(), self.1)
    }
}

fn known(addr: IpAddr, len: u8) -> Prefix {
    Prefix::new(addr, len).expect("keys are made of prefixes")
}

/// Never empty, but for the time of a call.
#[derive(Clone, Debug)]
struct Page<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

#[derive(Clone, Debug)]
struct Pages<K, V> {
    /// The first key of each page.
    firsts: Vec<K>,
    pages: Vec<Page<K, V>>,
    len: usize,
}

impl<K, V> Default for Pages<K, V> {
    fn default() -> Self {
        Pages { firsts: Vec::new(), pages: Vec::new(), len: 0 }
    }
}

/// A place in a map: page and entry.
type Place = (usize, usize);

impl<K: Key, V> Pages<K, V> {
    /// Where a key is, or where it belongs.
    fn search(&self, key: &K) -> Result<Place, Place> {
        let page = self.firsts.partition_point(|first| first <= key).saturating_sub(1);
        let Some(found) = self.pages.get(page) else { return Err((0, 0)) };
        found.keys.binary_search(key).map(|at| (page, at)).map_err(|at| (page, at))
    }

    fn get(&self, key: &K) -> Option<&V> {
        let (page, at) = self.search(key).ok()?;
        Some(&self.pages[page].values[at])
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (page, at) = self.search(key).ok()?;
        Some(&mut self.pages[page].values[at])
    }

    fn get_or_insert(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let (page, at) = match self.search(&key) {
            Ok(place) => place,
            Err(place) => self.insert_at(place, key, make()),
        };
        &mut self.pages[page].values[at]
    }

    fn insert_at(&mut self, place: Place, key: K, value: V) -> Place {
        let (page, at) = self.make_room(place, key);
        let into = &mut self.pages[page];
        into.insert(at, key, value);
        self.firsts[page] = into.keys[0];
        self.len += 1;
        (page, at)
    }

    /// Where there is room for what belongs to a place.
    fn make_room(&mut self, (page, at): Place, key: K) -> Place {
        let empty = || Page { keys: Vec::new(), values: Vec::new() };
        match self.pages.get(page).map(|p| p.keys.len()) {
            None => self.new_page(0, key, empty()),
            // What comes in order leaves full pages behind.
            Some(PAGE) if at == PAGE => self.new_page(page + 1, key, empty()),
            Some(PAGE) => self.split((page, at)),
            Some(_) => (page, at),
        }
    }

    fn new_page(&mut self, page: usize, first: K, new: Page<K, V>) -> Place {
        self.firsts.insert(page, first);
        self.pages.insert(page, new);
        (page, 0)
    }

    /// In the middle, or where somebody seems to add in order before the first of somebody else.
    fn split(&mut self, (page, at): Place) -> Place {
        let cut = if at > PAGE * 3 / 4 { at } else { PAGE / 2 };
        let full = &mut self.pages[page];
        let behind = Page { keys: full.keys.split_off(cut), values: full.values.split_off(cut) };
        full.keys.shrink_to_fit();
        full.values.shrink_to_fit();
        self.new_page(page + 1, behind.keys[0], behind);
        if at > cut { (page + 1, at - cut) } else { (page, at) }
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let (page, at) = self.search(key).ok()?;
        let from = &mut self.pages[page];
        from.keys.remove(at);
        let value = from.values.remove(at);
        self.len -= 1;
        match from.keys.first() {
            Some(first) => {
                self.firsts[page] = *first;
                from.give_back();
            }
            None => {
                self.firsts.remove(page);
                self.pages.remove(page);
            }
        }
        Some(value)
    }

    /// Behind or at a key.
    fn from(&self, from: Bound<K>) -> impl Iterator<Item = (Prefix, &V)> {
        let (page, at) = match from {
            Bound::Unbounded => (0, 0),
            Bound::Included(key) => self.search(&key).unwrap_or_else(|place| place),
            Bound::Excluded(key) => self.search(&key).map_or_else(|place| place, |(p, at)| (p, at + 1)),
        };
        let rest = self.pages.iter().skip(page).enumerate();
        rest.flat_map(move |(n, page)| page.from(if n == 0 { at } else { 0 }))
    }
}

impl<K: Key, V> Page<K, V> {
    fn insert(&mut self, at: usize, key: K, value: V) {
        if self.values.len() == self.values.capacity() {
            // By doubling, but never beyond a page.
            let more = self.values.len().max(4).min(PAGE - self.values.len());
            self.keys.reserve_exact(more);
            self.values.reserve_exact(more);
        }
        self.keys.insert(at, key);
        self.values.insert(at, value);
    }

    fn from(&self, at: usize) -> impl Iterator<Item = (Prefix, &V)> {
        self.keys[at..].iter().map(|key| key.prefix()).zip(&self.values[at..])
    }

    /// Memory that most of the page no longer uses.
    fn give_back(&mut self) {
        let len = self.keys.len();
        if self.values.capacity() / 4 > len {
            self.keys.shrink_to(len * 2);
            self.values.shrink_to(len * 2);
        }
    }
}

/// An ordered map by prefix: all of IPv4, then all of IPv6.
#[derive(Clone, Debug)]
pub struct PrefixMap<V> {
    v4: Pages<[u8; 5], V>,
    v6: Pages<([u8; 16], u8), V>,
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        PrefixMap { v4: Pages::default(), v6: Pages::default() }
    }
}

impl<V> PrefixMap<V> {
    pub fn get(&self, prefix: &Prefix) -> Option<&V> {
        match prefix.family() {
            Family::Ipv4 => self.v4.get(&Key::of(*prefix)),
            Family::Ipv6 => self.v6.get(&Key::of(*prefix)),
        }
    }

    pub fn get_mut(&mut self, prefix: &Prefix) -> Option<&mut V> {
        match prefix.family() {
            Family::Ipv4 => self.v4.get_mut(&Key::of(*prefix)),
            Family::Ipv6 => self.v6.get_mut(&Key::of(*prefix)),
        }
    }

    /// The value of a prefix, made where there is none.
    pub fn get_or_insert(&mut self, prefix: Prefix, make: impl FnOnce() -> V) -> &mut V {
        match prefix.family() {
            Family::Ipv4 => self.v4.get_or_insert(Key::of(prefix), make),
            Family::Ipv6 => self.v6.get_or_insert(Key::of(prefix), make),
        }
    }

    /// Sets the value of a prefix; the answer is the one before.
    pub fn insert(&mut self, prefix: Prefix, value: V) -> Option<V> {
        let mut value = Some(value);
        let place = self.get_or_insert(prefix, || value.take().expect("called once"));
        value.map(|value| std::mem::replace(place, value))
    }

    pub fn remove(&mut self, prefix: &Prefix) -> Option<V> {
        match prefix.family() {
            Family::Ipv4 => self.v4.remove(&Key::of(*prefix)),
            Family::Ipv6 => self.v6.remove(&Key::of(*prefix)),
        }
    }

    pub fn contains_key(&self, prefix: &Prefix) -> bool {
        self.get(prefix).is_some()
    }

    pub fn len(&self) -> usize {
        self.v4.len + self.v6.len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, &V)> {
        self.v4.from(Bound::Unbounded).chain(self.v6.from(Bound::Unbounded))
    }

    /// All prefixes in order.
    pub fn keys(&self) -> impl Iterator<Item = Prefix> {
        self.iter().map(|(prefix, _)| prefix)
    }

    /// The entries of a family from a prefix of that family on, in order.
    pub fn from(&self, family: Family, from: Bound<Prefix>) -> impl Iterator<Item = (Prefix, &V)> {
        let v4 = (family == Family::Ipv4).then(|| self.v4.from(from.map(Key::of)));
        let v6 = (family == Family::Ipv6).then(|| self.v6.from(from.map(Key::of)));
        v4.into_iter().flatten().chain(v6.into_iter().flatten())
    }
}

impl<V> Index<&Prefix> for PrefixMap<V> {
    type Output = V;

    fn index(&self, prefix: &Prefix) -> &V {
        self.get(prefix).expect("the caller knows that it is there")
    }
}

impl<V> FromIterator<(Prefix, V)> for PrefixMap<V> {
    fn from_iter<I: IntoIterator<Item = (Prefix, V)>>(entries: I) -> Self {
        let mut map = PrefixMap::default();
        entries.into_iter().for_each(|(prefix, value)| drop(map.insert(prefix, value)));
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn v4(n: u32) -> Prefix {
        Prefix::new(Ipv4Addr::from(n << 8).into(), 24).unwrap()
    }

    /// Few enough to meet again, of all lengths and both families.
    fn prefix() -> impl Strategy<Value = Prefix> {
        (any::<bool>(), 0..2000_u32, 20..=32_u8).prop_map(|(is_v4, n, len)| {
            let addr = if is_v4 {
                Ipv4Addr::from(n << 4).into()
            } else {
                Ipv6Addr::from(u128::from(n) << 100).into()
            };
            Prefix::new(addr, len).unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("PERCALE_FULL").is_some() { 2000 } else { 60 }))]

        /// Any operations leave what they leave in the standard map.
        #[test]
        fn it_is_an_ordered_map(ops in prop::collection::vec((0..3_u8, prefix()), 0..3000), from in prefix()) {
            let (mut ours, mut model) = (PrefixMap::default(), BTreeMap::new());
            for (n, (op, prefix)) in ops.into_iter().enumerate() {
                match op {
                    0 => prop_assert_eq!(ours.remove(&prefix), model.remove(&prefix)),
                    _ => prop_assert_eq!(ours.insert(prefix, n), model.insert(prefix, n)),
                }
                prop_assert_eq!(ours.get(&prefix), model.get(&prefix));
            }
            prop_assert_eq!(ours.len(), model.len());
            prop_assert!(ours.iter().eq(model.iter().map(|(p, v)| (*p, v))));
            for bound in [Bound::Included(from), Bound::Excluded(from)] {
                let wanted = model.range((bound, Bound::Unbounded)).filter(|(p, _)| p.family() == from.family());
                prop_assert!(ours.from(from.family(), bound).eq(wanted.map(|(p, v)| (*p, v))));
            }
        }
    }

    #[test]
    fn what_comes_in_order_fills_the_pages() {
        let map: PrefixMap<u32> = (0..10_000).map(|n| (v4(n), n)).collect();
        assert_eq!(map.v4.pages.len(), 10_000_usize.div_ceil(PAGE));
        // Several peers, each in order, between each other's.
        let map: PrefixMap<u32> =
            (0..1000).flat_map(|n| (0..10).map(move |m| (v4(m << 16 | n), n))).collect();
        assert!(map.v4.pages.len() <= 10 * 1000_usize.div_ceil(PAGE) + 20, "{}", map.v4.pages.len());
    }

    #[test]
    fn what_is_removed_is_given_back() {
        let mut map: PrefixMap<u64> = (0..10_000).map(|n| (v4(n), 0)).collect();
        (0..10_000).filter(|n| n % 50 != 0).for_each(|n| assert_eq!(map.remove(&v4(n)), Some(0)));
        let held: usize = map.v4.pages.iter().map(|p| p.values.capacity()).sum();
        assert!(held < 2000, "{held}");
        (0..10_000).filter(|n| n % 50 == 0).for_each(|n| assert_eq!(map.remove(&v4(n)), Some(0)));
        assert!(map.is_empty() && map.v4.pages.is_empty() && map.v4.firsts.is_empty());
    }
}
