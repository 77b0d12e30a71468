//! The network configuration: Calico's keys with Calico's meaning, host-local's keys with
//! host-local's meaning, and Percale's own. The crate's README has the table.

mod backends;
mod early;
#[cfg(test)]
mod every_key;
mod ipam;
mod paths;
mod ranges;
mod runtime;
mod settings;
mod valid;

use early::not_an_object;
pub(crate) use early::{check_name, check_version, decode};

pub use backends::{Backends, DatastoreType, Etcd, Kubernetes, Policy, Secret};
pub use ipam::{Families, Ipam, PoolRef, PoolSpec};
pub use paths::{Defaults, PathKeys, Paths};
pub use ranges::RangeSpec;
pub use runtime::Runtime;
pub use settings::{Dataplane, DeviceType, Features, LogLevel, LogSettings, Windows};
pub use valid::{AttachmentId, ValidAttachments};

use crate::error::CniError;
use crate::fields::{At, Fields};
use crate::report::{Problem, Report, Warning};
use crate::request::requested_ip;
use crate::result::{CniResult, Dns, read_dns, read_result};
use crate::version::Version;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Largest configuration in bytes.
pub const MAX_SIZE: usize = 1 << 20;
/// Longest network name in bytes.
const MAX_NAME: usize = 253;

/// The whole configuration, typed. Where a key is absent, the field has its default, or `None`
/// where the default depends on the host or on the name that the binary runs under.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetConf {
    pub cni_version: Version,
    /// The network's name.
    pub name: String,
    /// `type`: file name of the plugin that the runtime called.
    pub plugin: String,
    pub mode: String,
    /// Bytes; 0 means: from the MTU file.
    pub mtu: u32,
    /// The MTU file must be there (Calico 3.31).
    pub require_mtu_file: bool,
    /// Queues of the veth; 0 is the kernel's default.
    pub num_queues: u32,
    pub device_type: DeviceType,
    /// Empty: see `nodename_file`.
    pub nodename: String,
    pub nodename_file_optional: bool,
    /// Deprecated form of `nodename`, weaker than the file.
    pub hostname: String,
    pub path_keys: PathKeys,
    /// Longest wait for the host's IPAM lock.
    pub ipam_lock_timeout: Duration,
    /// Longest time of an ADD, CHECK or STATUS.
    pub add_timeout: Duration,
    /// Longest time of a DEL or GC.
    pub del_timeout: Duration,
    /// Longest wait for policy to be in place before ADD answers; zero is no wait (Calico 3.28).
    pub policy_setup_timeout: Duration,
    /// URLs to wait for before ADD answers.
    pub readiness_gates: Vec<String>,
    pub log: LogSettings,
    pub backends: Backends,
    pub policy: Policy,
    pub allow_ip_forwarding: bool,
    pub features: Features,
    pub include_default_routes: bool,
    pub ip_masq: bool,
    pub dataplane: Dataplane,
    pub windows: Windows,
    pub ipam: Ipam,
    pub dns: Dns,
    pub capabilities: BTreeMap<String, bool>,
    /// `args.cni.ips`.
    pub args_ips: Vec<IpAddr>,
    pub runtime: Runtime,
    pub prev_result: Option<CniResult>,
    pub valid_attachments: ValidAttachments,
}

/// A configuration and what was noticed while it was read.
#[derive(Clone, PartialEq)]
pub struct Parsed {
    pub conf: NetConf,
    /// The configuration as it came, for a delegated plugin. Holds secrets: never log it.
    pub raw: Value,
    pub warnings: Vec<Warning>,
}

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { conf, warnings, .. } = self;
        f.debug_struct("Parsed").field("conf", conf).field("warnings", warnings).finish_non_exhaustive()
    }
}

/// How a bad value of a known key is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is an error.
    Strict,
    /// It is a warning, unless the key says where things are kept or which are meant.
    Tolerant,
}

impl NetConf {
    /// Reads a configuration as ADD does.
    ///
    /// # Errors
    /// Code 6: too large or no JSON object. 7: no valid name, or a known key with a bad value,
    /// which the message names (`ipam.pools[1].cidr`). 1: unknown `cniVersion`.
    pub fn parse(bytes: &[u8]) -> Result<Parsed, CniError> {
        Self::from_value(decode(bytes)?, Mode::Strict)
    }

