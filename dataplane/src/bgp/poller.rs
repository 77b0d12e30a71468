//! Waiting for many descriptors: epoll, level-triggered, so that whoever reads a little of much is asked again.

use rustix::event::epoll;
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Names a descriptor in the poller's answers.
pub(super) type Token = u64;

/// What a descriptor is waited for, and what it is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub read: bool,
    pub write: bool,
}

pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Poller { epoll })
    }

    pub fn add(&self, fd: impl AsFd, token: Token, wanted: Ready) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags(wanted))?)
    }

    pub fn change(&self, fd: impl AsFd, token: Token, wanted: Ready) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token), flags(wanted))?)
    }

    /// What is ready, at the latest after `limit`; errors and hang-ups count as ready for both.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<Vec<(Token, Ready)>> {
        let limit = limit.map(|d| Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: d.subsec_nanos().into(),
        });
        let mut events = [MaybeUninit::uninit(); 128];
        match epoll::wait(&self.epoll, &mut events[..], limit.as_ref()) {
            Ok((events, _)) => Ok(events.iter().map(|e| (e.data.u64(), ready(e.flags))).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(e) => Err(e.into()),
        }
    }
}

fn flags(wanted: Ready) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, wanted.read);
    flags.set(epoll::EventFlags::OUT, wanted.write);
    flags
}

fn ready(flags: epoll::EventFlags) -> Ready {
    let broken = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
    Ready {
        read: broken || flags.contains(epoll::EventFlags::IN),
        write: broken || flags.contains(epoll::EventFlags::OUT),
    }
}

/// Wakes a poller in another thread.
#[derive(Clone, Debug)]
pub(super) struct Waker(Arc<OwnedFd>);

impl Waker {
    pub fn new() -> io::Result<Self> {
        Ok(Waker(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    pub fn wake(&self) {
        // It can only fail when the counter is at its end, and then it is readable.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Before the owner looks at what woke it.
    pub fn clear(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
