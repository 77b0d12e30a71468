//! What an ADD leaves behind, in one form for all versions of the specification.

mod decode;
mod encode;

use ipnet::IpNet;
use std::net::IpAddr;

pub(crate) use decode::{read_dns, read_result, read_route};

/// The outcome of an ADD (spec, "ADD success"), a superset of what every version can say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResult {
    pub interfaces: Vec<Interface>,
    pub ips: Vec<IpConfig>,
    pub routes: Vec<Route>,
    pub dns: Dns,
}

/// An interface that the attachment has, on either side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// Empty where the plugin did not say.
    pub mac: String,
    /// Bytes; since 1.1.0.
    pub mtu: Option<u32>,
    /// Path of the namespace; `None` is the host's.
    pub sandbox: Option<String>,
    /// Since 1.1.0.
    pub socket_path: Option<String>,
    /// Since 1.1.0.
    pub pci_id: Option<String>,
}

/// An address that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpConfig {
    /// Index into [`CniResult::interfaces`]; since 0.3.0. Not checked against that list.
    pub interface: Option<usize>,
    /// The address with its prefix length; host bits are part of it.
    pub address: IpNet,
    pub gateway: Option<IpAddr>,
}

/// A route, in a result or in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// As written: host bits may be set.
    pub dst: IpNet,
    pub gw: Option<IpAddr>,
    /// Bytes; this and the rest since 1.1.0.
    pub mtu: Option<u32>,
    pub advmss: Option<u32>,
    pub priority: Option<u32>,
    pub table: Option<u32>,
    pub scope: Option<u32>,
}

impl Route {
    pub fn new(dst: IpNet, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

/// Resolver settings that are passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    pub nameservers: Vec<String>,
    pub domain: String,
    pub search: Vec<String>,
    pub options: Vec<String>,
}
