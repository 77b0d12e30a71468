//! Errors by kind. `op` is what was tried, `subject` what it was tried on.

use crate::route::Conflict;
use rustix::io::Errno;
use std::io;

/// A namespace that could not be opened or entered. `path` is as the caller gave it.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nothing is there: the path, or a part of it, does not exist (any more).
    #[error("network namespace {path}: does not exist")]
    Missing { path: String },
    /// Something else is there: a plain file (also what is left of an unmounted namespace), a
    /// directory, a namespace of another type.
    #[error("{path}: is not a network namespace")]
    NotANamespace { path: String },
    /// The caller may not open or enter it.
    #[error("network namespace {path}: {op} not permitted")]
    Denied { op: &'static str, path: String, source: io::Error },
    /// Anything else that the kernel answered.
    #[error("network namespace {path}: {op}: {source}")]
    Io { op: &'static str, path: String, source: io::Error },
}

/// What the kernel, or what was found in it, did not allow.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel answered a netlink request with an error; `hint` is its own text, often empty.
    #[error("{op} {subject}: {source}{}{hint}", if hint.is_empty() { "" } else { ": " })]
    Refused { op: &'static str, subject: String, source: Errno, hint: String },
    /// No answer within the socket's timeout.
    #[error("{op} {subject}: the kernel did not answer in time")]
    TimedOut { op: &'static str, subject: String },
    /// An answer that does not have the form this code knows.
    #[error("{op} {subject}: the kernel's answer has an unknown form")]
    Malformed { op: &'static str, subject: String },
    /// A socket or a file under `/proc` failed.
    #[error("{op} {subject}: {source}")]
    Io { op: &'static str, subject: String, source: io::Error },
    /// The pod's namespace could not be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The pod already has an interface of this name that is not the peer of our host end.
    #[error("the pod already has an interface {ifname} that is not ours")]
    PodIfaceExists { ifname: String },
    /// A link of the wished host name exists and its alias does not name this attachment.
    #[error("host interface {name} belongs to {}", alias.as_deref().unwrap_or("somebody else (it has no alias)"))]
    HostLinkTaken { name: String, alias: Option<String> },
    /// Our host link exists, but its other end is not in this namespace under the planned name.
    #[error("host interface {host_name} is not paired with {pod_name} in this pod")]
    NotPaired { host_name: String, pod_name: String },
    /// `complete_pod` found no host link of this name.
    #[error("host interface {name} does not exist")]
    NoHostLink { name: String },
}

impl Error {
    /// The kernel's error number, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Refused { source, .. } => Some(*source),
            Error::Io { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }
}

/// Why a host route could not be added.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The host already routes the address elsewhere.
    #[error("{0}")]
    Conflict(Conflict),
    /// The kernel failed.
    #[error(transparent)]
    Kernel(#[from] Error),
}

/// Why our nftables table could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// A name that may not go into a ruleset.
    #[error("firewall {field} {value:?}: only a few plain characters are allowed, a letter first")]
    BadField { field: &'static str, value: String },
    /// No `nft` in PATH nor in the usual places.
    #[error("the program nft was not found: install the package nftables")]
    NftMissing,
    /// `nft` refused; `words` is what it wrote.
    #[error("nft could not write table inet {table}: {words}")]
    NftFailed { table: String, words: String },
    /// `nft` did not end in time and was killed; the kernel has all of the change or nothing.
    #[error("nft did not write table inet {table} in time")]
    TimedOut { table: String },
    /// The lock file could not be opened or locked.
    #[error("firewall lock {path}: {source}")]
    Lock { path: String, source: io::Error },
    /// `nft` could not be run.
    #[error("{op} nft for table inet {table}: {source}")]
    Io { op: &'static str, table: String, source: io::Error },
    /// The kernel's answer about what is there.
    #[error(transparent)]
    Kernel(#[from] Error),
}
