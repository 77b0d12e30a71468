//! The answer to ADD.

use super::add::Leased;
use super::call::Call;
use cni_protocol::result::{Interface, IpConfig, Route};
use cni_protocol::{CniResult, Dns, NetConf, Request};
use ipnet::IpNet;
use netlink::{HOST_LL, PodPlan, V4_GATEWAY, Wired};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Both ends of the link, addresses as the container has them (/32, /128), its routes. What an
/// earlier plugin of the chain reported stays in front.
pub(crate) fn of_pod(call: &Call, plan: &PodPlan, wired: &Wired, leased: &Leased) -> CniResult {
    let mut result = call.conf.prev_result.clone().unwrap_or_default();
    let host = interface(&plan.host_name, &wired.host_mac, wired.pod_mtu, None);
    let sandbox = call.req.netns.as_ref().map(|path| path.display().to_string());
    let pod = interface(&plan.pod_name, &wired.pod_mac, wired.pod_mtu, sandbox);
    result.interfaces.extend([host, pod]);
    let index = result.interfaces.len() - 1;
    let ips = plan.addresses.iter().map(|ip| IpConfig {
        interface: Some(index),
        address: IpNet::from(*ip),
        gateway: None,
    });
    result.ips.extend(ips);
    result.routes.extend(
        plan.routes
            .iter()
            .map(|route| Route { mtu: route.mtu, ..Route::new(route.dst, Some(gateway(&route.dst))) }),
    );
    if result.dns == Dns::default() {
        result.dns = leased.dns.clone();
    }
    result
}

fn gateway(dst: &IpNet) -> IpAddr {
    match dst {
        IpNet::V4(_) => V4_GATEWAY.into(),
        IpNet::V6(_) => HOST_LL.into(),
    }
}

fn interface(name: &str, mac: &[u8; 6], mtu: u32, sandbox: Option<String>) -> Interface {
    Interface { name: name.to_owned(), mac: mac_text(mac), mtu: Some(mtu), sandbox, ..Interface::default() }
}

pub(crate) fn mac_text(mac: &[u8; 6]) -> String {
    let mut text = String::with_capacity(17);
    for (i, byte) in mac.iter().enumerate() {
        let colon = if i == 0 { "" } else { ":" };
        write!(text, "{colon}{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}

/// The Ethernet address that the runtime asked for.
pub(crate) fn wished_mac(req: &Request) -> Option<[u8; 6]> {
    req.requested_mac().map(|mac| mac.0)
}

/// `dns` of the configuration; `ipam.resolvConf`, as host-local reads it, where that has none.
pub(crate) fn dns(conf: &NetConf) -> Dns {
    match &conf.ipam.resolv_conf {
        Some(path) if conf.dns == Dns::default() => {
            std::fs::read_to_string(path).map(|text| parse_resolv_conf(&text)).unwrap_or_default()
        }
        _ => conf.dns.clone(),
    }
}

/// resolv.conf(5): nameserver, domain, search and options lines; the rest is passed over.
fn parse_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().take(1000) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next().unwrap_or_default(),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_lines_are_read_as_host_local_reads_them() {
        let text = "# a comment\nnameserver 192.0.2.1\nnameserver fd00::1\nsearch a.example b.example\n\
                    domain c.example\noptions ndots:5 rotate\nnameserver";
        let dns = parse_resolv_conf(text);
        assert_eq!(dns.nameservers, ["192.0.2.1", "fd00::1"]);
        assert_eq!((dns.domain.as_str(), dns.search.len(), dns.options.len()), ("c.example", 2, 2));
    }

    #[test]
    fn a_mac_has_six_lower_case_pairs() {
        assert_eq!(mac_text(&[0xee, 0, 1, 0xab, 0x0c, 0xff]), "ee:00:01:ab:0c:ff");
    }
}
