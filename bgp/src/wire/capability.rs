//! Capabilities: RFC 5492 and the documents named at each variant.

use super::cursor::Cursor;
use super::notification::{Notification, OpenError};

/// An AFI and SAFI pair as on the wire; it may be a family that this speaker does not carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WireFamily {
    pub afi: u16,
    pub safi: u8,
}

impl From<crate::Family> for WireFamily {
    fn from(family: crate::Family) -> Self {
        WireFamily { afi: family.afi(), safi: crate::prefix::SAFI_UNICAST }
    }
}

impl WireFamily {
    /// The family, if it is one of ours.
    pub fn known(self) -> Option<crate::Family> {
        crate::Family::from_wire(self.afi, self.safi)
    }
}

/// A family's part of the graceful restart capability (RFC 4724 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RestartFamily {
    pub family: WireFamily,
    /// Forwarding state was kept over the restart (bit F).
    pub forwarding: bool,
}

/// A family's part of the long-lived graceful restart capability (RFC 9494 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LongLivedFamily {
    pub family: WireFamily,
    pub forwarding: bool,
    /// Seconds, 24 bits.
    pub stale_time: u32,
}

/// RFC 7911 section 4, the Send/Receive field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddPathFamily {
    pub family: WireFamily,
    pub receive: bool,
    pub send: bool,
}

/// RFC 8950 section 4: which next-hop AFI a family may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHopFamily {
    pub afi: u16,
    pub safi: u16,
    pub next_hop_afi: u16,
}

/// One capability of an OPEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// RFC 4760 section 8.
    MultiProtocol(WireFamily),
    /// RFC 2918.
    RouteRefresh,
    /// RFC 8950.
    ExtendedNextHop(Vec<NextHopFamily>),
    /// RFC 8654.
    ExtendedMessage,
    /// RFC 4724; the notification bit is RFC 8538.
    GracefulRestart {
        restarting: bool,
        notification: bool,
        /// Seconds, 12 bits.
        time: u16,
        families: Vec<RestartFamily>,
    },
    /// RFC 6793.
    FourOctetAs(u32),
    /// RFC 7911.
    AddPath(Vec<AddPathFamily>),
    /// RFC 7313.
    EnhancedRefresh,
    /// RFC 9494.
    LongLived(Vec<LongLivedFamily>),
    /// Kept for display; never acted on.
    Unknown { code: u8, value: Vec<u8> },
}

const RESTARTING: u16 = 0x8000;
const NOTIFICATION: u16 = 0x4000;
const TIME: u16 = 0x0fff;
const FORWARDING: u8 = 0x80;

impl Capability {
    /// The IANA capability code.
    pub fn code(&self) -> u8 {
        match self {
            Capability::MultiProtocol(_) => 1,
            Capability::RouteRefresh => 2,
            Capability::ExtendedNextHop(_) => 5,
            Capability::ExtendedMessage => 6,
            Capability::GracefulRestart { .. } => 64,
            Capability::FourOctetAs(_) => 65,
            Capability::AddPath(_) => 69,
            Capability::EnhancedRefresh => 70,
            Capability::LongLived(_) => 71,
            Capability::Unknown { code, .. } => *code,
        }
    }

    fn decode_value(code: u8, value: &[u8]) -> Option<Capability> {
        let mut c = Cursor::new(value);
        let capability = match code {
            1 => Capability::MultiProtocol(reserved_family(&mut c)?),
            2 => Capability::RouteRefresh,
            5 => Capability::ExtendedNextHop(list(&mut c, next_hop_family)?),
            6 => Capability::ExtendedMessage,
            64 => graceful_restart(&mut c)?,
            65 => Capability::FourOctetAs(c.u32()?),
            69 => Capability::AddPath(list(&mut c, add_path_family)?),
            70 => Capability::EnhancedRefresh,
            71 => Capability::LongLived(list(&mut c, long_lived_family)?),
            _ => return Some(Capability::Unknown { code, value: value.to_vec() }),
        };
        c.is_empty().then_some(capability)
    }

    /// Decodes the capabilities of one optional parameter.
    pub(crate) fn decode_all(mut c: Cursor<'_>, out: &mut Vec<Capability>) -> Result<(), Notification> {
        while !c.is_empty() {
            let bad = || Notification::new(OpenError::Unspecific);
            let code = c.u8().ok_or_else(bad)?;
            let value = c.block8().ok_or_else(bad)?;
            out.push(Self::decode_value(code, value).ok_or_else(bad)?);
        }
        Ok(())
    }

