//! How large packets may be: of the host, of each tunnel, of pods (reference 3.5).

use crate::config::Config;
use crate::graph::Graph;
use model::Family;
use regex::Regex;

/// Host MTU where no interface matches.
pub const UNKNOWN_HOST: u32 = 1460;

/// Bytes that each encapsulation adds: the outer IP header and what follows it.
pub const IPIP: u32 = 20;
pub const VXLAN: u32 = 50;
pub const VXLAN_V6: u32 = 70;
pub const WIREGUARD: u32 = 60;
pub const WIREGUARD_V6: u32 = 80;

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLink {
    pub name: String,
    pub mtu: u32,
}

/// The MTUs in force, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtus {
    pub host: u32,
    pub vxlan: u32,
    pub vxlan_v6: u32,
    pub ipip: u32,
    pub wireguard: u32,
    pub wireguard_v6: u32,
    pub pod: u32,
    /// No interface matched the pattern.
    pub guessed: bool,
}

/// What holds for these interfaces, settings and pools. Interfaces that carry our own tunnels do not match.
pub fn mtus(links: &[HostLink], graph: &Graph) -> Mtus {
    let config = graph.config();
    let smallest = host(links, config);
    let host = smallest.unwrap_or(UNKNOWN_HOST);
    let less = |set: u32, overhead: u32| if set == 0 { host.saturating_sub(overhead) } else { set };
    let vxlan = less(config.vxlan_mtu, VXLAN);
    let vxlan_v6 = less(config.vxlan_mtu_v6, VXLAN_V6);
    let ipip = less(config.ipip_mtu, IPIP);
    let wireguard = less(config.wireguard_mtu, WIREGUARD);
    let wireguard_v6 = less(config.wireguard_mtu_v6, WIREGUARD_V6);
    let uses = [
        (graph.uses_vxlan(Family::V4), vxlan),
        (graph.uses_vxlan(Family::V6), vxlan_v6),
        (graph.uses_ipip(), ipip),
        (graph.uses_wireguard(Family::V4), wireguard),
        (graph.uses_wireguard(Family::V6), wireguard_v6),
    ];
    let pod = uses.iter().filter(|(on, _)| *on).map(|(_, mtu)| *mtu).min().unwrap_or(host);
    Mtus { host, vxlan, vxlan_v6, ipip, wireguard, wireguard_v6, pod, guessed: smallest.is_none() }
}

fn host(links: &[HostLink], config: &Config) -> Option<u32> {
    let pattern = Regex::new(&config.mtu_pattern).ok()?;
    links.iter().filter(|link| pattern.is_match(&link.name)).map(|link| link.mtu).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MTU_PATTERN, Sources};
    use model::resource::IpPoolSpec;
    use model::{Change, IpPool};

    fn graph(env: &[(&str, &str)], pools: &[(&str, &str, &str)]) -> Graph {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let mut graph = Graph::new("n", false, Sources::new(env, ""));
        for (cidr, vxlan, ipip) in pools {
            let spec = IpPoolSpec {
                cidr: (*cidr).to_owned(),
                vxlan_mode: (*vxlan).to_owned(),
                ipip_mode: (*ipip).to_owned(),
                ..IpPoolSpec::default()
            };
            graph.apply(Change::Pool {
                name: (*cidr).to_owned(),
                pool: Some(Box::new(IpPool::new(cidr, spec))),
            });
        }
        graph
    }

    fn links(all: &[(&str, u32)]) -> Vec<HostLink> {
        all.iter().map(|(name, mtu)| HostLink { name: (*name).to_owned(), mtu: *mtu }).collect()
    }

    // REQ: D-02
    #[test]
    fn the_pattern_finds_the_less_common_names_and_none_of_ours() {
        let pattern = Regex::new(MTU_PATTERN).unwrap();
        for name in
            ["eth0", "ens5", "enp0s3", "eno1", "enx00", "wlan0", "wwan0", "ibp1s0", "ibs2", "slx0", "wlp2s0"]
        {
            assert!(pattern.is_match(name), "{name}");
        }
        for name in ["cali0123456789a", "vxlan.calico", "tunl0", "wireguard.cali", "lo", "docker0", "veth12"]
        {
            assert!(!pattern.is_match(name), "{name}");
        }
    }

    #[test]
    fn the_smallest_matching_interface_less_the_largest_overhead() {
        let links = links(&[("eth0", 1500), ("eth1", 1450), ("docker0", 1200)]);
        let pod = |env: &[(&str, &str)], pools: &[(&str, &str, &str)]| mtus(&links, &graph(env, pools)).pod;
        assert_eq!(pod(&[], &[]), 1450);
        assert_eq!(pod(&[], &[("10.0.0.0/16", "Never", "Always")]), 1430);
        assert_eq!(pod(&[], &[("10.0.0.0/16", "CrossSubnet", "Never"), ("10.1.0.0/16", "", "Always")]), 1400);
        assert_eq!(pod(&[], &[("fd00::/64", "Always", "Never")]), 1380);
        assert_eq!(pod(&[("FELIX_WIREGUARDENABLED", "true")], &[]), 1390);
        assert_eq!(pod(&[("FELIX_VXLANMTU", "1300")], &[("10.0.0.0/16", "Always", "")]), 1300);
        assert_eq!(pod(&[("FELIX_VXLANENABLED", "false")], &[("10.0.0.0/16", "Always", "")]), 1450);
    }

    /// Calico's own test: the pattern "foo" with VXLAN gives 1410, and 1460 without.
    #[test]
    fn nothing_matches() {
        let env = [("FELIX_MTUIFACEPATTERN", "foo")];
        let with = mtus(&links(&[("eth0", 1500)]), &graph(&env, &[("10.0.0.0/16", "Always", "")]));
        assert_eq!((with.pod, with.guessed), (1410, true));
        assert_eq!(mtus(&links(&[("eth0", 1500)]), &graph(&env, &[])).pod, 1460);
    }
}
