//! Address families and prefixes, in a form small enough for a table of a million.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Index, IndexMut};
use std::str::FromStr;

/// An address family that this speaker carries; always SAFI 1 (unicast).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// SAFI of unicast forwarding (IANA registry of SAFI values).
pub const SAFI_UNICAST: u8 = 1;

impl Family {
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The IANA address family number: 1 or 2.
    pub fn afi(self) -> u16 {
        match self {
            Family::Ipv4 => 1,
            Family::Ipv6 => 2,
        }
    }

    /// The family of an AFI and SAFI pair, if it is one of ours.
    pub fn from_wire(afi: u16, safi: u8) -> Option<Family> {
        match (afi, safi) {
            (1, SAFI_UNICAST) => Some(Family::Ipv4),
            (2, SAFI_UNICAST) => Some(Family::Ipv6),
            _ => None,
        }
    }

    /// The longest prefix length: 32 or 128.
    pub fn max_len(self) -> u8 {
        match self {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        }
    }

    /// The family of an address.
    pub fn of(addr: IpAddr) -> Family {
        if addr.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }
}

/// One value per family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerFamily<T> {
    pub v4: T,
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// Builds a value for each family.
    pub fn from_fn(mut f: impl FnMut(Family) -> T) -> Self {
        PerFamily { v4: f(Family::Ipv4), v6: f(Family::Ipv6) }
    }
}

impl PerFamily<bool> {
    pub const NONE: PerFamily<bool> = PerFamily { v4: false, v6: false };
    pub const BOTH: PerFamily<bool> = PerFamily { v4: true, v6: true };

    /// The families that are set.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |f| self[*f])
    }

    /// True if any family is set.
    pub fn any(self) -> bool {
        self.v4 || self.v6
    }
}

impl<T> Index<Family> for PerFamily<T> {
    type Output = T;
    fn index(&self, family: Family) -> &T {
        match family {
            Family::Ipv4 => &self.v4,
            Family::Ipv6 => &self.v6,
        }
    }
}

impl<T> IndexMut<Family> for PerFamily<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::Ipv4 => &mut self.v4,
            Family::Ipv6 => &mut self.v6,
        }
    }
}

/// An IP prefix whose host bits are zero.
///
/// The order is by family, then address, then length: a prefix comes before all that it covers.
/// 18 bytes, alignment 1, so that a table entry wastes nothing on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    family: Family,
    /// Network order; IPv4 uses the first four.
    bits: [u8; 16],
    len: u8,
}

impl Prefix {
    /// The prefix of `addr` with `len` bits; host bits are cleared. `None` if `len` exceeds the family's.
    pub fn new(addr: IpAddr, len: u8) -> Option<Prefix> {
        let family = Family::of(addr);
        let mut bits = [0; 16];
        match addr {
            IpAddr::V4(a) => bits[..4].copy_from_slice(&a.octets()),
            IpAddr::V6(a) => bits = a.octets(),
        }
        Prefix::from_bits(family, bits, len)
    }

    /// As [`Prefix::new`], from octets in network order.
    pub(crate) fn from_bits(family: Family, bits: [u8; 16], len: u8) -> Option<Prefix> {
        (len <= family.max_len()).then(|| Prefix { family, bits: masked(bits, len), len })
    }

    /// The prefix that holds only `addr`.
    pub fn host(addr: IpAddr) -> Prefix {
        Prefix::new(addr, Family::of(addr).max_len()).expect("a family's own maximum is in range")
    }

    /// All addresses of a family: the first prefix of it in order.
    pub fn all(family: Family) -> Prefix {
        Prefix { family, bits: [0; 16], len: 0 }
    }

    pub fn family(&self) -> Family {
        self.family
    }

    /// The number of leading bits that are fixed.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// The lowest address in it.
    pub fn addr(&self) -> IpAddr {
        match self.family {
            Family::Ipv4 => {
                let [a, b, c, d, ..] = self.bits;
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(self.bits)),
        }
    }

