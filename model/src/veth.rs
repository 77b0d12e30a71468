//! Names of the host ends of pod links (decision 3; Calico's rules for what Calico names too).

use sha1::{Digest, Sha1};

/// The kernel's limit for interface names, without the closing zero.
pub const MAX_NAME: usize = 15;

/// Calico's interface prefix where nothing else is configured.
pub const PREFIX: &str = "cali";

/// What a host end's name is derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostNameOf<'a> {
    /// A pod's first attachment. Felix computes the same name.
    Pod { namespace: &'a str, pod: &'a str },
    /// A container without a pod, run under a Calico name.
    CalicoContainer { container_id: &'a str },
    /// Any other attachment.
    Attachment { network: &'a str, container_id: &'a str, ifname: &'a str },
}

/// The host end's name with Calico's prefix: at most 15 bytes.
pub fn host_name(of: &HostNameOf<'_>) -> String {
    host_name_with(PREFIX, of)
}

/// As [`host_name`] with another prefix (the first item of FELIX_INTERFACEPREFIX).
/// A prefix longer than Calico's shortens the hash, for the kernel takes 15 bytes only.
pub fn host_name_with(prefix: &str, of: &HostNameOf<'_>) -> String {
    let tail = match *of {
        HostNameOf::Pod { namespace, pod } => hash(&[namespace, ".", pod]),
        HostNameOf::CalicoContainer { container_id } => container_id.to_owned(),
        HostNameOf::Attachment { network, container_id, ifname } => {
            hash(&[network, "/", container_id, "/", ifname])
        }
    };
    prefix.chars().chain(tail.chars().take(11)).take(MAX_NAME).collect()
}

fn hash(parts: &[&str]) -> String {
    let mut sha = Sha1::new();
    parts.iter().for_each(|part| sha.update(part));
    sha.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_the_names_that_felix_expects() {
        let name = |namespace, pod| host_name(&HostNameOf::Pod { namespace, pod });
        assert_eq!(name("default", "nginx"), "calic440f455693");
        assert_eq!(name("kube-system", "coredns-74ff55c5b-abcde"), "calid61dd55837b");
    }

    #[test]
    fn a_plain_container_of_calico_is_named_by_its_id() {
        let of = HostNameOf::CalicoContainer { container_id: "0123456789abcdef" };
        assert_eq!(host_name(&of), "cali0123456789a");
        assert_eq!(host_name(&HostNameOf::CalicoContainer { container_id: "x" }), "calix");
    }

    #[test]
    fn attachments_of_one_container_differ() {
        let name =
            |network, ifname| host_name(&HostNameOf::Attachment { network, container_id: "c", ifname });
        assert_ne!(name("a", "eth0"), name("a", "eth1"));
        assert_ne!(name("a", "eth0"), name("b", "eth0"));
        assert_eq!(name("a", "eth0").len(), MAX_NAME);
    }

    #[test]
    fn a_long_prefix_still_fits_the_kernel() {
        let name = host_name_with("abcdefghij", &HostNameOf::Pod { namespace: "d", pod: "p" });
        assert_eq!(name.len(), MAX_NAME);
    }
}
