//! host-local's file names and contents (containernetworking/plugins, ipam/host-local, back end
//! "disk", 0.1 to 1.x), as pure functions.

use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::IpAddr;

/// The file whose `flock` host-local holds.
pub const LOCK: &str = "lock";
/// Ends the names of files that were set aside.
pub const ASIDE: &str = ".not-imported-by-percale";
/// Longest content of a lease file in bytes. Container ids have 64 characters or so.
pub const MAX_CONTENT: usize = 1024;
/// Longest interface name (the kernel's IFNAMSIZ, less its end).
const MAX_IFNAME: usize = 15;

/// One address that host-local gave out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lease {
    pub ip: IpAddr,
    /// The container id, not checked against CNI's rule for ids: what is here may run.
    pub container: String,
    /// Absent in files of host-local before 0.7, which also served one interface only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
}

/// A file that is no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclear {
    /// Its name, in the directory.
    pub file: String,
    /// The address that its name says.
    pub ip: Option<IpAddr>,
    pub why: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No content: host-local was killed or its disk was full between create and write.
    Empty,
    /// Not UTF-8 or with control characters.
    NotText,
    TooLong,
    /// More lines than an id and an interface.
    ExtraLines,
    /// The second line is no interface name.
    BadInterface,
    /// A directory, link or device.
    NotAFile,
    Unreadable(io::ErrorKind),
    /// Another file for the same address, spelt otherwise, names another owner.
    SecondOwner,
    /// The file's name is not one of host-local's.
    NotALease,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Empty => "empty",
            Reason::NotText => "not text",
            Reason::TooLong => "too long",
            Reason::ExtraLines => "more than two lines",
            Reason::BadInterface => "second line is no interface name",
            Reason::NotAFile => "not a regular file",
            Reason::Unreadable(kind) => return write!(f, "cannot be read: {kind}"),
            Reason::SecondOwner => "a second owner of the same address",
            Reason::NotALease => "not a file of host-local's",
        })
    }
}

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.why)
    }
}

/// What a file name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A lease of this address; IPv4 addresses in IPv6 form are IPv4.
    Address(IpAddr),
    /// The lock, host-local's memory of its last address, or a file of ours.
    Own,
    Stranger,
}

pub fn name(name: &OsStr) -> Named {
    let Some(text) = name.to_str() else { return Named::Stranger };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Named::Address(ip.to_canonical());
    }
    let own = text == LOCK
        || text == super::marker::NAME
        || text == super::marker::DRAFT
        || text.starts_with("last_reserved_ip.")
        || text.ends_with(ASIDE);
    if own { Named::Own } else { Named::Stranger }
}

/// Container id and interface of a lease file: `id CR LF ifname`, or `id` alone. As host-local
/// does, space around either is ignored.
pub fn content(bytes: &[u8]) -> Result<(String, Option<String>), Reason> {
    if bytes.len() > MAX_CONTENT {
        return Err(Reason::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Reason::NotText)?.trim();
    let mut lines = text.split('\n').map(str::trim);
    let (id, ifname) = (lines.next().unwrap_or_default(), lines.next());
    if id.is_empty() {
        return Err(Reason::Empty);
    }
    if lines.next().is_some() {
        return Err(Reason::ExtraLines);
    }
    if text.split('\n').any(|line| line.trim().contains(char::is_control)) {
        return Err(Reason::NotText);
    }
    match ifname {
        Some(name) if !is_ifname(name) => Err(Reason::BadInterface),
        name => Ok((id.to_owned(), name.map(str::to_owned))),
    }
}

/// The kernel's rule (`dev_valid_name`).
fn is_ifname(name: &str) -> bool {
    let forbidden = |c: char| c == '/' || c == ':' || c.is_ascii_whitespace();
    !name.is_empty() && name.len() <= MAX_IFNAME && name != "." && name != ".." && !name.contains(forbidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(id: &str, ifname: Option<&str>) -> Result<(String, Option<String>), Reason> {
        Ok((id.to_owned(), ifname.map(str::to_owned)))
    }

    #[test]
    fn contents_of_every_host_local() {
        for (bytes, expected) in [
            (&b"4f0c\r\neth0"[..], owner("4f0c", Some("eth0"))),
            (b"4f0c\neth0\n", owner("4f0c", Some("eth0"))),
            (b"4f0c", owner("4f0c", None)),
            (b" 4f0c \n", owner("4f0c", None)),
            (b"4f0c\r\n", owner("4f0c", None)),
            (b"odd id=1\r\nnet.1", owner("odd id=1", Some("net.1"))),
            (b"", Err(Reason::Empty)),
            (b" \r\n ", Err(Reason::Empty)),
            (b"\0\0\0\0", Err(Reason::NotText)),
            (b"\xff\xfe", Err(Reason::NotText)),
            (b"a\r\nb\r\nc", Err(Reason::ExtraLines)),
            (b"a\r\nan-interface-too-long", Err(Reason::BadInterface)),
            (b"a\r\neth/0", Err(Reason::BadInterface)),
            (&[b'x'; MAX_CONTENT + 1], Err(Reason::TooLong)),
        ] {
            assert_eq!(content(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn names_in_every_spelling() {
        let named = |text: &str| name(OsStr::new(text));
        for (text, ip) in [
            ("10.0.0.5", "10.0.0.5"),
            ("fd00::5", "fd00::5"),
            ("FD00:0:0::5", "fd00::5"),
            ("::ffff:10.0.0.5", "10.0.0.5"),
        ] {
            assert_eq!(named(text), Named::Address(ip.parse().unwrap()), "{text}");
        }
        for own in ["lock", "last_reserved_ip.0", "last_reserved_ip.12", "imported-by-percale"] {
            assert_eq!(named(own), Named::Own, "{own}");
        }
        for strange in ["", "10.0.0.5~", "10.0.0", "10.0.0.05", "fe80::1%eth0", "lock2", "10.0.0.0/24"] {
            assert_eq!(named(strange), Named::Stranger, "{strange}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut seed = 7_u64;
        for length in 0..2000 {
            let bytes: Vec<u8> = (0..length % 40)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    b"a\r\n \0\xc3\xa9:/"[(seed >> 33) as usize % 9]
                })
                .collect();
            if let Ok((id, ifname)) = content(&bytes) {
                assert!(!id.is_empty() && !id.contains('\n') && ifname.is_none_or(|name| is_ifname(&name)));
            }
        }
    }
}
