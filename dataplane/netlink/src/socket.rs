//! One netlink socket: batches out, answers in.

use crate::reply::{Header, Reply, next_message, verdict};
use crate::request::Request;
use crate::{Error, Netns};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR};
use netlink_sys::Socket;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io;
use std::time::Duration;

/// The kernel fills at most 32 KiB per datagram of a dump (netlink_dump, net/netlink/af_netlink.c).
const BUFFER: usize = 64 * 1024;
/// How often a dump is asked again that changed while it was read.
const DUMP_TRIES: usize = 5;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A route netlink socket in one namespace. It stays there wherever its thread goes.
#[derive(Debug)]
pub struct Nl {
    socket: Socket,
    timeout: Duration,
    seq: u32,
    buf: Vec<u8>,
}

/// What became of one request of a batch.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub failed: Option<Error>,
    pub replies: Vec<Reply>,
}

impl Outcome {
    fn add(&mut self, request: &Request, header: Header, body: &[u8]) {
        match header.kind {
            NLMSG_NOOP => {}
            NLMSG_ERROR => self.failed = verdict(header, body).map(|verdict| refused(request, verdict)),
            kind => self.replies.push(Reply { kind, body: body.to_vec() }),
        }
    }

    pub fn ok(self) -> Result<Vec<Reply>, Error> {
        self.failed.map_or(Ok(self.replies), Err)
    }

    pub fn errno(&self) -> Option<Errno> {
        self.failed.as_ref().and_then(Error::errno)
    }
}

impl Nl {
    /// A socket in the calling thread's namespace. No single wait for the kernel exceeds
    /// `timeout` (at least 1 ms).
    ///
    /// # Errors
    /// `Io` when the socket cannot be made.
    pub fn here(timeout: Duration) -> Result<Nl, Error> {
        Nl::open(netlink_sys::protocols::NETLINK_ROUTE, timeout)
    }

    /// A socket inside `netns`.
    ///
    /// # Errors
    /// `Netns` when it cannot be entered; else as [`Nl::here`].
    pub fn inside(netns: &Netns, timeout: Duration) -> Result<Nl, Error> {
        netns.run(|| Nl::here(timeout))?
    }

