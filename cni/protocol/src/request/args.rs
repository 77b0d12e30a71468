//! CNI_ARGS: `KEY=value;KEY=value`, with the keys that Kubernetes runtimes and podman send.

use crate::addr::{Mac, parse_ip};
use crate::error::CniError;
use crate::netconf::Mode;
use crate::report::{Problem, Warning, clip, quote};
use std::net::IpAddr;

/// Most addresses that CNI_ARGS may ask for.
const MAX_IPS: usize = 64;
/// Longest name of a pod or namespace (RFC 1123 subdomain, as Kubernetes requires).
const MAX_NAME: usize = 253;

/// The known pairs of CNI_ARGS. A key that is not known is passed on and not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniArgs {
    /// As it came.
    pub raw: String,
    pub pod_namespace: Option<String>,
    pub pod_name: Option<String>,
    pub pod_infra_container_id: Option<String>,
    pub pod_uid: Option<String>,
    /// Addresses asked for, in order.
    pub ips: Vec<IpAddr>,
    pub mac: Option<Mac>,
    pub ignore_unknown: bool,
}

impl CniArgs {
    /// Reads CNI_ARGS. Of two pairs with one key the later counts; empty pairs and empty values
    /// are as absent.
    ///
    /// # Errors
    /// Code 4 for a pair without exactly one `=`, and for a bad value of a known key. With
    /// [`Mode::Tolerant`] these are warnings, and the pair counts as absent.
    pub(crate) fn parse(raw: &str, mode: Mode, warnings: &mut Vec<Warning>) -> Result<Self, CniError> {
        let mut args = Self { raw: raw.to_owned(), ..Self::default() };
        let mut unknown = Vec::new();
        for pair in raw.split(';').filter(|pair| !pair.is_empty()) {
            match args.read_pair(pair) {
                Ok(Known::Yes) => {}
                Ok(Known::No(key)) => unknown.push(key.to_owned()),
                Err(problem) if mode == Mode::Tolerant => warnings.push(Warning::Ignored(problem)),
                Err(problem) => return Err(CniError::environment(problem.to_string())),
            }
        }
        if !args.ignore_unknown {
            let paths = unknown.into_iter().map(|key| format!("CNI_ARGS.{}", clip(&key)));
            warnings.extend(paths.map(|path| Warning::UnknownKey { path }));
        }
        Ok(args)
    }

    fn read_pair<'a>(&mut self, pair: &'a str) -> Result<Known<'a>, Problem> {
        let (key, value) = split(pair).ok_or_else(|| problem("CNI_ARGS", "pairs KEY=value", pair))?;
        match key {
            "K8S_POD_NAMESPACE" => self.pod_namespace = name(key, value)?,
            "K8S_POD_NAME" => self.pod_name = name(key, value)?,
            "K8S_POD_INFRA_CONTAINER_ID" => self.pod_infra_container_id = name(key, value)?,
            "K8S_POD_UID" => self.pod_uid = name(key, value)?,
            "IP" => self.ips = ips(key, value)?,
            "MAC" => self.mac = mac(key, value)?,
            "IgnoreUnknown" => self.ignore_unknown = boolean(key, value)?,
            _ => return Ok(Known::No(key)),
        }
        Ok(Known::Yes)
    }

    /// Namespace and name of the pod, where the runtime gave both.
    pub fn pod(&self) -> Option<(&str, &str)> {
        self.pod_namespace.as_deref().zip(self.pod_name.as_deref())
    }

    /// CNI_ARGS for a delegated plugin: as it came, with leave to ignore what it does not know.
    pub fn for_delegate(&self) -> String {
        if self.raw.is_empty() {
            "IgnoreUnknown=1".to_owned()
        } else {
            format!("IgnoreUnknown=1;{}", self.raw)
        }
    }
}

enum Known<'a> {
    Yes,
    No(&'a str),
}

fn split(pair: &str) -> Option<(&str, &str)> {
    pair.split_once('=').filter(|(key, value)| !key.is_empty() && !value.contains('='))
}

fn problem(key: &str, expected: &str, found: &str) -> Problem {
    let path = if key == "CNI_ARGS" { key.to_owned() } else { format!("CNI_ARGS.{key}") };
    Problem { path, expected: expected.to_owned(), found: quote(found) }
}

fn name(key: &str, value: &str) -> Result<Option<String>, Problem> {
    if value.len() > MAX_NAME || value.contains(|c: char| c.is_control() || c == '/') {
        return Err(problem(key, "a name of at most 253 bytes without '/'", value));
    }
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

fn ips(key: &str, value: &str) -> Result<Vec<IpAddr>, Problem> {
    let wrong = || problem(key, "IP addresses with commas between them", value);
    let texts = value.split(',').map(str::trim).filter(|text| !text.is_empty());
    let ips: Vec<IpAddr> =
        texts.take(MAX_IPS + 1).map(|text| requested_ip(text).ok_or_else(wrong)).collect::<Result<_, _>>()?;
    if ips.len() > MAX_IPS { Err(problem(key, "at most 64 addresses", value)) } else { Ok(ips) }
}

/// An address that is asked for, with or without a prefix length; only the address counts.
pub(crate) fn requested_ip(text: &str) -> Option<IpAddr> {
    if text.contains('/') {
        return crate::addr::parse_net(text).ok().map(|net| net.addr());
    }
    parse_ip(text).ok()
}

fn mac(key: &str, value: &str) -> Result<Option<Mac>, Problem> {
    if value.is_empty() {
        return Ok(None);
    }
    let parsed = value.parse().map(Some);
    parsed.map_err(|_| problem(key, "a unicast Ethernet address such as 0a:58:0a:00:00:05", value))
}

fn boolean(key: &str, value: &str) -> Result<bool, Problem> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" | "" => Ok(false),
        _ => Err(problem(key, "1, 0, true or false", value)),
    }
}
