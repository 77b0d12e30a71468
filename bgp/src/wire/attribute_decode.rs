//! Path attributes from the wire, with the revised error handling of RFC 7606.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Family, PerFamily};

use super::attributes::{Aggregator, AsPath, Attributes, NextHop, Opaque, Origin, Segment};
use super::cursor::{Cursor, records};
use super::nlri::{self, Nlri};
use super::notification::{Notification, UpdateError};
use super::open::AS_TRANS;

/// What the session settled about the peer's UPDATEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeParams {
    /// AS numbers have four octets (RFC 6793).
    pub as4: bool,
    /// The peer is in our AS.
    pub internal: bool,
    /// NLRI of other families is ignored.
    pub families: PerFamily<bool>,
    /// The peer sends path identifiers.
    pub add_path: PerFamily<bool>,
    /// IPv4 may come with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
}

/// What was done about a malformed attribute (RFC 7606 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Only the attribute was dropped.
    Discard,
    /// The message's routes count as withdrawn.
    Withdraw,
}

/// A malformation that did not end the session. Code 0 stands for the list itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    pub attribute: u8,
    pub action: Action,
}

pub(crate) mod code {
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MED: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH: u8 = 14;
    pub const MP_UNREACH: u8 = 15;
    pub const EXTENDED: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const LARGE: u8 = 32;
}

pub(crate) mod flag {
    pub const OPTIONAL: u8 = 0x80;
    pub const TRANSITIVE: u8 = 0x40;
    pub const PARTIAL: u8 = 0x20;
    pub const EXTENDED_LENGTH: u8 = 0x10;
}

/// The optional and transitive bits that an attribute must have. `None` for one that we do not know.
pub(crate) fn category(attribute: u8) -> Option<u8> {
    match attribute {
        1..=3 | code::LOCAL_PREF | code::ATOMIC_AGGREGATE => Some(flag::TRANSITIVE),
        code::MED | code::ORIGINATOR_ID | code::CLUSTER_LIST | code::MP_REACH | code::MP_UNREACH => {
            Some(flag::OPTIONAL)
        }
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::LARGE => Some(flag::OPTIONAL | flag::TRANSITIVE),
        _ => None,
    }
}

/// How far a malformation reaches.
enum Fault {
    Contained(Action),
    Reset(UpdateError),
}

const DISCARD: Fault = Fault::Contained(Action::Discard);
const WITHDRAW: Fault = Fault::Contained(Action::Withdraw);

/// The attributes of one UPDATE, as far as they were usable.
pub(crate) struct Decoded {
    pub attributes: Attributes,
    pub next_hop: Option<NextHop>,
    pub mp_reach: Option<(NextHop, Vec<Nlri>)>,
    pub mp_unreach: Option<(Family, Vec<Nlri>)>,
    /// Attributes that were there, by code.
    seen: [bool; 256],
    pub problems: Vec<Problem>,
}

impl Decoded {
    pub fn has(&self, attribute: u8) -> bool {
        self.seen[usize::from(attribute)]
    }

    pub fn count(&self) -> usize {
        self.seen.iter().filter(|s| **s).count()
    }

    pub fn withdraw(&self) -> bool {
        self.problems.iter().any(|p| p.action == Action::Withdraw)
    }
}

struct Raw<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
}

struct Decoder<'p> {
    params: &'p DecodeParams,
    out: Decoded,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    /// AGGREGATOR came in two octets and was not AS_TRANS: AS4_* must be ignored (RFC 6793 section 4.2.3).
    ignore_as4: bool,
}

/// Decodes the path attributes field. An error ends the session; all else is in `problems`.
pub(crate) fn decode(field: &[u8], params: &DecodeParams) -> Result<Decoded, Notification> {
    let out = Decoded {
        attributes: Attributes::empty(NextHop::NONE),
        next_hop: None,
        mp_reach: None,
        mp_unreach: None,
        seen: [false; 256],
        problems: Vec::new(),
    };
    let mut d = Decoder { params, out, as4_path: None, as4_aggregator: None, ignore_as4: false };
    let mut c = Cursor::new(field);
    while !c.is_empty() {
        // RFC 7606 section 4: an attribute that overruns the field spoils the rest, not the session.
        let Some(raw) = next_raw(&mut c) else {
            d.problem(0, Action::Withdraw);
            break;
        };
        d.attribute(&raw)?;
    }
    d.merge_as4();
    Ok(d.out)
}

