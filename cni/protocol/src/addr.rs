//! Addresses as people write them, brought to one form.

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Why a text is no address; the text itself is for the caller to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddrError {
    NotAnAddress,
    /// `fe80::1%eth0`: a zone means something on one host at one time only.
    Zone,
    NoPrefix,
    PrefixTooLong,
}

impl AddrError {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAnAddress => "not an IP address",
            Self::Zone => "an address with a zone (%...) cannot be used here",
            Self::NoPrefix => "the prefix length is missing",
            Self::PrefixTooLong => "the prefix length is not a number in the family's range",
        }
    }
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for AddrError {}

/// An address in any spelling of RFC 4291 section 2.2: upper case, leading zeros in a group, an
/// embedded IPv4 tail. An IPv4-mapped address (`::ffff:a.b.c.d`) is the IPv4 address it maps.
/// IPv4 octets with leading zeros are refused: some programs read them as octal.
pub fn parse_ip(text: &str) -> Result<IpAddr, AddrError> {
    if text.contains('%') {
        return Err(AddrError::Zone);
    }
    text.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(|_| AddrError::NotAnAddress)
}

/// `address/prefix` with the address's host bits kept.
pub fn parse_net(text: &str) -> Result<IpNet, AddrError> {
    let Some((address, prefix)) = text.split_once('/') else {
        return Err(parse_ip(text).err().unwrap_or(AddrError::NoPrefix));
    };
    if address.contains('%') {
        return Err(AddrError::Zone);
    }
    let address: IpAddr = address.parse().map_err(|_| AddrError::NotAnAddress)?;
    let prefix = parse_prefix(prefix)?;
    let net = match (address.to_canonical(), address) {
        // ::ffff:10.0.0.0/104 is 10.0.0.0/8
        (v4 @ IpAddr::V4(_), IpAddr::V6(_)) if (96..=128).contains(&prefix) => IpNet::new(v4, prefix - 96),
        _ => IpNet::new(address, prefix),
    };
    net.map_err(|_| AddrError::PrefixTooLong)
}

fn parse_prefix(text: &str) -> Result<u8, AddrError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddrError::PrefixTooLong);
    }
    text.parse().map_err(|_| AddrError::PrefixTooLong)
}

/// A unicast Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// A text is no unicast Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacError;

impl fmt::Display for MacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a unicast Ethernet address such as 0a:58:0a:00:00:05")
    }
}

impl std::error::Error for MacError {}

impl FromStr for Mac {
    type Err = MacError;

    /// Six groups of two hex digits between `:` or `-`. Multicast addresses and the zero address
    /// are refused: no interface can have them.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let groups: Vec<u8> = text.split(separator).map(hex_pair).collect::<Option<_>>().ok_or(MacError)?;
        let bytes: [u8; 6] = groups.try_into().map_err(|_| MacError)?;
        let unicast = bytes[0] & 1 == 0 && bytes != [0; 6];
        if unicast { Ok(Self(bytes)) } else { Err(MacError) }
    }
}

fn hex_pair(text: &str) -> Option<u8> {
    let is_pair = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_pair.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}
