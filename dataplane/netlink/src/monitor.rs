//! What the kernel reports of changes, whoever makes them.

use crate::inspect::{self, PodRouteSeen};
use crate::link::{self, Link};
use crate::reply::{Reply, next_message, u32_at};
use crate::{Error, Nl};
use ipnet::IpNet;
use netlink_sys::Socket;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Groups of linux/rtnetlink.h: links, neighbours, addresses and routes of both families, rules of
/// both, settings of both.
const GROUPS: [u32; 10] = [1, 3, 5, 7, 8, 9, 11, 19, 24, 25];
/// NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h.
const NFTABLES: u32 = 7;
/// Bytes that may wait while nobody reads; what is lost beyond is told as [`Seen::Lost`].
const ROOM: libc::c_int = 4 << 20;

/// Reports gather for so long: a pod's link makes dozens, and whoever makes it should not share its processors
/// with a listener that is woken by each.
pub const GATHER: Duration = Duration::from_millis(20);
/// Reports that are told at once, about.
const MOST: usize = 4096;

/// One reported change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Link(Box<Link>),
    LinkGone {
        ifindex: u32,
        name: String,
    },
    Address {
        ifindex: u32,
        net: IpNet,
    },
    Route {
        route: Box<PodRouteSeen>,
        gone: bool,
    },
    /// A neighbour or a forwarding entry.
    Neighbour {
        ifindex: u32,
        gone: bool,
    },
    Rule,
    /// A setting under `net.ipv4.conf` or `net.ipv6.conf`.
    Setting,
    /// Something in nftables.
    Ruleset,
    /// Reports were lost: anything may have changed.
    Lost,
}

/// A socket that hears of changes in one namespace.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    buf: Vec<u8>,
    read: fn(&Reply) -> Option<Seen>,
}

impl Monitor {
    /// Hears of links, addresses, routes, neighbours, rules and settings in the calling thread's namespace.
    ///
    /// # Errors
    /// `Io`.
    pub fn routes() -> Result<Self, Error> {
        Self::open(netlink_sys::protocols::NETLINK_ROUTE, &GROUPS, report)
    }

    /// Hears of nftables in the calling thread's namespace.
    ///
    /// # Errors
    /// `Io`.
    pub fn nftables() -> Result<Self, Error> {
        Self::open(netlink_sys::protocols::NETLINK_NETFILTER, &[NFTABLES], |_| Some(Seen::Ruleset))
    }

    fn open(protocol: isize, groups: &[u32], read: fn(&Reply) -> Option<Seen>) -> Result<Self, Error> {
        let failed = |source| Error::Io { op: "open", subject: "netlink monitor".into(), source };
        let mut socket = Socket::new(protocol).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        for group in groups {
            socket.add_membership(*group).map_err(failed)?;
        }
        make_room(&socket);
        Ok(Self { socket, buf: Vec::with_capacity(64 << 10), read })
    }

    /// The next reports; none when nothing came within `limit` (at least 1 ms). What comes within [`GATHER`] of
    /// the first is told with it.
    ///
    /// # Errors
    /// `Io`.
    pub fn next(&mut self, limit: Duration) -> Result<Vec<Seen>, Error> {
        let bound = limit.max(Duration::from_millis(1));
        set_socket_timeout(borrowed(&self.socket), Timeout::Recv, Some(bound))
            .map_err(|e| failed(e.into()))?;
        let mut all = Vec::new();
        if self.take(&mut all, 0)? {
            std::thread::sleep(GATHER);
            while all.len() < MOST && self.take(&mut all, libc::MSG_DONTWAIT)? {}
        }
        Ok(all)
    }

    /// Whether there was something.
    fn take(&mut self, all: &mut Vec<Seen>, flags: libc::c_int) -> Result<bool, Error> {
        self.buf.clear();
        match self.socket.recv(&mut &mut self.buf, flags) {
            Ok(_) => self.parse(all),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NOBUFS) => all.push(Seen::Lost),
            Err(e) => return Err(failed(e)),
        }
        Ok(true)
    }

    fn parse(&self, all: &mut Vec<Seen>) {
        let mut rest = self.buf.as_slice();
        while let Some((header, body, tail)) = next_message(rest) {
            rest = tail;
            all.extend((self.read)(&Reply { kind: header.kind, body: body.to_vec() }));
        }
    }
}

impl Nl {
    /// The link at an index, if there is one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn link_at(&mut self, ifindex: u32) -> Result<Option<Link>, Error> {
        link::link_at(self, ifindex)
    }
}

fn failed(source: io::Error) -> Error {
    Error::Io { op: "read", subject: "netlink monitor".into(), source }
}

fn borrowed(socket: &Socket) -> BorrowedFd<'_> {
    // SAFETY: the socket owns the descriptor for at least as long as the borrow of it lasts.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// More than the system's limit where we may. A smaller buffer only means `Lost` earlier.
fn make_room(socket: &Socket) {
    // SAFETY: the option takes an int, whose address and size are given.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            std::ptr::from_ref(&ROOM).cast(),
            size_of_val(&ROOM) as libc::socklen_t,
        );
    }
}

pub(crate) fn report(reply: &Reply) -> Option<Seen> {
    const RTM_NEWNETCONF: u16 = 80;
    const RTM_DELNETCONF: u16 = 81;
    Some(match reply.kind {
        libc::RTM_NEWLINK => Seen::Link(Box::new(link::parse(reply)?)),
        libc::RTM_DELLINK => {
            let link = link::parse(&as_new(reply, libc::RTM_NEWLINK))?;
            Seen::LinkGone { ifindex: link.index, name: link.name }
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            let address = inspect::address(&as_new(reply, libc::RTM_NEWADDR))?;
            Seen::Address { ifindex: address.ifindex, net: address.net }
        }
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            let route = Box::new(inspect::route(&as_new(reply, libc::RTM_NEWROUTE))?);
            Seen::Route { route, gone: reply.kind == libc::RTM_DELROUTE }
        }
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
            let (header, _) = reply.split(12)?;
            Seen::Neighbour { ifindex: u32_at(&header[4..])?, gone: reply.kind == libc::RTM_DELNEIGH }
        }
        libc::RTM_NEWRULE | libc::RTM_DELRULE => Seen::Rule,
        RTM_NEWNETCONF | RTM_DELNETCONF => Seen::Setting,
        _ => return None,
    })
}

/// Departures have the form of arrivals.
fn as_new(reply: &Reply, kind: u16) -> Reply {
    Reply { kind, body: reply.body.clone() }
}
