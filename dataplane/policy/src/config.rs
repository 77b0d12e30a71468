//! Settings of the daemon with Calico's names, precedence and defaults (reference 6):
//! environment `FELIX_NAME`, then the file, then FelixConfiguration `node.NAME`, then `default`.

use ipnet::IpNet;
use model::ip;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

mod names;

/// The pattern of host interfaces whose MTU counts (felix 2511, 2555).
pub const MTU_PATTERN: &str = "^((en|wl|ww|sl|ib)[opsx].*|(eth|wlan|wwan).*)";

/// The settings in force. Zero MTUs are found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub vxlan_enabled: Option<bool>,
    pub vxlan_port: u16,
    pub vxlan_vni: u32,
    pub vxlan_mtu: u32,
    pub vxlan_mtu_v6: u32,
    pub ipip_enabled: Option<bool>,
    pub ipip_mtu: u32,
    pub wireguard_enabled: bool,
    pub wireguard_enabled_v6: bool,
    pub wireguard_port: u16,
    pub wireguard_port_v6: u16,
    pub wireguard_name: String,
    pub wireguard_name_v6: String,
    pub wireguard_mtu: u32,
    pub wireguard_mtu_v6: u32,
    pub wireguard_priority: u32,
    /// First routing table that may be used.
    pub route_table_min: u32,
    pub mtu_pattern: String,
    /// The first item of `InterfacePrefix`.
    pub interface_prefix: String,
    pub allow_vxlan_from_workloads: bool,
    pub allow_ipip_from_workloads: bool,
    pub external_nodes: Vec<IpNet>,
    pub ipv6: bool,
    /// Seconds between full comparisons with the kernel; 0 is never.
    pub refresh_secs: u32,
    /// Calico's name of a level; empty: not set.
    pub log_level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vxlan_enabled: None,
            vxlan_port: 4789,
            vxlan_vni: 4096,
            vxlan_mtu: 0,
            vxlan_mtu_v6: 0,
            ipip_enabled: None,
            ipip_mtu: 0,
            wireguard_enabled: false,
            wireguard_enabled_v6: false,
            wireguard_port: 51820,
            wireguard_port_v6: 51821,
            wireguard_name: "wireguard.cali".to_owned(),
            wireguard_name_v6: "wg-v6.cali".to_owned(),
            wireguard_mtu: 0,
            wireguard_mtu_v6: 0,
            wireguard_priority: 99,
            route_table_min: 1,
            mtu_pattern: MTU_PATTERN.to_owned(),
            interface_prefix: "cali".to_owned(),
            allow_vxlan_from_workloads: false,
            allow_ipip_from_workloads: false,
            external_nodes: Vec::new(),
            ipv6: true,
            refresh_secs: 90,
            log_level: String::new(),
        }
    }
}

/// Where a setting was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Environment,
    File,
    /// A FelixConfiguration by name.
    Stored(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Environment => f.write_str("the environment"),
            Origin::File => f.write_str("the configuration file"),
            Origin::Stored(name) => write!(f, "FelixConfiguration {name}"),
        }
    }
}

/// A setting that has no effect, or not the one that was meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The value is none that the setting can have; the default, or a weaker source, holds.
    Bad { name: String, origin: Origin, value: String },
    /// No setting has this name.
    Unknown { name: String, origin: Origin },
    /// Calico has it; this build does nothing with it.
    Unused { name: String, origin: Origin },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Bad { name, origin, value } => {
                write!(f, "{name} in {origin}: {value:?} is no value for it, and is passed over")
            }
            Problem::Unknown { name, origin } => write!(f, "{name} in {origin}: no setting has this name"),
            Problem::Unused { name, origin } => {
                write!(f, "{name} in {origin}: has no effect in this version")
            }
        }
    }
}

/// The places that settings come from, as they are.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `FELIX_*` without the prefix, in lower case.
    env: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
    stored: BTreeMap<String, Map<String, Value>>,
}

