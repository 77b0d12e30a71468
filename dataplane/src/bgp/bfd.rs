//! BFD on sockets, in a thread of its own: a busy routing table must not make a session late.

use super::poller::{Poller, Ready, Waker};
use bgp::Time;
use bgp::bfd::{Input, Intervals, Output, Packet, Reach, Session, State};
use peering::BfdWish;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

const WOKEN: u64 = 0;
/// RFC 5881 section 4.
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;
const READ: Ready = Ready { read: true, write: false };
/// Between attempts to begin a session.
const RETRY: Duration = Duration::from_secs(1);

/// A session that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BfdPeer {
    pub wish: BfdWish,
    pub local: IpAddr,
}

impl BfdPeer {
    fn reach(&self) -> Reach {
        match self.wish.hops {
            None => Reach::SingleHop,
            Some(hops) => Reach::MultiHop { min_ttl: self.wish.ttl.saturating_sub(hops - 1) },
        }
    }

    fn intervals(&self) -> Intervals {
        Intervals {
            desired_min_tx: self.wish.interval,
            required_min_rx: self.wish.interval,
            detect_mult: self.wish.multiplier,
        }
    }
}

pub(super) type Wanted = BTreeMap<IpAddr, BfdPeer>;

struct Running {
    peer: BfdPeer,
    session: Session,
    socket: Socket,
    to: SocketAddr,
}

struct Listener {
    socket: Socket,
    reach_port: u16,
    v4: bool,
}

/// All sessions of the host.
pub(super) struct Bfd<F> {
    poller: Poller,
    begun: Instant,
    listeners: Vec<Listener>,
    sessions: BTreeMap<IpAddr, Running>,
    /// Sessions that could not begin: the node's address may come later.
    missing: Wanted,
    retry_at: Option<Time>,
    discriminator: u32,
    report: F,
}

impl<F: FnMut(IpAddr, Output)> Bfd<F> {
    pub fn new(waker: &Waker, report: F) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(waker.fd(), WOKEN, READ)?;
        // Different after a restart, so that the peer sees another session (RFC 5880 section 6.8.1).
        let discriminator = std::process::id().wrapping_mul(0x9e37_79b9) | 1;
        Ok(Bfd {
            poller,
            begun: Instant::now(),
            listeners: Vec::new(),
            sessions: BTreeMap::new(),
            missing: Wanted::new(),
            retry_at: None,
            discriminator,
            report,
        })
    }

    /// Until whoever orders is gone.
    pub fn run(mut self, orders: &Receiver<Wanted>, waker: &Waker) -> io::Result<()> {
        loop {
            let sessions = self.sessions.values().filter_map(|r| r.session.poll_timeout());
            let next = sessions.chain(self.retry_at).min();
            let ready = self.poller.wait(next.map(|at| at.saturating_sub(self.begun.elapsed())))?;
            for (token, _) in ready {
                match token {
                    WOKEN => waker.clear(),
                    listener => self.receive(listener as usize - 1),
                }
            }
            // One wake may stand for several orders.
            loop {
                match orders.try_recv() {
                    Ok(wanted) => self.set(wanted),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.timeouts();
        }
    }

    fn set(&mut self, wanted: Wanted) {
        self.sessions.retain(|addr, r| wanted.get(addr) == Some(&r.peer));
        let running = |addr: &IpAddr| self.sessions.contains_key(addr);
        self.missing = wanted.into_iter().filter(|(addr, _)| !running(addr)).collect();
        self.start_missing(|peer, error| tracing::warn!(%peer, %error, "no BFD session yet"));
    }

    fn start_missing(&mut self, failed: impl Fn(IpAddr, io::Error)) {
        for (addr, peer) in std::mem::take(&mut self.missing) {
            match self.start(addr, peer) {
                Ok(running) => drop(self.sessions.insert(addr, running)),
                Err(error) => {
                    failed(addr, error);
                    self.missing.insert(addr, peer);
                }
            }
        }
        self.retry_at = (!self.missing.is_empty()).then(|| self.begun.elapsed() + RETRY);
    }

    fn start(&mut self, addr: IpAddr, peer: BfdPeer) -> io::Result<Running> {
        let port = peer.reach().port();
        self.listen(addr.is_ipv4(), port)?;
        self.discriminator = self.discriminator.wrapping_add(2);
        let now = self.begun.elapsed();
        let seed = u64::from(self.discriminator);
        Ok(Running {
            peer,
            session: Session::new(peer.intervals(), self.discriminator, seed, now),
            socket: sender(peer.local, self.discriminator)?,
            to: SocketAddr::new(addr, port),
        })
    }

    fn listen(&mut self, v4: bool, port: u16) -> io::Result<()> {
        if self.listeners.iter().any(|l| (l.v4, l.reach_port) == (v4, port)) {
            return Ok(());
        }
        let socket = receiver(v4, port)?;
        self.poller.add(&socket, self.listeners.len() as u64 + 1, READ)?;
        self.listeners.push(Listener { socket, reach_port: port, v4 });
        Ok(())
    }

    fn receive(&mut self, listener: usize) {
        let Some(l) = self.listeners.get(listener) else { return };
        let port = l.reach_port;
        let mut all = Vec::new();
        // A flood of packets may not keep sessions from sending.
        while let Some(datagram) = receive_one(&l.socket).filter(|_| all.len() < 256) {
            all.push(datagram);
        }
        for (from, ttl, octets) in all {
            self.packet(port, from, ttl, &octets);
        }
    }

    fn packet(&mut self, port: u16, from: IpAddr, ttl: u8, octets: &[u8]) {
        let Ok(packet) = Packet::decode(octets) else { return };
        let Some(running) = self.sessions.get_mut(&from) else { return };
        let reach = running.peer.reach();
        if reach.port() == port && reach.accepts_ttl(ttl) {
            running.session.handle(Input::Packet(packet), self.begun.elapsed());
            self.obey(from);
        }
    }

    fn timeouts(&mut self) {
        let now = self.begun.elapsed();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.start_missing(|_, _| {});
        }
        let due = |r: &Running| r.session.poll_timeout().is_some_and(|at| at <= now);
        let all: Vec<IpAddr> = self.sessions.iter().filter(|(_, r)| due(r)).map(|(a, _)| *a).collect();
        for addr in all {
            if let Some(running) = self.sessions.get_mut(&addr) {
                running.session.handle_timeout(now);
            }
            self.obey(addr);
        }
    }

    fn obey(&mut self, addr: IpAddr) {
        let Some(running) = self.sessions.get_mut(&addr) else { return };
        while let Some(output) = running.session.poll_output() {
            match output {
                // A packet that does not leave is a lost one.
                Output::Send(packet) => drop(running.socket.send_to(&packet.encode(), &running.to.into())),
                event @ (Output::Up | Output::Down(_)) => (self.report)(addr, event),
            }
        }
    }
}

