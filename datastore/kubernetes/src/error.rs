//! What went wrong, by what the caller can do about it.

use datastore::{Error, ErrorKind};
use serde_json::Value;
use std::error::Error as StdError;
use std::io;

/// An error before it knows its operation and subject.
#[derive(Debug)]
pub(crate) struct Failure {
    pub kind: ErrorKind,
    pub detail: String,
}

impl Failure {
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, detail)
    }

    pub fn corrupt(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, detail)
    }

    /// The deadline passed, or the server is silent.
    pub fn late() -> Self {
        Self::new(ErrorKind::Timeout, "no answer in time")
    }

    pub fn os(error: &io::Error) -> Self {
        Self::new(ErrorKind::Io, error.to_string())
    }

    /// A broken or impossible connection.
    pub fn transport(error: &(dyn StdError + 'static)) -> Self {
        let chain = std::iter::successors(Some(error), |e: &&(dyn StdError + 'static)| (*e).source());
        let mut texts: Vec<String> = chain.map(ToString::to_string).collect();
        texts.dedup();
        Self::new(ErrorKind::Unreachable, texts.join(": "))
    }

    /// An answer other than success, which nobody expected.
    pub fn answer(code: u16, body: &[u8]) -> Self {
        let message = message(body);
        let kind = match code {
            401 | 403 => ErrorKind::Denied,
            404 => ErrorKind::Missing,
            400 | 405 | 406 | 413 | 415 | 422 => ErrorKind::Invalid,
            500.. if message.contains("database space exceeded") => ErrorKind::Full,
            429 | 500.. => ErrorKind::Unreachable,
            _ => ErrorKind::Io,
        };
        let cure = match code {
            401 => " (the credentials are wrong or expired)",
            404 => " (are the custom resource definitions installed?)",
            _ => "",
        };
        Self::new(kind, format!("{code}: {message}{cure}"))
    }

    pub fn into_error(self, op: &'static str, subject: &str) -> Error {
        Error { op, subject: subject.into(), kind: self.kind, detail: self.detail }
    }
}

/// The message of a `Status`, or the beginning of whatever came.
fn message(body: &[u8]) -> String {
    const SHOWN: usize = 300;
    let status: Option<Value> = serde_json::from_slice(body).ok();
    let told = status.as_ref().and_then(|status| status.get("message")).and_then(Value::as_str);
    let text = told.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    text.chars().take(SHOWN).collect()
}

/// Whether an answer says that the object is not the one that was meant: another revision, another
/// UID, or none at all. The texts differ between releases, the codes and fields do not: 409; 404;
/// 422 whose causes are all about the UID or the revision.
pub(crate) fn is_conflict(code: u16, body: &[u8]) -> bool {
    match code {
        404 | 409 => true,
        422 => serde_json::from_slice(body).is_ok_and(|status| only_identity(&status)),
        _ => false,
    }
}

fn only_identity(status: &Value) -> bool {
    let causes = status.pointer("/details/causes").and_then(Value::as_array);
    causes.is_some_and(|causes| {
        let fields = causes.iter().map(|cause| cause.get("field").and_then(Value::as_str));
        !causes.is_empty()
            && fields.into_iter().all(|f| matches!(f, Some("metadata.uid" | "metadata.resourceVersion")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_told_by_code_and_field() {
        let causes = |field: &str| format!(r#"{{"details":{{"causes":[{{"field":"{field}"}}]}}}}"#);
        assert!(is_conflict(409, b"") && is_conflict(404, b""));
        assert!(is_conflict(422, causes("metadata.uid").as_bytes()));
        assert!(!is_conflict(422, causes("spec.cidr").as_bytes()));
        assert!(!is_conflict(422, b"{}") && !is_conflict(422, b"nonsense") && !is_conflict(500, b""));
    }

    #[test]
    fn a_full_etcd_is_told_apart() {
        let body = br#"{"kind":"Status","message":"etcdserver: mvcc: database space exceeded","code":500}"#;
        assert_eq!(Failure::answer(500, body).kind, ErrorKind::Full);
        assert_eq!(Failure::answer(500, b"oops").kind, ErrorKind::Unreachable);
        assert_eq!(Failure::answer(403, b"{}").kind, ErrorKind::Denied);
    }
}
