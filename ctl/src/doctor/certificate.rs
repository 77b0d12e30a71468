//! When a certificate ends: of X.509 (RFC 5280, 4.1) only the validity is read.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// The last whole year that nanoseconds in 64 bits reach.
const LAST_YEAR: u32 = 2553;
const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The earliest end of all certificates of a PEM file, in seconds since 1970. `None` if there is none that can
/// be read.
pub fn end(pem: &[u8]) -> Option<u64> {
    CertificateDer::pem_slice_iter(pem).map(|der| not_after(der.ok()?.as_ref())).min().flatten()
}

/// One value of DER: its tag, its content, and what follows it.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn inside(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = value(der)?;
    (tag == wanted).then_some((content, rest))
}

/// Certificate, its first part; behind version, serial number, algorithm and issuer the validity.
fn not_after(der: &[u8]) -> Option<u64> {
    let (certificate, _) = inside(der, SEQUENCE)?;
    let (mut part, _) = inside(certificate, SEQUENCE)?;
    if let Some((_, rest)) = inside(part, CONTEXT_0) {
        part = rest;
    }
    for _ in 0..3 {
        part = value(part)?.2;
    }
    let (validity, _) = inside(part, SEQUENCE)?;
    let (_, _, rest) = value(validity)?;
    let (tag, text, _) = value(rest)?;
    seconds(tag, std::str::from_utf8(text).ok()?)
}

/// `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from then on; one that never ends says the year 9999.
fn seconds(tag: u8, text: &str) -> Option<u64> {
    let (year, rest) = match tag {
        UTC_TIME => {
            let year: u32 = text.get(..2)?.parse().ok()?;
            (year + if year < 50 { 2000 } else { 1900 }, text.get(2..)?)
        }
        GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2);
    let (date, clock) = ([part(0)?, part(2)?].join("-"), [part(4)?, part(6)?, part(8)?].join(":"));
    let year = year.min(LAST_YEAR);
    model::time::parse_go_string(&format!("{year}-{date} {clock} +0000")).map(|ns| ns / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_become_seconds() {
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "300101000000Z"), Some(1_893_456_000));
        assert_eq!(seconds(GENERALIZED_TIME, "20500301123456Z"), Some(2_529_750_896));
        assert_eq!(seconds(UTC_TIME, "00022912"), None);
        assert!(seconds(GENERALIZED_TIME, "99991231235959Z").unwrap() > 18_000_000_000);
    }

    #[test]
    fn no_bytes_panic() {
        let whole = [SEQUENCE, 0x82, 0x01, 0x00, SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff, 0x17, 0x02];
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), None);
        }
        assert_eq!(end(b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"), None);
        assert_eq!(end(b""), None);
    }
}
