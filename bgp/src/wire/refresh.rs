//! ROUTE-REFRESH: RFC 2918 section 3, RFC 7313 section 3.2.

use super::capability::WireFamily;
use super::notification::{Code, Notification};

/// What a ROUTE-REFRESH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshKind {
    /// Send your routes again.
    Request,
    /// My routes follow (BoRR).
    Begin,
    /// They were all (EoRR).
    End,
}

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    pub kind: RefreshKind,
    pub family: WireFamily,
}

impl Refresh {
    /// `None` for a subtype that must be ignored (RFC 7313 section 5).
    pub(crate) fn decode(body: &[u8]) -> Result<Option<Refresh>, Notification> {
        let [a, b, subtype, safi] = body else {
            return Err(Notification::with_data(Code::RefreshLength, body));
        };
        let kind = match subtype {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            _ => return Ok(None),
        };
        Ok(Some(Refresh { kind, family: WireFamily { afi: u16::from_be_bytes([*a, *b]), safi: *safi } }))
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let subtype = match self.kind {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
        };
        out.extend_from_slice(&self.family.afi.to_be_bytes());
        out.extend_from_slice(&[subtype, self.family.safi]);
    }
}
