//! One request of a runtime: the environment and stdin, checked and typed.

mod args;
mod attachment;
mod env;

pub use args::CniArgs;
pub(crate) use args::requested_ip;
pub use attachment::Attachment;
pub(crate) use env::is_identifier;
pub use env::{Env, Verb};

use crate::error::CniError;
use crate::netconf::{self, Defaults, Mode, NetConf, Paths};
use crate::report::Warning;
use crate::version::Version;
use serde_json::Value;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// A request that was found well-formed. Its `Debug` leaves out what stdin held, secrets and all.
#[derive(Clone, PartialEq)]
pub struct Request {
    pub verb: Verb,
    /// What the verb is about; none for GC, STATUS and VERSION.
    pub attachment: Option<Attachment>,
    /// The network namespace's path, not looked at. ADD and CHECK always have one.
    pub netns: Option<PathBuf>,
    /// The runtime says that the plugin's own namespace may be the container's.
    pub netns_override: bool,
    pub args: CniArgs,
    /// Directories to search for delegated plugins, in order.
    pub path: Vec<PathBuf>,
    pub conf: NetConf,
    /// The program runs under one of Calico's names.
    pub calico: bool,
    /// Every file and directory, the configuration's or the default.
    pub paths: Paths,
    /// stdin as it came, for a delegated plugin. Holds secrets: never log it.
    pub raw: Value,
    pub warnings: Vec<Warning>,
}

impl Request {
    /// Checks a request in the order of the specification's own library: the variables that the
    /// verb needs (in [`Env::from_fn`]: 4), JSON (6), name (7), container and interface (4),
    /// version (1), the rest of the configuration (7), CNI_ARGS (4).
    ///
    /// DEL and GC must be possible after a configuration broke: a bad value that does not say
    /// where things are kept is a warning there.
    pub fn parse(env: Env, stdin: &[u8], defaults: Defaults) -> Result<Self, CniError> {
        if env.verb == Verb::Version {
            return Ok(Self::version(env, stdin, &defaults));
        }
        let raw = netconf::decode(stdin)?;
        netconf::check_name(&raw)?;
        env.check_ids()?;
        allows(env.verb, netconf::check_version(&raw)?)?;
        let mode = if env.verb.must_succeed() { Mode::Tolerant } else { Mode::Strict };
        let netconf::Parsed { conf, raw, mut warnings } = NetConf::from_value(raw, mode)?;
        let args = CniArgs::parse(&env.args, mode, &mut warnings)?;
        Ok(Self {
            attachment: env.attachment(&conf.name),
            verb: env.verb,
            netns: env.netns,
            netns_override: env.netns_override,
            args,
            path: env.path,
            calico: defaults.calico,
            paths: conf.paths(&defaults),
            conf,
            raw,
            warnings,
        })
    }

    /// The same request with another configuration, which keeps its files where they are.
    ///
    /// # Errors
    /// As [`Request::parse`], of the configuration.
    pub fn with_configuration(&self, raw: Value) -> Result<Self, CniError> {
        let mode = if self.verb.must_succeed() { Mode::Tolerant } else { Mode::Strict };
        let netconf::Parsed { conf, raw, warnings } = NetConf::from_value(raw, mode)?;
        Ok(Self { conf, raw, warnings, ..self.clone() })
    }

    fn version(env: Env, stdin: &[u8], defaults: &Defaults) -> Self {
        let conf = NetConf { cni_version: Version::of_input(stdin), ..NetConf::default() };
        Self {
            verb: env.verb,
            attachment: None,
            netns: None,
            netns_override: false,
            args: CniArgs::default(),
            path: env.path,
            calico: defaults.calico,
            paths: conf.paths(defaults),
            conf,
            raw: Value::Null,
            warnings: Vec::new(),
        }
    }

    /// The addresses that were asked for by CNI_ARGS, `args.cni.ips` and `runtimeConfig.ips`, in
    /// this order, each once.
    pub fn requested_ips(&self) -> Vec<IpAddr> {
        let mut wanted: Vec<IpAddr> = Vec::new();
        for ip in self.args.ips.iter().chain(&self.conf.args_ips).chain(&self.conf.runtime.ips) {
            if !wanted.contains(ip) {
                wanted.push(*ip);
            }
        }
        wanted
    }

    /// The Ethernet address that was asked for, by CNI_ARGS or `runtimeConfig.mac`.
    pub fn requested_mac(&self) -> Option<crate::addr::Mac> {
        self.args.mac.or(self.conf.runtime.mac)
    }
}

/// CHECK came with 0.4.0, GC and STATUS with 1.1.0.
fn allows(verb: Verb, version: Version) -> Result<(), CniError> {
    let since = match verb {
        Verb::Check => Version::V0_4_0,
        Verb::Gc | Verb::Status => Version::V1_1_0,
        Verb::Add | Verb::Del | Verb::Version => return Ok(()),
    };
    if version >= since {
        return Ok(());
    }
    let msg = format!("config version does not allow {verb}: cniVersion is {version}, {verb} needs {since}");
    Err(CniError::incompatible_version(msg))
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("verb", &self.verb)
            .field("attachment", &self.attachment)
            .field("netns", &self.netns)
            .field("args", &self.args)
            .field("conf", &self.conf)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}
