//! Traffic between sockets of several namespaces. A socket stays where it was opened, so one thread
//! can hold both ends.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// Far below the second after which the kernel repeats a lost SYN, far above a busy machine's delays.
pub const AT_ONCE: Duration = Duration::from_millis(700);

pub fn listen(ip: IpAddr) -> TcpListener {
    TcpListener::bind((ip, 0)).unwrap()
}

/// Connects from the calling thread's namespace and sends a line both ways.
pub fn talk_tcp(mut client: TcpStream, server: &TcpListener) {
    client.set_read_timeout(Some(AT_ONCE)).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    accepted.set_read_timeout(Some(AT_ONCE)).unwrap();
    client.write_all(b"ping").unwrap();
    let mut buf = [0; 4];
    accepted.read_exact(&mut buf).unwrap();
    accepted.write_all(b"pong").unwrap();
    client.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"pong");
}

pub fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, AT_ONCE)
}

pub fn udp(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(AT_ONCE)).unwrap();
    socket
}

/// A datagram there, whose sender is seen as `client`'s own address, and one back.
pub fn talk_udp(client: &UdpSocket, server: &UdpSocket) {
    let (from, to) = (client.local_addr().unwrap(), server.local_addr().unwrap());
    client.send_to(b"ping", to).unwrap();
    let mut buf = [0; 16];
    let (_, sender) = server.recv_from(&mut buf).unwrap_or_else(|e| panic!("{from} -> {to}: {e}"));
    assert_eq!(sender, from);
    server.send_to(b"pong", sender).unwrap();
    client.recv_from(&mut buf).unwrap_or_else(|e| panic!("{to} -> {from}: {e}"));
}

/// Asks until it is true, at most `limit`.
pub fn eventually(limit: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !is_true() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
