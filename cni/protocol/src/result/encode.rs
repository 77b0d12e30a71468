//! A result in the shape of each version: 0.1.0 and 0.2.0 have `ip4` and `ip6`, 0.3.0 to 0.4.0
//! have `ips` with a family in each, 1.0.0 drops the family, 1.1.0 adds fields.

use super::{CniResult, Dns, Interface, IpConfig, Route};
use crate::version::Version;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

impl CniResult {
    /// The result as printed on stdout. What `version` has no word for is left out: before 0.3.0
    /// every address after the first of its family, before 1.1.0 the MTU.
    pub fn to_json(&self, version: Version) -> Value {
        let mut json = Map::from_iter([("cniVersion".to_owned(), json!(version.as_str()))]);
        if version.is_legacy() {
            self.put_legacy(&mut json);
        } else {
            self.put_lists(&mut json, version);
        }
        json.insert("dns".to_owned(), dns(&self.dns));
        Value::Object(json)
    }

    fn put_legacy(&self, json: &mut Map<String, Value>) {
        for (key, v4) in [("ip4", true), ("ip6", false)] {
            let first = self.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4);
            if let Some(ip) = first {
                json.insert(key.to_owned(), self.legacy_ip(ip));
            }
        }
    }

    fn legacy_ip(&self, ip: &IpConfig) -> Value {
        let of_family = |route: &&Route| route.dst.addr().is_ipv4() == ip.address.addr().is_ipv4();
        let routes: Vec<Value> =
            self.routes.iter().filter(of_family).map(|route| self::route(route, Version::V0_2_0)).collect();
        let mut json = Map::from_iter([("ip".to_owned(), json!(ip.address.to_string()))]);
        put_text(&mut json, "gateway", ip.gateway);
        put_list(&mut json, "routes", routes);
        Value::Object(json)
    }

    fn put_lists(&self, json: &mut Map<String, Value>, version: Version) {
        put_list(json, "interfaces", self.interfaces.iter().map(|i| interface(i, version)).collect());
        put_list(json, "ips", self.ips.iter().map(|i| ip(i, version)).collect());
        put_list(json, "routes", self.routes.iter().map(|r| route(r, version)).collect());
    }
}

fn interface(of: &Interface, version: Version) -> Value {
    let mut json = Map::from_iter([("name".to_owned(), json!(of.name))]);
    put_str(&mut json, "mac", &of.mac);
    put_str(&mut json, "sandbox", of.sandbox.as_deref().unwrap_or_default());
    if version >= Version::V1_1_0 {
        put_number(&mut json, "mtu", of.mtu);
        put_str(&mut json, "socketPath", of.socket_path.as_deref().unwrap_or_default());
        put_str(&mut json, "pciID", of.pci_id.as_deref().unwrap_or_default());
    }
    Value::Object(json)
}

fn ip(of: &IpConfig, version: Version) -> Value {
    let mut json = Map::from_iter([("address".to_owned(), json!(of.address.to_string()))]);
    if version < Version::V1_0_0 {
        let family = if of.address.addr().is_ipv4() { "4" } else { "6" };
        put_str(&mut json, "version", family);
    }
    if let Some(index) = of.interface {
        json.insert("interface".to_owned(), json!(index));
    }
    put_text(&mut json, "gateway", of.gateway);
    Value::Object(json)
}

fn route(of: &Route, version: Version) -> Value {
    let mut json = Map::from_iter([("dst".to_owned(), json!(of.dst.to_string()))]);
    put_text(&mut json, "gw", of.gw);
    if version >= Version::V1_1_0 {
        let extras = [
            ("mtu", of.mtu),
            ("advmss", of.advmss),
            ("priority", of.priority),
            ("table", of.table),
            ("scope", of.scope),
        ];
        extras.into_iter().for_each(|(key, value)| put_number(&mut json, key, value));
    }
    Value::Object(json)
}

/// Always an object, an empty one too: old runtimes expect the key.
fn dns(of: &Dns) -> Value {
    let mut json = Map::new();
    put_list(&mut json, "nameservers", of.nameservers.iter().map(|s| json!(s)).collect());
    put_str(&mut json, "domain", &of.domain);
    put_list(&mut json, "search", of.search.iter().map(|s| json!(s)).collect());
    put_list(&mut json, "options", of.options.iter().map(|s| json!(s)).collect());
    Value::Object(json)
}

fn put_str(json: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        json.insert(key.to_owned(), json!(text));
    }
}

fn put_text(json: &mut Map<String, Value>, key: &str, address: Option<IpAddr>) {
    if let Some(address) = address {
        json.insert(key.to_owned(), json!(address.to_string()));
    }
}

fn put_number(json: &mut Map<String, Value>, key: &str, number: Option<u32>) {
    if let Some(number) = number {
        json.insert(key.to_owned(), json!(number));
    }
}

fn put_list(json: &mut Map<String, Value>, key: &str, list: Vec<Value>) {
    if !list.is_empty() {
        json.insert(key.to_owned(), Value::Array(list));
    }
}