fn next_raw<'a>(c: &mut Cursor<'a>) -> Option<Raw<'a>> {
    let flags = c.u8()?;
    let code = c.u8()?;
    let value = if flags & flag::EXTENDED_LENGTH != 0 { c.block16()? } else { c.block8()? };
    Some(Raw { flags, code, value })
}

impl Decoder<'_> {
    fn problem(&mut self, attribute: u8, action: Action) {
        self.out.problems.push(Problem { attribute, action });
    }

    fn attribute(&mut self, raw: &Raw<'_>) -> Result<(), Notification> {
        if std::mem::replace(&mut self.out.seen[usize::from(raw.code)], true) {
            return self.duplicate(raw.code);
        }
        let result = match category(raw.code) {
            Some(want) if raw.flags & (flag::OPTIONAL | flag::TRANSITIVE) != want => self.wrong_flags(raw),
            Some(_) => self.known(raw),
            None => self.unknown(raw),
        };
        match result {
            Ok(()) => Ok(()),
            Err(Fault::Contained(action)) => {
                self.problem(raw.code, action);
                Ok(())
            }
            Err(Fault::Reset(e)) => Err(Notification::with_data(e, &raw_octets(raw))),
        }
    }

    /// RFC 7606 section 3 g: only the multiprotocol ones are fatal; of others the first counts.
    fn duplicate(&mut self, attribute: u8) -> Result<(), Notification> {
        if matches!(attribute, code::MP_REACH | code::MP_UNREACH) {
            return Err(Notification::new(UpdateError::MalformedList));
        }
        self.problem(attribute, Action::Discard);
        Ok(())
    }

    /// RFC 7606 section 3 c. The NLRI of a multiprotocol attribute is still needed to withdraw it.
    fn wrong_flags(&mut self, raw: &Raw<'_>) -> Result<(), Fault> {
        if matches!(raw.code, code::MP_REACH | code::MP_UNREACH) {
            self.known(raw)?;
        }
        Err(WITHDRAW)
    }

    fn unknown(&mut self, raw: &Raw<'_>) -> Result<(), Fault> {
        if raw.flags & flag::OPTIONAL == 0 {
            return Err(Fault::Reset(UpdateError::UnrecognizedWellKnown));
        }
        if raw.flags & flag::TRANSITIVE != 0 {
            self.out.attributes.opaque.push(Opaque { code: raw.code, value: raw.value.to_vec() });
        }
        Ok(())
    }

    fn known(&mut self, raw: &Raw<'_>) -> Result<(), Fault> {
        let (value, internal) = (raw.value, self.params.internal);
        let a = &mut self.out.attributes;
        match raw.code {
            code::ORIGIN => a.origin = origin(value).ok_or(WITHDRAW)?,
            code::AS_PATH => a.as_path = as_path(value, self.params.as4).ok_or(WITHDRAW)?,
            code::NEXT_HOP => self.out.next_hop = Some(next_hop_v4(value).ok_or(WITHDRAW)?),
            code::MED => a.med = Some(u32_value(value).ok_or(WITHDRAW)?),
            // RFC 7606 sections 7.5, 7.9, 7.10: from an external peer these are nothing.
            code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST if !internal => return Err(DISCARD),
            code::LOCAL_PREF => a.local_pref = Some(u32_value(value).ok_or(WITHDRAW)?),
            code::ORIGINATOR_ID => a.originator_id = Some(u32_value(value).ok_or(WITHDRAW)?.into()),
            code::CLUSTER_LIST => a.cluster_list = cluster_list(value).ok_or(WITHDRAW)?,
            code::ATOMIC_AGGREGATE if value.is_empty() => a.atomic_aggregate = true,
            code::ATOMIC_AGGREGATE => return Err(DISCARD),
            code::AGGREGATOR => self.aggregator(value)?,
            code::COMMUNITIES => a.communities = sorted(value, u32::from_be_bytes).ok_or(WITHDRAW)?,
            code::EXTENDED => a.extended = sorted(value, |c: [u8; 8]| c).ok_or(WITHDRAW)?,
            code::LARGE => a.large = sorted(value, large_community).ok_or(WITHDRAW)?,
            code::MP_REACH => self.mp_reach(value)?,
            code::MP_UNREACH => self.mp_unreach(value)?,
            // RFC 6793 section 6: between speakers of four octets they are to be discarded.
            code::AS4_PATH | code::AS4_AGGREGATOR if self.params.as4 => return Err(DISCARD),
            code::AS4_PATH => self.as4_path = Some(as_path(value, true).ok_or(DISCARD)?),
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(aggregator(value, true).ok_or(DISCARD)?),
            _ => unreachable!("category() lists exactly the codes above"),
        }
        Ok(())
    }

    fn aggregator(&mut self, value: &[u8]) -> Result<(), Fault> {
        let found = aggregator(value, self.params.as4).ok_or(DISCARD)?;
        self.ignore_as4 = !self.params.as4 && found.asn != AS_TRANS;
        self.out.attributes.aggregator = Some(found);
        Ok(())
    }

    /// RFC 4760 section 3; errors by RFC 7606 sections 5.3 and 7.11.
    fn mp_reach(&mut self, value: &[u8]) -> Result<(), Fault> {
        let reset = || Fault::Reset(UpdateError::OptionalAttribute);
        let mut c = Cursor::new(value);
        let (afi, safi) = (c.u16().ok_or_else(reset)?, c.u8().ok_or_else(reset)?);
        let hop = c.block8().ok_or_else(reset)?;
        c.u8().ok_or_else(reset)?;
        let family = self.negotiated(afi, safi)?;
        let hop = mp_next_hop(hop, family, self.params.extended_next_hop).ok_or_else(reset)?;
        let nlri = nlri::decode(c.rest(), family, self.params.add_path[family]).ok_or_else(reset)?;
        self.out.mp_reach = Some((hop, nlri));
        if usable(hop.addr) { Ok(()) } else { Err(WITHDRAW) }
    }

    fn mp_unreach(&mut self, value: &[u8]) -> Result<(), Fault> {
        let reset = || Fault::Reset(UpdateError::OptionalAttribute);
        let mut c = Cursor::new(value);
        let (afi, safi) = (c.u16().ok_or_else(reset)?, c.u8().ok_or_else(reset)?);
        let family = self.negotiated(afi, safi)?;
        let nlri = nlri::decode(c.rest(), family, self.params.add_path[family]).ok_or_else(reset)?;
        self.out.mp_unreach = Some((family, nlri));
        Ok(())
    }

    /// NLRI of a family that was not agreed on is ignored (RFC 4760 section 7 allows it).
    fn negotiated(&self, afi: u16, safi: u8) -> Result<Family, Fault> {
        Family::from_wire(afi, safi).filter(|f| self.params.families[*f]).ok_or(DISCARD)
    }

    /// RFC 6793 section 4.2.3: the true path is AS4_PATH behind what old speakers put in front.
    fn merge_as4(&mut self) {
        if self.ignore_as4 {
            return;
        }
        let a = &mut self.out.attributes;
        if let (Some(to), Some(from)) = (&mut a.aggregator, self.as4_aggregator) {
            *to = from;
        }
        if let Some(tail) = self.as4_path.take() {
            let extra = a.as_path.length().checked_sub(tail.length());
            if let Some(extra) = extra {
                a.as_path = joined(&a.as_path, extra, tail);
            }
        }
    }
}

