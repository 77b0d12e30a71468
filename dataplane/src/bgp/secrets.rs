//! Passwords: in a cluster from Secrets, else from files `DIR/NAME/KEY` that nobody else can read.

use super::source::Source;
use super::watch::Watched;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datastore::Deadline;
use model::bgp::SecretKey;
use peering::Secret;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where Secrets are in the store.
const ROOT: &str = "/kubernetes/secrets/";
/// Longest key of TCP MD5 signatures, and a newline.
const LONGEST: u64 = 81;

/// For one answer of the cluster.
const ANSWER: Duration = Duration::from_secs(5);

enum Place {
    Dir(PathBuf),
    Cluster { source: Source, namespace: String },
}

/// What was found, and whether to look again although nobody said that it changed.
struct Known {
    value: Result<Secret, String>,
    again: bool,
}

/// Reads secrets, each once until something is known to be otherwise.
pub(super) struct Secrets {
    place: Place,
    known: BTreeMap<SecretKey, Known>,
}

impl Secrets {
    pub fn in_dir(dir: PathBuf) -> Self {
        Secrets { place: Place::Dir(dir), known: BTreeMap::new() }
    }

    pub fn in_cluster(source: Source, namespace: String) -> Self {
        Secrets { place: Place::Cluster { source, namespace }, known: BTreeMap::new() }
    }

    /// What tells of changes: where there is nothing of the kind, time does.
    pub fn watched(&self) -> Option<Watched> {
        match &self.place {
            Place::Dir(_) => None,
            Place::Cluster { source, namespace } => {
                Some(Watched { prefix: format!("{ROOT}{namespace}/"), store: source.clone() })
            }
        }
    }

    /// Some time went by: files, and what could not be read, are read again when they are next asked for.
    pub fn forget(&mut self) {
        self.known.retain(|_, known| !known.again);
    }

    /// The Secret of this key in the store is another one now.
    pub fn changed(&mut self, key: &str) {
        self.known.retain(|known, _| key.rsplit('/').next() != Some(&known.name));
    }

    /// The password, or in one line why there is none.
    pub fn read(&mut self, key: &SecretKey) -> Result<Secret, String> {
        let read = || match &self.place {
            Place::Dir(dir) => Known { value: read(dir, key), again: true },
            Place::Cluster { source, namespace } => ask(source, namespace, key),
        };
        self.known.entry(key.clone()).or_insert_with(read).value.clone()
    }
}

fn ask(source: &Source, namespace: &str, key: &SecretKey) -> Known {
    let path = format!("{ROOT}{namespace}/{}", key.name);
    let fail = |what: &dyn std::fmt::Display| format!("secret {namespace}/{}: {what}", key.name);
    match source.get().and_then(|store| store.get(&[&path], Deadline::after(ANSWER))) {
        Ok(mut found) => {
            let entry = found.pop().flatten().ok_or_else(|| fail(&"does not exist"));
            Known { value: entry.and_then(|entry| member(&entry.value, key, &fail)), again: false }
        }
        Err(e) => Known { value: Err(fail(&e)), again: true },
    }
}

fn member(
    secret: &[u8],
    key: &SecretKey,
    fail: &impl Fn(&dyn std::fmt::Display) -> String,
) -> Result<Secret, String> {
    let object: Value = serde_json::from_slice(secret).map_err(|e| fail(&e))?;
    let text = object["data"][&key.key].as_str().ok_or_else(|| fail(&format!("has no key {:?}", key.key)))?;
    let octets = STANDARD.decode(text).map_err(|e| fail(&e))?;
    let text = String::from_utf8(octets).map_err(|_| fail(&"is not text"))?;
    Ok(Secret(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
}

fn read(dir: &Path, key: &SecretKey) -> Result<Secret, String> {
    let is_plain = |part: &str| !part.is_empty() && !part.contains('/') && part != "." && part != "..";
    if !is_plain(&key.name) || !is_plain(&key.key) {
        return Err(format!("secret {:?} {:?} has no name of a file", key.name, key.key));
    }
    let path = dir.join(&key.name).join(&key.key);
    let fail = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let metadata = fs::metadata(&path).map_err(|e| fail(&e))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(fail(&"others can read or change it; make its mode 0600"));
    }
    if metadata.len() > LONGEST {
        return Err(fail(&"longer than 80 octets"));
    }
    let text = fs::read_to_string(&path).map_err(|e| fail(&e))?;
    Ok(Secret(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_files_are_read_and_one_newline_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bgp")).unwrap();
        let file = dir.path().join("bgp/key");
        fs::write(&file, "s3cret\n\n").unwrap();
        let key = |name: &str| SecretKey { name: name.into(), key: "key".into() };
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let mut secrets = Secrets::in_dir(dir.path().to_owned());
        mode(0o640);
        assert!(secrets.read(&key("bgp")).unwrap_err().contains("0600"));
        mode(0o600);
        assert!(secrets.read(&key("bgp")).is_err(), "known until it is forgotten");
        secrets.forget();
        assert_eq!(secrets.read(&key("bgp")).unwrap().0, "s3cret\n");
        assert!(secrets.read(&key("..")).unwrap_err().contains("no name of a file"));
        assert!(secrets.read(&key("none")).is_err());
    }
}
