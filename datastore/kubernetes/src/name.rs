//! Names and labels of objects (reference 3.3, modern data model 2.1).

use ipnet::IpNet;
use model::keys;
use sha2::{Digest as _, Sha256};
use sha3::Sha3_256;

/// Longest name that Calico gives an affinity without cutting it.
const LONGEST_AFFINITY: usize = 252;
/// Hexadecimal digits that tell cut names apart.
const CUT_DIGITS: usize = 11;

/// Whether Kubernetes takes it as the name of an object (RFC 1123 subdomain).
pub(crate) fn is_legal(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let label = |label: &str| {
        let bytes = label.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The name of an affinity: `HOST-10-0-0-0-26`. A host too long for that is cut, and a hash added.
pub(crate) fn affinity(host: &str, cidr: &IpNet) -> String {
    let block = keys::cidr_name(cidr);
    let name = format!("{host}-{block}");
    if name.len() <= LONGEST_AFFINITY {
        return name;
    }
    let room = LONGEST_AFFINITY - block.len() - CUT_DIGITS - 2;
    let end = host.floor_char_boundary(room);
    let hash = hex(&Sha256::digest(format!("{host}+{block}")));
    format!("{}-{block}-{}", &host[..end], &hash[..CUT_DIGITS])
}

/// The CIDR in a block's name; IPv6 has `-` for `:`.
pub(crate) fn block_cidr(name: &str) -> Option<IpNet> {
    let (ip, length) = name.rsplit_once('-')?;
    let v4 = ip.split('-').count() == 4 && !ip.contains("--");
    let text = format!("{}/{length}", ip.replace('-', if v4 { "." } else { ":" }));
    let cidr: IpNet = text.parse().ok()?;
    (keys::cidr_name(&cidr) == name).then_some(cidr)
}

/// The label by which Calico finds the claims of a host.
pub(crate) fn host_hash(host: &str) -> String {
    base32(&Sha3_256::digest(host))
}

/// The name of a record: a hash, since keys hold any text.
pub(crate) fn record(key: &str) -> String {
    format!("r-{}", short_hash(key))
}

/// 40 hexadecimal digits: also a legal label.
pub(crate) fn short_hash(text: &str) -> String {
    let mut hash = hex(&Sha256::digest(text));
    hash.truncate(40);
    hash
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 4648, upper case, without padding.
fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let quintet = |chunk: &[u8], place: usize| {
        let bits = chunk.iter().chain(std::iter::repeat(&0)).take(5);
        let word = bits.fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        char::from(DIGITS[(word >> (35 - 5 * place) & 31) as usize])
    };
    let digits = |chunk: &[u8]| (chunk.len() * 8).div_ceil(5);
    bytes.chunks(5).flat_map(|chunk| (0..digits(chunk)).map(move |place| quintet(chunk, place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn hashes_are_calicos() {
        // The label in testdata/apiserver/objects/affinity-3.31.json.
        assert_eq!(host_hash("node1"), "7DS2CCNJGGLTHBDQLLFO6SX24SY2YDDEG3W2VN556FA2W4DLLV5A");
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
    }

    #[test]
    fn long_hosts_are_cut_to_252_characters() {
        let cidr = net("10.0.0.0/26");
        assert_eq!(affinity("node1", &cidr), "node1-10-0-0-0-26");
        let fits = "n".repeat(252 - "-10-0-0-0-26".len());
        assert_eq!(affinity(&fits, &cidr), format!("{fits}-10-0-0-0-26"));
        let long = affinity(&format!("{fits}n"), &cidr);
        assert_eq!(long.len(), 252);
        assert!(long.starts_with(&fits[..228]) && long[228..].starts_with("-10-0-0-0-26-"), "{long}");
        assert_ne!(long, affinity(&format!("{fits}m"), &cidr));
    }

    #[test]
    fn blocks_are_found_by_their_names() {
        for text in
            ["192.168.0.0/26", "fd80:24e2:f998:72d6::/122", "::/120", "fd00::1:0/122", "1:2:3:4::/126"]
        {
            assert_eq!(block_cidr(&keys::cidr_name(&net(text))), Some(net(text)), "{text}");
        }
        for name in ["", "x", "10-0-0-26", "10-0-0-0-33", "default", "010-0-0-0-26"] {
            assert_eq!(block_cidr(name), None, "{name}");
        }
    }

    #[test]
    fn names_follow_rfc_1123() {
        for name in ["a", "k8s-pod-network.0123abcd", "1.2", &"a".repeat(253)] {
            assert!(is_legal(name), "{name}");
        }
        for name in ["", "A", "-a", "a-", "a..b", "a_b", "a/b", "a\r\nb", &"a".repeat(254)] {
            assert!(!is_legal(name), "{name}");
        }
    }
}