fn raw_octets(raw: &Raw<'_>) -> Vec<u8> {
    let mut out = vec![raw.flags, raw.code];
    match u8::try_from(raw.value.len()) {
        Ok(len) if raw.flags & flag::EXTENDED_LENGTH == 0 => out.push(len),
        _ => out.extend_from_slice(&(raw.value.len() as u16).to_be_bytes()),
    }
    out.extend_from_slice(raw.value);
    out
}

fn joined(path: &AsPath, lead: usize, tail: AsPath) -> AsPath {
    let mut left = lead;
    let mut segments = Vec::new();
    for segment in &path.0 {
        match segment {
            _ if left == 0 => break,
            Segment::Sequence(asns) => {
                let n = left.min(asns.len());
                segments.push(Segment::Sequence(asns[..n].to_vec()));
                left -= n;
            }
            Segment::Set(_) => {
                segments.push(segment.clone());
                left -= 1;
            }
        }
    }
    tail.0.into_iter().for_each(|s| push_segment(&mut segments, s));
    AsPath(segments)
}

/// Two sequences side by side are one, so that equal paths are equal values.
fn push_segment(segments: &mut Vec<Segment>, next: Segment) {
    match (segments.last_mut(), next) {
        (Some(Segment::Sequence(last)), Segment::Sequence(asns))
            if last.len() + asns.len() <= super::attributes::MAX_SEGMENT =>
        {
            last.extend(asns)
        }
        (_, next) => segments.push(next),
    }
}

