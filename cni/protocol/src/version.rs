//! Versions of the CNI specification, and the answer to the verb VERSION.

use serde_json::{Value, json};
use std::fmt;

/// A released version of the CNI specification, oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Also what a configuration without `cniVersion` means.
    #[default]
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    /// Every supported version, oldest first.
    pub const ALL: [Version; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    pub const NEWEST: Version = Version::V1_1_0;

    /// The spelling used in `cniVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version spelled `text`; the empty text is 0.1.0, as a missing key is.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// The version that an answer to `stdin` should carry, however broken `stdin` is: the one it
    /// names, or the newest where it names none that is known. For error answers and VERSION.
    pub fn of_input(stdin: &[u8]) -> Self {
        let Ok(Value::Object(map)) = serde_json::from_slice::<Value>(stdin) else { return Self::NEWEST };
        match map.get("cniVersion") {
            None => Self::default(),
            Some(value) => value.as_str().and_then(Self::parse).unwrap_or(Self::NEWEST),
        }
    }

    /// True for the versions whose result has `ip4` and `ip6` in place of `ips`.
    pub fn is_legacy(self) -> bool {
        self <= Self::V0_2_0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to VERSION, in the asker's version (spec, "VERSION: probe plugin version support").
pub fn supported_json(asked: Version) -> Value {
    json!({
        "cniVersion": asked.as_str(),
        "supportedVersions": Version::ALL.map(Version::as_str),
    })
}
