//! A node in a directory: plugin and configuration directory, a source directory, state.

#![allow(dead_code, reason = "each test binary uses some of it")]
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub struct Bed {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
    pub prefix: Vec<String>,
}

/// A plugin in small, which answers VERSION. Each version of it is another file.
pub fn plugin(version: &str) -> String {
    format!(
        "#!/bin/sh\n# {version}\necho '{{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"0.3.1\",\"1.0.0\"]}}'\n"
    )
}

impl Bed {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("percale-install-").tempdir().unwrap();
        let bed = Self { dir, env: Vec::new(), prefix: Vec::new() };
        for sub in ["bin", "net.d", "src", "etc"] {
            fs::create_dir(bed.path(sub)).unwrap();
        }
        bed.version("1");
        bed.env("CALICO_IPV4POOL_CIDR", "10.91.0.0/16")
    }

    /// Another version of everything in the source directory.
    pub fn version(&self, version: &str) {
        for name in ["percale", "percale-cluster", "portmap"] {
            self.put(&format!("src/{name}"), &plugin(&format!("{name} {version}")), 0o755);
        }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub fn unset(&mut self, name: &str) {
        self.env.retain(|(known, _)| known != name);
    }

    pub fn path(&self, tail: &str) -> PathBuf {
        self.dir.path().join(tail)
    }

    pub fn put(&self, tail: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(tail);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Beside and renamed: a program that another test's child holds open stays executable.
        let new = path.with_extension("put");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }

    pub fn text(&self, tail: &str) -> String {
        fs::read_to_string(self.path(tail)).unwrap_or_else(|e| panic!("{tail}: {e}"))
    }

    pub fn json(&self, tail: &str) -> Value {
        serde_json::from_str(&self.text(tail)).unwrap_or_else(|e| panic!("{tail}: {e}"))
    }

    pub fn mode(&self, tail: &str) -> u32 {
        fs::metadata(self.path(tail)).unwrap().permissions().mode() & 0o7777
    }

    pub fn exists(&self, tail: &str) -> bool {
        self.path(tail).exists()
    }

    /// Names in a directory.
    pub fn names(&self, tail: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(tail)).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_percale-install");
        let mut words = self.prefix.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        for (option, dir) in
            [("--bin-dir", "bin"), ("--conf-dir", "net.d"), ("--source-dir", "src"), ("--state-dir", "state")]
        {
            command.arg(option).arg(self.path(dir));
        }
        command.arg("--host-root").arg(self.dir.path()).args(args);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("PERCALE_ACCOUNT_DIR", self.path("account")).env("TLS_ASSETS_DIR", self.path("secrets"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{args:?}: {}: {told}", out.status);
        told + &String::from_utf8_lossy(&out.stdout)
    }

    /// Runs what prints JSON.
    pub fn json_of(&self, args: &[&str]) -> Value {
        let out = self.run(args);
        let told = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{args:?}: {told}");
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// Runs what must fail; what it says.
    pub fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code().is_some_and(|code| code > 0), "{args:?}: {}: {told}", out.status);
        told
    }

    /// The plugin's section of the installed configuration.
    pub fn section(&self) -> Value {
        self.json("net.d/10-percale.conflist")["plugins"][0].clone()
    }

    /// A pod's account.
    pub fn account(self, token: &str) -> Self {
        self.put("account/token", token, 0o600);
        self.put("account/ca.crt", "PEM", 0o644);
        self.env("KUBERNETES_SERVICE_HOST", "10.96.0.1").env("KUBERNETES_SERVICE_PORT", "443")
    }
}

/// Waits for what a process beside this one does.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "waited 30 s in vain: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A child that ends with the test.
pub struct Running(pub std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}