    /// The address, from the front; zeros behind it.
    pub(crate) fn bits(&self) -> [u8; 16] {
        self.bits
    }

    /// The octets that the wire carries: as many as the length needs (RFC 4271 section 4.3).
    pub(crate) fn wire_octets(&self) -> &[u8] {
        &self.bits[..usize::from(self.len).div_ceil(8)]
    }

    /// True if `other` is this prefix or lies in it.
    pub fn covers(&self, other: &Prefix) -> bool {
        self.family == other.family && self.len <= other.len && masked(other.bits, self.len) == self.bits
    }

    /// True if `addr` lies in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.covers(&Prefix::host(addr))
    }

    /// The same address with fewer bits. `None` if `len` is longer than it is.
    pub fn truncate(&self, len: u8) -> Option<Prefix> {
        (len <= self.len).then(|| Prefix { bits: masked(self.bits, len), len, ..*self })
    }
}

/// One comparison of numbers where the derived order would compare octet by octet: a table compares a lot.
impl Ord for Prefix {
    fn cmp(&self, other: &Prefix) -> Ordering {
        let key = |p: &Prefix| (p.family, u128::from_be_bytes(p.bits), p.len);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Prefix {
    fn partial_cmp(&self, other: &Prefix) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn masked(mut bits: [u8; 16], len: u8) -> [u8; 16] {
    let whole = usize::from(len / 8);
    if whole < 16 {
        bits[whole] &= !(0xff_u8.checked_shr(u32::from(len % 8)).unwrap_or(0));
        bits[whole + 1..].fill(0);
    }
    bits
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr(), self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    #[error("prefix: not ADDRESS/LENGTH")]
    Syntax,
    #[error("prefix: the address is not a number of its family")]
    Address,
    #[error("prefix: the length is not a number from 0 to {max}")]
    Length { max: u8 },
}

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Prefix, PrefixError> {
        let (addr, len) = text.split_once('/').ok_or(PrefixError::Syntax)?;
        let addr: IpAddr = addr.parse().map_err(|_| PrefixError::Address)?;
        let max = Family::of(addr).max_len();
        let len = len.parse().map_err(|_| PrefixError::Length { max })?;
        Prefix::new(addr, len).ok_or(PrefixError::Length { max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!(p("10.1.2.3/15").to_string(), "10.0.0.0/15");
        assert_eq!(p("10.1.2.3/0").to_string(), "0.0.0.0/0");
        assert_eq!(p("10.1.2.3/32").to_string(), "10.1.2.3/32");
        assert_eq!(p("fd00:1:2:3:4:5:6:7/127").to_string(), "fd00:1:2:3:4:5:6:6/127");
        assert_eq!(p("fd00:1:2:3:4:5:6:7/128").to_string(), "fd00:1:2:3:4:5:6:7/128");
    }

    #[test]
    fn covers_knows_family_and_length() {
        assert!(p("10.0.0.0/8").covers(&p("10.2.0.0/16")));
        assert!(!p("10.2.0.0/16").covers(&p("10.0.0.0/8")));
        assert!(!p("0.0.0.0/0").covers(&p("::/0")));
        assert!(p("::/0").contains("fd00::1".parse().unwrap()));
    }

    #[test]
    fn bad_text_names_the_part() {
        assert_eq!("10.0.0.0".parse::<Prefix>(), Err(PrefixError::Syntax));
        assert_eq!("10.0.0/8".parse::<Prefix>(), Err(PrefixError::Address));
        assert_eq!("10.0.0.0/33".parse::<Prefix>(), Err(PrefixError::Length { max: 32 }));
        assert_eq!("::/-1".parse::<Prefix>(), Err(PrefixError::Length { max: 128 }));
    }

    #[test]
    fn a_prefix_is_18_bytes() {
        assert_eq!(size_of::<Prefix>(), 18);
    }
}