impl Sources {
    /// `env`: the environment's variables; `file`: the text of the configuration file.
    pub fn new(env: impl IntoIterator<Item = (String, String)>, file: &str) -> Self {
        let felix = |(name, value): (String, String)| {
            let name = name.to_ascii_uppercase();
            Some((name.strip_prefix("FELIX_")?.to_ascii_lowercase(), value))
        };
        Self {
            env: env.into_iter().filter_map(felix).collect(),
            file: file_settings(file),
            stored: BTreeMap::new(),
        }
    }

    /// Takes a FelixConfiguration, or its end; true when something changed.
    pub fn set_stored(&mut self, name: &str, settings: Option<Map<String, Value>>) -> bool {
        let before = self.stored.get(name) != settings.as_ref();
        match settings {
            Some(settings) => drop(self.stored.insert(name.to_owned(), settings)),
            None => drop(self.stored.remove(name)),
        }
        before
    }

    /// The settings in force on a node, and what is wrong with what was given. Never fails: a bad value
    /// is as if it were not there.
    pub fn config(&self, node: &str) -> (Config, Vec<Problem>) {
        let mut config = Config::default();
        let mut problems = Vec::new();
        // From the weakest to the strongest, so that the last one that can be read holds.
        for name in ["default".to_owned(), format!("node.{node}")] {
            let settings = self.stored.get(&name).into_iter().flatten();
            for (key, value) in settings.filter(|(_, value)| !value.is_null()) {
                set(&mut config, &mut problems, key, value, Origin::Stored(name.clone()));
            }
        }
        for (texts, origin) in [(&self.file, Origin::File), (&self.env, Origin::Environment)] {
            for (key, text) in texts.iter().filter(|(_, text)| !text.trim().is_empty()) {
                set(&mut config, &mut problems, key, &Value::from(text.trim()), origin.clone());
            }
        }
        problems.sort();
        problems.dedup();
        (config, problems)
    }
}

/// `name = value` lines; sections and comments as Felix's file has them.
fn file_settings(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let line = line.trim();
        if line.starts_with(['#', ';', '[']) {
            return None;
        }
        let (name, value) = line.split_once('=')?;
        Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    text.lines().filter_map(line).collect()
}

fn set(config: &mut Config, problems: &mut Vec<Problem>, key: &str, value: &Value, origin: Origin) {
    let name = key.to_ascii_lowercase();
    match assign(config, &name, value) {
        Some(true) => {}
        Some(false) => {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            problems.push(Problem::Bad {
                name: key.to_owned(),
                origin,
                value: value.chars().take(80).collect(),
            });
        }
        None if names::ELSEWHERE.contains(&name.as_str()) => {}
        None if names::of_calico(&name) => problems.push(Problem::Unused { name: key.to_owned(), origin }),
        None => problems.push(Problem::Unknown { name: key.to_owned(), origin }),
    }
}

