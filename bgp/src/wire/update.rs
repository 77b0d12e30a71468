//! UPDATE: RFC 4271 section 4.3, RFC 4760, RFC 4724 section 2 (End-of-RIB), RFC 7606.

use std::net::IpAddr;

use crate::Family;

use super::attribute_decode::{self, Action, DecodeParams, Decoded, Problem, code, flag};
use super::attribute_encode;
use super::attributes::{Attributes, NextHop};
use super::cursor::Cursor;
use super::nlri::{self, Nlri};
use super::notification::{Notification, UpdateError};
use super::{HEADER, Kind, MAX_EXTENDED, MAX_MESSAGE, message};

/// Routes that share attributes and next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    pub attributes: Attributes,
    pub nlri: Vec<Nlri>,
}

/// A decoded UPDATE. Routes to be treated as withdrawn are already in `withdrawn`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub withdrawn: Vec<Nlri>,
    /// At most one for the body's IPv4 and one for MP_REACH_NLRI.
    pub reach: Vec<Reach>,
    pub end_of_rib: Option<Family>,
    pub problems: Vec<Problem>,
}

impl Update {
    pub(crate) fn decode(body: &[u8], params: &DecodeParams) -> Result<Update, Notification> {
        let malformed = || Notification::new(UpdateError::MalformedList);
        let mut c = Cursor::new(body);
        let withdrawn = c.block16().ok_or_else(malformed)?;
        let field = c.block16().ok_or_else(malformed)?;
        let withdrawn = body_nlri(withdrawn, params)?;
        let nlri = body_nlri(c.rest(), params)?;
        let decoded = attribute_decode::decode(field, params)?;
        let end_of_rib = end_of_rib(body, &decoded);
        Ok(assemble(withdrawn, nlri, decoded, end_of_rib))
    }
}

/// The fields of the message's own body are IPv4 unicast; where that was not agreed on they are ignored.
fn body_nlri(field: &[u8], params: &DecodeParams) -> Result<Vec<Nlri>, Notification> {
    let list = nlri::decode(field, Family::Ipv4, params.add_path.v4);
    let list = list.ok_or_else(|| Notification::new(UpdateError::NetworkField))?;
    Ok(if params.families.v4 { list } else { Vec::new() })
}

fn end_of_rib(body: &[u8], d: &Decoded) -> Option<Family> {
    match &d.mp_unreach {
        _ if body == [0; 4] => Some(Family::Ipv4),
        Some((family, nlri)) if nlri.is_empty() && d.count() == 1 && body[..2] == [0; 2] => Some(*family),
        _ => None,
    }
}

fn assemble(mut withdrawn: Vec<Nlri>, nlri: Vec<Nlri>, mut d: Decoded, end_of_rib: Option<Family>) -> Update {
    withdrawn.extend(d.mp_unreach.take().into_iter().flat_map(|(_, nlri)| nlri));
    let mp = d.mp_reach.take().filter(|(_, nlri)| !nlri.is_empty());
    let announces = !nlri.is_empty() || mp.is_some();
    if announces {
        check_mandatory(&mut d, !nlri.is_empty());
    }
    let mut update = Update { withdrawn, end_of_rib, ..Update::default() };
    let body = (!nlri.is_empty()).then_some((d.next_hop.unwrap_or(NextHop::NONE), nlri));
    for (next_hop, nlri) in body.into_iter().chain(mp) {
        if d.withdraw() {
            update.withdrawn.extend(nlri);
        } else {
            let attributes = Attributes { next_hop, ..d.attributes.clone() };
            update.reach.push(Reach { attributes, nlri });
        }
    }
    update.problems = d.problems;
    update
}

/// RFC 7606 section 3 d: without a well-known mandatory attribute the routes count as withdrawn.
fn check_mandatory(d: &mut Decoded, body_nlri: bool) {
    let wanted = [code::ORIGIN, code::AS_PATH, code::NEXT_HOP];
    for attribute in &wanted[..if body_nlri { 3 } else { 2 }] {
        if !d.has(*attribute) {
            d.problems.push(Problem { attribute: *attribute, action: Action::Withdraw });
        }
    }
}

/// What the session settled about our own UPDATEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeParams {
    pub as4: bool,
    /// We send path identifiers in this family.
    pub add_path: crate::PerFamily<bool>,
    /// Messages may have 65,535 octets (RFC 8654).
    pub extended_message: bool,
}

impl EncodeParams {
    fn max_len(&self) -> usize {
        if self.extended_message { MAX_EXTENDED } else { MAX_MESSAGE }
    }
}

