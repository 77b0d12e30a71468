//! A runtime in small: what libcni does around a plugin, without libcni.
//!
//! It runs a chain in order for ADD and CHECK and backwards for DEL, passes `prevResult`, keeps
//! the final result of every attachment, and hands out capabilities as `runtimeConfig`.
//! Source: CNI specification 1.1.0, section 4 (`execution of network configurations`).

use crate::bed::Bed;
use crate::netns::Netns;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What a runtime attaches: a container's interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    pub container: String,
    pub ifname: String,
    /// Empty when the namespace is gone.
    pub netns: PathBuf,
    /// `CNI_ARGS`.
    pub args: String,
}

impl Attachment {
    pub fn new(container: &str, netns: &Netns) -> Self {
        Self {
            container: container.to_owned(),
            ifname: "eth0".to_owned(),
            netns: netns.path().to_owned(),
            args: String::new(),
        }
    }

    pub fn named(mut self, ifname: &str) -> Self {
        self.ifname = ifname.to_owned();
        self
    }

    pub fn with_args(mut self, args: &str) -> Self {
        self.args = args.to_owned();
        self
    }

    /// The same attachment, told as a runtime does that has lost the namespace.
    pub fn without_netns(&self) -> Self {
        Self { netns: PathBuf::new(), ..self.clone() }
    }

    fn key(&self) -> (String, String) {
        (self.container.clone(), self.ifname.clone())
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The plugin answered with an error of the specification.
    Answered { code: u64, msg: String, details: String },
    /// The plugin ended without an answer.
    Died { signal: Option<i32> },
}

impl Failure {
    pub fn code(&self) -> Option<u64> {
        match self {
            Self::Answered { code, .. } => Some(*code),
            Self::Died { .. } => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { code, msg, details } => write!(f, "error {code}: {msg}; {details}"),
            Self::Died { signal } => write!(f, "no answer (signal {signal:?})"),
        }
    }
}

/// What one process answered.
#[derive(Debug)]
pub struct Answer {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub took: Duration,
}

impl Answer {
    /// The result, `null` where a success printed nothing.
    ///
    /// # Panics
    /// Where stdout is not JSON, or says otherwise than the exit status.
    pub fn result(&self) -> Result<Value, Failure> {
        if self.stdout.trim_ascii().is_empty() {
            return self.silent();
        }
        let told = String::from_utf8_lossy(&self.stdout);
        let json: Value = serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|e| panic!("stdout is not JSON ({e}): {told:?}; stderr: {}", self.stderr_text()));
        let Some(code) = json["code"].as_u64() else {
            assert!(self.status.success(), "a result with {}: {told}", self.status);
            return Ok(json);
        };
        assert!(!self.status.success(), "an error with exit status 0: {told}");
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        Err(Failure::Answered { code, msg: text("msg"), details: text("details") })
    }

    fn silent(&self) -> Result<Value, Failure> {
        if self.status.success() {
            return Ok(Value::Null);
        }
        let signal = self.status.signal();
        assert!(signal.is_some(), "{} without JSON on stdout; stderr: {}", self.status, self.stderr_text());
        Err(Failure::Died { signal })
    }

    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A network: a chain of plugins run in a bed's host namespace.
pub struct Network<'a> {
    bed: &'a Bed,
    pub name: String,
    pub version: String,
    pub plugins: Vec<Value>,
    /// What runs the plugins, such as strace; empty for nothing.
    pub wrap: Vec<OsString>,
    /// Environment beside that of the protocol.
    pub env: Vec<(String, String)>,
    /// Capability arguments, such as `portMappings`.
    pub capabilities: Value,
    results: Mutex<BTreeMap<(String, String), Value>>,
}

impl<'a> Network<'a> {
    /// A network of these plugins at version 1.1.0.
    pub fn new(bed: &'a Bed, name: &str, plugins: Vec<Value>) -> Self {
        Self {
            bed,
            name: name.to_owned(),
            version: "1.1.0".to_owned(),
            plugins,
            wrap: Vec::new(),
            env: Vec::new(),
            capabilities: json!({}),
            results: Mutex::default(),
        }
    }

    pub fn at_version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    pub fn add(&self, pod: &Attachment) -> Result<Value, Failure> {
        let mut prev = None;
        for plugin in &self.plugins {
            prev = Some(self.exec("ADD", &self.config(plugin, prev.as_ref()), pod).result()?);
        }
        let result = prev.expect("a network has a plugin");
        self.results().insert(pod.key(), result.clone());
        Ok(result)
    }

    pub fn check(&self, pod: &Attachment) -> Result<(), Failure> {
        let result = self.results().get(&pod.key()).cloned();
        for plugin in &self.plugins {
            self.exec("CHECK", &self.config(plugin, result.as_ref()), pod).result()?;
        }
        Ok(())
    }

    /// DEL; the kept result is forgotten once it succeeded, as libcni does.
    pub fn del(&self, pod: &Attachment) -> Result<(), Failure> {
        let result = self.results().get(&pod.key()).cloned();
        for plugin in self.plugins.iter().rev() {
            self.exec("DEL", &self.config(plugin, result.as_ref()), pod).result()?;
        }
        self.results().remove(&pod.key());
        Ok(())
    }