/// `None`: no setting of ours has the name. False: the value cannot be read, and nothing was changed.
fn assign(config: &mut Config, name: &str, value: &Value) -> Option<bool> {
    let done = match name {
        "vxlanenabled" => put(&mut config.vxlan_enabled, boolean(value).map(Some)),
        "vxlanport" => put(&mut config.vxlan_port, port(value)),
        "vxlanvni" => put(&mut config.vxlan_vni, number(value, 1..=0x00ff_ffff)),
        "vxlanmtu" => put(&mut config.vxlan_mtu, number(value, 0..=65535)),
        "vxlanmtuv6" => put(&mut config.vxlan_mtu_v6, number(value, 0..=65535)),
        "ipipenabled" | "ipinipenabled" => put(&mut config.ipip_enabled, boolean(value).map(Some)),
        "ipipmtu" | "ipinipmtu" => put(&mut config.ipip_mtu, number(value, 0..=65535)),
        "wireguardenabled" => put(&mut config.wireguard_enabled, boolean(value)),
        "wireguardenabledv6" => put(&mut config.wireguard_enabled_v6, boolean(value)),
        "wireguardlisteningport" => put(&mut config.wireguard_port, port(value)),
        "wireguardlisteningportv6" => put(&mut config.wireguard_port_v6, port(value)),
        "wireguardinterfacename" => put(&mut config.wireguard_name, interface(value)),
        "wireguardinterfacenamev6" => put(&mut config.wireguard_name_v6, interface(value)),
        "wireguardmtu" => put(&mut config.wireguard_mtu, number(value, 0..=65535)),
        "wireguardmtuv6" => put(&mut config.wireguard_mtu_v6, number(value, 0..=65535)),
        "wireguardroutingrulepriority" => put(&mut config.wireguard_priority, number(value, 1..=32765)),
        "routetablerange" => put(&mut config.route_table_min, table(value)),
        "mtuifacepattern" => put(&mut config.mtu_pattern, pattern(value)),
        "interfaceprefix" => put(&mut config.interface_prefix, prefix(value)),
        "allowvxlanpacketsfromworkloads" => put(&mut config.allow_vxlan_from_workloads, boolean(value)),
        "allowipippacketsfromworkloads" => put(&mut config.allow_ipip_from_workloads, boolean(value)),
        "externalnodeslist" | "externalnodescidrlist" => put(&mut config.external_nodes, nets(value)),
        "ipv6support" => put(&mut config.ipv6, boolean(value)),
        "logseverityscreen" => put(&mut config.log_level, level(value)),
        "routerefreshinterval" => put(&mut config.refresh_secs, seconds(value)),
        _ => return None,
    };
    Some(done)
}

fn put<T>(place: &mut T, value: Option<T>) -> bool {
    let is_some = value.is_some();
    if let Some(value) = value {
        *place = value;
    }
    is_some
}

/// Go's words for true and false, and `none` as Felix's zero.
fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(on) => Some(*on),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" | "yes" | "y" => Some(true),
            "false" | "f" | "0" | "no" | "n" | "none" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn number(value: &Value, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let number = match value {
        Value::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
        Value::String(text) if text.eq_ignore_ascii_case("none") => Some(0),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.filter(|number| range.contains(number))
}

fn port(value: &Value) -> Option<u16> {
    number(value, 1..=65535).map(|port| port as u16)
}

/// The environment's plain numbers, and Go's durations (`1m30s`).
fn seconds(value: &Value) -> Option<u32> {
    if let Some(seconds) = number(value, 0..=u32::MAX) {
        return Some(seconds);
    }
    go_duration_ms(value.as_str()?).map(|ms| (ms / 1000) as u32)
}

/// Milliseconds of a Go duration such as `1m30s`, `250ms`.
pub fn go_duration_ms(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let factor = match &unit[..end] {
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 60e3,
            "h" => 3600e3,
            _ => return None,
        };
        total += number * factor;
        rest = &unit[end..];
    }
    (total.is_finite() && total < 1e15).then_some(total as u64)
}

fn level(value: &Value) -> Option<String> {
    let levels = ["trace", "debug", "info", "warning", "warn", "error", "fatal", "panic", "critical", "none"];
    let text = value.as_str()?.to_ascii_lowercase();
    levels.contains(&text.as_str()).then_some(text)
}

fn pattern(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    regex::Regex::new(text).ok().map(|_| text.to_owned())
}

/// The kernel's rules for names (dev_valid_name, net/core/dev.c), narrowed to plain characters.
fn interface(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (!text.is_empty() && text.len() <= 15 && text.chars().all(plain)).then(|| text.to_owned())
}

/// Host ends get their names from the first item.
fn prefix(value: &Value) -> Option<String> {
    let first = value.as_str()?.split(',').next()?.trim();
    let letter = first.starts_with(|c: char| c.is_ascii_alphabetic());
    interface(&Value::from(first)).filter(|first| letter && first.len() <= 14)
}

fn nets(value: &Value) -> Option<Vec<IpNet>> {
    let texts: Vec<String> = match value {
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()?
        }
        Value::String(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
        _ => return None,
    };
    texts.iter().filter(|text| !text.is_empty()).map(|text| ip::parse_net_or_ip(text).ok()).collect()
}

