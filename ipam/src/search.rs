//! The search for a block that nobody has, in time that depends on the blocks that exist and not
//! on the size of the pool.

use crate::source::Source;
use ipnet::IpNet;
use model::ip::{self, Family};

/// Blocks of a source by number, counted from the start of its network.
pub(crate) struct Gaps {
    family: Family,
    base: u128,
    /// Bits of an address within its block.
    host_bits: u32,
    /// First and last block that holds an address that may be given.
    low: u128,
    high: u128,
    /// Runs of blocks that are free, ascending, within `low..=high`.
    free: Vec<(u128, u128)>,
}

impl Gaps {
    /// `taken` are blocks that exist (of any size) and networks that are reserved; a reserved
    /// network smaller than a block does not take the block.
    pub fn new(source: &Source, blocks: &[IpNet], reserved: &[IpNet]) -> Self {
        let family = Family::of_net(&source.cidr);
        let host_bits = u32::from(family.bits() - source.block_prefix);
        let (base, _) = ip::bounds(&source.cidr);
        let number = |address: u128| (address - base) >> host_bits;
        let (low, high) = (number(source.first), number(source.last));
        let whole = reserved.iter().filter(|net| net.prefix_len() <= source.block_prefix);
        let mut taken: Vec<(u128, u128)> = blocks
            .iter()
            .chain(whole)
            .filter(|net| ip::overlap(net, &source.cidr))
            .map(ip::bounds)
            .map(|(from, to)| (number(from.max(base)), number(to.min(ip::bounds(&source.cidr).1))))
            .collect();
        taken.sort_unstable();
        Self { family, base, host_bits, low, high, free: complement(&taken, low, high) }
    }

    /// How many blocks there are to choose from.
    fn count(&self) -> u128 {
        (self.high - self.low).saturating_add(1)
    }

    /// Free blocks from the `start`-th on (modulo their number), then from the first.
    pub fn from(&self, start: u128) -> impl Iterator<Item = IpNet> + '_ {
        let start = self.low + start % self.count();
        let late =
            self.free.iter().filter(move |run| run.1 >= start).map(move |run| (run.0.max(start), run.1));
        let early =
            self.free.iter().filter(move |run| run.0 < start).map(move |run| (run.0, run.1.min(start - 1)));
        late.chain(early).flat_map(|(from, to)| from..=to).map(|number| self.block(number))
    }

    fn block(&self, number: u128) -> IpNet {
        let prefix = self.family.bits() - self.host_bits as u8;
        ip::net(ip::from_u128(self.family, self.base + (number << self.host_bits)), prefix)
    }
}

/// What sorted runs leave free of `low..=high`.
fn complement(taken: &[(u128, u128)], low: u128, high: u128) -> Vec<(u128, u128)> {
    let mut free = Vec::new();
    let mut next = low;
    for &(from, to) in taken {
        if from > high {
            break;
        }
        if from > next {
            free.push((next, from - 1));
        }
        if to >= high {
            return free;
        }
        next = next.max(to + 1);
    }
    free.push((next, high));
    free
}

/// Where a host starts to look for blocks: FNV-1 (32 bit) of its name, as Calico seeds its order.
pub(crate) fn fnv1(text: &str) -> u32 {
    text.bytes().fold(2_166_136_261, |hash: u32, byte| hash.wrapping_mul(16_777_619) ^ u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(cidr: &str, block_prefix: u8) -> Source {
        let cidr: IpNet = cidr.parse().unwrap();
        let (first, last) = ip::bounds(&cidr);
        Source { cidr, block_prefix, first, last, range: None }
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn the_seed_is_calicos() {
        assert_eq!(fnv1("node1"), 3_957_252_814);
    }

    #[test]
    fn every_block_comes_once_from_any_start() {
        let gaps = Gaps::new(&source("10.0.0.0/24", 26), &[], &[]);
        for start in 0..9 {
            let mut found: Vec<_> = gaps.from(start).collect();
            assert_eq!(
                found[0],
                nets(&["10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/26", "10.0.0.192/26"])[start as usize % 4]
            );
            found.sort();
            assert_eq!(found, nets(&["10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/26", "10.0.0.192/26"]));
        }
    }

    #[test]
    fn what_exists_or_is_reserved_as_a_whole_is_left_out() {
        let blocks = nets(&["10.0.0.64/27", "10.0.0.192/26", "10.1.0.0/26", "fd00::/122"]);
        let reserved = nets(&["10.0.0.0/26", "10.0.0.130/32"]);
        let gaps = Gaps::new(&source("10.0.0.0/24", 26), &blocks, &reserved);
        assert_eq!(gaps.from(7).collect::<Vec<_>>(), nets(&["10.0.0.128/26"]));
    }

    #[test]
    fn a_full_pool_has_no_gap() {
        let gaps = Gaps::new(&source("10.0.0.0/24", 26), &nets(&["10.0.0.0/8"]), &[]);
        assert_eq!(gaps.from(3).next(), None);
    }

    #[test]
    fn bounds_of_a_range_limit_the_blocks() {
        let mut source = source("10.0.0.0/24", 26);
        (source.first, source.last) = (source.first + 70, source.first + 130);
        let gaps = Gaps::new(&source, &[], &[]);
        assert_eq!(gaps.from(0).collect::<Vec<_>>(), nets(&["10.0.0.64/26", "10.0.0.128/26"]));
    }

    // REQ: A-03
    #[test]
    fn huge_pools_cost_no_more_than_small_ones() {
        for (cidr, prefix) in [("10.0.0.0/8", 32), ("fd00::/48", 128), ("::/0", 116), ("0.0.0.0/0", 20)] {
            let gaps = Gaps::new(&source(cidr, prefix), &nets(&["10.0.0.0/26", "fd00::/122"]), &[]);
            for start in [0, 1, u128::MAX / 3, u128::MAX] {
                assert_eq!(gaps.from(start).take(1000).count(), 1000, "{cidr}");
            }
        }
    }
}
