//! Which of the host's addresses is the node's (reference 5.3).

use ipnet::IpNet;
use model::Family;
use model::ip;
use regex::Regex;
use std::net::IpAddr;

/// Interfaces that hold no node address unless one asks for them. Searched, not anchored, as Calico
/// does: `cali.*` also leaves out `vxlan.calico`.
const EXCLUDED: [&str; 12] = [
    "docker.*",
    "cbr.*",
    "dummy.*",
    "virbr.*",
    "lxcbr.*",
    "veth.*",
    "lo",
    "cali.*",
    "tunl.*",
    "flannel.*",
    "kube-ipvs.*",
    "cni.*",
];

/// An interface of the host, in the kernel's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// With the prefixes of their subnets.
    pub addresses: Vec<IpNet>,
}

/// How an address is found (`IP_AUTODETECTION_METHOD`).
#[derive(Clone, Debug)]
pub enum Method {
    FirstFound,
    Interface(Regex),
    SkipInterface(Regex),
    /// The address that packets to this destination would have.
    CanReach(String),
    Cidr(Vec<IpNet>),
    /// The Kubernetes node's `InternalIP`.
    KubernetesInternalIp,
}

/// Text that is no method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no autodetection method; use first-found, interface=REGEX, skip-interface=REGEX, can-reach=DESTINATION, \
     cidr=CIDR or kubernetes-internal-ip"
)]
pub struct BadMethod(pub String);

impl Method {
    /// Empty text is `first-found`.
    ///
    /// # Errors
    /// Another word, a pattern or a CIDR that cannot be read.
    pub fn parse(text: &str) -> Result<Self, BadMethod> {
        let bad = || BadMethod(text.chars().take(80).collect());
        match text.split_once('=') {
            None if text.is_empty() || text == "first-found" => Ok(Self::FirstFound),
            None if text == "kubernetes-internal-ip" => Ok(Self::KubernetesInternalIp),
            Some(("interface", list)) => pattern(list).map(Self::Interface).ok_or_else(bad),
            Some(("skip-interface", list)) => {
                let with_excluded = format!("{list},{}", EXCLUDED.join(","));
                pattern(list).and_then(|_| pattern(&with_excluded)).map(Self::SkipInterface).ok_or_else(bad)
            }
            Some(("can-reach", to)) if !to.is_empty() => Ok(Self::CanReach(to.to_owned())),
            Some(("cidr", list)) => {
                let nets: Option<Vec<IpNet>> = list.split(',').map(|part| ip::parse_net(part).ok()).collect();
                nets.map(Self::Cidr).ok_or_else(bad)
            }
            _ => Err(bad()),
        }
    }
}

/// A list of patterns as one.
fn pattern(list: &str) -> Option<Regex> {
    let parts: Vec<&str> = list.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { None } else { Regex::new(&format!("({})", parts.join(")|("))).ok() }
}

/// Finds the node's address of a family. `asked` holds what the caller found out for the methods that
/// need more than interfaces: the source address towards the destination, or the InternalIPs.
pub fn detect(method: &Method, interfaces: &[Interface], family: Family, asked: &[IpAddr]) -> Option<IpNet> {
    let excluded = || pattern(&EXCLUDED.join(",")).expect("the built-in patterns are sound");
    let first = |is_wanted: &dyn Fn(&Interface, &IpNet) -> bool| {
        let usable = |net: &&IpNet| Family::of_net(net) == family && is_global_unicast(net.addr());
        let all =
            interfaces.iter().rev().flat_map(|i| i.addresses.iter().filter(usable).map(move |net| (i, net)));
        all.into_iter().find(|(i, net)| is_wanted(i, net)).map(|(_, net)| *net)
    };
    match method {
        Method::FirstFound => {
            let excluded = excluded();
            first(&|i, _| !excluded.is_match(&i.name))
        }
        Method::Interface(pattern) => first(&|i, _| pattern.is_match(&i.name)),
        Method::SkipInterface(pattern) => first(&|i, _| !pattern.is_match(&i.name)),
        Method::Cidr(nets) => first(&|_, net| nets.iter().any(|wanted| wanted.contains(&net.addr()))),
        Method::CanReach(_) => first(&|_, net| asked.contains(&net.addr())),
        Method::KubernetesInternalIp => {
            let own = asked.iter().find(|ip| Family::of(**ip) == family)?;
            Some(with_subnet(*own, interfaces))
        }
    }
}

