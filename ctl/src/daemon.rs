//! Asking the host's daemon how it is, at its health address.

use anyhow::{Context as _, Result};
use peering::control::Daemon;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Where the daemon answers unless it is told otherwise.
pub const HEALTH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9099);

/// For a daemon that is hung.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer; what is beyond is no answer of ours.
const MOST: u64 = 1 << 20;

/// `GET /status`.
///
/// # Errors
/// Where nobody listens there, or something else does.
pub fn ask(at: SocketAddr) -> Result<Daemon> {
    let asking = || format!("asking percaled at {at} (its --health-addr)");
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE).with_context(asking)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /status HTTP/1.0\r\nHost: {at}\r\n\r\n").with_context(asking)?;
    let mut answer = String::new();
    stream.take(MOST).read_to_string(&mut answer).with_context(asking)?;
    let (_, body) = answer.split_once("\r\n\r\n").with_context(asking)?;
    serde_json::from_str(body).with_context(asking)
}

/// A line for each thing that is to be known.
pub fn text(daemon: &Daemon) -> String {
    let state = if !daemon.hung.is_empty() {
        "hung"
    } else if daemon.not_ready.is_empty() {
        "ready"
    } else {
        "not ready"
    };
    let mut text = format!("percaled {}: {state}\n", daemon.version);
    for (what, lines) in
        [("hung", &daemon.hung), ("not ready", &daemon.not_ready), ("wrong", &daemon.warnings)]
    {
        text.extend(lines.iter().map(|line| format!("{what}: {line}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(text: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
        });
        at
    }

    #[test]
    fn the_answer_is_read_and_told() {
        let at = answering(
            "HTTP/1.0 200 OK\r\n\r\n{\"version\":\"1\",\"not_ready\":[\"plane: no address\"],\"hung\":[],\"warnings\":[\"x\"]}\n",
        );
        assert_eq!(
            text(&ask(at).unwrap()),
            "percaled 1: not ready\nnot ready: plane: no address\nwrong: x\n"
        );
    }

    #[test]
    fn what_is_no_daemon_is_an_error_that_names_the_address() {
        for other in ["HTTP/1.0 404 Not Found\r\n\r\nno such page\n", "SSH-2.0\r\n", ""] {
            let at = answering(other);
            assert!(format!("{:#}", ask(at).unwrap_err()).contains(&at.to_string()), "{other}");
        }
    }
}
