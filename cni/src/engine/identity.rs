//! Names on the host that follow from an attachment, and prove whose a thing is.

use cni_protocol::Attachment;
use sha1::{Digest, Sha1};

/// Longest ifalias the kernel keeps, less its terminator (IFALIASZ).
const ALIAS_MAX: usize = 255;
const ALIAS_PREFIX: &str = "percale:";

/// The ifalias of an attachment's host link: `percale:NETWORK/CONTAINER/IFNAME`. None of the three
/// can hold a slash, so it parses one way; what is too long for the kernel is replaced by its hash.
pub(crate) fn alias(at: &Attachment) -> String {
    let text = format!("{ALIAS_PREFIX}{}/{}/{}", at.network, at.container_id, at.ifname);
    if text.len() <= ALIAS_MAX { text } else { format!("{ALIAS_PREFIX}sha1/{}", hex(&text)) }
}

/// The attachment that an ifalias names: network, container id, interface.
pub(crate) fn parse_alias(alias: &str) -> Option<(&str, &str, &str)> {
    let mut parts = alias.strip_prefix(ALIAS_PREFIX)?.split('/');
    let owner = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(owner)
}

/// Whether a link is this attachment's.
pub(crate) fn owns(alias_of_link: Option<&str>, at: &Attachment) -> bool {
    alias_of_link == Some(alias(at).as_str())
}

fn hex(text: &str) -> String {
    Sha1::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(network: &str, container: &str, ifname: &str) -> Attachment {
        Attachment { network: network.into(), container_id: container.into(), ifname: ifname.into() }
    }

    #[test]
    fn an_alias_names_its_attachment_and_no_other() {
        let a = at("pods.a", "c.1", "eth0");
        assert_eq!(parse_alias(&alias(&a)), Some(("pods.a", "c.1", "eth0")));
        assert!(owns(Some(&alias(&a)), &a));
        assert!(!owns(Some(&alias(&at("pods", "a.c.1", "eth0"))), &a));
        assert!(!owns(None, &a));
    }

    #[test]
    fn a_long_name_still_fits_the_kernel_and_stays_unique() {
        let long = at(&"n".repeat(200), &"c".repeat(64), "eth0");
        let other = at(&"n".repeat(201), &"c".repeat(64), "eth0");
        assert!(alias(&long).len() <= ALIAS_MAX);
        assert_ne!(alias(&long), alias(&other));
        assert_eq!(parse_alias(&alias(&long)), None);
    }
}
