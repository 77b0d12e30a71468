//! BGP messages: octets to values and back. No state beyond a partial message.

mod attribute_decode;
mod attribute_encode;
mod attributes;
mod capability;
mod cursor;
mod frame;
mod nlri;
mod notification;
mod open;
mod refresh;
mod update;

#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod revised_error_tests;
#[cfg(test)]
mod tests;

pub use attribute_decode::{Action, DecodeParams, Problem};
pub use attributes::{Aggregator, AsPath, Attributes, NextHop, Opaque, Origin, Segment, well_known};
pub use capability::{AddPathFamily, Capability, LongLivedFamily, NextHopFamily, RestartFamily, WireFamily};
pub use frame::{Frame, Framer};
pub use nlri::Nlri;
pub use notification::{Cease, Code, FsmError, HeaderError, Notification, OpenError, UpdateError};
pub use open::{AS_TRANS, Open};
pub use refresh::{Refresh, RefreshKind};
pub use update::{EncodeParams, Reach, TooLong, Update, announce, end_of_rib_marker, withdraw};

/// Octets of the header (RFC 4271 section 4.1).
pub const HEADER: usize = 19;
/// The longest message without RFC 8654.
pub const MAX_MESSAGE: usize = 4096;
/// The longest message with RFC 8654.
pub const MAX_EXTENDED: usize = 65535;

/// Message types (RFC 4271 section 4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Open = 1,
    Update = 2,
    Notification = 3,
    Keepalive = 4,
    Refresh = 5,
}

/// A decoded message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Open(Open),
    Update(Update),
    Notification(Notification),
    Keepalive,
    Refresh(Refresh),
    /// A ROUTE-REFRESH with a subtype that must be ignored.
    Ignored,
}

impl Message {
    /// Decodes a framed message. An error is the NOTIFICATION that ends the session.
    pub fn decode(frame: &Frame<'_>, params: &DecodeParams) -> Result<Message, Notification> {
        match frame.kind {
            Kind::Open => Open::decode(frame.body).map(Message::Open),
            Kind::Update => Update::decode(frame.body, params).map(Message::Update),
            Kind::Notification => {
                Ok(Notification::decode(frame.body).map_or(Message::Ignored, Message::Notification))
            }
            Kind::Keepalive => Ok(Message::Keepalive),
            Kind::Refresh => Ok(Refresh::decode(frame.body)?.map_or(Message::Ignored, Message::Refresh)),
        }
    }
}

/// An OPEN message, header included.
pub fn encode_open(open: &Open) -> Vec<u8> {
    message(Kind::Open, |out| open.encode(out))
}

/// A NOTIFICATION message, header included.
pub fn encode_notification(notification: &Notification) -> Vec<u8> {
    message(Kind::Notification, |out| notification.encode(out))
}

/// A ROUTE-REFRESH message, header included.
pub fn encode_refresh(refresh: &Refresh) -> Vec<u8> {
    message(Kind::Refresh, |out| refresh.encode(out))
}

/// A KEEPALIVE message: only a header.
pub fn encode_keepalive() -> Vec<u8> {
    message(Kind::Keepalive, |_| {})
}

fn message(kind: Kind, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend_from_slice(&[0, 0, kind as u8]);
    body(&mut out);
    let len = u16::try_from(out.len()).expect("callers keep to the longest message");
    out[16..18].copy_from_slice(&len.to_be_bytes());
    out
}
