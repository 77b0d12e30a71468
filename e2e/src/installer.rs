//! `percale-install` in a bed: its directories, and versions of our programs that differ.

use crate::bed::{Bed, copy_program};
use crate::netns::must;
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The installer with the bed's plugin directory, `net.d` and `istate`.
pub struct Installer<'a> {
    bed: &'a Bed,
    pub source: PathBuf,
    env: Vec<(String, OsString)>,
}

impl<'a> Installer<'a> {
    /// Installs what is in `source`, and this network configuration.
    pub fn new(bed: &'a Bed, source: &Path, conflist: Option<&Value>) -> Self {
        let config = conflist.map(|conf| ("CNI_NETWORK_CONFIG".to_owned(), conf.to_string().into()));
        Self { bed, source: source.to_owned(), env: config.into_iter().collect() }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// The command, in the host's namespace, behind `wrap`.
    pub fn command(&self, wrap: &[OsString], args: &[&str]) -> Command {
        let bins = self.bed.bins.as_ref().expect("a bed with our binaries");
        let mut words = wrap.iter().cloned().chain([bins.program("percale-install").into()]);
        let mut command = self.bed.host.command(words.next().expect("at least the program"));
        command.args(words);
        command.arg("--bin-dir").arg(self.bed.plugin_dir()).arg("--conf-dir").arg(self.bed.path("net.d"));
        command.arg("--source-dir").arg(&self.source).arg("--state-dir").arg(self.bed.path("istate"));
        command.arg("--host-root").arg(self.bed.dir()).args(args);
        command
            .env("TLS_ASSETS_DIR", self.bed.path("secrets"))
            .env("PERCALE_ACCOUNT_DIR", self.bed.path("account"))
            .env_remove("KUBECONFIG");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(&[], args).output().expect("the installer can be run")
    }

    /// Runs it; it must succeed. What it said.
    pub fn ok(&self, args: &[&str]) -> String {
        String::from_utf8_lossy(&must(&mut self.command(&[], args))).into_owned()
    }
}

/// A source directory with our programs under another hash: bytes behind an ELF file are not read.
pub fn version(bed: &Bed, tag: &str) -> PathBuf {
    let bins = bed.bins.as_ref().expect("a bed with our binaries");
    let dir = bed.path(&format!("source-{tag}"));
    fs::create_dir_all(&dir).expect("the bed is writable");
    for name in ["percale", "percale-cluster"] {
        let tail = bed.write(&format!("tail-{tag}"), tag);
        let both = bed.path(&format!("source-{tag}/{name}"));
        // By another process: see `copy_program`.
        must(Command::new("sh").args(["-ec", "cat \"$1\" \"$2\" > \"$3\"; chmod 755 \"$3\"", "sh"]).args([
            bins.program(name),
            tail,
            both,
        ]));
    }
    dir
}

/// Puts a program under a name, as another installer does: beside, then renamed.
pub fn put_program(from: &Path, to: &Path) {
    let beside = to.with_extension("tmp");
    copy_program(from, &beside);
    fs::rename(beside, to).expect("a rename within the directory");
}

/// True when two files have the same content.
pub fn same(a: &Path, b: &Path) -> bool {
    let read = |path: &Path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    read(a) == read(b)
}

/// Writes a line to stdout at once, for long tests.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
