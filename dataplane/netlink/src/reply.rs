//! Reading what the kernel answers.
//!
//! Attribute by attribute, and only those that are used: an attribute that a newer kernel adds or
//! lengthens, or an exotic link of the host, must not make a whole answer unreadable.

use netlink_packet_core::{NlaBuffer, NlasIterator};
use rustix::io::Errno;
use std::net::IpAddr;

/// One message of an answer: its type and what follows `struct nlmsghdr`.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub kind: u16,
    pub body: Vec<u8>,
}

impl Reply {
    /// The family's fixed header of `len` bytes, and the attributes after it.
    pub fn split(&self, len: usize) -> Option<(&[u8], Attrs<'_>)> {
        let header = self.body.get(..len)?;
        let attrs = self.body.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((header, Attrs(attrs)))
    }
}

/// Attributes in a row. A broken tail ends the row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attrs<'a>(pub &'a [u8]);

impl<'a> Attrs<'a> {
    pub fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        NlasIterator::new(self.0).map_while(Result::ok).map(|nla: NlaBuffer<&'a [u8]>| {
            let end = 4 + nla.value_length();
            (nla.kind(), &nla.into_inner()[4..end])
        })
    }

    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    pub fn nested(self, kind: u16) -> Option<Attrs<'a>> {
        self.get(kind).map(Attrs)
    }

    pub fn u32(self, kind: u16) -> Option<u32> {
        self.get(kind).and_then(u32_at)
    }

    pub fn text(self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    pub fn ip(self, kind: u16) -> Option<IpAddr> {
        ip_of(self.get(kind)?)
    }
}

/// The first four bytes in the machine's order.
pub(crate) fn u32_at(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

/// An address in network order: 4 or 16 bytes.
pub(crate) fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// `struct nlmsghdr` (linux/netlink.h) of one message in a received buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
}

/// Takes the first message off `buf`: header, body, rest. `None` at the end or on garbage.
pub(crate) fn next_message(buf: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let head: &[u8; 16] = buf.first_chunk()?;
    let len = u32_at(head)? as usize;
    let body = buf.get(16..len)?;
    let header = Header {
        kind: u16::from_ne_bytes([head[4], head[5]]),
        flags: u16::from_ne_bytes([head[6], head[7]]),
        seq: u32_at(&head[8..])?,
    };
    Some((header, body, buf.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

/// `struct nlmsgerr`: the error (`None` is an acknowledgement) and the kernel's words, if any.
pub(crate) fn verdict(header: Header, body: &[u8]) -> Option<(Errno, String)> {
    let code = body.first_chunk().map_or(libc::EPROTO, |b| i32::from_ne_bytes(*b).saturating_neg());
    (code != 0).then(|| (Errno::from_raw_os_error(code), hint(header, body).unwrap_or_default()))
}

/// NLMSGERR_ATTR_MSG of an extended acknowledgement.
fn hint(header: Header, body: &[u8]) -> Option<String> {
    const NLM_F_CAPPED: u16 = 0x100;
    const NLM_F_ACK_TLVS: u16 = 0x200;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    if header.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let echoed = u32_at(body.get(4..)?)? as usize;
    let request = if header.flags & NLM_F_CAPPED != 0 { 16 } else { echoed.next_multiple_of(4) };
    Attrs(body.get(4 + request..)?).text(NLMSGERR_ATTR_MSG)
}