    /// Appends code, length and value. Lists too long for the one-octet length are cut.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut value = self.value();
        value.truncate(255 / self.record_len() * self.record_len());
        out.push(self.code());
        out.push(u8::try_from(value.len()).expect("cut to 255 octets"));
        out.extend_from_slice(&value);
    }

    /// Length of the records that the value is a list of; 1 where it is none.
    fn record_len(&self) -> usize {
        match self {
            Capability::ExtendedNextHop(_) => 6,
            Capability::LongLived(_) => 7,
            _ => 1,
        }
    }

    fn value(&self) -> Vec<u8> {
        let mut v = Vec::new();
        match self {
            Capability::MultiProtocol(f) => {
                v.extend_from_slice(&f.afi.to_be_bytes());
                v.extend_from_slice(&[0, f.safi]);
            }
            Capability::RouteRefresh | Capability::ExtendedMessage | Capability::EnhancedRefresh => {}
            Capability::ExtendedNextHop(list) => list.iter().for_each(|f| put_next_hop_family(&mut v, f)),
            Capability::GracefulRestart { restarting, notification, time, families } => {
                let flags =
                    if *restarting { RESTARTING } else { 0 } | if *notification { NOTIFICATION } else { 0 };
                v.extend_from_slice(&(flags | time & TIME).to_be_bytes());
                families.iter().for_each(|f| put_family(&mut v, f.family, forwarding_bit(f.forwarding)));
            }
            Capability::FourOctetAs(asn) => v.extend_from_slice(&asn.to_be_bytes()),
            Capability::AddPath(list) => list
                .iter()
                .for_each(|f| put_family(&mut v, f.family, u8::from(f.receive) | u8::from(f.send) << 1)),
            Capability::LongLived(list) => list.iter().for_each(|f| {
                put_family(&mut v, f.family, forwarding_bit(f.forwarding));
                v.extend_from_slice(&f.stale_time.to_be_bytes()[1..]);
            }),
            Capability::Unknown { value, .. } => v.extend_from_slice(value),
        }
        v
    }
}

fn forwarding_bit(set: bool) -> u8 {
    if set { FORWARDING } else { 0 }
}

fn put_family(out: &mut Vec<u8>, family: WireFamily, flags: u8) {
    out.extend_from_slice(&family.afi.to_be_bytes());
    out.extend_from_slice(&[family.safi, flags]);
}

fn put_next_hop_family(out: &mut Vec<u8>, f: &NextHopFamily) {
    for field in [f.afi, f.safi, f.next_hop_afi] {
        out.extend_from_slice(&field.to_be_bytes());
    }
}

fn list<T>(c: &mut Cursor<'_>, item: impl Fn(&mut Cursor<'_>) -> Option<T>) -> Option<Vec<T>> {
    let mut out = Vec::new();
    while !c.is_empty() {
        out.push(item(c)?);
    }
    Some(out)
}

fn reserved_family(c: &mut Cursor<'_>) -> Option<WireFamily> {
    let afi = c.u16()?;
    c.u8()?;
    Some(WireFamily { afi, safi: c.u8()? })
}

fn family(c: &mut Cursor<'_>) -> Option<WireFamily> {
    Some(WireFamily { afi: c.u16()?, safi: c.u8()? })
}

fn next_hop_family(c: &mut Cursor<'_>) -> Option<NextHopFamily> {
    Some(NextHopFamily { afi: c.u16()?, safi: c.u16()?, next_hop_afi: c.u16()? })
}

fn graceful_restart(c: &mut Cursor<'_>) -> Option<Capability> {
    let head = c.u16()?;
    let families = list(c, |c| {
        let family = family(c)?;
        Some(RestartFamily { family, forwarding: c.u8()? & FORWARDING != 0 })
    })?;
    Some(Capability::GracefulRestart {
        restarting: head & RESTARTING != 0,
        notification: head & NOTIFICATION != 0,
        time: head & TIME,
        families,
    })
}

fn add_path_family(c: &mut Cursor<'_>) -> Option<AddPathFamily> {
    let family = family(c)?;
    // Section 4: values other than 1 to 3 are to be ignored.
    let mode = c.u8().map(|m| if m > 3 { 0 } else { m })?;
    Some(AddPathFamily { family, receive: mode & 1 != 0, send: mode & 2 != 0 })
}

fn long_lived_family(c: &mut Cursor<'_>) -> Option<LongLivedFamily> {
    let family = family(c)?;
    let forwarding = c.u8()? & FORWARDING != 0;
    let [a, b, d] = c.array()?;
    Some(LongLivedFamily { family, forwarding, stale_time: u32::from_be_bytes([0, a, b, d]) })
}
