//! A peer made of octets that a test writes itself, right or wrong, without any codec of ours.

use crate::netns::Netns;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub const OPEN: u8 = 1;
pub const UPDATE: u8 = 2;
pub const NOTIFICATION: u8 = 3;
pub const KEEPALIVE: u8 = 4;
pub const REFRESH: u8 = 5;
const HEADER: usize = 19;
const HOLD: u16 = 90;

/// What a session answered.
#[derive(Debug)]
pub enum Heard {
    Message(u8, Vec<u8>),
    /// The connection is closed.
    End,
    /// Nothing in the given time.
    Silence,
}

/// A session with a node of a fabric, from an address of a namespace.
pub struct Scripted {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Scripted {
    /// Connects to `to` and opens an IPv4 session with refresh and four-octet AS numbers, no graceful restart.
    pub fn connect(ns: &Netns, from: Ipv4Addr, asn: u32, to: Ipv4Addr) -> io::Result<Self> {
        let stream = ns.run(|| -> io::Result<TcpStream> {
            let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
            bind(&fd, &SocketAddr::new(from.into(), 0))?;
            connect(&fd, &SocketAddr::new(to.into(), 179))?;
            Ok(fd.into())
        })?;
        stream.set_nodelay(true)?;
        let mut peer = Scripted { stream, buffer: Vec::new() };
        peer.send(OPEN, &open(from, asn))?;
        peer.expect(OPEN)?;
        peer.send(KEEPALIVE, &[])?;
        peer.expect(KEEPALIVE)?;
        Ok(peer)
    }

    fn expect(&mut self, kind: u8) -> io::Result<()> {
        match self.hear(Duration::from_secs(10)) {
            Heard::Message(k, _) if k == kind => Ok(()),
            other => Err(io::Error::other(format!("instead of message {kind}: {other:?}"))),
        }
    }

    /// Sends a message.
    pub fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        self.stream.write_all(&message(kind, body))
    }

    /// Sends any octets.
    pub fn send_raw(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)
    }

    /// The next message.
    pub fn hear(&mut self, patience: Duration) -> Heard {
        let until = Instant::now() + patience;
        loop {
            if let Some((kind, body)) = self.take_message() {
                return Heard::Message(kind, body);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Silence;
            }
            self.stream.set_read_timeout(Some(left)).expect("a time that is not zero");
            let mut octets = [0; 4096];
            match self.stream.read(&mut octets) {
                Ok(0) => return Heard::End,
                Ok(n) => self.buffer.extend_from_slice(&octets[..n]),
                Err(e) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&e.kind()) => {}
                Err(_) => return Heard::End,
            }
        }
    }

    fn take_message(&mut self) -> Option<(u8, Vec<u8>)> {
        let header = self.buffer.get(..HEADER)?;
        let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let kind = header[18];
        let body = self.buffer.get(HEADER..len)?.to_vec();
        self.buffer.drain(..len);
        Some((kind, body))
    }
}

/// A whole message (RFC 4271 section 4.1).
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend(((HEADER + body.len()) as u16).to_be_bytes());
    out.push(kind);
    out.extend_from_slice(body);
    out
}

/// With IPv4 unicast, route refresh and four-octet AS numbers (RFC 4271 section 4.2, RFC 5492).
fn open(id: Ipv4Addr, asn: u32) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 2, 0, 65, 4];
    capabilities.extend(asn.to_be_bytes());
    let len = capabilities.len() as u8;
    let mut body = vec![4];
    body.extend(u16::try_from(asn).unwrap_or(23456).to_be_bytes());
    body.extend(HOLD.to_be_bytes());
    body.extend(id.octets());
    body.extend([len + 2, 2, len]);
    body.extend(capabilities);
    body
}

/// A path attribute with a short length (RFC 4271 section 4.3).
pub fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    [&[flags, code, value.len() as u8], value].concat()
}

/// The body of an UPDATE that announces.
pub fn update(attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend_from_slice(attributes);
    body.extend_from_slice(nlri);
    body
}

/// ORIGIN, AS_PATH and NEXT_HOP as they should be.
pub fn good_attributes(asn: u32, next_hop: Ipv4Addr) -> Vec<u8> {
    let path = [&[2, 1], &asn.to_be_bytes()[..]].concat();
    [attribute(0x40, 1, &[0]), attribute(0x40, 2, &path), attribute(0x40, 3, &next_hop.octets())].concat()
}