    /// The bound that it was made with.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn open(protocol: isize, timeout: Duration) -> Result<Nl, Error> {
        let made = Socket::new(protocol).and_then(|socket| {
            socket.set_ext_ack(true)?;
            set_receive_timeout(&socket, timeout)?;
            Ok(socket)
        });
        match made {
            Ok(socket) => Ok(Nl { socket, timeout, seq: 0, buf: Vec::with_capacity(BUFFER) }),
            Err(source) => Err(Error::Io { op: "open", subject: "netlink socket".into(), source }),
        }
    }

    /// Sends all requests in one write and collects what became of each, in order.
    ///
    /// The kernel works them off one after the other and reports every failure unasked, so only the
    /// last one asks for an acknowledgement (unless it has an answer anyway): silence before it is
    /// success. A failure does not stop the requests after it.
    pub(crate) fn batch(&mut self, requests: &[Request]) -> Result<Vec<Outcome>, Error> {
        let Some(last) = requests.last() else { return Ok(Vec::new()) };
        let first_seq = self.seq.wrapping_add(1);
        self.seq = self.seq.wrapping_add(requests.len() as u32);
        let mut bytes = Vec::with_capacity(2048);
        for (i, request) in requests.iter().enumerate() {
            let confirm = i + 1 == requests.len() && !request.is_question;
            request.append(&mut bytes, first_seq.wrapping_add(i as u32), confirm);
        }
        self.send(&bytes, last)?;
        self.collect(requests, first_seq)
    }

    fn collect(&mut self, requests: &[Request], first_seq: u32) -> Result<Vec<Outcome>, Error> {
        let mut outcomes: Vec<Outcome> =
            requests.iter().map(|_| Outcome { failed: None, replies: Vec::new() }).collect();
        let last = requests.len() - 1;
        let mut done = false;
        while !done {
            self.receive(&requests[last])?;
            let mut rest = self.buf.as_slice();
            while let Some((header, body, tail)) = next_message(rest) {
                rest = tail;
                // Late answers to a batch that timed out have numbers below.
                let index = header.seq.wrapping_sub(first_seq) as usize;
                if let Some(request) = requests.get(index) {
                    outcomes[index].add(request, header, body);
                    done |= index == last && (header.kind == NLMSG_ERROR || request.is_question);
                }
            }
        }
        Ok(outcomes)
    }

    /// All requests of a batch must succeed; the first failure is the error.
    pub(crate) fn must(&mut self, requests: &[Request]) -> Result<Vec<Vec<Reply>>, Error> {
        self.batch(requests)?.into_iter().map(Outcome::ok).collect()
    }

    /// One request.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Outcome, Error> {
        let mut outcomes = self.batch(std::slice::from_ref(&request))?;
        Ok(outcomes.pop().expect("a batch has as many outcomes as requests"))
    }

    /// A dump, whole and consistent: one that changed under way is asked again; after a few times the
    /// last one has to do. `read` picks what is kept of each message: the whole may be huge.
    pub(crate) fn dump<T>(
        &mut self,
        make: impl Fn(u16) -> Request,
        read: impl Fn(Reply) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        for _ in 0..DUMP_TRIES {
            found.clear();
            let keep = |reply| found.extend(read(reply));
            let torn = self.dump_once(&make(NLM_F_DUMP), keep)?;
            if !torn {
                break;
            }
        }
        Ok(found)
    }

    /// A dump that the kernel filters by the request's header (since 4.20; before, `read` has to).
    pub(crate) fn dump_filtered<T>(
        &mut self,
        make: impl Fn(u16) -> Request,
        read: impl Fn(Reply) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let is_strict = self.socket.set_netlink_get_strict_chk(true).is_ok();
        let found = self.dump(make, read);
        if is_strict {
            let _ = self.socket.set_netlink_get_strict_chk(false);
        }
        found
    }

    /// True when the listed things changed meanwhile.
    fn dump_once(&mut self, request: &Request, mut keep: impl FnMut(Reply)) -> Result<bool, Error> {
        self.seq = self.seq.wrapping_add(1);
        let mut bytes = Vec::new();
        request.append(&mut bytes, self.seq, false);
        self.send(&bytes, request)?;
        let mut torn = false;
        loop {
            self.receive(request)?;
            let mut rest = self.buf.as_slice();
            while let Some((header, body, tail)) = next_message(rest) {
                rest = tail;
                if header.seq != self.seq {
                    continue;
                }
                torn |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.kind {
                    NLMSG_NOOP => {}
                    // Both carry an error number first; DONE of an old kernel may carry nothing.
                    NLMSG_DONE if body.len() < 4 => return Ok(torn),
                    NLMSG_DONE | NLMSG_ERROR => {
                        return verdict(header, body).map_or(Ok(torn), |v| Err(refused(request, v)));
                    }
                    kind => keep(Reply { kind, body: body.to_vec() }),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8], last: &Request) -> Result<(), Error> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Io { op: last.op, subject: last.subject.clone(), source });
                }
            }
        }
    }

    /// Fills the buffer with one datagram.
    fn receive(&mut self, waiting_for: &Request) -> Result<(), Error> {
        let Request { op, subject, .. } = waiting_for;
        loop {
            self.buf.clear();
            match self.socket.recv(&mut &mut self.buf, libc::MSG_TRUNC) {
                Ok(n) if n > self.buf.len() => {
                    return Err(Error::Malformed { op, subject: subject.clone() });
                }
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Error::TimedOut { op, subject: subject.clone() });
                }
                Err(source) => return Err(Error::Io { op, subject: subject.clone(), source }),
            }
        }
    }
}

fn refused(request: &Request, (source, hint): (Errno, String)) -> Error {
    Error::Refused { op: request.op, subject: request.subject.clone(), source, hint }
}

fn set_receive_timeout(socket: &Socket, timeout: Duration) -> io::Result<()> {
    // Zero would stand for no bound.
    let bound = timeout.max(Duration::from_millis(1));
    set_socket_timeout(socket, Timeout::Recv, Some(bound)).map_err(Into::into)
}
