//! Results of other plugins: `prevResult`, and what a delegated IPAM answers. The shape tells the
//! layout (`ip4`/`ip6` or lists), so a result that forgets its `cniVersion` is understood too.

use super::{CniResult, Dns, Interface, IpConfig, Route};
use crate::error::{CniError, Code};
use crate::fields::{At, Fields};
use crate::report::Report;
use crate::version::Version;
use serde_json::{Value, json};

impl CniResult {
    /// A result in the shape of any supported version. Unknown keys are dropped.
    ///
    /// # Errors
    /// Code 1 for an unknown `cniVersion`, 6 for a value of the wrong kind; the message names the key.
    pub fn from_json(value: &Value) -> Result<Self, CniError> {
        let report = Report::default();
        let Some(map) = value.as_object() else {
            return Err(CniError::decode("a CNI result must be a JSON object"));
        };
        let result = read_result(&Fields::root(map, &report));
        match report.into_parts().0.first() {
            None => Ok(result),
            Some(problem) if problem.path == "cniVersion" => {
                Err(CniError::incompatible_version(format!("unusable CNI result: {problem}")))
            }
            Some(problem) => Err(CniError::new(Code::Decode, format!("unusable CNI result: {problem}"))),
        }
    }
}

pub(crate) fn read_result(fields: &Fields<'_>) -> CniResult {
    let known = |at: &At<'_>| at.str_that("a supported version of the CNI specification", Version::parse);
    fields.get("cniVersion", known);
    let mut result = CniResult {
        interfaces: fields.list("interfaces", read_interface),
        ips: fields.list("ips", |at| read_ip(at, "address")),
        routes: fields.list("routes", read_route),
        dns: fields.get("dns", read_dns).unwrap_or_default(),
    };
    for key in ["ip4", "ip6"] {
        fields.get(key, |at| read_legacy_ip(at, &mut result));
    }
    result
}

fn read_legacy_ip(at: &At<'_>, result: &mut CniResult) -> Option<()> {
    result.routes.extend(at.fields()?.list("routes", read_route));
    result.ips.push(read_ip(at, "ip")?);
    Some(())
}

fn read_interface(at: &At<'_>) -> Option<Interface> {
    let fields = at.fields()?;
    Some(Interface {
        name: fields.text("name"),
        mac: fields.text("mac"),
        mtu: fields.get("mtu", |at| at.number_u32(0..=u32::MAX)).filter(|mtu| *mtu != 0),
        sandbox: non_empty(&fields, "sandbox"),
        socket_path: non_empty(&fields, "socketPath"),
        pci_id: non_empty(&fields, "pciID"),
    })
}

fn non_empty(fields: &Fields<'_>, key: &str) -> Option<String> {
    fields.string(key).filter(|text| !text.is_empty())
}

fn read_ip(at: &At<'_>, address_key: &str) -> Option<IpConfig> {
    let fields = at.fields()?;
    let interface = fields.get("interface", |at| at.number(0..=u64::from(u32::MAX)));
    let gateway = fields.get("gateway", read_optional_address);
    if fields.at(address_key).is_none() {
        fields.problem(address_key, "an address with its prefix length", "nothing");
    }
    let address = fields.get(address_key, At::network)?;
    Some(IpConfig { interface: interface.and_then(|i| usize::try_from(i).ok()), address, gateway })
}

/// Go's encoder writes an unset address as an empty text in some versions.
fn read_optional_address(at: &At<'_>) -> Option<std::net::IpAddr> {
    if *at.value == json!("") { None } else { at.address() }
}

pub(crate) fn read_route(at: &At<'_>) -> Option<Route> {
    let fields = at.fields()?;
    let number = |key: &str| fields.get(key, |at| at.number_u32(0..=u32::MAX));
    let dst = fields.at("dst");
    if dst.is_none() {
        at.doubtful("a route without dst is left out");
    }
    let route = Route {
        dst: dst?.network()?,
        gw: fields.get("gw", read_optional_address),
        mtu: number("mtu").filter(|mtu| *mtu != 0),
        advmss: number("advmss").filter(|mss| *mss != 0),
        priority: number("priority"),
        table: number("table"),
        scope: number("scope"),
    };
    Some(route)
}

pub(crate) fn read_dns(at: &At<'_>) -> Option<Dns> {
    let fields = at.fields()?;
    Some(Dns {
        nameservers: fields.list("nameservers", At::string),
        domain: fields.text("domain"),
        search: fields.list("search", At::string),
        options: fields.list("options", At::string),
    })
}
