//! Small groups of keys: logging, features, the kind of data plane, Windows.

use crate::fields::{At, Fields};
use std::time::Duration;

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Error,
    #[default]
    Info,
    Debug,
}

/// The `log_*` keys. A bad value is a warning and the default, never an error. The file is in
/// [`super::Paths::log_file`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub level: LogLevel,
    /// Megabytes of one file before it is rotated.
    pub max_size_mb: u32,
    /// Days that a rotated file is kept.
    pub max_age_days: u32,
    /// Rotated files that are kept.
    pub max_count: u32,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: LogLevel::Info, max_size_mb: 100, max_age_days: 30, max_count: 10 }
    }
}

impl LogSettings {
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        let default = Self::default();
        let number = |key: &str, default: u32| fields.get(key, log_number).unwrap_or(default);
        Self {
            level: fields.get("log_level", LogLevel::read).unwrap_or_default(),
            max_size_mb: number("log_file_max_size", default.max_size_mb),
            max_age_days: number("log_file_max_age", default.max_age_days),
            max_count: number("log_file_max_count", default.max_count),
        }
    }
}

impl LogLevel {
    /// Calico's levels are three; any other text means info there (Calico 3.18).
    fn read(at: &At<'_>) -> Option<Self> {
        match at.value.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("error") => Some(Self::Error),
            Some("info" | "") => Some(Self::Info),
            Some("debug") => Some(Self::Debug),
            _ => at.ignore("debug, info or error"),
        }
    }
}

/// 0 means the default.
fn log_number(at: &At<'_>) -> Option<u32> {
    match at.value.as_u64().map(u32::try_from) {
        Some(Ok(0)) => None,
        Some(Ok(number)) => Some(number),
        _ => at.ignore("a whole number"),
    }
}

/// `feature_control`: what pod annotations may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    pub ip_addrs_no_ipam: bool,
    pub floating_ips: bool,
}

impl Features {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        at.object(|fields| Self {
            ip_addrs_no_ipam: fields.flag("ip_addrs_no_ipam"),
            floating_ips: fields.flag("floating_ips"),
        })
    }
}

/// `device_type`: what joins pod and host (Calico 3.33).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceType {
    #[default]
    Veth,
    Netkit,
}

impl DeviceType {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        at.str_that("veth or netkit", |text| match text {
            "" | "veth" => Some(Self::Veth),
            "netkit" => Some(Self::Netkit),
            _ => None,
        })
    }
}

/// `dataplane_options`: who makes the pod's interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Dataplane {
    /// This plugin.
    #[default]
    Native,
    /// A server behind a gRPC socket.
    Grpc { socket: String },
}

impl Dataplane {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let fields = at.fields()?;
        let kind = fields.get("type", |at| {
            at.str_that("grpc, or no type", |text| matches!(text, "" | "grpc").then(|| text.to_owned()))
        })?;
        if kind.is_empty() {
            return Some(Self::Native);
        }
        let socket = fields.text("socket");
        if socket.is_empty() {
            fields.problem("socket", "the address of the gRPC server", "nothing");
        }
        Some(Self::Grpc { socket })
    }
}

/// Keys that mean something on Windows only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// `xx-xx`, the first two bytes of the endpoints' MAC on overlay networks.
    pub vxlan_mac_prefix: String,
    /// 4096 to 2^24-1.
    pub vxlan_vni: u32,
    pub pod_deletion_timestamp_timeout: Duration,
    pub use_single_network: bool,
    pub disable_default_deny_all_policy: bool,
    pub loopback_dsr: bool,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            vxlan_mac_prefix: "0E-2A".to_owned(),
            vxlan_vni: 4096,
            pod_deletion_timestamp_timeout: Duration::from_secs(600),
            use_single_network: false,
            disable_default_deny_all_policy: false,
            loopback_dsr: false,
        }
    }
}

impl Windows {
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        let default = Self::default();
        let timeout = fields.get("windows_pod_deletion_timestamp_timeout", |at| at.number(0..=86400));
        Self {
            vxlan_mac_prefix: fields.get("vxlan_mac_prefix", mac_prefix).unwrap_or(default.vxlan_mac_prefix),
            vxlan_vni: fields.get("vxlan_vni", vni).unwrap_or(default.vxlan_vni),
            pod_deletion_timestamp_timeout: timeout
                .filter(|seconds| *seconds != 0)
                .map_or(default.pod_deletion_timestamp_timeout, Duration::from_secs),
            use_single_network: fields.flag("windows_use_single_network"),
            disable_default_deny_all_policy: fields.flag("windows_disable_default_deny_all_policy"),
            loopback_dsr: fields.flag("windows_loopback_DSR"),
        }
    }
}

fn mac_prefix(at: &At<'_>) -> Option<String> {
    let pair = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let valid = |text: &str| text.split_once('-').is_some_and(|(a, b)| pair(a) && pair(b));
    at.str_that("two bytes such as 0E-2A", |text| valid(text).then(|| text.to_owned()))
}

/// VNIs up to 4095 are reserved by HNS; 0 is the default.
fn vni(at: &At<'_>) -> Option<u32> {
    let valid = |vni: &u32| *vni == 0 || (4096..1 << 24).contains(vni);
    let vni = at.value.as_u64().and_then(|vni| u32::try_from(vni).ok()).filter(valid);
    vni.map(|vni| vni.max(4096)).or_else(|| at.wrong("0 or a whole number from 4096 to 16777215"))
}