/// An address with the prefix that the host's interface has for it; alone where none has it (node 593).
pub fn with_subnet(ip: IpAddr, interfaces: &[Interface]) -> IpNet {
    let all = interfaces.iter().flat_map(|i| &i.addresses);
    all.copied().find(|net| net.addr() == ip).unwrap_or_else(|| IpNet::from(ip))
}

/// Go's `IsGlobalUnicast`: private addresses are.
fn is_global_unicast(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(link_local || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<Interface> {
        let interface = |name: &str, nets: &[&str]| Interface {
            name: name.to_owned(),
            addresses: nets.iter().map(|net| net.parse().unwrap()).collect(),
        };
        vec![
            interface("lo", &["127.0.0.1/8", "10.9.9.9/32"]),
            interface("eth0", &["169.254.7.7/16", "192.0.2.7/24", "2001:db8::7/64", "fe80::7/64"]),
            interface("eth1", &["198.51.100.7/25"]),
            interface("docker0", &["172.17.0.1/16"]),
            interface("vxlan.calico", &["10.0.0.1/32"]),
        ]
    }

    fn found(method: &str, family: Family, asked: &[&str]) -> Option<String> {
        let asked: Vec<IpAddr> = asked.iter().map(|ip| ip.parse().unwrap()).collect();
        detect(&Method::parse(method).unwrap(), &host(), family, &asked).map(|net| net.to_string())
    }

    // REQ: D-13
    #[test]
    fn every_method_finds_what_calicos_finds() {
        let v4 = |method: &str, asked: &[&str]| found(method, Family::V4, asked);
        assert_eq!(v4("first-found", &[]).as_deref(), Some("198.51.100.7/25"));
        assert_eq!(v4("", &[]), v4("first-found", &[]));
        assert_eq!(v4("interface=eth0", &[]).as_deref(), Some("192.0.2.7/24"));
        assert_eq!(v4("interface=nope,^lo$", &[]).as_deref(), Some("10.9.9.9/32"));
        assert_eq!(v4("skip-interface=eth1", &[]).as_deref(), Some("192.0.2.7/24"));
        assert_eq!(v4("cidr=192.0.2.0/24,10.9.0.0/16", &[]).as_deref(), Some("192.0.2.7/24"));
        assert_eq!(v4("can-reach=example.org", &["192.0.2.7"]).as_deref(), Some("192.0.2.7/24"));
        assert_eq!(
            v4("kubernetes-internal-ip", &["2001:db8::7", "192.0.2.7"]).as_deref(),
            Some("192.0.2.7/24")
        );
        assert_eq!(v4("kubernetes-internal-ip", &["203.0.113.1"]).as_deref(), Some("203.0.113.1/32"));
        assert_eq!(v4("interface=nope", &[]), None);
        assert_eq!(found("first-found", Family::V6, &[]).as_deref(), Some("2001:db8::7/64"));
    }

    #[test]
    fn what_is_no_method_is_refused() {
        for text in ["first", "interface=", "interface=(", "cidr=10.0.0.1", "can-reach=", "skip-interface=,"]
        {
            assert!(Method::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_without_a_prefix_gets_that_of_its_interface() {
        assert_eq!(with_subnet("192.0.2.7".parse().unwrap(), &host()).to_string(), "192.0.2.7/24");
        assert_eq!(with_subnet("192.0.2.8".parse().unwrap(), &host()).to_string(), "192.0.2.8/32");
    }
}