    /// As [`NetConf::parse`], for JSON that was decoded already, with a choice of strictness.
    pub fn from_value(raw: Value, mode: Mode) -> Result<Parsed, CniError> {
        check_name(&raw)?;
        check_version(&raw)?;
        let map = raw.as_object().ok_or_else(not_an_object)?;
        let report = Report::default();
        let fields = Fields::root(map, &report);
        let conf = Self::read(&fields);
        conf.check_families(&fields);
        fields.finish();
        let (problems, warnings) = report.into_parts();
        let warnings = conf.judge(problems, warnings, mode)?;
        Ok(Parsed { conf, raw, warnings })
    }

    /// Every file and directory, the configuration's or the default.
    pub fn paths(&self, defaults: &Defaults) -> Paths {
        Paths::resolve(&self.path_keys, defaults)
    }

    fn read(fields: &Fields<'_>) -> Self {
        fields.skip(&["cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins"]);
        let runtime = fields.get("runtimeConfig", Runtime::read).unwrap_or_default();
        Self {
            cni_version: fields.get("cniVersion", read_version).unwrap_or_default(),
            name: fields.text("name"),
            plugin: fields.text("type"),
            mode: fields.text("mode"),
            mtu: fields.get("mtu", read_mtu).unwrap_or_default(),
            require_mtu_file: fields.flag("require_mtu_file"),
            num_queues: fields.get("num_queues", |at| at.number_u32(0..=4096)).unwrap_or_default(),
            device_type: fields.get("device_type", DeviceType::read).unwrap_or_default(),
            nodename: fields.get("nodename", read_node_name).unwrap_or_default(),
            nodename_file_optional: fields.flag("nodename_file_optional"),
            hostname: fields.get("hostname", read_node_name).unwrap_or_default(),
            path_keys: PathKeys::read(fields),
            ipam_lock_timeout: seconds(fields, "ipam_lock_timeout", 1, 10),
            add_timeout: seconds(fields, "add_timeout", 1, 60),
            del_timeout: seconds(fields, "del_timeout", 1, 30),
            policy_setup_timeout: seconds(fields, "policy_setup_timeout_seconds", 0, 0),
            readiness_gates: fields.list("readiness_gates", At::string),
            log: LogSettings::read(fields),
            backends: Backends::read(fields),
            policy: fields.get("policy", Policy::read).unwrap_or_default(),
            allow_ip_forwarding: fields.get("container_settings", read_forwarding).unwrap_or_default(),
            features: fields.get("feature_control", Features::read).unwrap_or_default(),
            include_default_routes: fields.flag("include_default_routes"),
            ip_masq: fields.flag("ipMasq"),
            dataplane: fields.get("dataplane_options", Dataplane::read).unwrap_or_default(),
            windows: Windows::read(fields),
            ipam: Ipam::read(fields, &runtime),
            dns: fields.get("dns", read_dns).unwrap_or_default(),
            capabilities: fields.get("capabilities", read_capabilities).unwrap_or_default(),
            args_ips: fields.get("args", read_args_ips).unwrap_or_default(),
            runtime,
            prev_result: fields.get("prevResult", |at| Some(read_result(&at.fields()?))),
            valid_attachments: ValidAttachments::read(fields),
        }
    }

    /// Rules that need more than one key.
    fn check_families(&self, fields: &Fields<'_>) {
        let small = (1..1280).contains(&self.mtu);
        if small && self.ipam.families().v6 {
            fields.doubtful("mtu", "the kernel turns IPv6 off on links with an MTU below 1280");
        }
        let sets =
            |v4: bool| self.ipam.ranges.iter().filter(|set| set[0].subnet.addr().is_ipv4() == v4).count();
        if self.cni_version < Version::V0_3_0 && (sets(true) > 1 || sets(false) > 1) {
            let found = "more: cniVersion must be 0.3.0 or newer for that";
            fields.problem("ipam.ranges", "one range set for each family", found);
        }
    }

