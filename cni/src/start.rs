//! What a program needs before it does anything, done by itself.
//!
//! The standard library's own preparation also finds the stack's bounds, in `/proc/self/maps`, for a
//! better message when the stack overflows; that costs every call a twentieth of its time. A program that
//! begins in C's `main` (`#![no_main]`) goes without.

use std::io;

/// Prepares the process. Call it first, from C's `main`.
pub fn prepare() {
    ignore_broken_pipes();
    fill_standard_descriptors();
}

/// Nobody to read an answer is an error of a write, and no end of the process with its work half done.
fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN runs nothing.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// A file opened under number 1 would get the answer written into it: numbers 0 to 2 are taken
/// by `/dev/null` where the caller closed them.
fn fill_standard_descriptors() {
    let mut fds = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array is initialised and its length given.
    let found = unsafe { libc::poll(fds.as_mut_ptr(), 3, 0) };
    let closed = fds.iter().filter(|fd| fd.revents & libc::POLLNVAL != 0).count();
    if found > 0 {
        for _ in 0..closed {
            // SAFETY: the path ends in a zero byte. The lowest free number is given.
            if unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } < 0 {
                panic!("/dev/null: {}", io::Error::last_os_error());
            }
        }
    }
}