    /// GC with the attachments that are to stay.
    pub fn gc(&self, valid: &[&Attachment]) -> Result<(), Failure> {
        let list: Vec<Value> =
            valid.iter().map(|a| json!({"containerID": a.container, "ifname": a.ifname})).collect();
        self.gc_with(json!({"cni.dev/valid-attachments": list, "cni.dev/attachments": list}))
    }

    /// GC with any members in the configuration.
    pub fn gc_with(&self, members: Value) -> Result<(), Failure> {
        for plugin in &self.plugins {
            let mut config = self.config(plugin, None);
            crate::conf::put_all(&mut config, members.clone());
            self.exec_without_container("GC", &config).result()?;
        }
        Ok(())
    }

    pub fn status(&self) -> Result<(), Failure> {
        for plugin in &self.plugins {
            self.exec_without_container("STATUS", &self.config(plugin, None)).result()?;
        }
        Ok(())
    }

    /// Drops the kept result, as a runtime does that crashed.
    pub fn forget(&self, pod: &Attachment) {
        self.results().remove(&pod.key());
    }

    /// The configuration that a plugin of the chain gets.
    pub fn config(&self, plugin: &Value, prev: Option<&Value>) -> Value {
        let mut config = plugin.clone();
        config["name"] = json!(self.name);
        config["cniVersion"] = json!(self.version);
        if let Some(prev) = prev {
            config["prevResult"] = prev.clone();
        }
        let asked = plugin["capabilities"].as_object().cloned().unwrap_or_default();
        for (name, _) in asked.iter().filter(|(_, on)| **on == json!(true)) {
            if let Some(value) = self.capabilities.get(name) {
                config["runtimeConfig"][name] = value.clone();
            }
        }
        config
    }

    /// Runs one plugin once.
    pub fn exec(&self, verb: &str, config: &Value, pod: &Attachment) -> Answer {
        finish(self.start(verb, config, pod))
    }

    /// Starts one plugin and leaves it running.
    pub fn start(&self, verb: &str, config: &Value, pod: &Attachment) -> Running {
        let mut env = vec![("CNI_CONTAINERID", OsString::from(&pod.container))];
        env.push(("CNI_IFNAME", OsString::from(&pod.ifname)));
        env.push(("CNI_NETNS", pod.netns.clone().into()));
        env.push(("CNI_ARGS", OsString::from(&pod.args)));
        self.launch(verb, config, env)
    }

    fn exec_without_container(&self, verb: &str, config: &Value) -> Answer {
        finish(self.launch(verb, config, Vec::new()))
    }

    /// Runs one plugin with text that need not be JSON.
    pub fn exec_raw(&self, verb: &str, kind: &str, stdin: &[u8], pod: &Attachment) -> Answer {
        let env = vec![
            ("CNI_CONTAINERID", OsString::from(&pod.container)),
            ("CNI_IFNAME", OsString::from(&pod.ifname)),
            ("CNI_NETNS", pod.netns.clone().into()),
            ("CNI_ARGS", OsString::from(&pod.args)),
        ];
        finish(self.launch_raw(verb, kind, stdin, env))
    }

    fn launch(&self, verb: &str, config: &Value, env: Vec<(&str, OsString)>) -> Running {
        let kind = config["type"].as_str().expect("a plugin has a type");
        let stdin = serde_json::to_vec(config).expect("a JSON value can be written");
        self.launch_raw(verb, kind, &stdin, env)
    }

    fn launch_raw(&self, verb: &str, kind: &str, stdin: &[u8], env: Vec<(&str, OsString)>) -> Running {
        let mut command = self.program(kind);
        command.env("CNI_COMMAND", verb).env("CNI_PATH", self.bed.plugin_dir()).envs(env);
        command.envs(self.env.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (begun, child) = self.bed.host.run(move || (Instant::now(), command.spawn()));
        let mut child = child.expect("the plugin can be run");
        let mut pipe = child.stdin.take().expect("stdin is a pipe");
        // A plugin that is killed before it has read everything leaves a broken pipe.
        let _ = pipe.write_all(stdin);
        Running { child, begun }
    }

    fn program(&self, kind: &str) -> Command {
        let plugin = self.bed.plugin_dir().join(kind);
        match self.wrap.split_first() {
            None => Command::new(plugin),
            Some((wrapper, args)) => {
                let mut command = Command::new(wrapper);
                command.args(args).arg(plugin);
                command
            }
        }
    }

    fn results(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Value>> {
        self.results.lock().expect("no holder panics")
    }
}

/// A plugin that was started.
pub struct Running {
    pub child: Child,
    begun: Instant,
}

/// Waits for the end of a plugin.
pub fn finish(running: Running) -> Answer {
    let out = running.child.wait_with_output().expect("a child can be waited for");
    Answer { status: out.status, stdout: out.stdout, stderr: out.stderr, took: running.begun.elapsed() }
}

/// The addresses of a result of version 0.3.0 or newer, without their prefix lengths.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().unwrap_or_else(|| panic!("a result has ips: {result}"));
    let bare = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
    ips.iter().map(|ip| bare(ip).unwrap_or_else(|| panic!("an address: {ip}"))).collect()
}

/// The result's address of one family.
pub fn address(result: &Value, v4: bool) -> IpAddr {
    let all = addresses(result);
    *all.iter().find(|a| a.is_ipv4() == v4).unwrap_or_else(|| panic!("no address of the family: {all:?}"))
}
