//! Running the program `nft` and its like, bounded in time, one writer at a time.

use crate::error::FirewallError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, MemfdFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Where distributions put it, for callers whose PATH is bare.
const USUAL_PLACES: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// Applies a script as one transaction.
pub(crate) fn run(table: &str, script: &str, timeout: Duration) -> Result<(), FirewallError> {
    execute("nft", &["-f", "-"], table, script, Stdio::null(), timeout)
}

/// Gives a program its input.
pub(crate) fn feed(
    program: &str,
    args: &[&str],
    input: &str,
    timeout: Duration,
) -> Result<(), FirewallError> {
    execute(program, args, program, input, Stdio::null(), timeout)
}

/// What a program prints, at most 64 MiB of it.
pub(crate) fn output(program: &str, args: &[&str], timeout: Duration) -> Result<String, FirewallError> {
    let told = |e: io::Error| failed("read output of", program, e);
    let out =
        File::from(rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC).map_err(|e| told(e.into()))?);
    let copy = out.try_clone().map_err(told)?;
    execute(program, args, program, "", Stdio::from(copy), timeout)?;
    let (mut out, mut bytes) = (out, Vec::new());
    out.rewind().map_err(told)?;
    out.take(64 << 20).read_to_end(&mut bytes).map_err(told)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn execute(
    program: &str,
    args: &[&str],
    table: &str,
    script: &str,
    out: Stdio,
    timeout: Duration,
) -> Result<(), FirewallError> {
    let input = in_memory(script).map_err(|e| failed("prepare input of", table, e))?;
    let mut child = match start(program, args, input, out) {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(FirewallError::NftMissing),
        Err(e) => return Err(failed("start", table, e)),
    };
    if !ends_within(&child, timeout).map_err(|e| failed("wait for", table, e))? {
        let _ = child.kill();
        let _ = child.wait();
        return Err(FirewallError::TimedOut { table: table.to_owned() });
    }
    judge(child, table)
}

fn start(program: &str, args: &[&str], input: File, out: Stdio) -> io::Result<Child> {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(USUAL_PLACES);
    Command::new(program)
        .args(args)
        .env("PATH", path)
        .stdin(Stdio::from(input))
        .stdout(out)
        .stderr(Stdio::piped())
        .spawn()
}

/// A file rather than a pipe: nobody ever waits for a reader.
fn in_memory(script: &str) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("nft", MemfdFlags::CLOEXEC)?);
    file.write_all(script.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn ends_within(child: &Child, timeout: Duration) -> io::Result<bool> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec::try_from(timeout).ok();
    loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn judge(mut child: Child, table: &str) -> Result<(), FirewallError> {
    let status = child.wait().map_err(|e| failed("wait for", table, e))?;
    if status.success() {
        return Ok(());
    }
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        // Its first lines tell; more could be the whole script.
        let _ = stderr.take(2000).read_to_string(&mut words);
    }
    Err(FirewallError::NftFailed { table: table.to_owned(), words: words.trim_end().replace('\n', "; ") })
}

/// Waits for the lock at most `timeout`; none when it was not to be had. Closing the file unlocks.
pub(crate) fn lock(path: &Path, timeout: Duration) -> Result<Option<File>, FirewallError> {
    let refused = |source: io::Error| FirewallError::Lock { path: path.display().to_string(), source };
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(refused)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(wait(file, timeout)),
        Err(errno) => Err(refused(errno.into())),
    }
}

/// A blocking wait on a thread: the kernel queues waiters, a poller would starve among them.
fn wait(file: File, timeout: Duration) -> Option<File> {
    let (got, result) = mpsc::channel();
    std::thread::spawn(move || {
        while flock(&file, FlockOperation::LockExclusive) == Err(Errno::INTR) {}
        // Nobody waits any more: the file closes with the message.
        let _ = got.send(file);
    });
    result.recv_timeout(timeout).ok()
}

fn failed(op: &'static str, table: &str, source: io::Error) -> FirewallError {
    FirewallError::Io { op, table: table.to_owned(), source }
}
