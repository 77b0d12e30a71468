//! Decoding of stored values: bounded, checked, and with errors that name the field.

use serde::de::DeserializeOwned;

/// Largest stored value that is decoded, in bytes. A /20 block with every address taken needs about 2 MiB.
pub const MAX_VALUE: usize = 8 << 20;

/// A stored value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {subject}: {problem}")]
pub struct DecodeError {
    /// What it was to be: "block", "handle", "IPPool".
    pub kind: &'static str,
    /// Its key or name.
    pub subject: String,
    pub problem: Problem,
}

/// What is wrong with a value. `field` is the JSON member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("{size} bytes are more than the {MAX_VALUE} that are read")]
    TooLarge { size: usize },
    #[error("not the expected JSON at line {line} column {column}: {detail}")]
    Json { line: usize, column: usize, detail: String },
    #[error("{field} has {found} items instead of {wanted}")]
    Length { field: &'static str, found: usize, wanted: usize },
    #[error("{field}[{at}] is {found}, which is not below {limit}")]
    OutOfRange { field: &'static str, at: usize, found: u64, limit: u64 },
    #[error("{field} holds {value} twice")]
    Repeated { field: &'static str, value: u64 },
    #[error("{field} lists ordinal {ordinal}, which is allocated")]
    Contradiction { field: &'static str, ordinal: u64 },
    #[error("{field} is {found:?}, but the key says {wanted:?}")]
    Mismatch { field: &'static str, found: String, wanted: String },
    #[error("{field} has the bad value {value:?}")]
    BadValue { field: &'static str, value: String },
    #[error("the key is not one of this kind")]
    BadKey,
}

/// Parses JSON after the size check.
pub(crate) fn json<T: DeserializeOwned>(value: &[u8]) -> Result<T, Problem> {
    if value.len() > MAX_VALUE {
        return Err(Problem::TooLarge { size: value.len() });
    }
    serde_json::from_slice(value).map_err(|e| Problem::Json {
        line: e.line(),
        column: e.column(),
        detail: e.to_string().chars().take(200).collect(),
    })
}

pub(crate) fn bad_value(field: &'static str, value: impl ToString) -> Problem {
    Problem::BadValue { field, value: value.to_string().chars().take(120).collect() }
}

/// Reads null as the default, for members that Go writes as null when they are nil.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de> + Default,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

/// An object that lives under a key, as JSON.
pub trait Stored: Sized {
    /// Decodes the value of `key` and checks that it fits the key and itself.
    fn decode(key: &str, value: &[u8]) -> Result<Self, DecodeError>;

    /// The JSON to store.
    fn encode(&self) -> Vec<u8>;
}
