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
    let code = body.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b).saturating_neg());
    if code == 0 && body.len() >= 4 {
        return None;
    }
    // Error numbers are below 4096 (MAX_ERRNO, linux/err.h); Errno takes no others.
    let known = (1..4096).contains(&code);
    let errno = if known { Errno::from_raw_os_error(code) } else { Errno::PROTO };
    Some((errno, hint(header, body).unwrap_or_default()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn messages_come_one_by_one() {
        let bytes = [message(16, 0, b"abc"), message(3, 2, &[])].concat();
        let (first, body, rest) = next_message(&bytes).unwrap();
        assert_eq!((first.kind, first.seq, body), (16, u32::from_ne_bytes([7, 0, 0, 0]), &b"abc"[..]));
        let (second, body, rest) = next_message(rest).unwrap();
        assert_eq!((second.kind, second.flags, body, rest), (3, 2, &[][..], &[][..]));
        assert!(next_message(rest).is_none());
    }

    #[test]
    fn the_kernels_words_come_with_its_error() {
        let mut body = (-22i32).to_ne_bytes().to_vec();
        body.extend(message(24, 0, b"echoed"));
        let words = b"Nexthop has invalid gateway\0";
        body.extend((4 + words.len() as u16).to_ne_bytes());
        body.extend([1, 0]);
        body.extend(words);
        let bytes = message(2, 0x200, &body);
        let (header, body, _) = next_message(&bytes).unwrap();
        let (errno, words) = verdict(header, body).unwrap();
        assert_eq!((errno, words.as_str()), (Errno::INVAL, "Nexthop has invalid gateway"));
    }

    #[test]
    fn an_acknowledgement_is_no_error() {
        let bytes = message(2, 0, &[0; 20]);
        let (header, body, _) = next_message(&bytes).unwrap();
        assert_eq!(verdict(header, body), None);
    }

    /// Every prefix of an answer, and every byte of it changed: nothing panics, nothing runs for ever.
    #[test]
    fn broken_answers_are_survived() {
        let mut body = (-2i32).to_ne_bytes().to_vec();
        body.extend([
            9, 0, 3, 0, b'l', b'o', 0, 0, 8, 0, 4, 0, 1, 2, 3, 4, 12, 0, 18, 0, 8, 0, 1, 0, 1, 1, 1, 1,
        ]);
        let whole = message(2, 0x300, &body);
        for end in 0..=whole.len() {
            read_all(&whole[..end]);
        }
        for (at, value) in (0..whole.len()).flat_map(|at| [0u8, 1, 3, 16, 127, 255].map(|v| (at, v))) {
            let mut broken = whole.clone();
            broken[at] = value;
            read_all(&broken);
        }
    }

    fn read_all(mut bytes: &[u8]) {
        while let Some((header, body, rest)) = next_message(bytes) {
            assert!(rest.len() < bytes.len());
            bytes = rest;
            let _ = verdict(header, body);
            let reply = Reply { kind: header.kind, body: body.to_vec() };
            let Some((_, attrs)) = reply.split(4) else { continue };
            let _ = (attrs.text(3), attrs.u32(4), attrs.ip(4), attrs.nested(18).map(|n| n.iter().count()));
        }
    }
}