fn origin(value: &[u8]) -> Option<Origin> {
    match value {
        [0] => Some(Origin::Igp),
        [1] => Some(Origin::Egp),
        [2] => Some(Origin::Incomplete),
        _ => None,
    }
}

fn u32_value(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

const SET: u8 = 1;
const SEQUENCE: u8 = 2;

fn as_path(value: &[u8], as4: bool) -> Option<AsPath> {
    let mut c = Cursor::new(value);
    let mut segments = Vec::new();
    while !c.is_empty() {
        let kind = c.u8()?;
        let count = usize::from(c.u8()?);
        let asns = as_numbers(c.take(count * if as4 { 4 } else { 2 })?, as4);
        // An empty segment and AS 0 are malformed (RFC 7606 section 7.2, RFC 7607 section 2).
        if asns.is_empty() || asns.contains(&0) {
            return None;
        }
        segments.push(match kind {
            SET => Segment::Set(asns),
            SEQUENCE => Segment::Sequence(asns),
            _ => return None,
        });
    }
    segments.shrink_to_fit();
    Some(AsPath(segments))
}

fn as_numbers(octets: &[u8], as4: bool) -> Vec<u32> {
    if as4 {
        octets.as_chunks().0.iter().map(|c| u32::from_be_bytes(*c)).collect()
    } else {
        octets.as_chunks().0.iter().map(|c| u32::from(u16::from_be_bytes(*c))).collect()
    }
}

fn aggregator(value: &[u8], as4: bool) -> Option<Aggregator> {
    let mut c = Cursor::new(value);
    let asn = if as4 { c.u32()? } else { u32::from(c.u16()?) };
    let router_id = Ipv4Addr::from(c.u32()?);
    (c.is_empty() && asn != 0).then_some(Aggregator { asn, router_id })
}

fn cluster_list(value: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let list = records(value)?;
    (!list.is_empty()).then(|| list.into_iter().map(|id: [u8; 4]| Ipv4Addr::from(id)).collect())
}

fn large_community(octets: [u8; 12]) -> [u32; 3] {
    let word = |i: usize| u32::from_be_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
    [word(0), word(4), word(8)]
}

/// A list of communities: sets on the wire, so sorted and without repeats here. Empty is malformed.
fn sorted<const N: usize, T: Ord>(value: &[u8], f: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let mut list: Vec<T> = records(value)?.into_iter().map(f).collect();
    list.sort_unstable();
    list.dedup();
    (!list.is_empty()).then_some(list)
}

fn next_hop_v4(value: &[u8]) -> Option<NextHop> {
    let addr = IpAddr::V4(u32_value(value)?.into());
    usable(addr).then(|| addr.into())
}

fn mp_next_hop(value: &[u8], family: Family, extended: bool) -> Option<NextHop> {
    let v6 = family == Family::Ipv6 || extended;
    match value.len() {
        4 if family == Family::Ipv4 => Some(IpAddr::V4(u32_value(value)?.into()).into()),
        16 if v6 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        32 if v6 => {
            let (global, local) = value.split_at(16);
            let local = Ipv6Addr::from(<[u8; 16]>::try_from(local).ok()?);
            let addr = IpAddr::from(<[u8; 16]>::try_from(global).ok()?);
            Some(NextHop { addr, link_local: local.is_unicast_link_local().then_some(local) })
        }
        _ => None,
    }
}

/// RFC 4271 section 6.3: a next hop must be an address that a host can have.
fn usable(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => !a.is_unspecified() && !a.is_loopback() && a.octets()[0] < 224 && a.octets()[0] != 0,
        IpAddr::V6(a) => !a.is_unspecified() && !a.is_loopback() && !a.is_multicast(),
    }
}
