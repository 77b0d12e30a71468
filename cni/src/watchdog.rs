//! The last word of the plugin process: exactly one JSON document on stdout, whatever happens.
//!
//! Two sides may want to speak: the normal path ([`answer_once`]) and, past the verb's own
//! deadline, the handler of SIGALRM that [`arm`] installs. One atomic flag decides who does;
//! the other side stays silent. The handler works when every thread is stuck in the kernel's
//! interruptible sleeps, in a lock or in an endless loop, since it needs none of them.
//!
//! For the plugin binary alone: it owns the process's stdout, its SIGALRM and its exit. A
//! daemon that hosts the engine answers over its socket and must not call this.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::time::Duration;

/// Set by whoever prints the answer, before its first byte.
static ANSWERED: AtomicBool = AtomicBool::new(false);
/// What the handler prints. Never freed: the handler may read it at any instant.
static LATE_ANSWER: AtomicPtr<Vec<u8>> = AtomicPtr::new(ptr::null_mut());
/// Exit status after a late answer: CNI asks for non-zero beside an error document.
const LATE_EXIT: i32 = 1;

/// After `limit` of real time the process prints `answer` on stdout and exits with 1, unless
/// [`answer_once`] was faster or [`disarm`] was called. Arming again replaces limit and answer
/// (the earlier answer's memory is not given back). The clock goes on while threads sleep, is
/// not moved by `settimeofday`, and is not inherited by child processes.
///
/// # Errors
/// What the kernel says to `sigaction` or `setitimer`; the process is then unguarded.
pub fn arm(limit: Duration, answer: Vec<u8>) -> io::Result<()> {
    LATE_ANSWER.store(Box::into_raw(Box::new(answer)), Ordering::Release);
    install_handler()?;
    unblock_alarm()?;
    // Zero would switch the timer off: a limit that has passed already fires at once.
    set_timer(limit.max(Duration::from_micros(1)))
}

/// Stops the clock. The process is unguarded afterwards.
pub fn disarm() -> io::Result<()> {
    set_timer(Duration::ZERO)
}

/// Prints `answer` on stdout and ends the process with `code`; if the handler (or another
/// thread's `answer_once`) is already speaking, waits for that to end the process instead.
///
/// Destructors of the caller's frames do not run: release locks and undo before.
pub fn answer_once(answer: &[u8], code: i32) -> ! {
    if ANSWERED.swap(true, Ordering::AcqRel) {
        wait_for_the_end();
    }
    write_all(answer);
    std::process::exit(code)
}

fn wait_for_the_end() -> ! {
    loop {
        std::thread::park();
    }
}

extern "C" fn on_alarm(_signal: libc::c_int) {
    if ANSWERED.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: the pointer is null or came from Box::into_raw in `arm` and is never freed.
    if let Some(answer) = unsafe { LATE_ANSWER.load(Ordering::Acquire).as_ref() } {
        write_all(answer);
    }
    // SAFETY: _exit is async-signal-safe and does not return; no destructor may run here,
    // since the interrupted thread may hold any lock.
    unsafe { libc::_exit(LATE_EXIT) }
}

/// Writes to descriptor 1 with nothing but write(2), so that the handler may call it. Stops
/// at an error: with nobody to read the answer there is nobody to tell.
fn write_all(mut rest: &[u8]) {
    while !rest.is_empty() {
        // SAFETY: pointer and length are those of a live slice.
        let written = unsafe { libc::write(libc::STDOUT_FILENO, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(n) if n > 0 => rest = rest.get(n..).unwrap_or_default(),
            _ if written < 0 && interrupted() => {}
            _ => return,
        }
    }
}

/// Whether the last call failed with EINTR. Reads errno only: safe in a handler.
fn interrupted() -> bool {
    // SAFETY: the location of this thread's errno is always valid.
    unsafe { *libc::__errno_location() == libc::EINTR }
}

fn install_handler() -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sigaction (empty mask, no flags, default handler).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_alarm as extern "C" fn(libc::c_int) as usize;
    // The handler only returns when the normal path is printing: its write goes on.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is initialised and outlives the call; `on_alarm` only makes
    // async-signal-safe calls.
    check(unsafe { libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()) })
}

/// A signal mask survives exec: a runtime that blocks SIGALRM would silence the watchdog.
fn unblock_alarm() -> io::Result<()> {
    // SAFETY: `set` is initialised by sigemptyset before it is read, and outlives the calls.
    let failed = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

fn set_timer(limit: Duration) -> io::Result<()> {
    let value = libc::timeval {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: limit.subsec_micros().into(),
    };
    let timer = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: `timer` is initialised and outlives the call.
    check(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