    /// Decides which problems stand in the way.
    fn judge(
        &self,
        problems: Vec<Problem>,
        mut warnings: Vec<Warning>,
        mode: Mode,
    ) -> Result<Vec<Warning>, CniError> {
        let own = is_own(&self.plugin);
        let tolerated = |problem: &Problem| match top_key(&problem.path) {
            key if is_vital(key, &problem.path) => false,
            "ipam" => mode == Mode::Tolerant,
            _ => mode == Mode::Tolerant || !own,
        };
        let (minor, fatal): (Vec<_>, Vec<_>) = problems.into_iter().partition(tolerated);
        if let Some(first) = fatal.first() {
            let error = CniError::config(format!("network configuration {:?}: {first}", self.name));
            let rest: Vec<String> = fatal[1..].iter().map(ToString::to_string).collect();
            return Err(error.with_details(rest.join("; ")));
        }
        if !own {
            // The top level is another plugin's, whose keys we need not know.
            warnings
                .retain(|warning| !matches!(warning, Warning::UnknownKey { path } if !path.contains('.')));
        }
        warnings.extend(minor.into_iter().map(Warning::Ignored));
        Ok(warnings)
    }
}

/// True for the names under which this project's plugins answer.
pub(crate) fn is_own(plugin: &str) -> bool {
    matches!(plugin, "" | "percale" | "percale-ipam" | "calico" | "calico-ipam")
}

fn top_key(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or_default()
}

/// A DEL or GC with a default in place of one of these would clean up somewhere else, or too much.
fn is_vital(top: &str, path: &str) -> bool {
    const VITAL: [&str; 14] = [
        "name",
        "type",
        "nodename",
        "hostname",
        "nodename_file",
        "state_dir",
        "attachment_dir",
        "ipam_lock_file",
        "datastore_type",
        "datastore_path",
        "etcd_endpoints",
        "etcd_discovery_srv",
        "kubernetes",
        // `cni.dev/valid-attachments` and `cni.dev/attachments`, up to the first dot
        "cni",
    ];
    VITAL.contains(&top) || matches!(path, "ipam" | "ipam.type")
}

fn read_version(at: &At<'_>) -> Option<Version> {
    at.str_that("a supported version of the CNI specification", Version::parse)
}

fn read_mtu(at: &At<'_>) -> Option<u32> {
    let mtu = at.value.as_u64().filter(|mtu| *mtu == 0 || (68..=65535).contains(mtu));
    let mtu = mtu.and_then(|mtu| u32::try_from(mtu).ok());
    mtu.or_else(|| at.wrong("0 (from the MTU file) or a whole number from 68 to 65535"))
}

/// `container_settings`.
fn read_forwarding(at: &At<'_>) -> Option<bool> {
    at.object(|fields| fields.flag("allow_ip_forwarding"))
}

/// Node names become parts of keys and paths in the store.
fn read_node_name(at: &At<'_>) -> Option<String> {
    let fits = |name: &str| name.len() <= MAX_NAME && !name.contains(|c: char| c.is_control() || c == '/');
    at.str_that("a node name of at most 253 bytes without '/'", |name| fits(name).then(|| name.to_owned()))
}

/// Seconds, at most an hour.
fn seconds(fields: &Fields<'_>, key: &str, least: u64, default: u64) -> Duration {
    Duration::from_secs(fields.get(key, |at| at.number(least..=3600)).unwrap_or(default))
}

fn read_capabilities(at: &At<'_>) -> Option<BTreeMap<String, bool>> {
    let fields = at.fields()?;
    let flag = |key: &String| fields.get(key, At::boolean).map(|on| (key.clone(), on));
    Some(at.value.as_object()?.keys().filter_map(flag).collect())
}

/// `args` may hold anything; only `args.cni.ips` is looked at.
fn read_args_ips(at: &At<'_>) -> Option<Vec<IpAddr>> {
    let cni = at.fields()?.at("cni")?;
    Some(cni.fields()?.list("ips", read_requested_ip))
}

fn read_requested_ip(at: &At<'_>) -> Option<IpAddr> {
    at.str_that("an IP address such as 10.0.0.5 or fd00::5", requested_ip)
}
