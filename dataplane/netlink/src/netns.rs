//! Network namespaces as file descriptors.

use crate::{Error, NetnsError, Nl};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    path: String,
}

/// What tells one namespace from another while both are alive: device and inode of the `nsfs` file.
/// The kernel may give an inode again after its namespace is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetnsId {
    pub dev: u64,
    pub ino: u64,
}

/// The calling thread's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";

impl NetnsId {
    /// That of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// `Missing` where `/proc` is not mounted.
    pub fn own() -> Result<NetnsId, NetnsError> {
        match rustix::fs::stat(OWN) {
            Ok(stat) => Ok(NetnsId { dev: stat.st_dev, ino: stat.st_ino }),
            Err(errno) => Err(open_error(errno, OWN.to_owned())),
        }
    }
}

impl Netns {
    /// Opens the namespace that is bound at `path` (or `/proc/PID/ns/net`).
    ///
    /// # Errors
    /// `Missing`, `NotANamespace` (a file, a directory, a mount or user namespace, ...), `Denied`, `Io`.
    pub fn open(path: &Path) -> Result<Netns, NetnsError> {
        let label = path.display().to_string();
        // NONBLOCK and NOCTTY: the path is a caller's text and may name a FIFO or a terminal.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Netns::checked(fd, label),
            Err(errno) => Err(open_error(errno, label)),
        }
    }

    /// Takes over a descriptor that somebody else opened.
    ///
    /// # Errors
    /// `NotANamespace` when it is something else.
    pub fn from_fd(fd: OwnedFd) -> Result<Netns, NetnsError> {
        let label = format!("(descriptor {})", fd.as_raw_fd());
        Netns::checked(fd, label)
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// `Missing` where `/proc` is not mounted; else as `open`.
    pub fn current() -> Result<Netns, NetnsError> {
        // What this file leads to needs no check.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::open(OWN, flags, Mode::empty()) {
            Ok(fd) => Ok(Netns { fd, path: OWN.to_owned() }),
            Err(errno) => Err(open_error(errno, OWN.to_owned())),
        }
    }

    fn checked(fd: OwnedFd, path: String) -> Result<Netns, NetnsError> {
        let netns = Netns { fd, path };
        if netns.on_nsfs()? && is_network(netns.fd.as_fd()) {
            return Ok(netns);
        }
        Err(NetnsError::NotANamespace { path: netns.path })
    }

    fn on_nsfs(&self) -> Result<bool, NetnsError> {
        // Linux magic.h, NSFS_MAGIC.
        const NSFS_MAGIC: u32 = 0x6e73_6673;
        let statfs = rustix::fs::fstatfs(&self.fd).map_err(|e| self.error("statfs", e))?;
        Ok(statfs.f_type as u32 == NSFS_MAGIC)
    }

    /// Device and inode.
    ///
    /// # Errors
    /// `Io`; not seen on a namespace that could be opened.
    pub fn id(&self) -> Result<NetnsId, NetnsError> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|e| self.error("stat", e))?;
        Ok(NetnsId { dev: stat.st_dev, ino: stat.st_ino })
    }

    /// The path it was opened by, for messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The descriptor's number, for netlink attributes.
    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// A route netlink socket inside; see [`Nl::inside`].
    ///
    /// # Errors
    /// As [`Nl::inside`].
    pub fn socket(&self, timeout: Duration) -> Result<Nl, Error> {
        Nl::inside(self, timeout)
    }

    /// Runs `f` with the thread inside this namespace: sockets that it opens and files under
    /// `/proc/sys/net` that it touches are this namespace's.
    ///
    /// The calling thread does it and comes back, also when `f` panics. Where it could not come back
    /// (no `/proc`, or its own namespace may not be entered) a thread of its own does it and ends.
    ///
    /// # Errors
    /// `Denied` or `Io` when the namespace cannot be entered; then `f` did not run.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        match way_home() {
            Some(home) => self.run_here(home, f),
            None => self.run_apart(f),
        }
    }

    fn run_here<T>(&self, home: Netns, f: impl FnOnce() -> T) -> Result<T, NetnsError> {
        self.enter()?;
        let _back = ComeBack(home);
        Ok(f())
    }

    fn run_apart<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| self.enter().map(|()| f()));
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn enter(&self) -> Result<(), NetnsError> {
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| self.error("enter", e))
    }

    fn error(&self, op: &'static str, errno: Errno) -> NetnsError {
        kind_of(op, errno, self.path.clone())
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The calling thread's own namespace, if it may be entered again: tried before it is left.
fn way_home() -> Option<Netns> {
    Netns::current().ok().filter(|home| home.enter().is_ok())
}

struct ComeBack(Netns);

impl Drop for ComeBack {
    fn drop(&mut self) {
        self.0.enter().expect("a namespace that this thread entered a moment ago can be entered again");
    }
}

fn is_network(fd: BorrowedFd<'_>) -> bool {
    // Linux nsfs.h: _IO(0xb7, 3) answers the clone flag of the namespace's type (since 4.11).
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this request takes no argument and writes no memory.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

fn open_error(errno: Errno, path: String) -> NetnsError {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::SRCH => NetnsError::Missing { path },
        Errno::NXIO | Errno::ISDIR | Errno::LOOP => NetnsError::NotANamespace { path },
        other => kind_of("open", other, path),
    }
}

fn kind_of(op: &'static str, errno: Errno, path: String) -> NetnsError {
    let source = errno.into();
    match errno {
        Errno::ACCESS | Errno::PERM => NetnsError::Denied { op, path, source },
        _ => NetnsError::Io { op, path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done where the calling thread could not come back.
    #[test]
    fn a_thread_of_its_own_does_the_same() {
        let made = std::thread::spawn(|| {
            // SAFETY: only the network namespace changes, of this thread alone.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
            Netns::current().unwrap()
        });
        let other = made.join().unwrap();
        let home = Netns::current().unwrap().id().unwrap();
        let seen = other.run_apart(|| Netns::current().unwrap().id().unwrap()).unwrap();
        assert_eq!(seen, other.id().unwrap());
        assert_ne!(seen, home);
    }
}
