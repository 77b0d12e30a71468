//! A way from a namespace's loopback to a port of this machine's, which can be cut, or stall as through
//! a dead network.

use crate::netns::Netns;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Default)]
struct State {
    /// Takes bytes and passes none on.
    stalled: AtomicBool,
    /// Ends every connection at once.
    refusing: AtomicBool,
    closed: AtomicBool,
    /// Milliseconds by which what goes to the server is late.
    delay: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

pub struct Bridge {
    port: u16,
    namespace: std::path::PathBuf,
    state: Arc<State>,
}

impl Bridge {
    /// From a free port of the namespace's loopback to `target` here.
    pub fn into(namespace: &Netns, target: u16) -> Self {
        let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.closed.load(Ordering::SeqCst) {
                    return;
                }
                if !shared.refusing.load(Ordering::SeqCst) {
                    connect(&shared, client, target);
                }
            }
        });
        Self { port, namespace: namespace.path().to_owned(), state }
    }

    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections, and new ones too while `refusing`.
    pub fn refuse(&self, refusing: bool) {
        self.state.refusing.store(refusing, Ordering::SeqCst);
        for stream in self.open().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From now on connections stay open and nothing passes, those of before too.
    pub fn stall(&self, stalled: bool) {
        self.state.stalled.store(stalled, Ordering::SeqCst);
    }

    /// From now on a request reaches the server so many milliseconds late.
    pub fn delay(&self, milliseconds: u64) {
        self.state.delay.store(milliseconds, Ordering::SeqCst);
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.state.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.refuse(true);
        let place = (Ipv4Addr::LOCALHOST, self.port);
        if self.namespace.exists() {
            let _ = crate::netns::within(&self.namespace, || TcpStream::connect(place));
        }
    }
}

fn connect(state: &Arc<State>, client: TcpStream, target: u16) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
    let Ok((from, to)) = both(state, &client, &server) else { return };
    pump(state.clone(), from, to, true);
    pump(state.clone(), server, client, false);
}

fn both(state: &State, client: &TcpStream, server: &TcpStream) -> std::io::Result<(TcpStream, TcpStream)> {
    for stream in [client, server] {
        stream.set_nodelay(true)?;
        state.open.lock().unwrap_or_else(PoisonError::into_inner).push(stream.try_clone()?);
    }
    Ok((client.try_clone()?, server.try_clone()?))
}

/// What comes is passed on when its time has come; as on a long line, what comes behind it is not held up.
fn pump(state: Arc<State>, mut from: TcpStream, mut to: TcpStream, to_server: bool) {
    let (line, late) = channel();
    let shared = state.clone();
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            while state.stalled.load(Ordering::SeqCst) && !state.closed.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            if line.send((Instant::now(), buffer[..n].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (since, bytes) in late {
            let delay = if to_server { shared.delay.load(Ordering::SeqCst) } else { 0 };
            let due = since + Duration::from_millis(delay);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
