//! TCP sockets with what BGP needs: MD5 signatures (RFC 2385), TTL security (RFC 5082), a source address.

use bgp::Prefix;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

/// Linux: net/tcp.h, uapi/linux/tcp.h.
const TCP_MD5SIG: libc::c_int = 14;
const TCP_MD5SIG_EXT: libc::c_int = 32;
const TCP_MD5SIG_MAXKEYLEN: usize = 80;
const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;
const TCP_SAVE_SYN: libc::c_int = 27;
const TCP_SAVED_SYN: libc::c_int = 28;
const IPV6_MINHOPCOUNT: libc::c_int = 73;
const IP_MINTTL: libc::c_int = 21;
/// Internetwork control (RFC 4271 appendix E).
const CS6: u32 = 0xc0;
const BACKLOG: i32 = 128;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct Md5Sig {
    addr: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    ifindex: libc::c_int,
    key: [u8; TCP_MD5SIG_MAXKEYLEN],
}

/// How to make a connection.
#[derive(Clone, Debug)]
pub(super) struct Dial<'a> {
    pub to: SocketAddr,
    pub source: Option<IpAddr>,
    pub password: Option<&'a str>,
    pub ttl_security: Option<u8>,
}

/// Begins a connection; it is there, or failed, when the socket becomes writable.
pub(super) fn connect(dial: &Dial<'_>) -> io::Result<TcpStream> {
    let socket = tcp(dial.to.ip())?;
    if let Some(source) = dial.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    if let Some(password) = dial.password {
        set_md5(&socket, &Prefix::host(dial.to.ip()), Some(password))?;
    }
    require_ttl(&socket, dial.to.ip(), dial.ttl_security)?;
    match socket.connect(&dial.to.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(e) => return Err(e),
    }
    Ok(socket.into())
}

/// A listening socket of one family alone.
pub(super) fn listen(on: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp(on.ip())?;
    if on.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    set_option(&socket, libc::IPPROTO_TCP, TCP_SAVE_SYN, &1)?;
    socket.bind(&on.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The TTL or hop limit of the packet that opened an accepted connection. `None` where the kernel did not keep it, as
/// under a flood of such packets.
fn opening_ttl(socket: &impl AsRawFd) -> Option<u8> {
    // Headers of IP and TCP, whole: the kernel refuses a shorter buffer.
    let mut header = [0u8; 256];
    let mut len = size_of_val(&header) as libc::socklen_t;
    // SAFETY: `header` is `len` writable bytes for the time of the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_SAVED_SYN,
            header.as_mut_ptr().cast(),
            &mut len,
        )
    };
    match (done, header[0] >> 4) {
        (0, 4) if len >= 20 => Some(header[8]),
        (0, 6) if len >= 40 => Some(header[7]),
        _ => None,
    }
}

/// As [`require_ttl`], for a connection that was accepted: what came before the option was set is judged by the packet
/// that opened it.
pub(super) fn require_ttl_of_accepted(
    socket: &impl AsRawFd,
    peer: IpAddr,
    hops: Option<u8>,
) -> io::Result<()> {
    require_ttl(socket, peer, hops)?;
    let Some(hops) = hops else { return Ok(()) };
    match opening_ttl(socket) {
        Some(ttl) if ttl >= least_ttl(hops) => Ok(()),
        Some(ttl) => Err(io::Error::other(format!("it came with a TTL of {ttl}"))),
        None => Err(io::Error::other("its TTL is not known")),
    }
}

fn least_ttl(hops: u8) -> u8 {
    255 - hops.saturating_sub(1)
}

/// All addresses of both families, or those given.
pub(super) fn places(on: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let all = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    let on = if on.is_empty() { &all[..] } else { on };
    on.iter().map(|addr| SocketAddr::new(*addr, port)).collect()
}

fn tcp(family: IpAddr) -> io::Result<Socket> {
    let domain = if family.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    // The answer to a peer with TTL security must leave with 255, from a listening socket too.
    if family.is_ipv4() {
        socket.set_ttl_v4(255)?;
        socket.set_tos_v4(CS6)?;
    } else {
        socket.set_unicast_hops_v6(255)?;
        socket.set_tclass_v6(CS6)?;
    }
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// Takes only packets that crossed fewer than `hops` routers.
pub(super) fn require_ttl(socket: &impl AsRawFd, peer: IpAddr, hops: Option<u8>) -> io::Result<()> {
    let Some(hops) = hops else { return Ok(()) };
    let least = libc::c_int::from(least_ttl(hops));
    let (level, name) = match peer {
        IpAddr::V4(_) => (libc::IPPROTO_IP, IP_MINTTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT),
    };
    set_option(socket, level, name, &least)
}

/// Sets or (`None`) removes the password for peers in a network. The kernel drops segments without it.
pub(super) fn set_md5(socket: &impl AsRawFd, peers: &Prefix, password: Option<&str>) -> io::Result<()> {
    let key = password.unwrap_or_default().as_bytes();
    if key.len() > TCP_MD5SIG_MAXKEYLEN {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a password has at most 80 octets"));
    }
    // SAFETY: an all-zero sockaddr_storage is valid.
    let storage = unsafe { std::mem::zeroed() };
    let mut sig = Md5Sig {
        addr: storage,
        flags: 0,
        prefix_len: peers.prefix_len(),
        key_len: key.len() as u16,
        ifindex: 0,
        key: [0; TCP_MD5SIG_MAXKEYLEN],
    };
    sig.key[..key.len()].copy_from_slice(key);
    write_address(&mut sig.addr, peers.addr());
    let whole = *peers == Prefix::host(peers.addr());
    sig.flags = if whole { 0 } else { TCP_MD5SIG_FLAG_PREFIX };
    let name = if whole { TCP_MD5SIG } else { TCP_MD5SIG_EXT };
    match set_option(socket, libc::IPPROTO_TCP, name, &sig) {
        // Removing what is not there.
        Err(e) if password.is_none() && e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

fn write_address(storage: &mut libc::sockaddr_storage, ip: IpAddr) {
    let address = socket2::SockAddr::from(SocketAddr::new(ip, 0));
    let len = address.len() as usize;
    // SAFETY: `address` has `len` bytes, which fit every sockaddr_storage; the two do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            std::ptr::from_mut(storage).cast::<u8>(),
            len,
        );
    }
}

fn set_option<T>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is `len` readable bytes for the time of the call.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
