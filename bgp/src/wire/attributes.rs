//! Path attributes as values: what the RIB holds and policies look at.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 4271 section 5.1.1; the lower is preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    Igp,
    Egp,
    #[default]
    Incomplete,
}

/// A part of an AS path. Confederation segments are malformed here (RFC 5065 section 5.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    Sequence(Vec<u32>),
    Set(Vec<u32>),
}

impl Segment {
    /// The AS numbers in it.
    pub fn asns(&self) -> &[u32] {
        match self {
            Segment::Sequence(asns) | Segment::Set(asns) => asns,
        }
    }
}

/// RFC 4271 section 5.1.2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AsPath(pub Vec<Segment>);

/// The most AS numbers that one segment's length octet can count.
pub(crate) const MAX_SEGMENT: usize = 255;

impl AsPath {
    /// A path of one sequence; empty for no AS numbers.
    pub fn sequence(asns: &[u32]) -> AsPath {
        AsPath(asns.chunks(MAX_SEGMENT).map(|c| Segment::Sequence(c.to_vec())).collect())
    }

    /// The length that selection compares: a set counts 1 (RFC 4271 section 9.1.2.2 a).
    pub fn length(&self) -> usize {
        let count = |s: &Segment| match s {
            Segment::Sequence(asns) => asns.len(),
            Segment::Set(_) => 1,
        };
        self.0.iter().map(count).sum()
    }

    /// True if `asn` is anywhere in it.
    pub fn contains(&self, asn: u32) -> bool {
        self.0.iter().any(|s| s.asns().contains(&asn))
    }

    /// How often one of `asns` stands in it.
    pub fn count(&self, asns: &[u32]) -> usize {
        self.0.iter().flat_map(Segment::asns).filter(|asn| asns.contains(asn)).count()
    }

    /// The AS that sent it, for the MED rule: the first of a leading sequence.
    pub fn first(&self) -> Option<u32> {
        match self.0.first() {
            Some(Segment::Sequence(asns)) => asns.first().copied(),
            _ => None,
        }
    }

    /// The AS that it came from: the last of a closing sequence.
    pub fn origin(&self) -> Option<u32> {
        match self.0.last() {
            Some(Segment::Sequence(asns)) => asns.last().copied(),
            _ => None,
        }
    }

    /// Puts `asn` in front `times` times (RFC 4271 section 5.1.2 b).
    pub fn prepend(&mut self, asn: u32, times: u8) {
        for _ in 0..times {
            match self.0.first_mut() {
                Some(Segment::Sequence(asns)) if asns.len() < MAX_SEGMENT => asns.insert(0, asn),
                _ => self.0.insert(0, Segment::Sequence(vec![asn])),
            }
        }
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |asns: &[u32]| asns.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let parts = self.0.iter().map(|s| match s {
            Segment::Sequence(asns) => words(asns),
            Segment::Set(asns) => format!("{{{}}}", words(asns)),
        });
        f.write_str(&parts.collect::<Vec<_>>().join(" "))
    }
}

/// Where packets go: RFC 4271 section 5.1.3, RFC 2545 section 3, RFC 8950.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    pub addr: IpAddr,
    /// The link-local address that may come with a global IPv6 one.
    pub link_local: Option<Ipv6Addr>,
}

impl From<IpAddr> for NextHop {
    fn from(addr: IpAddr) -> Self {
        NextHop { addr, link_local: None }
    }
}

impl NextHop {
    /// Placeholder while a message is decoded; never leaves the decoder with a route.
    pub(crate) const NONE: NextHop = NextHop { addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED), link_local: None };
}

/// RFC 4271 section 5.1.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    pub asn: u32,
    pub router_id: Ipv4Addr,
}

/// An optional transitive attribute that this speaker does not know; passed on with the partial bit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Opaque {
    pub code: u8,
    pub value: Vec<u8>,
}

/// RFC 1997 and RFC 9494: communities with a meaning of their own.
pub mod well_known {
    pub const NO_EXPORT: u32 = 0xffff_ff01;
    pub const NO_ADVERTISE: u32 = 0xffff_ff02;
    pub const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;
    pub const LLGR_STALE: u32 = 0xffff_0006;
    pub const NO_LLGR: u32 = 0xffff_0007;
}

/// All attributes of a route. Lists are sorted where order has no meaning, so that equal sets are equal values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    pub origin: Origin,
    pub as_path: AsPath,
    pub next_hop: NextHop,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    pub atomic_aggregate: bool,
    pub aggregator: Option<Aggregator>,
    /// RFC 1997.
    pub communities: Vec<u32>,
    /// RFC 4360, the eight octets as they came.
    pub extended: Vec<[u8; 8]>,
    /// RFC 8092.
    pub large: Vec<[u32; 3]>,
    /// RFC 4456.
    pub originator_id: Option<Ipv4Addr>,
    /// RFC 4456, nearest cluster first.
    pub cluster_list: Vec<Ipv4Addr>,
    pub opaque: Vec<Opaque>,
}

impl Attributes {
    /// Those of a route that starts here.
    pub fn local(next_hop: IpAddr) -> Attributes {
        Attributes { origin: Origin::Igp, ..Attributes::empty(next_hop.into()) }
    }

    pub(crate) fn empty(next_hop: NextHop) -> Attributes {
        Attributes {
            origin: Origin::Incomplete,
            as_path: AsPath::default(),
            next_hop,
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Vec::new(),
            extended: Vec::new(),
            large: Vec::new(),
            originator_id: None,
            cluster_list: Vec::new(),
            opaque: Vec::new(),
        }
    }

    /// Puts lists whose order has no meaning in the order that all else here relies on.
    pub(crate) fn sort_lists(&mut self) {
        self.communities.sort_unstable();
        self.communities.dedup();
        self.extended.sort_unstable();
        self.extended.dedup();
        self.large.sort_unstable();
        self.large.dedup();
    }

    /// True if it carries this community.
    pub fn has_community(&self, community: u32) -> bool {
        self.communities.binary_search(&community).is_ok()
    }

    /// Adds a community in its place; a second time is nothing.
    pub fn add_community(&mut self, community: u32) {
        insert_sorted(&mut self.communities, community);
    }

    /// Adds a large community in its place; a second time is nothing.
    pub fn add_large(&mut self, community: [u32; 3]) {
        insert_sorted(&mut self.large, community);
    }
}

fn insert_sorted<T: Ord>(list: &mut Vec<T>, item: T) {
    if let Err(at) = list.binary_search(&item) {
        list.insert(at, item);
    }
}
