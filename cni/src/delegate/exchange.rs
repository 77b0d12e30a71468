//! Talks to a started child over its three pipes until it ends, in one thread: with all pipes
//! non-blocking neither side can wait for the other in a circle.

use super::MAX_STDOUT;
use datastore::Deadline;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::{self, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::time::Duration;

/// Bytes of stderr that are kept; more is read and dropped.
const MAX_STDERR: usize = 64 << 10;
/// How long a killed child may take to die. More means it hangs in the kernel.
const DYING: Duration = Duration::from_secs(1);

/// How it ended, and what was said until then.
pub struct Exchange {
    pub outcome: Result<ExitStatus, Fault>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

pub enum Fault {
    Io(io::Error),
    Late,
    TooMuch,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

impl From<rustix::io::Errno> for Fault {
    fn from(error: rustix::io::Errno) -> Self {
        Fault::Io(error.into())
    }
}

/// Feeds `stdin` to the child, collects what it prints and reaps it. When the outcome is a
/// fault the child has been killed.
pub fn exchange(mut child: Child, stdin: &[u8], deadline: Deadline) -> Exchange {
    let mut pipes = Pipes::of(&mut child, stdin);
    let outcome = talk(&mut child, &mut pipes, deadline);
    if outcome.is_err() {
        end(&mut child);
    }
    Exchange { outcome, stdout: pipes.stdout.bytes, stderr: pipes.stderr.bytes }
}

fn talk(child: &mut Child, pipes: &mut Pipes, deadline: Deadline) -> Result<ExitStatus, Fault> {
    let exited = watch(child)?;
    pipes.make_nonblocking()?;
    while !wait(&exited, pipes, deadline)? {
        pipes.step()?;
    }
    // What the child wrote is in the pipes by now. Their end may be far: a grandchild can
    // hold them open, and is not waited for.
    pipes.drain()?;
    Ok(child.wait()?)
}

/// A descriptor that becomes readable when the child ends. The pid cannot be another process's:
/// the child is not reaped yet.
fn watch(child: &Child) -> Result<OwnedFd, Fault> {
    Ok(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?)
}

/// Sleeps until the child has ended (`true`) or a pipe is ready (`false`).
fn wait(exited: &OwnedFd, pipes: &Pipes, deadline: Deadline) -> Result<bool, Fault> {
    let left = deadline.left();
    if left.is_zero() {
        return Err(Fault::Late);
    }
    let mut fds = vec![PollFd::new(exited, PollFlags::IN)];
    fds.extend(pipes.stdin.pipe.iter().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
    fds.extend(pipes.stdout.pipe.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    fds.extend(pipes.stderr.pipe.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    match poll(&mut fds, Some(&timespec(left))) {
        Ok(_) => Ok(fds.first().is_some_and(|fd| !fd.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn timespec(left: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    }
}

struct Pipes<'a> {
    stdin: Feed<'a>,
    stdout: Drain<ChildStdout>,
    stderr: Drain<ChildStderr>,
}

impl<'a> Pipes<'a> {
    fn of(child: &mut Child, stdin: &'a [u8]) -> Self {
        Self {
            stdin: Feed { pipe: child.stdin.take(), rest: stdin },
            stdout: Drain { pipe: child.stdout.take(), bytes: Vec::new() },
            stderr: Drain { pipe: child.stderr.take(), bytes: Vec::new() },
        }
    }

    fn make_nonblocking(&self) -> Result<(), Fault> {
        nonblocking(self.stdin.pipe.as_ref())?;
        nonblocking(self.stdout.pipe.as_ref())?;
        nonblocking(self.stderr.pipe.as_ref())
    }

    fn step(&mut self) -> Result<(), Fault> {
        self.stdin.step()?;
        self.stdout.step()?;
        self.stderr.step()?;
        self.stderr.bytes.truncate(MAX_STDERR);
        if self.stdout.bytes.len() > MAX_STDOUT { Err(Fault::TooMuch) } else { Ok(()) }
    }

    fn drain(&mut self) -> Result<(), Fault> {
        // No longer than a full pipe of each kind takes: a grandchild may go on writing.
        for _ in 0..64 {
            self.step()?;
        }
        Ok(())
    }
}

/// The way in: what is still to be written.
struct Feed<'a> {
    pipe: Option<ChildStdin>,
    rest: &'a [u8],
}

impl Feed<'_> {
    /// Writes what the pipe takes; closes it after the last byte, or when the child does not
    /// want to read it (which is its right).
    fn step(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let written = match pipe.write(self.rest) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.rest.len(),
            result => unless_blocked(result)?.unwrap_or(0),
        };
        self.rest = self.rest.get(written..).unwrap_or_default();
        if self.rest.is_empty() {
            self.pipe = None;
        }
        Ok(())
    }
}

/// A way out: what has been read.
struct Drain<R> {
    pipe: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read> Drain<R> {
    /// Reads once; closes the pipe at its end.
    fn step(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let mut buffer = [0; 16 << 10];
        match unless_blocked(pipe.read(&mut buffer))? {
            Some(0) => self.pipe = None,
            Some(n) => self.bytes.extend_from_slice(&buffer[..n]),
            None => {}
        }
        Ok(())
    }
}

/// `None` when the pipe was not ready.
fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        result => result.map(Some),
    }
}

fn nonblocking(pipe: Option<&impl AsFd>) -> Result<(), Fault> {
    Ok(pipe.map_or(Ok(()), |pipe| rustix::io::ioctl_fionbio(pipe, true))?)
}

/// Kills the child and reaps it. One that hangs in the kernel is left to whoever inherits it.
fn end(child: &mut Child) {
    // Fails only when the child is reaped already.
    let _ = child.kill();
    if let Ok(exited) = watch(child) {
        let _ = poll(&mut [PollFd::new(&exited, PollFlags::IN)], Some(&timespec(DYING)));
    }
    let _ = child.try_wait();
}
