//! Path attributes to the wire.

use std::net::Ipv4Addr;

use super::attribute_decode::{category, code, flag};
use super::attributes::{Aggregator, AsPath, Attributes, Origin, Segment};
use super::open::AS_TRANS;
use super::update::TooLong;

/// Appends one attribute; the length takes two octets only where it must.
/// A path of an old speaker can outgrow the length field when its AS numbers become four octets.
pub(crate) fn put(out: &mut Vec<u8>, flags: u8, attribute: u8, value: &[u8]) -> Result<(), TooLong> {
    match u8::try_from(value.len()) {
        Ok(len) => out.extend_from_slice(&[flags, attribute, len]),
        Err(_) => {
            let len = u16::try_from(value.len()).map_err(|_| TooLong)?;
            out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, attribute]);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    out.extend_from_slice(value);
    Ok(())
}

fn put_known(out: &mut Vec<u8>, attribute: u8, value: &[u8]) -> Result<(), TooLong> {
    put(out, category(attribute).expect("only known attributes are written by name"), attribute, value)
}

/// All attributes but the next hop, whose place depends on the family, in the order of their codes.
pub(crate) fn encode(
    a: &Attributes,
    as4: bool,
    next_hop: Option<Ipv4Addr>,
    out: &mut Vec<u8>,
) -> Result<(), TooLong> {
    put_known(out, code::ORIGIN, &[origin(a.origin)])?;
    put_known(out, code::AS_PATH, &as_path(&a.as_path, as4))?;
    put_list(out, code::NEXT_HOP, next_hop.iter().map(Ipv4Addr::octets))?;
    put_list(out, code::MED, a.med.iter().map(|v| v.to_be_bytes()))?;
    put_list(out, code::LOCAL_PREF, a.local_pref.iter().map(|v| v.to_be_bytes()))?;
    if a.atomic_aggregate {
        put_known(out, code::ATOMIC_AGGREGATE, &[])?;
    }
    if let Some(g) = a.aggregator {
        put_known(out, code::AGGREGATOR, &aggregator(g, as4))?;
    }
    put_list(out, code::COMMUNITIES, a.communities.iter().map(|c| c.to_be_bytes()))?;
    put_list(out, code::ORIGINATOR_ID, a.originator_id.iter().map(Ipv4Addr::octets))?;
    put_list(out, code::CLUSTER_LIST, a.cluster_list.iter().map(Ipv4Addr::octets))?;
    put_list(out, code::EXTENDED, a.extended.iter().copied())?;
    if !as4 {
        put_as4(a, out)?;
    }
    put_list(out, code::LARGE, a.large.iter().flatten().map(|w| w.to_be_bytes()))?;
    let flags = flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL;
    a.opaque.iter().try_for_each(|o| put(out, flags, o.code, &o.value))
}

/// An attribute whose value is a list of fixed records; none for an empty list.
fn put_list<const N: usize>(
    out: &mut Vec<u8>,
    attribute: u8,
    items: impl Iterator<Item = [u8; N]>,
) -> Result<(), TooLong> {
    let value: Vec<u8> = items.flatten().collect();
    if value.is_empty() { Ok(()) } else { put_known(out, attribute, &value) }
}

/// RFC 6793 section 4.2.2: what does not fit two octets goes beside, in attributes of its own.
fn put_as4(a: &Attributes, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let wide = |asn: u32| u16::try_from(asn).is_err();
    if a.as_path.0.iter().any(|s| s.asns().iter().any(|n| wide(*n))) {
        put_known(out, code::AS4_PATH, &as_path(&a.as_path, true))?;
    }
    match a.aggregator.filter(|g| wide(g.asn)) {
        Some(g) => put_known(out, code::AS4_AGGREGATOR, &aggregator(g, true)),
        None => Ok(()),
    }
}

fn origin(o: Origin) -> u8 {
    match o {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    }
}

fn as_path(path: &AsPath, as4: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for segment in &path.0 {
        let kind = match segment {
            Segment::Set(_) => 1,
            Segment::Sequence(_) => 2,
        };
        // A decoded segment is never longer; one made by hand is cut in pieces.
        for asns in segment.asns().chunks(super::attributes::MAX_SEGMENT) {
            out.extend_from_slice(&[kind, asns.len() as u8]);
            asns.iter().for_each(|asn| put_asn(&mut out, *asn, as4));
        }
    }
    out
}

fn put_asn(out: &mut Vec<u8>, asn: u32, as4: bool) {
    if as4 {
        out.extend_from_slice(&asn.to_be_bytes());
    } else {
        let short = u16::try_from(asn).unwrap_or(AS_TRANS as u16);
        out.extend_from_slice(&short.to_be_bytes());
    }
}

fn aggregator(g: Aggregator, as4: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(8);
    put_asn(&mut out, g.asn, as4);
    out.extend_from_slice(&g.router_id.octets());
    out
}
