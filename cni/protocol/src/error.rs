//! The error that a plugin prints: a code that the runtime acts on, one line for people, details.

use crate::version::Version;
use serde_json::{Value, json};
use std::fmt;

/// Longest `msg` in bytes; longer ones are cut at a character.
const MAX_MSG: usize = 1024;
/// Longest `details` in bytes.
const MAX_DETAILS: usize = 8 * 1024;

/// What kind of failure it is. 1 to 99 are the CNI specification's ("Error"), from 100 up ours;
/// the crate's README lists each of ours with its cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// 1: the version of the configuration does not allow what was asked.
    IncompatibleVersion,
    /// 2: a field asks for something that this plugin does not do.
    UnsupportedField,
    /// 3: the container is unknown; the runtime need not clean up after it.
    UnknownContainer,
    /// 4: an environment variable is missing or wrong.
    InvalidEnvironment,
    /// 5: reading or writing failed.
    Io,
    /// 6: what was sent is not the JSON it should be.
    Decode,
    /// 7: the network configuration is wrong.
    InvalidConfig,
    /// 11: a passing trouble; the runtime should try again later.
    TryAgain,
    /// 50 (STATUS): no ADD can be served.
    NotAvailable,
    /// 51 (STATUS): no ADD can be served, and running containers have limited connectivity.
    LimitedConnectivity,
    /// 100: a bug in the plugin, a caught panic for example.
    Internal,
    /// 101: no address is free in the pools that this network may use.
    NoFreeAddress,
    /// 102: the address that was asked for belongs to somebody else, or may not be given out.
    AddressRefused,
    /// 103: CHECK found something that is not as ADD left it.
    CheckFailed,
    /// 104: an interface, route or rule that is not ours is in the way.
    ForeignObject,
    /// 105: the kernel refused a change.
    Kernel,
    /// 106: a delegated plugin could not be run, or did not answer with JSON.
    Delegate,
    /// 107: stored data cannot be understood; nothing was changed.
    StoreDamaged,
    /// The code of a delegated plugin, passed on.
    Other(u32),
}

impl Code {
    /// Every code that has a name.
    pub const ALL: [Code; 18] = [
        Code::IncompatibleVersion,
        Code::UnsupportedField,
        Code::UnknownContainer,
        Code::InvalidEnvironment,
        Code::Io,
        Code::Decode,
        Code::InvalidConfig,
        Code::TryAgain,
        Code::NotAvailable,
        Code::LimitedConnectivity,
        Code::Internal,
        Code::NoFreeAddress,
        Code::AddressRefused,
        Code::CheckFailed,
        Code::ForeignObject,
        Code::Kernel,
        Code::Delegate,
        Code::StoreDamaged,
    ];

    /// The code of a number, ours included.
    pub fn of(number: u32) -> Self {
        Self::ALL.into_iter().find(|code| code.number() == number).unwrap_or(Self::Other(number))
    }

    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Code::IncompatibleVersion => 1,
            Code::UnsupportedField => 2,
            Code::UnknownContainer => 3,
            Code::InvalidEnvironment => 4,
            Code::Io => 5,
            Code::Decode => 6,
            Code::InvalidConfig => 7,
            Code::TryAgain => 11,
            Code::NotAvailable => 50,
            Code::LimitedConnectivity => 51,
            Code::Internal => 100,
            Code::NoFreeAddress => 101,
            Code::AddressRefused => 102,
            Code::CheckFailed => 103,
            Code::ForeignObject => 104,
            Code::Kernel => 105,
            Code::Delegate => 106,
            Code::StoreDamaged => 107,
            Code::Other(number) => number,
        }
    }
}

/// A CNI error. `msg` is one line that says what to do, `details` the chain of causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    pub code: Code,
    pub msg: String,
    pub details: Option<String>,
}

impl CniError {
    /// An error whose message is made one line of bounded length.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: cut(one_line(msg.into()), MAX_MSG), details: None }
    }

    /// The same error with the causes behind it.
    pub fn with_details(self, details: impl Into<String>) -> Self {
        let details = details.into();
        Self { details: (!details.is_empty()).then(|| cut(details, MAX_DETAILS)), ..self }
    }

    /// The same error with the chain of sources of `cause` as details.
    pub fn caused_by(self, cause: &(dyn std::error::Error + 'static)) -> Self {
        let chain: Vec<String> =
            std::iter::successors(Some(cause), |error| error.source()).map(ToString::to_string).collect();
        self.with_details(chain.join(": "))
    }

    pub fn incompatible_version(msg: impl Into<String>) -> Self {
        Self::new(Code::IncompatibleVersion, msg)
    }

    pub fn unsupported_field(msg: impl Into<String>) -> Self {
        Self::new(Code::UnsupportedField, msg)
    }

    pub fn unknown_container(msg: impl Into<String>) -> Self {
        Self::new(Code::UnknownContainer, msg)
    }

    pub fn environment(msg: impl Into<String>) -> Self {
        Self::new(Code::InvalidEnvironment, msg)
    }

    pub fn io(msg: impl Into<String>) -> Self {
        Self::new(Code::Io, msg)
    }

    pub fn decode(msg: impl Into<String>) -> Self {
        Self::new(Code::Decode, msg)
    }

    pub fn config(msg: impl Into<String>) -> Self {
        Self::new(Code::InvalidConfig, msg)
    }

    pub fn try_again(msg: impl Into<String>) -> Self {
        Self::new(Code::TryAgain, msg)
    }

    pub fn not_available(msg: impl Into<String>) -> Self {
        Self::new(Code::NotAvailable, msg)
    }

    pub fn limited_connectivity(msg: impl Into<String>) -> Self {
        Self::new(Code::LimitedConnectivity, msg)
    }

    pub fn internal(msg: impl Into<String>) -> Self {
        Self::new(Code::Internal, msg)
    }

    /// The error as printed on stdout (spec, "Error").
    pub fn to_json(&self, version: Version) -> Value {
        let mut json = json!({
            "cniVersion": version.as_str(),
            "code": self.code.number(),
            "msg": self.msg,
        });
        if let Some(details) = &self.details {
            json["details"] = json!(details);
        }
        json
    }

    /// What a delegated plugin printed, if it is an error: an object with a numeric `code` and
    /// no addresses. Its code, message and details are kept.
    pub fn from_json(value: &Value) -> Option<Self> {
        let number = value.get("code")?.as_u64()?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let code = Code::ALL.into_iter().find(|code| code.number() == number && number < 100);
        Some(Self::new(code.unwrap_or(Code::Other(number)), text("msg")).with_details(text("details")))
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code.number())?;
        self.details.as_ref().map_or(Ok(()), |details| write!(f, ": {}", one_line(details.clone())))
    }
}

impl std::error::Error for CniError {}

fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    text.replace(char::is_control, " ")
}

fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
        text.push('…');
    }
    text
}
