//! What went wrong, by what the caller can do about it.

use datastore::{Error, ErrorKind};
use std::error::Error as StdError;
use std::io;
use tonic::Code;

/// An error before it knows its operation and subject.
#[derive(Debug)]
pub(crate) struct Failure {
    pub kind: ErrorKind,
    pub detail: String,
    /// Another link, or another endpoint, may do better.
    pub lost: bool,
    /// The request cannot have had an effect.
    pub unapplied: bool,
    /// The revision that was asked for is no longer kept.
    pub compacted: bool,
}

impl Failure {
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), lost: false, unapplied: false, compacted: false }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, detail)
    }

    /// The deadline passed.
    pub fn late() -> Self {
        Self::new(ErrorKind::Timeout, "no answer in time")
    }

    /// A server that took the request and is silent.
    pub fn silent() -> Self {
        Self { lost: true, ..Self::late() }
    }

    pub fn unreachable(detail: impl Into<String>) -> Self {
        Self { lost: true, unapplied: true, ..Self::new(ErrorKind::Unreachable, detail) }
    }

    pub fn os(error: &io::Error) -> Self {
        Self::new(ErrorKind::Io, error.to_string())
    }

    /// Names what was asked for, where its permission is missing.
    pub fn about(mut self, keys: &str) -> Self {
        if self.kind == ErrorKind::Denied {
            self.detail = format!("{}: {keys}", self.detail);
        }
        self
    }

    pub fn into_error(self, op: &'static str, subject: &str) -> Error {
        Error { op, subject: subject.into(), kind: self.kind, detail: self.detail }
    }
}

impl From<etcd_client::Error> for Failure {
    fn from(error: etcd_client::Error) -> Self {
        use etcd_client::Error as E;
        match error {
            E::GRpcStatus(status) => of_status(&status),
            E::TransportError(e) => of_transport(ErrorKind::Unreachable, &e),
            E::IoError(e) => Self { unapplied: false, ..Self::unreachable(e.to_string()) },
            E::InvalidArgs(_) | E::InvalidUri(_) | E::Utf8Error(_) | E::InvalidMetadataValue(_) => {
                Self::invalid(error.to_string())
            }
            other => Self { unapplied: false, ..Self::unreachable(other.to_string()) },
        }
    }
}

/// A status with a source was made here, of a broken connection; without one the server sent it.
fn of_status(status: &tonic::Status) -> Failure {
    match status.source() {
        Some(source) => of_transport(ErrorKind::Unreachable, source),
        None => of_answer(status.code(), status.message()),
    }
}

fn of_transport(kind: ErrorKind, error: &(dyn StdError + 'static)) -> Failure {
    let chain = || std::iter::successors(Some(error), |e: &&(dyn StdError + 'static)| (*e).source());
    let unapplied = chain().any(|e| {
        e.is::<tonic::ConnectError>()
            || e.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
    });
    let texts: Vec<String> = chain().map(ToString::to_string).collect();
    Failure { lost: true, unapplied, ..Failure::new(kind, texts.join(": ")) }
}

/// etcd's codes and texts (api/v3rpc/rpctypes/error.go of etcd 3.4).
fn of_answer(code: Code, message: &str) -> Failure {
    let has = |part: &str| message.contains(part);
    let kind = match code {
        Code::DeadlineExceeded | Code::Cancelled => ErrorKind::Timeout,
        Code::Unavailable => ErrorKind::Unreachable,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        // A wrong password, no user where one is needed, a token of before a change of permissions.
        Code::InvalidArgument if has("authentication") || has("user name") || has("auth store") => {
            ErrorKind::Denied
        }
        Code::ResourceExhausted if has("space") => ErrorKind::Full,
        Code::ResourceExhausted if has("too many requests") => ErrorKind::Unreachable,
        Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted => ErrorKind::Invalid,
        Code::FailedPrecondition if has("authentication is not enabled") => ErrorKind::Denied,
        _ => ErrorKind::Io,
    };
    // Refused before it was looked at: the token is older than the permissions, or the server is cut off.
    let unapplied = has("auth store") || has("invalid auth token") || has("no leader");
    let lost = unapplied || code == Code::Unavailable;
    let compacted = code == Code::OutOfRange && has("compacted");
    Failure { lost, unapplied, compacted, ..Failure::new(kind, message) }
}