/// The attributes alone leave no room for one prefix: the route cannot be told to this peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attributes too long for a message")]
pub struct TooLong;

/// Octets of an UPDATE around its fields: header and two lengths.
const FRAME: usize = HEADER + 4;

/// Announces `nlri`, all of `family`, in as few messages as they fit.
pub fn announce(
    a: &Attributes,
    family: Family,
    nlri: &[Nlri],
    p: &EncodeParams,
) -> Result<Vec<Vec<u8>>, TooLong> {
    let mut attributes = Vec::with_capacity(128);
    let classic = match a.next_hop.addr {
        IpAddr::V4(addr) if family == Family::Ipv4 => Some(addr),
        _ => None,
    };
    attribute_encode::encode(a, p.as4, classic, &mut attributes)?;
    let head = if classic.is_some() { Vec::new() } else { reach_head(family, a.next_hop) };
    let overhead = FRAME + attributes.len() + if classic.is_some() { 0 } else { 4 + head.len() };
    let room = p.max_len().saturating_sub(overhead);
    let build = |octets: &[u8]| match classic {
        Some(_) => update(&[], &[&attributes], octets),
        None => update(&[], &[&mp(code::MP_REACH, &head, octets), &attributes], &[]),
    };
    chunks(nlri, p.add_path[family], room).map(|list| list.iter().map(|c| build(c)).collect())
}

/// Withdraws `nlri`, all of `family`.
pub fn withdraw(family: Family, nlri: &[Nlri], p: &EncodeParams) -> Vec<Vec<u8>> {
    let head = unreach_head(family);
    let room = p.max_len() - FRAME - 4 - head.len();
    let list = chunks(nlri, p.add_path[family], room).expect("a withdrawn prefix always fits");
    let build = |octets: &Vec<u8>| match family {
        Family::Ipv4 => update(octets, &[], &[]),
        Family::Ipv6 => update(&[], &[&mp(code::MP_UNREACH, &head, octets)], &[]),
    };
    list.iter().map(build).collect()
}

/// The End-of-RIB marker of a family (RFC 4724 section 2).
pub fn end_of_rib_marker(family: Family) -> Vec<u8> {
    match family {
        Family::Ipv4 => update(&[], &[], &[]),
        Family::Ipv6 => update(&[], &[&mp(code::MP_UNREACH, &unreach_head(family), &[])], &[]),
    }
}

/// NLRI octets in pieces of at most `room`.
fn chunks(nlri: &[Nlri], add_path: bool, room: usize) -> Result<Vec<Vec<u8>>, TooLong> {
    let mut out = Vec::new();
    let mut piece = Vec::with_capacity(room.min(nlri.len() * 8));
    for n in nlri {
        let len = nlri::wire_len(n, add_path);
        if len > room {
            return Err(TooLong);
        }
        if piece.len() + len > room {
            out.push(std::mem::take(&mut piece));
        }
        nlri::encode(n, add_path, &mut piece);
    }
    if !piece.is_empty() {
        out.push(piece);
    }
    Ok(out)
}

fn update(withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
    let total: usize = attributes.iter().map(|a| a.len()).sum();
    message(Kind::Update, |out| {
        out.extend_from_slice(&len16(withdrawn.len()));
        out.extend_from_slice(withdrawn);
        out.extend_from_slice(&len16(total));
        attributes.iter().for_each(|a| out.extend_from_slice(a));
        out.extend_from_slice(nlri);
    })
}

fn len16(n: usize) -> [u8; 2] {
    u16::try_from(n).expect("a field is shorter than its message").to_be_bytes()
}

/// A multiprotocol attribute; always with the long length, so that its overhead is known beforehand.
fn mp(attribute: u8, head: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut out = vec![flag::OPTIONAL | flag::EXTENDED_LENGTH, attribute];
    out.extend_from_slice(&len16(head.len() + nlri.len()));
    out.extend_from_slice(head);
    out.extend_from_slice(nlri);
    out
}

fn unreach_head(family: Family) -> Vec<u8> {
    let [a, b] = family.afi().to_be_bytes();
    vec![a, b, crate::prefix::SAFI_UNICAST]
}

fn reach_head(family: Family, hop: NextHop) -> Vec<u8> {
    let mut octets = match hop.addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    octets.extend(hop.link_local.iter().flat_map(|a| a.octets()));
    let mut out = unreach_head(family);
    out.push(octets.len() as u8);
    out.extend_from_slice(&octets);
    out.push(0);
    out
}
