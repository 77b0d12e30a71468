//! What changes in the kernel's routes and links, as it happens.

use crate::Error;
use crate::fib::{FibRoute, parse_fib};
use crate::reply::{Reply, next_message};
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Multicast groups of linux/rtnetlink.h: links, addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Room for a burst of events while the owner is busy; past it the kernel says so once.
const ROOM: usize = 8 << 20;

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FibEvent {
    Added(FibRoute),
    Removed(FibRoute),
    /// A link or an address came, went or changed.
    Links,
    /// Events were lost: look at everything anew.
    Lost,
}

/// A socket in the calling thread's namespace that hears of changes. Non-blocking.
#[derive(Debug)]
pub struct FibMonitor {
    socket: Socket,
    buf: Vec<u8>,
}

impl FibMonitor {
    /// Starts to listen. What changes from now on is told, also what this process changes itself.
    ///
    /// # Errors
    /// `Io` when the socket cannot be made.
    pub fn here() -> Result<FibMonitor, Error> {
        let made = Socket::new(netlink_sys::protocols::NETLINK_ROUTE).and_then(|mut socket| {
            socket.bind(&SocketAddr::new(0, GROUPS))?;
            socket.set_non_blocking(true)?;
            socket.set_rx_buf_sz(ROOM)?;
            Ok(socket)
        });
        let fail = |source| Error::Io { op: "watch", subject: "routes".into(), source };
        Ok(FibMonitor { socket: made.map_err(fail)?, buf: Vec::with_capacity(64 * 1024) })
    }

    /// The events that are there; none when there are none.
    pub fn read(&mut self) -> Vec<FibEvent> {
        let mut events = Vec::new();
        loop {
            self.buf.clear();
            match self.socket.recv(&mut &mut self.buf, 0) {
                Ok(_) => read_all(&self.buf, &mut events),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return events,
                // ENOBUFS; or a failure after which only a new look helps.
                Err(_) => {
                    events.push(FibEvent::Lost);
                    return events;
                }
            }
        }
    }

    /// For a poller.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self`, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

pub(crate) fn read_all(mut bytes: &[u8], events: &mut Vec<FibEvent>) {
    while let Some((header, body, rest)) = next_message(bytes) {
        bytes = rest;
        let reply = Reply { kind: header.kind, body: body.to_vec() };
        match header.kind {
            libc::RTM_NEWROUTE => events.extend(parse_fib(&reply).map(FibEvent::Added)),
            libc::RTM_DELROUTE => events.extend(parse_fib(&reply).map(FibEvent::Removed)),
            _ if events.last() != Some(&FibEvent::Links) => events.push(FibEvent::Links),
            _ => {}
        }
    }
}