/// `{min, max}`, or `min-max`: the first table of the range.
fn table(value: &Value) -> Option<u32> {
    let (min, max) = match value {
        Value::Object(range) => (range.get("min")?.as_u64()?, range.get("max")?.as_u64()?),
        Value::String(text) => {
            let (min, max) = text.split_once('-')?;
            (min.trim().parse().ok()?, max.trim().parse().ok()?)
        }
        _ => return None,
    };
    // Two tables are used; 253 to 255 are the kernel's.
    (min >= 1 && min < max && max <= 250).then_some(min as u32)
}

/// The names of [`assign`], for tests and pages.
pub fn known_names() -> BTreeSet<&'static str> {
    names::USED.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sources(env: &[(&str, &str)], file: &str, stored: &[(&str, Value)]) -> Sources {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let mut sources = Sources::new(env, file);
        for (name, settings) in stored {
            sources.set_stored(name, settings.as_object().cloned());
        }
        sources
    }

    #[test]
    fn the_strongest_source_that_can_be_read_holds() {
        let stored = [
            ("default", json!({"vxlanPort": 1, "vxlanVNI": 7, "ipipMTU": 1400})),
            ("node.n", json!({"vxlanPort": 2})),
        ];
        let port = |env: &[(&str, &str)], file: &str| sources(env, file, &stored).config("n").0.vxlan_port;
        assert_eq!(port(&[], ""), 2);
        assert_eq!(port(&[], "[global]\n# c\nVXLANPort = 3\n"), 3);
        assert_eq!(port(&[("FELIX_VXLANPORT", "4")], "VXLANPort=3"), 4);
        assert_eq!(port(&[("felix_vxlanport", "4")], ""), 4);
        assert_eq!(port(&[("FELIX_VXLANPORT", "")], "VXLANPort=3"), 3);
        assert_eq!(port(&[("FELIX_VXLANPORT", "x")], "VXLANPort=3"), 3);
        let (other, _) = sources(&[], "", &stored).config("m");
        assert_eq!((other.vxlan_port, other.vxlan_vni, other.ipip_mtu), (1, 7, 1400));
    }

    #[test]
    fn what_is_bad_unknown_or_unused_is_told_and_changes_nothing() {
        let stored =
            [("default", json!({"vxlanPort": 70000, "mtuIfacePattern": "(", "wat": 1, "bpfEnabled": true}))];
        let (config, problems) = sources(&[], "", &stored).config("n");
        assert_eq!(config, Config::default());
        let origin = || Origin::Stored("default".into());
        assert_eq!(
            problems,
            [
                Problem::Bad { name: "mtuIfacePattern".into(), origin: origin(), value: "(".into() },
                Problem::Bad { name: "vxlanPort".into(), origin: origin(), value: "70000".into() },
                Problem::Unknown { name: "wat".into(), origin: origin() },
                Problem::Unused { name: "bpfEnabled".into(), origin: origin() },
            ]
        );
    }

    /// Every name of the table is read, so that the table cannot grow stale.
    #[test]
    fn every_name_in_the_table_is_a_setting() {
        for name in names::USED {
            assert!(assign(&mut Config::default(), name, &json!([[]])).is_some(), "{name}");
            assert!(!names::of_calico(name), "{name} is listed twice");
        }
    }

    #[test]
    fn forms_of_values() {
        assert_eq!(seconds(&json!("1m30s")), Some(90));
        assert_eq!(seconds(&json!("90")), Some(90));
        assert_eq!(go_duration_ms("250ms"), Some(250));
        assert_eq!(go_duration_ms("1x"), None);
        assert_eq!(go_duration_ms("5"), None);
        assert_eq!(table(&json!({"min": 3, "max": 9})), Some(3));
        assert_eq!(table(&json!("1-250")), Some(1));
        assert_eq!(table(&json!("9-3")), None);
        assert_eq!(nets(&json!("10.0.0.1, 10.1.0.0/16")).unwrap().len(), 2);
        assert_eq!(nets(&json!(["x"])), None);
        assert_eq!(prefix(&json!("tap,cali")).as_deref(), Some("tap"));
        assert_eq!(boolean(&json!("None")), Some(false));
    }
}
