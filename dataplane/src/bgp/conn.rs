//! One TCP connection: what waits to be sent, and an end that lets the last message arrive.

use bgp::rib::PeerId;
use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Octets taken from a socket at a time: others get their turn.
pub(super) const READ: usize = 64 * 1024;
/// Messages in one system call.
const GATHER: usize = 64;
/// For a connection to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// For the peer to take our last words.
const FAREWELL: Duration = Duration::from_secs(2);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
    /// Nothing is taken in any more; it goes once the peer has everything, or at the deadline.
    Closing,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub peer: PeerId,
    pub stream: TcpStream,
    pub phase: Phase,
    pub deadline: Option<Instant>,
    waiting: VecDeque<Vec<u8>>,
    /// Octets of the first that are sent.
    sent: usize,
    pub queued: usize,
    /// What the poller was last told.
    pub wants_write: bool,
    shut: bool,
}

/// What came of reading.
pub(super) enum Got {
    Data(Vec<u8>),
    Nothing,
    End,
}

impl Conn {
    pub fn connecting(peer: PeerId, stream: TcpStream) -> Self {
        let deadline = Some(Instant::now() + CONNECT);
        Conn { phase: Phase::Connecting, deadline, wants_write: true, ..Self::open(peer, stream) }
    }

    pub fn open(peer: PeerId, stream: TcpStream) -> Self {
        Conn {
            peer,
            stream,
            phase: Phase::Open,
            deadline: None,
            waiting: VecDeque::new(),
            sent: 0,
            queued: 0,
            wants_write: false,
            shut: false,
        }
    }

    /// The outcome of a connection attempt, once the socket is writable.
    pub fn connected(&mut self) -> std::io::Result<()> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        self.stream.peer_addr()?;
        self.phase = Phase::Open;
        self.deadline = None;
        Ok(())
    }

    pub fn push(&mut self, octets: Vec<u8>) {
        self.queued += octets.len();
        self.waiting.push_back(octets);
    }

    /// Sends what the socket takes. False: the connection is broken.
    pub fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            let mut slices: Vec<IoSlice<'_>> =
                self.waiting.iter().take(GATHER).map(|m| IoSlice::new(m)).collect();
            slices[0].advance(self.sent);
            match self.stream.write_vectored(&slices) {
                Ok(n) => self.advance(n),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        if self.phase == Phase::Closing && !std::mem::replace(&mut self.shut, true) {
            return self.stream.shutdown(Shutdown::Write).is_ok();
        }
        true
    }

    fn advance(&mut self, mut n: usize) {
        self.queued -= n;
        n += self.sent;
        while let Some(first) = self.waiting.front().filter(|m| m.len() <= n) {
            n -= first.len();
            self.waiting.pop_front();
        }
        self.sent = n;
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// By way of a buffer of the caller's.
    pub fn read(&mut self, buffer: &mut [u8]) -> Got {
        match self.stream.read(buffer) {
            Ok(0) => Got::End,
            Ok(n) => Got::Data(buffer[..n].to_vec()),
            Err(e) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&e.kind()) => Got::Nothing,
            Err(_) => Got::End,
        }
    }

    /// Sends what is left, says that nothing follows, and waits for the peer to do the same: closing at once
    /// would make the kernel answer unread octets with a reset, which throws our last message away.
    pub fn close(&mut self) {
        self.phase = Phase::Closing;
        self.deadline = Some(Instant::now() + FAREWELL);
    }
}
