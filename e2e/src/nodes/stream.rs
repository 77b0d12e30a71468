//! Traffic that goes on while things happen.

use super::Pod;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Numbered datagrams every few milliseconds, each sent back; how many did not come back.
pub struct Stream {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<u32>>,
    echo: thread::JoinHandle<()>,
}

impl Stream {
    pub fn start(from: &Pod, to: &Pod) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ip = to.ip(true);
        let server = to.netns.run(|| UdpSocket::bind("0.0.0.0:0")).expect("sockets of the bed work");
        let port = server.local_addr().expect("sockets of the bed work").port();
        let client = from.netns.run(|| UdpSocket::bind("0.0.0.0:0")).expect("sockets of the bed work");
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_millis(200))).expect("sockets of the bed work");
        }
        let ended = stop.clone();
        let echo = thread::spawn(move || echo(&server, &ended));
        let sending = client.try_clone().expect("sockets of the bed work");
        let ended = stop.clone();
        let sent = thread::spawn(move || send(&sending, ip, port, &ended));
        let ended = stop.clone();
        let received = thread::spawn(move || receive(&client, &ended));
        Self { stop, threads: vec![sent, received], echo }
    }

    /// Sent and lost.
    ///
    /// # Panics
    /// Where a socket failed.
    pub fn end(self) -> (u32, u32) {
        thread::sleep(Duration::from_millis(300));
        self.stop.store(true, Ordering::Relaxed);
        let counts: Vec<u32> =
            self.threads.into_iter().map(|t| t.join().expect("sockets of the bed work")).collect();
        self.echo.join().expect("sockets of the bed work");
        (counts[0], counts[0] - counts[1])
    }
}

fn send(socket: &UdpSocket, ip: IpAddr, port: u16, stop: &AtomicBool) -> u32 {
    let mut number = 0u32;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        socket.send_to(&number.to_be_bytes(), (ip, port)).expect("sockets of the bed work");
        thread::sleep(Duration::from_millis(5));
    }
    number
}

/// Ends when nothing came for a while after the stop.
fn receive(socket: &UdpSocket, stop: &AtomicBool) -> u32 {
    let (mut buf, mut count) = ([0; 8], 0);
    loop {
        match socket.recv(&mut buf) {
            Ok(_) => count += 1,
            Err(_) if stop.load(Ordering::Relaxed) => return count,
            Err(_) => {}
        }
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buf = [0; 8];
    loop {
        match socket.recv_from(&mut buf) {
            Ok((len, peer)) => drop(socket.send_to(&buf[..len], peer)),
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(_) => {}
        }
    }
}
