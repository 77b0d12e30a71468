//! The key of everything that a request makes: one interface of one container on one network.

use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::fmt;

/// Longest file name made of the plain parts; file systems allow 255 bytes, some less.
const MAX_PLAIN: usize = 160;
/// Longest ifalias that the kernel keeps, less its terminator (IFALIASZ).
const MAX_ALIAS: usize = 255;
/// How every ifalias of ours begins.
const ALIAS: &str = "percale:";

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

    /// The ifalias of its host link: `percale:NETWORK/CONTAINER/IFNAME`. None of the three can hold
    /// a slash, so it parses one way; what is too long for the kernel is replaced by its hash.
    pub fn alias(&self) -> String {
        let text = format!("{ALIAS}{self}");
        if text.len() <= MAX_ALIAS { text } else { format!("{ALIAS}{}", self.hashed()) }
    }

    /// The attachment that an ifalias names; none for a foreign one, and where only a hash fitted.
    pub fn from_alias(alias: &str) -> Option<Self> {
        let mut parts = alias.strip_prefix(ALIAS)?.split('/');
        let at = Self::new(parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then_some(at)
    }

    /// Whether an ifalias is of this project's making, whoever it names.
    pub fn is_alias(alias: &str) -> bool {
        alias.starts_with(ALIAS)
    }

    /// Calico's handle id of its leases. Two interfaces of one container on one network share it;
    /// [`Attachment::attributes`] tell them apart.
    pub fn handle(&self) -> String {
        format!("{}.{}", self.network, self.container_id)
    }

    /// The attributes of a lease that, beside the handle, prove whose it is.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        [("network", &self.network), ("ifname", &self.ifname)].map(|(k, v)| (k.to_owned(), v.clone())).into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_names_its_attachment_and_no_other() {
        let at = Attachment::new("pods.a", "c.1", "eth0");
        assert_eq!(Attachment::from_alias(&at.alias()), Some(at.clone()));
        assert_ne!(at.alias(), Attachment::new("pods", "a.c.1", "eth0").alias());
        for foreign in ["", "pods/c/eth0", "percale:a/b", "percale:a/b/c/d"] {
            assert_eq!(Attachment::from_alias(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn a_long_alias_still_fits_the_kernel_and_stays_unique() {
        let long = Attachment::new("n".repeat(200), "c".repeat(64), "eth0");
        let other = Attachment::new("n".repeat(201), "c".repeat(64), "eth0");
        assert!(long.alias().len() <= MAX_ALIAS && Attachment::is_alias(&long.alias()));
        assert_ne!(long.alias(), other.alias());
        assert_eq!(Attachment::from_alias(&long.alias()), None);
    }
}
