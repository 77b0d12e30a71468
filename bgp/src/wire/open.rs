//! OPEN: RFC 4271 section 4.2, RFC 6793, RFC 9072 (extended optional parameters).

use std::net::Ipv4Addr;

use super::capability::Capability;
use super::cursor::Cursor;
use super::notification::{Notification, OpenError};

/// Stands for a four-octet AS number in two-octet fields (RFC 6793 section 9).
pub const AS_TRANS: u32 = 23456;

/// An OPEN message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// From the four-octet capability if there is one, else from the two-octet field.
    pub asn: u32,
    /// Seconds: 0, or at least 3.
    pub hold_time: u16,
    pub router_id: Ipv4Addr,
    pub capabilities: Vec<Capability>,
}

const VERSION: u8 = 4;
const PARAM_CAPABILITIES: u8 = 2;
/// RFC 9072 section 2: in the length and in the type field it announces the extended form.
const EXTENDED: u8 = 255;

impl Open {
    pub(crate) fn decode(body: &[u8]) -> Result<Open, Notification> {
        let short = || Notification::new(OpenError::Unspecific);
        let mut c = Cursor::new(body);
        let version = c.u8().ok_or_else(short)?;
        if version != VERSION {
            return Err(Notification::with_data(OpenError::Version, &u16::from(VERSION).to_be_bytes()));
        }
        let as2 = c.u16().ok_or_else(short)?;
        let hold_time = c.u16().ok_or_else(short)?;
        let router_id = Ipv4Addr::from(c.u32().ok_or_else(short)?);
        let capabilities = parameters(c)?;
        let open = Open {
            asn: four_octet_as(&capabilities).unwrap_or(u32::from(as2)),
            hold_time,
            router_id,
            capabilities,
        };
        open.check(as2).map(|()| open)
    }

    fn check(&self, as2: u16) -> Result<(), Notification> {
        // RFC 7607: AS 0 is not to be used; the field itself must not be 0 either.
        if self.asn == 0 || as2 == 0 {
            return Err(Notification::new(OpenError::PeerAs));
        }
        if matches!(self.hold_time, 1 | 2) {
            return Err(Notification::new(OpenError::HoldTime));
        }
        // RFC 6286 section 2.1: any nonzero identifier is valid.
        if self.router_id.is_unspecified() {
            return Err(Notification::new(OpenError::RouterId));
        }
        Ok(())
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let as2 = u16::try_from(self.asn).unwrap_or(AS_TRANS as u16);
        out.push(VERSION);
        out.extend_from_slice(&as2.to_be_bytes());
        out.extend_from_slice(&self.hold_time.to_be_bytes());
        out.extend_from_slice(&self.router_id.octets());
        let mut capabilities = Vec::new();
        self.capabilities.iter().for_each(|c| c.encode(&mut capabilities));
        encode_parameters(&capabilities, out);
    }

    /// True if the peer sent the four-octet AS capability.
    pub fn has_four_octet_as(&self) -> bool {
        four_octet_as(&self.capabilities).is_some()
    }
}

fn four_octet_as(capabilities: &[Capability]) -> Option<u32> {
    capabilities.iter().find_map(|c| match c {
        Capability::FourOctetAs(asn) => Some(*asn),
        _ => None,
    })
}

/// One parameter with all capabilities; the extended form where the short one has no room.
fn encode_parameters(capabilities: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(capabilities.len()) {
        Ok(0) => out.push(0),
        Ok(len @ ..253) => out.extend_from_slice(&[len + 2, PARAM_CAPABILITIES, len]),
        _ => {
            let len = u16::try_from(capabilities.len()).expect("capabilities fit a message");
            out.extend_from_slice(&[EXTENDED, EXTENDED]);
            out.extend_from_slice(&(len + 3).to_be_bytes());
            out.push(PARAM_CAPABILITIES);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    out.extend_from_slice(capabilities);
}

fn parameters(mut c: Cursor<'_>) -> Result<Vec<Capability>, Notification> {
    let bad = || Notification::new(OpenError::Unspecific);
    let len = c.u8().ok_or_else(bad)?;
    let extended = len != 0 && c.rest().first() == Some(&EXTENDED);
    let block = if extended {
        c.u8();
        c.block16().ok_or_else(bad)?
    } else {
        c.take(usize::from(len)).ok_or_else(bad)?
    };
    if !c.is_empty() {
        return Err(bad());
    }
    let (mut c, mut out) = (Cursor::new(block), Vec::new());
    while !c.is_empty() {
        let kind = c.u8().ok_or_else(bad)?;
        let value = if extended { c.block16() } else { c.block8() }.ok_or_else(bad)?;
        if kind != PARAM_CAPABILITIES {
            return Err(Notification::new(OpenError::Parameter));
        }
        Capability::decode_all(Cursor::new(value), &mut out)?;
    }
    Ok(out)
}
