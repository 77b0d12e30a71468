//! What the plugin and the host's daemon say to each other: JSON of at most [`MAX_MESSAGE`] bytes.
//!
//! Each side speaks [`VERSION`] and the one before it (decision 11). Version 2 sends the configuration
//! as JSON, where version 1 sent it as text, names the state directory by its inode, and returns what
//! the call's log line says.

use crate::{CniError, Code, Env, Verb, Version};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

/// What this build says first.
pub const VERSION: u32 = 2;
/// What it understands and answers as well.
pub const OLDEST: u32 = VERSION - 1;
/// Longest message in bytes: a configuration (1 MiB), which version 1 escapes, and the environment.
pub const MAX_MESSAGE: usize = 4 << 20;

/// The variables of a request, in the specification's names.
const VARIABLES: [&str; 7] = [
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
    "CNI_NETNS_OVERRIDE",
];

/// A request as the plugin was given it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The name that the plugin runs under.
    pub program: String,
    /// Time left for the answer.
    pub left: Duration,
    /// The store that the configuration means; see `cni::engine::store_label`.
    pub store: String,
    /// Device and inode of the state directory, where it exists: both sides must see the same one.
    pub state_dir: Option<(u64, u64)>,
    /// The variables of the request that are set.
    pub env: BTreeMap<String, String>,
    /// stdin: JSON, since the plugin has parsed it. Holds secrets: never log it.
    pub config: String,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// It was served. The result is JSON; `None` where the verb has none.
    Served { outcome: Result<Option<String>, CniError>, log: LogPart },
    /// It was not begun: the plugin is to serve it itself.
    Refused {
        why: String,
        /// The versions that the daemon speaks.
        speaks: Vec<u32>,
    },
}

/// What the daemon knows of a call's log line; the plugin writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogPart {
    pub addresses: Vec<String>,
    /// Parts of the call, in microseconds.
    pub phases: Vec<(String, u64)>,
    pub note: String,
}

/// Bytes that are no message of a version spoken here.
#[derive(Debug)]
pub enum Malformed {
    Json(serde_json::Error),
    Version(u32),
    Missing(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(e) => write!(f, "no message of this protocol: {e}"),
            Self::Version(version) => write!(f, "version {version} of the protocol is not spoken here"),
            Self::Missing(what) => write!(f, "{what} is missing"),
        }
    }
}

impl std::error::Error for Malformed {}

impl From<serde_json::Error> for Malformed {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

#[derive(Deserialize)]
struct Head {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct AskV1<'a> {
    version: u32,
    program: Cow<'a, str>,
    left_ms: u64,
    store: Cow<'a, str>,
    env: Cow<'a, BTreeMap<String, String>>,
    stdin: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct AskV2<'a> {
    version: u32,
    program: Cow<'a, str>,
    left_ms: u64,
    store: Cow<'a, str>,
    state_dir: Option<(u64, u64)>,
    env: Cow<'a, BTreeMap<String, String>>,
    #[serde(borrow)]
    config: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct ReplyV1 {
    version: u32,
    /// What the plugin prints; empty where the verb has no result.
    stdout: String,
    failed: bool,
}

#[derive(Serialize, Deserialize)]
struct ReplyV2<'a> {
    version: u32,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<ErrorPart>,
    #[serde(default)]
    log: LogPart,
}

#[derive(Serialize, Deserialize)]
struct ErrorPart {
    code: u32,
    msg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<String>,
}

/// The one form that is the same in all versions.
#[derive(Serialize, Deserialize)]
struct Refusal {
    refused: String,
    #[serde(default)]
    speaks: Vec<u32>,
}

impl Ask {
    /// The variables among those of the process, as far as they are text: others were refused before.
    pub fn variables(get: impl Fn(&str) -> Option<OsString>) -> BTreeMap<String, String> {
        let set =
            VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), get(name)?.into_string().ok()?)));
        set.filter(|(_, value)| !value.is_empty()).collect()
    }

    /// # Errors
    /// As when the plugin itself reads them.
    pub fn env(&self) -> Result<Env, CniError> {
        Env::from_fn(|name| self.env.get(name).map(OsString::from))
    }

    /// Whether it asks for a clean-up, which is never refused for want of room.
    pub fn is_clean_up(&self) -> bool {
        self.env().is_ok_and(|env| matches!(env.verb, Verb::Del | Verb::Gc))
    }

    /// # Errors
    /// `Version` for one that is not spoken here, `Json` for a configuration that is none.
    pub fn encode(&self, version: u32) -> Result<Vec<u8>, Malformed> {
        let left_ms = u64::try_from(self.left.as_millis()).unwrap_or(u64::MAX);
        let (program, store) = (Cow::from(&self.program), Cow::from(&self.store));
        let env = Cow::Borrowed(&self.env);
        Ok(match version {
            1 => {
                let stdin = Cow::from(&self.config);
                serde_json::to_vec(&AskV1 { version, program, left_ms, store, env, stdin })?
            }
            2 => {
                let config: &RawValue = serde_json::from_str(&self.config)?;
                let state_dir = self.state_dir;
                serde_json::to_vec(&AskV2 { version, program, left_ms, store, state_dir, env, config })?
            }
            other => return Err(Malformed::Version(other)),
        })
    }

    /// The request and the version that it came in, in which it is to be answered.
    ///
    /// # Errors
    /// [`Malformed`]; a refusal is the answer to it.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u32), Malformed> {
        let Head { version } = serde_json::from_slice(bytes)?;
        let ask = match version {
            1 => {
                let ask: AskV1 = serde_json::from_slice(bytes)?;
                Self::new(ask.program, ask.left_ms, ask.store, None, ask.env, ask.stdin.into_owned())
            }
            2 => {
                let ask: AskV2 = serde_json::from_slice(bytes)?;
                let config = ask.config.get().to_owned();
                Self::new(ask.program, ask.left_ms, ask.store, ask.state_dir, ask.env, config)
            }
            other => return Err(Malformed::Version(other)),
        };
        Ok((ask, version))
    }

    fn new(
        program: Cow<str>,
        left_ms: u64,
        store: Cow<str>,
        state_dir: Option<(u64, u64)>,
        env: Cow<BTreeMap<String, String>>,
        config: String,
    ) -> Self {
        Self {
            program: program.into_owned(),
            left: Duration::from_millis(left_ms),
            store: store.into_owned(),
            state_dir,
            env: env.into_owned(),
            config,
        }
    }
}

