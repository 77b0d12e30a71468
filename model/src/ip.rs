//! Address arithmetic for both families on `u128`, and parsing of what users and files write.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// Address length in bits.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// 4 or 6.
    pub fn version(self) -> u8 {
        match self {
            Family::V4 => 4,
            Family::V6 => 6,
        }
    }

    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub fn of_net(net: &IpNet) -> Self {
        Self::of(net.addr())
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IPv{}", self.version())
    }
}

/// Text that is not an address or a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    #[error("{0:?} is not an IP address")]
    Address(String),
    #[error("{0:?} names a zone, which has no meaning here; write the address without it")]
    Zone(String),
    #[error("{0:?} is not a network in CIDR notation")]
    Network(String),
    #[error("the prefix length of {0:?} is out of range")]
    Prefix(String),
}

/// Parses an address in any legal spelling; an IPv4-mapped IPv6 address is the IPv4 address.
pub fn parse_ip(text: &str) -> Result<IpAddr, BadAddress> {
    let text = text.trim();
    if text.contains('%') {
        return Err(BadAddress::Zone(bounded(text)));
    }
    let ip: IpAddr = text.parse().map_err(|_| BadAddress::Address(bounded(text)))?;
    Ok(ip.to_canonical())
}

/// Parses `address/length` and clears the host bits.
pub fn parse_net(text: &str) -> Result<IpNet, BadAddress> {
    let (ip, length) = split_net(text)?;
    Ok(net(ip, length))
}

/// As [`parse_net`], or a lone address as a network of one.
pub fn parse_net_or_ip(text: &str) -> Result<IpNet, BadAddress> {
    if text.contains('/') { parse_net(text) } else { parse_ip(text).map(single) }
}

/// Parses `address/length` and keeps the host bits.
pub fn parse_interface(text: &str) -> Result<IpNet, BadAddress> {
    let (ip, length) = split_net(text)?;
    IpNet::new(ip, length).map_err(|_| BadAddress::Prefix(bounded(text)))
}

fn split_net(text: &str) -> Result<(IpAddr, u8), BadAddress> {
    let (ip, length) = text.trim().split_once('/').ok_or_else(|| BadAddress::Network(bounded(text)))?;
    let prefix = || BadAddress::Prefix(bounded(text));
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return Err(prefix());
    }
    let length: u8 = length.parse().map_err(|_| prefix())?;
    let mapped = ip.contains(':');
    let ip = parse_ip(ip)?;
    let length = if mapped && ip.is_ipv4() { length.checked_sub(96).ok_or_else(prefix)? } else { length };
    if length > Family::of(ip).bits() { Err(prefix()) } else { Ok((ip, length)) }
}

/// Keeps hostile input out of messages.
fn bounded(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The address as a number.
pub fn to_u128(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The address of a number; bits above the family's length are cut off.
pub fn from_u128(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from((number & u128::from(u32::MAX)) as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// The network of `ip` with this prefix length (cut to the family's), host bits cleared.
pub fn net(ip: IpAddr, prefix_len: u8) -> IpNet {
    let length = prefix_len.min(Family::of(ip).bits());
    match ip {
        IpAddr::V4(ip) => Ipv4Net::new_assert(ip, length).trunc().into(),
        IpAddr::V6(ip) => Ipv6Net::new_assert(ip, length).trunc().into(),
    }
}

/// The network that holds this address alone.
pub fn single(ip: IpAddr) -> IpNet {
    net(ip, 128)
}

/// First and last address of a network, as numbers.
pub fn bounds(net: &IpNet) -> (u128, u128) {
    (to_u128(net.network()), to_u128(net.broadcast()))
}

/// Whether two networks share an address.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Distance of `ip` from the first address of `net`, if it lies inside.
pub fn offset(net: &IpNet, ip: IpAddr) -> Option<u128> {
    net.contains(&ip).then(|| to_u128(ip) - to_u128(net.network()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // REQ: C-12
    #[test]
    fn every_legal_spelling_of_an_address_is_normalised() {
        let same = ["fd80:24e2::1", "FD80:24E2:0:0:0:0:0:1", "fd80:24e2:0000::0001", "fd80:24e2::0.0.0.1"];
        for text in same {
            assert_eq!(parse_ip(text).unwrap().to_string(), "fd80:24e2::1", "{text}");
        }
        assert_eq!(parse_ip("::ffff:10.0.0.1").unwrap().to_string(), "10.0.0.1");
        assert_eq!(parse_ip("::1").unwrap().to_string(), "::1");
        assert_eq!(parse_net("0:0::5/64").unwrap().to_string(), "::/64");
        assert_eq!(parse_net("::ffff:10.0.0.9/120").unwrap().to_string(), "10.0.0.0/24");
    }

    #[test]
    fn what_is_no_address_says_so() {
        assert!(matches!(parse_ip("fe80::1%eth0"), Err(BadAddress::Zone(_))));
        for text in ["", "10.0.0", "10.0.0.256", "::1::2", "host"] {
            assert!(matches!(parse_ip(text), Err(BadAddress::Address(_))), "{text}");
        }
        for text in ["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+1", "10.0.0.0/-1", "::ffff:1.2.3.4/64"]
        {
            assert!(matches!(parse_net(text), Err(BadAddress::Prefix(_))), "{text}");
        }
        assert!(matches!(parse_net("10.0.0.0"), Err(BadAddress::Network(_))));
    }

    #[test]
    fn numbers_and_addresses_convert_both_ways() {
        for text in ["0.0.0.0", "255.255.255.255", "10.1.2.3", "::", "::1", "ffff::ffff"] {
            let ip = parse_ip(text).unwrap();
            assert_eq!(from_u128(Family::of(ip), to_u128(ip)), ip);
        }
    }

    #[test]
    fn nets_overlap_when_one_holds_the_other() {
        let nets = |a: &str, b: &str| overlap(&parse_net(a).unwrap(), &parse_net(b).unwrap());
        assert!(nets("10.0.0.0/8", "10.1.0.0/16") && nets("10.1.0.0/16", "10.0.0.0/8"));
        assert!(!nets("10.0.0.0/16", "10.1.0.0/16") && !nets("10.0.0.0/8", "::/0"));
    }
}
