//! One ear for all watches of a store in a process: whoever commits pays for each listener.

use super::Embedded;
use super::disk::File;
use super::slots::Slots;
use crate::{Deadline, Error, ErrorKind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Changes gather for so long before they are told: a commit touches its files several times, and nobody should
/// look while the call that committed goes on.
const GATHER: Duration = Duration::from_millis(20);

/// Listens on a thread of its own as long as somebody holds it.
pub(super) struct Lookout {
    reader: Embedded,
    heard: Arc<Heard>,
    /// The changes that the reader has seen.
    seen: Mutex<Option<u64>>,
    /// Closed with the last holder, which ends the thread.
    _held: OwnedFd,
}

#[derive(Default)]
struct Heard {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    changes: u64,
    /// Nothing will be heard any more: the directory is gone.
    deaf: bool,
}

impl Lookout {
    pub fn start(reader: Embedded) -> Result<Self, Error> {
        let io = |e: io::Error| Error::os(super::watch::OP, &reader.dir, &e);
        let changes = subscribe(&reader).map_err(|e| io(e.into()))?;
        let (end, held) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| io(e.into()))?;
        let heard = Arc::new(Heard::default());
        let teller = heard.clone();
        let body = move || listen(&changes, &end, &teller);
        std::thread::Builder::new().name("store-watch".into()).spawn(body).map_err(io)?;
        Ok(Self { reader, heard, seen: Mutex::default(), _held: held })
    }

    pub fn is_deaf(&self) -> bool {
        self.heard.state().deaf
    }

    /// What a watch is told that hears nothing any more.
    pub fn gone(&self) -> Error {
        Error::new(super::watch::OP, &self.reader.dir, ErrorKind::Missing, "the directory was removed")
    }

    /// How often something has changed.
    pub fn changes(&self) -> u64 {
        self.heard.state().changes
    }

    /// Waits until there were other than `known` changes; false when the deadline came first.
    pub fn wait(&self, known: u64, deadline: Deadline) -> bool {
        let same = |state: &mut State| state.changes == known && !state.deaf;
        let waited = self.heard.more.wait_timeout_while(self.heard.state(), deadline.left(), same);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Makes sure that the reader has seen at least `changes`. All watches hear of a change at once, and one of
    /// them reads for all.
    pub fn catch_up(&self, changes: u64, deadline: Deadline) -> Result<(), Error> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_none_or(|seen| seen < changes) {
            self.reader.read(deadline, |_| Ok(()))?;
            *seen = Some(changes);
        }
        Ok(())
    }

    /// What the reader has in memory.
    pub fn glance<T>(&self, f: impl FnOnce(&Slots) -> T) -> T {
        f(&self.reader.slots())
    }

    /// The files.
    pub fn look<T>(
        &self,
        deadline: Deadline,
        f: impl FnOnce(&mut Slots) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.reader.read(deadline, f)
    }
}

impl Heard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, deaf: bool) {
        let mut state = self.state();
        state.changes += 1;
        state.deaf = deaf;
        self.more.notify_all();
    }
}

fn subscribe(store: &Embedded) -> rustix::io::Result<OwnedFd> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let news = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE_SELF;
    inotify::add_watch(&fd, &store.dir, news)?;
    Ok(fd)
}

/// Until the other end of `end` is closed, or nothing can be heard any more.
fn listen(changes: &OwnedFd, end: &OwnedFd, heard: &Heard) {
    let mut deaf = false;
    while !deaf {
        let mut fds = [PollFd::new(changes, PollFlags::IN), PollFd::new(end, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return,
            Ok(_) => {
                std::thread::sleep(GATHER);
                deaf = drain(changes);
            }
            Err(Errno::INTR) => continue,
            Err(_) => deaf = true,
        }
        heard.tell(deaf);
    }
}

/// Whether the directory is gone, or going: its inode lives as long as somebody has its files open, and so its own
/// end is not told, but that of its files is; nothing else deletes
/// one.
fn drain(changes: &OwnedFd) -> bool {
    let mut room = [MaybeUninit::uninit(); 4096];
    let mut reports = inotify::Reader::new(changes, &mut room);
    loop {
        match reports.next() {
            Ok(report) if report.events().intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF) => {
                return true;
            }
            Ok(report) if report.events().contains(ReadFlags::DELETE) && is_ours(report.file_name()) => {
                return true;
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            Err(_) => return true,
        }
    }
}

fn is_ours(name: Option<&CStr>) -> bool {
    name.is_some_and(|name| {
        [File::A, File::B, File::Mark].iter().any(|file| name.to_bytes() == file.name().as_bytes())
    })
}
