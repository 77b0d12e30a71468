//! `runtimeConfig`: what a runtime adds for the capabilities that a plugin announces.

use super::ranges::{RangeSet, read_range_set};
use super::read_requested_ip;
use crate::addr::Mac;
use crate::fields::At;
use crate::result::Dns;
use serde_json::Value;
use std::net::IpAddr;

/// The known keys of `runtimeConfig`; the others are another plugin's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Runtime {
    /// Addresses asked for.
    pub ips: Vec<IpAddr>,
    pub mac: Option<Mac>,
    /// Ranges that come before the configuration's own.
    pub ip_ranges: Vec<RangeSet>,
    pub dns: Option<Dns>,
    /// As it came: it is for portmap, which runs after us.
    pub port_mappings: Option<Value>,
}

impl Runtime {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let fields = at.fields()?;
        Some(Self {
            ips: fields.list("ips", read_requested_ip),
            mac: fields.get("mac", read_mac),
            ip_ranges: fields.list("ipRanges", read_range_set),
            dns: fields.get("dns", read_dns),
            port_mappings: fields.raw("portMappings").cloned(),
        })
    }
}

fn read_mac(at: &At<'_>) -> Option<Mac> {
    if at.value.as_str() == Some("") {
        return None;
    }
    at.str_that("a unicast Ethernet address such as 0a:58:0a:00:00:05", |text| text.parse().ok())
}

/// The keys differ from those of a result (CNI conventions, capability `dns`).
fn read_dns(at: &At<'_>) -> Option<Dns> {
    let fields = at.fields()?;
    let either = |keys: [&str; 2]| -> Vec<String> {
        let lists = keys.into_iter().map(|key| fields.list(key, At::string));
        lists.flatten().collect()
    };
    Some(Dns {
        nameservers: either(["servers", "nameservers"]),
        domain: fields.text("domain"),
        search: either(["searches", "search"]),
        options: fields.list("options", At::string),
    })
}
