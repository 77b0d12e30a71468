//! What an ADD may be made to wait for: URLs that must answer (`readiness_gates`), and the word of Calico's
//! agent that an endpoint's policy is in place (`policy_setup_timeout_seconds`).

use super::call::Call;
use super::endpoint;
use cni_protocol::CniError;
use datastore::Deadline;
use model::endpoint::{KUBERNETES, status_file_name};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// Longest wait for the gates together, as Calico's for each.
const LONGEST: Duration = Duration::from_secs(30);
/// Bound on one question.
const ANSWER: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);
const FILE_PAUSE: Duration = Duration::from_millis(20);
/// Where Calico's agent reports endpoints.
const STATUS_DIR: &str = "/var/run/calico/endpoint-status";

/// A URL that this module can ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    addresses: Vec<SocketAddr>,
    host: String,
    path: String,
}

impl Gate {
    /// `http://ADDRESS[:PORT][/PATH]`, or `localhost` for the address. `None` for anything else.
    pub fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("http://")?;
        if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return None;
        }
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Some(Self { addresses: addresses(host)?, host: host.to_owned(), path })
    }

    /// Whether it answers with success.
    fn is_open(&self) -> bool {
        self.addresses.iter().any(|address| self.ask(address).is_ok_and(|code| (200..300).contains(&code)))
    }

    fn ask(&self, address: &SocketAddr) -> io::Result<u16> {
        let mut stream = TcpStream::connect_timeout(address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        // In one piece: a server may answer, and close, after the first.
        let request =
            format!("GET {} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n\r\n", self.path, self.host);
        stream.write_all(request.as_bytes())?;
        // "HTTP/1.0 200"
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        let code = std::str::from_utf8(&start[9..]).ok().filter(|_| start.starts_with(b"HTTP/1."));
        code.and_then(|code| code.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

fn addresses(host: &str) -> Option<Vec<SocketAddr>> {
    if let Ok(address) = host.parse() {
        return Some(vec![address]);
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()?),
        _ => (host, 80),
    };
    let ips: Vec<IpAddr> = match name.trim_start_matches('[').trim_end_matches(']') {
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        ip => vec![ip.parse().ok()?],
    };
    Some(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// Waits until every gate has answered with success.
///
/// # Errors
/// Code 7 for a URL that cannot be asked, 11 when one does not answer so in time.
pub(crate) fn await_readiness(call: &Call) -> Result<(), CniError> {
    let deadline = Deadline::after(LONGEST.min(call.deadline.left()));
    for url in &call.conf.readiness_gates {
        let gate = Gate::parse(url).ok_or_else(|| {
            let msg = "is no http:// URL with an IP address or localhost";
            CniError::config(format!("readiness_gates: {url:?} {msg}"))
        })?;
        while !gate.is_open() {
            if deadline.left().is_zero() {
                let msg = format!("readiness_gates: {url} does not answer with success; try again");
                return Err(CniError::try_again(msg));
            }
            sleep(PAUSE);
        }
    }
    Ok(())
}

/// Waits for the agent's file about this endpoint, as long as the configuration allows; then the pod
/// starts all the same, as it does with Calico.
pub(crate) fn await_policy(call: &Call) {
    let limit = call.conf.policy_setup_timeout.min(call.deadline.left());
    let Some(file) = status_file(call).filter(|_| !limit.is_zero()) else { return };
    if !appears(&file, Deadline::after(limit)) {
        call.note(&format!("policy was not reported to be in place ({})", file.display()));
    }
}

fn status_file(call: &Call) -> Option<PathBuf> {
    let (namespace, pod) = call.req.args.pod().filter(|_| call.is_cluster())?;
    let dir = call.conf.path_keys.endpoint_status_dir.clone().unwrap_or_else(|| STATUS_DIR.into());
    let workload = format!("{namespace}/{pod}");
    Some(dir.join(status_file_name(KUBERNETES, &workload, endpoint::ifname(call, call.at()))))
}

fn appears(file: &Path, deadline: Deadline) -> bool {
    loop {
        if file.exists() {
            return true;
        }
        if deadline.left().is_zero() {
            return false;
        }
        sleep(FILE_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn gates_are_plain_urls_of_this_host_or_an_address() {
        let gate = Gate::parse("http://localhost:9099/readiness").unwrap();
        assert_eq!((gate.addresses.len(), gate.path.as_str()), (2, "/readiness"));
        assert_eq!(Gate::parse("http://[::1]:80").unwrap().path, "/");
        assert_eq!(Gate::parse("http://10.0.0.1/a?b=c").unwrap().addresses[0].port(), 80);
        assert_eq!(Gate::parse("http://[fd00::1]/").unwrap().addresses[0].port(), 80);
        for bad in [
            "",
            "https://localhost",
            "http://name.example/",
            "http://",
            "http://localhost:x",
            "http://1.2.3.4/ a",
        ] {
            assert_eq!(Gate::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_success_opens_a_gate() {
        for (answer, open) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 204 \r\n\r\n", true),
            ("HTTP/1.0 503 no\r\n\r\n", false),
            ("nonsense, long enough", false),
            ("", false),
        ] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let n = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8_lossy(&request[..n]).into_owned()
            });
            let gate = Gate::parse(&format!("http://127.0.0.1:{port}/ready?full")).unwrap();
            assert_eq!(gate.is_open(), open, "{answer:?}");
            assert!(server.join().unwrap().starts_with("GET /ready?full HTTP/1.0\r\n"));
        }
    }
}
