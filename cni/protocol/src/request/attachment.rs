//! The key of everything that a request makes: one interface of one container on one network.

use sha1::{Digest, Sha1};
use std::fmt;

/// Longest file name made of the plain parts; file systems allow 255 bytes, some less.
const MAX_PLAIN: usize = 160;

/// (network, container id, interface): what every verb, lease, lock and clean-up is keyed by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    pub network: String,
    pub container_id: String,
    pub ifname: String,
}

impl Attachment {
    pub fn new(
        network: impl Into<String>,
        container_id: impl Into<String>,
        ifname: impl Into<String>,
    ) -> Self {
        Self { network: network.into(), container_id: container_id.into(), ifname: ifname.into() }
    }

    /// A file name of at most 160 bytes that belongs to this attachment alone, the same in every
    /// version: the three parts with `@` between them where that is short and plain, else a hash.
    pub fn file_name(&self) -> String {
        let parts = [&self.network, &self.container_id, &self.ifname];
        let length: usize = parts.iter().map(|part| part.len() + 1).sum();
        if length <= MAX_PLAIN && parts.iter().all(|part| is_plain(part)) {
            return parts.map(String::as_str).join("@");
        }
        self.hashed()
    }

    /// No plain name looks like this one: it has no `@`. Lengths go in too, so that no two ways
    /// to cut the same bytes into three parts meet.
    fn hashed(&self) -> String {
        let mut hash = Sha1::new();
        for part in [&self.network, &self.container_id, &self.ifname] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha1-{hex}")
    }
}

/// Not hidden, not empty, nothing that a file system or a shell could mistake, no separator.
fn is_plain(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain)
}

impl fmt::Display for Attachment {
    /// For people and logs; not for parsing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.ifname)
    }
}
