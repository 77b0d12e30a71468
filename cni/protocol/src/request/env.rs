//! The environment variables of a request (spec, "Parameters").

use super::Attachment;
use crate::error::CniError;
use crate::report::quote;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// IFNAMSIZ less the terminating zero.
const MAX_IFNAME: usize = 15;
/// Longest container id, CNI_NETNS and CNI_ARGS in bytes: far above what runtimes send.
const MAX_ID: usize = 1024;
const MAX_VALUE: usize = 64 * 1024;

/// What the runtime wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Verb {
    const ALL: [Verb; 6] = [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status, Verb::Version];

    /// The spelling used in CNI_COMMAND.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
            Verb::Version => "VERSION",
        }
    }

    /// True for the verbs that clean up, which a runtime repeats until they succeed.
    pub fn must_succeed(self) -> bool {
        matches!(self, Verb::Del | Verb::Gc)
    }

    /// True for the verbs that are about one container.
    fn has_container(self) -> bool {
        matches!(self, Verb::Add | Verb::Del | Verb::Check)
    }

    /// The variables without which the verb makes no sense.
    fn required(self) -> &'static [&'static str] {
        match self {
            Verb::Add | Verb::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Verb::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Verb::Gc | Verb::Status => &["CNI_PATH"],
            Verb::Version => &[],
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The variables of one request. Identifiers are checked later, by [`super::Request::parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Env {
    pub verb: Verb,
    /// Empty where the verb has none.
    pub container_id: String,
    pub netns: Option<PathBuf>,
    /// Empty where the verb has none.
    pub ifname: String,
    /// CNI_ARGS as it came.
    pub args: String,
    pub path: Vec<PathBuf>,
    pub netns_override: bool,
}

impl Env {
    /// Reads the variables through `get`; an empty value counts as absent.
    ///
    /// # Errors
    /// Code 4: unknown command, missing variables (all are named), a value that is not text.
    pub fn from_fn(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, CniError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let text = |name: &str| get(name).map_or(Ok(String::new()), |value| text_of(name, value));
        let verb = verb_of(&text("CNI_COMMAND")?)?;
        let missing: Vec<&str> = verb.required().iter().filter(|name| get(name).is_none()).copied().collect();
        if !missing.is_empty() {
            return Err(missing_error(&missing.join(",")));
        }
        if !verb.has_container() {
            return Ok(Self { path: paths(get("CNI_PATH")), ..Self::bare(verb) });
        }
        Ok(Self {
            container_id: text("CNI_CONTAINERID")?,
            netns: get("CNI_NETNS").map(PathBuf::from),
            ifname: text("CNI_IFNAME")?,
            args: text("CNI_ARGS")?,
            path: paths(get("CNI_PATH")),
            netns_override: matches!(text("CNI_NETNS_OVERRIDE")?.to_lowercase().as_str(), "true" | "1"),
            ..Self::bare(verb)
        })
    }

    fn bare(verb: Verb) -> Self {
        let nothing = String::new;
        let (container_id, ifname, args) = (nothing(), nothing(), nothing());
        Self { verb, container_id, netns: None, ifname, args, path: Vec::new(), netns_override: false }
    }

    /// Refuses container ids and interface names that the specification or the kernel refuses.
    pub(super) fn check_ids(&self) -> Result<(), CniError> {
        if !self.verb.has_container() {
            return Ok(());
        }
        check_container_id(&self.container_id)?;
        check_ifname(&self.ifname)
    }

    pub(super) fn attachment(&self, network: &str) -> Option<Attachment> {
        let named = || Attachment::new(network, self.container_id.as_str(), self.ifname.as_str());
        self.verb.has_container().then(named)
    }
}

fn verb_of(command: &str) -> Result<Verb, CniError> {
    if command.is_empty() {
        return Err(missing_error("CNI_COMMAND"));
    }
    let known = Verb::ALL.into_iter().find(|verb| verb.as_str() == command);
    known.ok_or_else(|| CniError::environment(format!("unknown CNI_COMMAND: {}", quote(command))))
}

fn missing_error(names: &str) -> CniError {
    CniError::environment(format!("required env variables [{names}] missing"))
}

fn text_of(name: &str, value: OsString) -> Result<String, CniError> {
    let limit = if name == "CNI_CONTAINERID" { MAX_ID } else { MAX_VALUE };
    match value.into_string() {
        Ok(text) if text.len() <= limit => Ok(text),
        Ok(_) => Err(CniError::environment(format!("{name} is longer than {limit} bytes"))),
        Err(_) => Err(CniError::environment(format!("{name} is not valid UTF-8"))),
    }
}

fn paths(value: Option<OsString>) -> Vec<PathBuf> {
    let value = value.unwrap_or_default();
    std::env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect()
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.\-]*`: the form of container ids and network names.
pub(crate) fn is_identifier(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) && text.bytes().all(inner)
}

fn check_container_id(id: &str) -> Result<(), CniError> {
    if is_identifier(id) {
        return Ok(());
    }
    let msg = "CNI_CONTAINERID must start with a letter or digit and hold only those, '_', '.' and '-'";
    Err(CniError::environment(format!("{msg}; found {}", quote(id))))
}

fn check_ifname(name: &str) -> Result<(), CniError> {
    let reason = if name.len() > MAX_IFNAME {
        "is longer than 15 bytes"
    } else if matches!(name, "" | "." | "..") {
        "is no interface name"
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        "contains '/', ':', a space or a control character"
    } else if name.contains('%') {
        // The kernel takes it for a pattern, and would make an interface of another name.
        "contains '%'"
    } else {
        return Ok(());
    };
    Err(CniError::environment(format!("CNI_IFNAME {} {reason}", quote(name))))
}