/// The state of a session as reports name it.
pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::AdminDown => "AdminDown",
        State::Down => "Down",
        State::Init => "Init",
        State::Up => "Up",
    }
}

fn udp(v4: bool) -> io::Result<Socket> {
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))
}

fn sender(local: IpAddr, seed: u32) -> io::Result<Socket> {
    let socket = udp(local.is_ipv4())?;
    match local.is_ipv4() {
        true => socket.set_ttl_v4(255)?,
        false => socket.set_unicast_hops_v6(255)?,
    }
    let count = u32::from(*SOURCE_PORTS.end() - *SOURCE_PORTS.start()) + 1;
    let mut last = None;
    for step in 0..64 {
        let port = SOURCE_PORTS.start() + ((seed >> 1).wrapping_add(step) % count) as u16;
        match socket.bind(&SocketAddr::new(local, port).into()) {
            Ok(()) => return Ok(socket),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => last = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

fn receiver(v4: bool, port: u16) -> io::Result<Socket> {
    let socket = udp(v4)?;
    socket.set_reuse_address(true)?;
    let any: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let (level, name) = match v4 {
        true => (libc::IPPROTO_IP, libc::IP_RECVTTL),
        false => (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
    };
    if !v4 {
        socket.set_only_v6(true)?;
    }
    let on: libc::c_int = 1;
    // SAFETY: `on` is a readable int for the time of the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&on).cast(),
            size_of_val(&on) as u32,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&SocketAddr::new(any, port).into())?;
    Ok(socket)
}

/// One datagram: who sent it, its TTL or hop limit, its octets.
fn receive_one(socket: &Socket) -> Option<(IpAddr, u8, Vec<u8>)> {
    let mut octets = vec![0u8; 512];
    let mut control = [0u64; 16];
    // SAFETY: all-zero values of these C structures are valid.
    let (mut from, mut message): (libc::sockaddr_storage, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut part = libc::iovec { iov_base: octets.as_mut_ptr().cast(), iov_len: octets.len() };
    message.msg_name = std::ptr::from_mut(&mut from).cast();
    message.msg_namelen = size_of_val(&from) as u32;
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: `message` points to buffers above, with their sizes, which live until after the call.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_TRUNC) };
    octets.truncate(usize::try_from(n).ok()?);
    let ttl = received_ttl(&message)?;
    // SAFETY: the kernel wrote an address of `msg_namelen` bytes into `from`.
    let from = unsafe { socket2::SockAddr::new(std::mem::transmute_copy(&from), message.msg_namelen) };
    Some((from.as_socket()?.ip(), ttl, octets))
}

fn received_ttl(message: &libc::msghdr) -> Option<u8> {
    // SAFETY: `message` was filled by recvmsg and its control buffer is alive and aligned; the CMSG functions
    // stay within `msg_controllen`.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let kind = ((*header).cmsg_level, (*header).cmsg_type);
            if [(libc::IPPROTO_IP, libc::IP_TTL), (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)].contains(&kind) {
                let value: libc::c_int = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast());
                return u8::try_from(value).ok();
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}
