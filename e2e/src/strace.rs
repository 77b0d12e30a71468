//! SIGKILL at the nth call of a system call, through strace's fault injection.
//!
//! The signal is delivered on entering the call, which is then not run. strace counts per system
//! call and thread, so each call is swept on its own.

use std::ffi::OsString;

/// The calls by which a plugin changes the world, or waits for it.
pub const SIDE_EFFECTS: &[&str] = &[
    "sendto",
    "sendmsg",
    "pwrite64",
    "write",
    "writev",
    "sync_file_range",
    "fdatasync",
    "fsync",
    "openat",
    "mkdir",
    "unlink",
    "unlinkat",
    "rename",
    "renameat2",
    "ftruncate",
    "fallocate",
    "setns",
    "flock",
    "clone3",
    "execve",
];

/// The command prefix that kills what it runs as it enters `call` for the `nth` time (from 1).
pub fn kill_at(call: &str, nth: u32) -> Vec<OsString> {
    let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
    ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject, "--"]
        .map(OsString::from)
        .to_vec()
}

/// The command prefix that makes the `nth` call of `call` fail with `errno`.
pub fn fail_at(call: &str, nth: u32, errno: &str) -> Vec<OsString> {
    let inject = format!("inject={call}:error={errno}:when={nth}");
    ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject, "--"]
        .map(OsString::from)
        .to_vec()
}

/// The command prefix that counts system calls into `file`.
pub fn count_into(file: &std::path::Path) -> Vec<OsString> {
    let mut prefix: Vec<OsString> = ["strace", "-f", "-qq", "-c", "-o"].map(OsString::from).to_vec();
    prefix.extend([file.into(), OsString::from("--")]);
    prefix
}

/// The command prefix that writes what is sent to netlink, written to files and stdout, and every sync, into
/// `file`.
pub fn write_into(file: &std::path::Path) -> Vec<OsString> {
    let calls = "trace=sendto,sendmsg,sendmmsg,write,pwrite64,fsync,fdatasync,syncfs";
    let mut prefix: Vec<OsString> =
        ["strace", "-f", "-qq", "-s", "65536", "-e", calls, "-o"].map(OsString::from).to_vec();
    prefix.extend([file.into(), OsString::from("--")]);
    prefix
}