impl Reply {
    pub fn refused(why: impl Into<String>) -> Self {
        Self::Refused { why: why.into(), speaks: (OLDEST..=VERSION).collect() }
    }

    /// In the version of the request. A result that is no JSON cannot be said: it is a bug, and told so.
    pub fn encode(&self, version: u32) -> Vec<u8> {
        let written = match self {
            Self::Refused { why, speaks } => {
                serde_json::to_vec(&Refusal { refused: why.clone(), speaks: speaks.clone() })
            }
            Self::Served { outcome, .. } if version == 1 => serde_json::to_vec(&ReplyV1 {
                version,
                stdout: match outcome {
                    Ok(json) => json.clone().unwrap_or_default(),
                    Err(error) => error.to_json(Version::V1_0_0).to_string(),
                },
                failed: outcome.is_err(),
            }),
            Self::Served { outcome, log } => served(outcome, log),
        };
        written.unwrap_or_else(|e| format!(r#"{{"refused":"a bug in the daemon: {e}"}}"#).into_bytes())
    }

    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if let Ok(Refusal { refused, speaks }) = serde_json::from_slice(bytes) {
            return Ok(Self::Refused { why: refused, speaks });
        }
        let Head { version } = serde_json::from_slice(bytes)?;
        match version {
            1 => of_v1(serde_json::from_slice(bytes)?),
            2 => of_v2(serde_json::from_slice(bytes)?),
            other => Err(Malformed::Version(other)),
        }
    }
}

fn served(outcome: &Result<Option<String>, CniError>, log: &LogPart) -> Result<Vec<u8>, serde_json::Error> {
    let result = match outcome {
        Ok(Some(json)) => Some(serde_json::from_str::<&RawValue>(json)?),
        _ => None,
    };
    let error = outcome.as_ref().err().map(|error| ErrorPart {
        code: error.code.number(),
        msg: error.msg.clone(),
        details: error.details.clone(),
    });
    serde_json::to_vec(&ReplyV2 { version: 2, result, error, log: log.clone() })
}

fn of_v1(reply: ReplyV1) -> Result<Reply, Malformed> {
    let outcome = match reply.failed {
        true => {
            let value = serde_json::from_str(&reply.stdout)?;
            Err(CniError::from_json(&value).ok_or(Malformed::Missing("code"))?)
        }
        false => Ok(Some(reply.stdout).filter(|text| !text.is_empty())),
    };
    Ok(Reply::Served { outcome, log: LogPart::default() })
}

fn of_v2(reply: ReplyV2) -> Result<Reply, Malformed> {
    let outcome = match reply.error {
        Some(ErrorPart { code, msg, details }) => {
            Err(CniError::new(Code::of(code), msg).with_details(details.unwrap_or_default()))
        }
        None => Ok(reply.result.map(|json| json.get().to_owned())),
    };
    Ok(Reply::Served { outcome, log: reply.log })
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
