//! Finds the binaries under test. A missing one is a failure, never a skipped test.

use std::env;
use std::path::{Path, PathBuf};

/// The directory with `percale` and `percalectl`.
#[derive(Clone, Debug)]
pub struct Bins {
    dir: PathBuf,
}

impl Bins {
    /// `PERCALE_BIN_DIR`, else the workspace's release build, else its debug build.
    pub fn shipped() -> Self {
        match env::var_os("PERCALE_BIN_DIR") {
            Some(dir) => Self::in_dir(PathBuf::from(dir)),
            None => Self::first_of(&["release", "debug"]),
        }
    }

    /// The debug build, which alone has the test clock: `PERCALE_DEBUG_BIN_DIR`, else the workspace's.
    pub fn debug() -> Self {
        match env::var_os("PERCALE_DEBUG_BIN_DIR") {
            Some(dir) => Self::in_dir(PathBuf::from(dir)),
            None => Self::first_of(&["debug"]),
        }
    }

    pub fn percale(&self) -> PathBuf {
        self.dir.join("percale")
    }

    /// Any of the shipped programs.
    pub fn program(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        assert!(path.is_file(), "{} is missing: build it first (cargo build --release)", path.display());
        path
    }

    /// Where they all are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The plugin for cluster stores.
    pub fn percale_cluster(&self) -> PathBuf {
        self.dir.join("percale-cluster")
    }

    pub fn percaled(&self) -> PathBuf {
        self.dir.join("percaled")
    }

    pub fn percalectl(&self) -> PathBuf {
        self.dir.join("percalectl")
    }

    pub fn in_dir(dir: PathBuf) -> Self {
        for name in ["percale", "percalectl"] {
            let path = dir.join(name);
            assert!(path.is_file(), "{} is missing: build it first (cargo build --release)", path.display());
        }
        Self { dir }
    }

    fn first_of(profiles: &[&str]) -> Self {
        let dirs: Vec<PathBuf> = profiles.iter().map(|p| target_dir().join(p)).collect();
        let found = dirs.iter().find(|d| d.join("percale").is_file()).unwrap_or(&dirs[0]);
        Self::in_dir(found.clone())
    }
}

/// The workspace's root, where `testdata` is.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the workspace").to_owned()
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Where `scripts/deps` puts what it builds with Go: `cnitool`, and the newest reference plugins
/// under `plugins/`.
pub fn go_tools() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .expect("HOME or XDG_CACHE_HOME is set");
    cache.join("percale")
}

/// True when the full counts were asked for (`scripts/test --all`).
pub fn full() -> bool {
    env::var_os("PERCALE_FULL").is_some_and(|v| v == "1")
}
