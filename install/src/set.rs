//! The files that make up an installation, and what is recorded of them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// SHA-256 of a file's content, in hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(pub String);

impl Hash {
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::{Digest as _, Sha256};
        Self::from_digest(&Sha256::digest(bytes))
    }

    pub fn from_digest(digest: &[u8]) -> Self {
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Enough of it for a person.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a file is for; in this order files are put in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Plugin,
    Kubeconfig,
    Certificate,
    /// The configuration that the daemon publishes when it is ready (decision 36).
    Staged,
    /// How much of Calico's work is ours on this node, for the daemon.
    Stage,
    Conflist,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Kubeconfig => "kubeconfig",
            Self::Certificate => "certificate",
            Self::Staged => "staged",
            Self::Stage => "stage",
            Self::Conflist => "conflist",
        }
    }

    /// Whether a change of it makes another set, to which `--rollback` returns. Tokens and
    /// certificates are renewed all the time, and old ones are of no use.
    pub fn makes_generation(self) -> bool {
        matches!(self, Self::Plugin | Self::Conflist)
    }
}

/// Content and mode of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub sha256: Hash,
    /// Permission bits.
    pub mode: u32,
}

/// A file of an installation as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub path: PathBuf,
    pub kind: Kind,
    #[serde(flatten)]
    pub content: Content,
    /// What somebody else had there: it comes back when we go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Content>,
}

/// A complete installation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// Version of the installer that made it.
    pub made_by: String,
    /// Calico's names are ours on this node.
    #[serde(default)]
    pub taken_over: bool,
    /// Calico-node's work is ours as well (stage 2). Without `taken_over`: it is Calico's again, and calico-node
    /// is to be let in.
    #[serde(default)]
    pub routes: bool,
    /// It is, or was, the way back to an earlier set.
    #[serde(default)]
    pub back: bool,
    pub files: Vec<Entry>,
    /// Files of others that are away while this set is in place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub displaced: Vec<Displaced>,
}

/// A file of somebody else that had to go, such as the configuration of CNI_OLD_CONF_NAME.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Displaced {
    pub path: PathBuf,
    pub kind: Kind,
    pub origin: Content,
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.displaced.is_empty()
    }

    pub fn find(&self, path: &Path) -> Option<&Entry> {
        self.files.iter().find(|entry| entry.path == path)
    }

    /// What is compared to tell one set from another.
    pub fn generation(&self) -> Vec<(&Path, &Hash)> {
        let counts = self.files.iter().filter(|entry| entry.kind.makes_generation());
        let mut all: Vec<_> = counts.map(|entry| (entry.path.as_path(), &entry.content.sha256)).collect();
        all.sort();
        all
    }

    /// Every content that this set may have to bring back.
    pub fn origins(&self) -> impl Iterator<Item = &Content> {
        let of_files = self.files.iter().filter_map(|entry| entry.origin.as_ref());
        of_files.chain(self.displaced.iter().map(|gone| &gone.origin))
    }
}

/// In the state directory: `plugin`, `all` or `given-back` (the daemon's `stage` module reads it).
pub const STAGE_FILE: &str = "take-over";

/// Names that are nobody's but ours: what lies there was never somebody else's.
pub fn is_own_name(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let in_ours = path.parent().and_then(Path::file_name).is_some_and(|dir| dir == "percale-tls");
    in_ours || name == STAGE_FILE || name.starts_with("percale") || name.contains("-percale.")
}
