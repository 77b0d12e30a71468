//! Traffic between two namespaces. Sockets belong to the namespace they were made in, so both
//! ends can be held by one thread afterwards.

use crate::netns::Netns;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(3);

/// Bytes of the IP and UDP headers.
pub const fn udp_overhead(ip: IpAddr) -> usize {
    if ip.is_ipv4() { 28 } else { 48 }
}

/// Connects from one namespace to `ip` in the other and sends a line each way. Answers the
/// address that the server saw.
pub fn tcp(from: &Netns, to: &Netns, ip: IpAddr) -> io::Result<IpAddr> {
    let server = to.run(|| TcpListener::bind((any(ip), 0)))?;
    let goal = SocketAddr::new(ip, server.local_addr()?.port());
    tcp_to(from, goal, &server)
}

/// As [`tcp`], to any address that leads to `server`.
pub fn tcp_to(from: &Netns, goal: SocketAddr, server: &TcpListener) -> io::Result<IpAddr> {
    let mut client = from.run(|| TcpStream::connect_timeout(&goal, LIMIT))?;
    let (mut accepted, peer) = server.accept()?;
    exchange(&mut client, &mut accepted, b"there")?;
    exchange(&mut accepted, &mut client, b"and back")?;
    Ok(peer.ip())
}

fn exchange(out: &mut TcpStream, into: &mut TcpStream, text: &[u8]) -> io::Result<()> {
    into.set_read_timeout(Some(LIMIT))?;
    out.write_all(text)?;
    let mut got = vec![0; text.len()];
    into.read_exact(&mut got)?;
    if got == text { Ok(()) } else { Err(io::Error::other("the bytes changed on the way")) }
}

/// Sends a datagram of `payload` bytes with fragmentation forbidden and has it sent back.
pub fn udp(from: &Netns, to: &Netns, ip: IpAddr, payload: usize) -> io::Result<IpAddr> {
    let server = to.run(|| UdpSocket::bind((any(ip), 0)))?;
    let client = from.run(|| UdpSocket::bind((any(ip), 0)))?;
    for socket in [&server, &client] {
        forbid_fragments(socket, ip)?;
        socket.set_read_timeout(Some(LIMIT))?;
    }
    let sent: Vec<u8> = (0..payload).map(|i| i.to_le_bytes()[0]).collect();
    client.send_to(&sent, (ip, server.local_addr()?.port()))?;
    let mut got = vec![0; 65_536];
    let (len, peer) = server.recv_from(&mut got)?;
    server.send_to(&got[..len], peer)?;
    let len = client.recv(&mut got)?;
    if got[..len] == sent { Ok(peer.ip()) } else { Err(io::Error::other("the bytes changed on the way")) }
}

fn forbid_fragments(socket: &UdpSocket, ip: IpAddr) -> io::Result<()> {
    match ip {
        IpAddr::V4(_) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DO)?,
        IpAddr::V6(_) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DO)?,
    }
    Ok(())
}

fn any(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Asserts that both protocols work, that a datagram that fills `mtu` passes unfragmented, and
/// that one byte more is refused; and that the far side sees `source` if one is given.
pub fn everything(from: &Netns, to: &Netns, ip: IpAddr, mtu: usize, source: Option<IpAddr>) {
    let way = format!("{} to {} at {ip}", from.name(), to.name());
    let seen = tcp(from, to, ip).unwrap_or_else(|e| panic!("TCP {way}: {e}"));
    let room = mtu - udp_overhead(ip);
    udp(from, to, ip, 32).unwrap_or_else(|e| panic!("UDP {way}: {e}"));
    udp(from, to, ip, room).unwrap_or_else(|e| panic!("UDP of {mtu} bytes {way}: {e}"));
    let refused = udp(from, to, ip, room + 1).expect_err("a packet above the MTU is refused");
    assert_eq!(
        refused.raw_os_error(),
        Some(rustix::io::Errno::MSGSIZE.raw_os_error()),
        "UDP above the MTU, {way}: {refused}"
    );
    if let Some(source) = source {
        assert_eq!(seen, source, "source address {way}");
    }
}
