//! Messages out of a stream of octets: RFC 4271 sections 4.1 and 6.1, RFC 8654.

use super::notification::{HeaderError, Notification};
use super::{HEADER, Kind, MAX_EXTENDED, MAX_MESSAGE};

/// One whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: Kind,
    /// Without the header.
    pub body: &'a [u8],
}

/// Collects octets until a message is whole. Holds a part of a message at most once all whole ones were taken, so that
/// many idle connections cost little.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Octets at the front that were already handed out.
    used: usize,
}

impl Framer {
    /// Appends what came from the peer.
    pub fn push(&mut self, octets: &[u8]) {
        self.buffer.drain(..std::mem::take(&mut self.used));
        self.buffer.extend_from_slice(octets);
    }

    /// The next message, `None` until it is whole. After an error the stream is worthless.
    pub fn next(&mut self, extended_message: bool) -> Result<Option<Frame<'_>>, Notification> {
        let rest = &self.buffer[self.used..];
        let Some((header, _)) = rest.split_at_checked(HEADER) else { return Ok(self.give_back()) };
        let (kind, len) = check_header(header, extended_message)?;
        if rest.len() < len {
            return Ok(self.give_back());
        }
        let start = self.used + HEADER;
        self.used += len;
        Ok(Some(Frame { kind, body: &self.buffer[start..self.used] }))
    }

    fn give_back<T>(&mut self) -> Option<T> {
        if self.used > 0 {
            self.buffer = self.buffer[self.used..].to_vec();
            self.used = 0;
        }
        None
    }
}

/// Kind and whole length of the message that the header announces.
fn check_header(header: &[u8], extended_message: bool) -> Result<(Kind, usize), Notification> {
    if header[..16] != [0xff; 16] {
        return Err(Notification::new(HeaderError::NotSynchronized));
    }
    let field = [header[16], header[17]];
    let len = usize::from(u16::from_be_bytes(field));
    let bad_length = || Notification::with_data(HeaderError::BadLength, &field);
    if !(HEADER..=MAX_EXTENDED).contains(&len) {
        return Err(bad_length());
    }
    let kind = kind(header[18])?;
    if !lengths(kind, extended_message).contains(&len) {
        return Err(bad_length());
    }
    Ok((kind, len))
}

fn kind(octet: u8) -> Result<Kind, Notification> {
    match octet {
        1 => Ok(Kind::Open),
        2 => Ok(Kind::Update),
        3 => Ok(Kind::Notification),
        4 => Ok(Kind::Keepalive),
        5 => Ok(Kind::Refresh),
        other => Err(Notification::with_data(HeaderError::BadType, &[other])),
    }
}

/// RFC 8654 section 4 leaves OPEN and KEEPALIVE as they were. A refresh's length has an error of its own.
fn lengths(kind: Kind, extended_message: bool) -> std::ops::RangeInclusive<usize> {
    let max = if extended_message { MAX_EXTENDED } else { MAX_MESSAGE };
    match kind {
        Kind::Open => 29..=MAX_MESSAGE,
        Kind::Update => 23..=max,
        Kind::Notification => 21..=max,
        Kind::Keepalive => HEADER..=HEADER,
        Kind::Refresh => HEADER..=max,
    }
}
