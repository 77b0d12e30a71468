//! Settings that have no netlink form. Read first, written only where different: most writes take
//! the kernel's one lock for all links.
//!
//! Files under `/proc/sys/net` are those of the calling thread's namespace at the time of opening.

use crate::Error;
use crate::link::SettingsV6;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

const ALL_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const ALL_V4: &str = "/proc/sys/net/ipv4/ip_forward";
const CONF_V6: &str = "/proc/sys/net/ipv6/conf";
const CONF_V4: &str = "/proc/sys/net/ipv4/conf";

/// Turns on forwarding for the whole host, in the calling thread's namespace, where it is off.
///
/// Turning it on for IPv6 would make interfaces that take router advertisements deaf to them
/// (`accept_ra` 1 means: unless forwarding), so theirs becomes 2 first (decision 20).
///
/// # Errors
/// `Io` naming the file; for instance on a kernel without IPv6, or with `/proc/sys` read-only.
pub fn ensure_forwarding(v4: bool, v6: bool) -> Result<(), Error> {
    if v4 {
        ensure(ALL_V4, "1")?;
    }
    if v6 && read(ALL_V6)? != "1" {
        keep_router_advertisements()?;
        ensure(ALL_V6, "1")?;
    }
    Ok(())
}

fn keep_router_advertisements() -> Result<(), Error> {
    let entries = std::fs::read_dir(CONF_V6).map_err(|e| failed("list", CONF_V6, e))?;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name != "all" && name != "default" && name != "lo" {
            keep_on(&name)?;
        }
    }
    Ok(())
}

fn keep_on(interface: &str) -> Result<(), Error> {
    let forwarding = format!("{CONF_V6}/{interface}/forwarding");
    let accept_ra = format!("{CONF_V6}/{interface}/accept_ra");
    // An interface may go while the list is walked.
    let (Some(forwarding), Some(accepts)) = (found(read(&forwarding))?, found(read(&accept_ra))?) else {
        return Ok(());
    };
    if forwarding == "0" && accepts == "1" {
        found(ensure(&accept_ra, "2"))?;
    }
    Ok(())
}

fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// What a pod's host end needs for IPv6; `now` saves reading it again.
pub(crate) fn host_end_v6(interface: &str, now: Option<SettingsV6>) -> Result<(), Error> {
    let wished = [
        ("disable_ipv6", now.map(|s| s.disabled), 0),
        ("accept_ra", now.map(|s| s.accept_ra), 0),
        ("forwarding", now.map(|s| s.forwarding), 1),
        ("proxy_ndp", now.map(|s| s.proxy_ndp), 1),
    ];
    for (name, current, value) in wished {
        if current != Some(value) {
            write(&format!("{CONF_V6}/{interface}/{name}"), &value.to_string())?;
        }
    }
    Ok(())
}

/// As [`host_end_v6`] for a pod that runs; true when something had to be written. A link that went
/// meanwhile has nothing to keep.
pub(crate) fn keep_host_end_v6(interface: &str, now: SettingsV6) -> Result<bool, Error> {
    if (now.disabled, now.accept_ra, now.forwarding, now.proxy_ndp) == (0, 0, 1, 1) {
        return Ok(false);
    }
    Ok(found(host_end_v6(interface, Some(now)))?.is_some())
}

/// Turns a switch of `net.ipv4.conf.IF` on; false when the interface is gone.
pub(crate) fn set_v4(interface: &str, name: &str) -> Result<bool, Error> {
    Ok(found(write(&format!("{CONF_V4}/{interface}/{name}"), "1"))?.is_some())
}

/// IPv6 addresses may be given to the interface.
pub(crate) fn allow_v6(interface: &str) -> Result<(), Error> {
    ensure(&format!("{CONF_V6}/{interface}/disable_ipv6"), "0")
}

/// The pod's own settings; call it inside the pod's namespace.
pub(crate) fn pod(v4: bool, v6: bool, forward: bool) -> Result<(), Error> {
    let forward = if forward { "1" } else { "0" };
    if v4 {
        ensure(ALL_V4, forward)?;
    }
    if v6 {
        for interface in ["all", "default", "lo"] {
            ensure(&format!("{CONF_V6}/{interface}/disable_ipv6"), "0")?;
        }
        ensure(ALL_V6, forward)?;
    }
    Ok(())
}

/// A setting's text without the line end. Every one read here is a small number or a UUID.
pub(crate) fn read(path: &str) -> Result<String, Error> {
    let file = File::open(path).map_err(|e| failed("open", path, e))?;
    let mut buf = [0; 64];
    let n = file.read_at(&mut buf, 0).map_err(|e| failed("read", path, e))?;
    Ok(String::from_utf8_lossy(buf[..n].trim_ascii_end()).into_owned())
}

fn write(path: &str, value: &str) -> Result<(), Error> {
    let file = OpenOptions::new().write(true).open(path).map_err(|e| failed("open", path, e))?;
    file.write_all_at(value.as_bytes(), 0).map_err(|e| failed("write", path, e))
}

fn ensure(path: &str, value: &str) -> Result<(), Error> {
    if read(path)? == value { Ok(()) } else { write(path, value) }
}

fn failed(op: &'static str, path: &str, source: io::Error) -> Error {
    Error::Io { op, subject: path.to_owned(), source }
}
