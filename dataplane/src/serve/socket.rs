//! The plugin's socket: who may connect, and how it is opened and closed without losing a request.

use crate::shutdown::Shutdown;
use cni::daemon::channel;
use cni::daemon::message::Reply;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections that may wait (the kernel caps it at `net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// A connected plugin sends its request at once.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// A connection of a process that may ask.
pub(super) struct Peer(OwnedFd);

impl Peer {
    /// # Errors
    /// As [`channel::receive`].
    pub fn request(&self) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        channel::receive(&self.0, REQUEST_WITHIN)
    }

    pub fn reply(&self, message: &[u8]) {
        // A plugin that gave up meanwhile is followed by a DEL of its runtime.
        let _ = channel::send(&self.0, message, None);
    }
}

pub(super) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    /// Opens the socket (0600) at `path` in place of whatever is there. The caller holds the lock of the
    /// host's one daemon, so that is a leftover.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Made aside and moved into place: it is never there without its mode, nor without a listener.
        let aside = path.with_extension("new");
        match fs::remove_file(&aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        rustix::net::bind(&socket, &SocketAddrUnix::new(&aside)?)?;
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, BACKLOG)?;
        fs::rename(&aside, path)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// The next connection of a process that may ask; `None` once the shutdown is set.
    pub fn accept(&self, shutdown: &Shutdown) -> Option<Peer> {
        loop {
            if shutdown.is_set() {
                return None;
            }
            match self.try_accept() {
                Ok(Some(peer)) => return Some(peer),
                Ok(None) => self.wait(shutdown),
                Err(e) => {
                    tracing::warn!("cannot accept a connection: {e}");
                    shutdown.wait(Duration::from_millis(100));
                }
            }
        }
    }

    fn wait(&self, shutdown: &Shutdown) {
        let stop = shutdown.fd();
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&stop, PollFlags::IN)];
        // Interrupted or not, the caller looks again.
        let _ = poll(&mut fds, None);
    }

    /// `None`: nobody waits.
    fn try_accept(&self) -> io::Result<Option<Peer>> {
        loop {
            match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(socket) if may_ask(&socket)? => return Ok(Some(Peer(socket))),
                Ok(_) | Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Nobody can connect any more; who did and was not heard yet is told to serve itself.
    pub fn close_and_refuse(&self, why: &str) {
        let _ = fs::remove_file(&self.path);
        while let Ok(Some(peer)) = self.try_accept() {
            if let Ok((message, _)) = peer.request() {
                drop(message);
                peer.reply(&Reply::refused(why).encode(cni::daemon::message::VERSION));
            }
        }
    }
}

/// Root, or whoever runs the daemon: the socket's mode says the same, but modes can be changed.
fn may_ask(socket: &OwnedFd) -> io::Result<bool> {
    let uid = peer_uid(socket)?;
    let allowed = uid == 0 || uid == rustix::process::geteuid().as_raw();
    if !allowed {
        tracing::warn!(uid, "refused a connection of a user who is not root");
    }
    Ok(allowed)
}

/// rustix has this too, but takes the process id for one that is never 0, which is what the kernel
/// says of a process outside this PID namespace.
fn peer_uid(socket: &OwnedFd) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` is `size` bytes of plain integers, and both outlive the call.
    let failed = unsafe {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut peer).cast(), &raw mut size)
    };
    if failed == 0 { Ok(peer.uid) } else { Err(io::Error::last_os_error()) }
}
