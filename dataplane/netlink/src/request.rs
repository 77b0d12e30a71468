//! Requests of one batch, and their bytes.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;

/// One request on its way: what it is for, and its bytes without the netlink header.
#[derive(Debug)]
pub(crate) struct Request {
    pub op: &'static str,
    pub subject: String,
    /// A question: its answer says as much as an acknowledgement.
    pub is_question: bool,
    bytes: Vec<u8>,
}

impl Request {
    /// A route netlink request. `flags` come on top of NLM_F_REQUEST.
    pub fn route(op: &'static str, subject: impl ToString, message: RouteNetlinkMessage, flags: u16) -> Self {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, message.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        Request { op, subject: subject.to_string(), is_question: false, bytes }
    }

    /// A question of route netlink for one object.
    pub fn question(op: &'static str, subject: impl ToString, message: RouteNetlinkMessage) -> Self {
        Request { is_question: true, ..Request::route(op, subject, message, 0) }
    }

    /// A request of any netlink family from its body (what follows `struct nlmsghdr`).
    pub fn raw(op: &'static str, subject: impl ToString, kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(16 + body.len());
        bytes.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        Request { op, subject: subject.to_string(), is_question: false, bytes }
    }

    /// As [`Request::raw`], a question for one object.
    pub fn raw_question(op: &'static str, subject: impl ToString, kind: u16, body: &[u8]) -> Self {
        Request { is_question: true, ..Request::raw(op, subject, kind, 0, body) }
    }

    /// Appends the request to `out`, numbered `seq`; with `confirm`, the kernel acknowledges it.
    pub fn append(&self, out: &mut Vec<u8>, seq: u32, confirm: bool) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        out[start + 8..start + 12].copy_from_slice(&seq.to_ne_bytes());
        if confirm {
            let flags = u16::from_ne_bytes([out[start + 6], out[start + 7]]) | NLM_F_ACK;
            out[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        }
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

/// Writes attributes (`struct nlattr`), nested ones too: for what the crates have no types for.
#[derive(Debug, Default)]
pub(crate) struct AttrWriter(Vec<u8>);

impl AttrWriter {
    pub fn with_header(header: &[u8]) -> Self {
        AttrWriter(header.to_vec())
    }

    pub fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(4 + value.len()).expect("attributes written here are far below 64 KiB");
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A string with its closing zero.
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    pub fn nest(self, kind: u16, inner: AttrWriter) -> Self {
        self.put(kind | netlink_packet_core::NLA_F_NESTED, &inner.0)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
