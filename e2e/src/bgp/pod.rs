//! A pod made by hand: a namespace behind a `cali` link with a host route, as the plugin leaves it.

use super::{Fabric, Node, ip};
use crate::netns::{Netns, must};
use std::net::IpAddr;

impl Fabric {
    /// A pod with this address on a node. It goes with the value; its link goes with it.
    pub fn pod(&self, node: &Node, addr: IpAddr) -> Netns {
        let number = match addr {
            IpAddr::V4(a) => u32::from(a),
            IpAddr::V6(a) => (u128::from(a) & 0xffff_ffff) as u32,
        };
        let (pod, link) = (Netns::new(&format!("{}-p{number:x}", self.prefix)), format!("cali{number:08x}"));
        let mac = "ee:ee:ee:ee:ee:ee";
        ip(&node.ns, &format!("link add {link} address {mac} type veth peer name eth0 netns {}", pod.name()));
        ip(&node.ns, &format!("link set {link} up"));
        ip(&pod, "link set eth0 up");
        let (gateway, len) = if addr.is_ipv4() { ("169.254.1.1", 32) } else { ("fe80::1", 128) };
        let flag = if addr.is_ipv4() { "" } else { " nodad" };
        ip(&pod, &format!("addr add {addr}/{len} dev eth0{flag}"));
        ip(&pod, &format!("neigh add {gateway} lladdr {mac} dev eth0 nud permanent"));
        ip(&pod, &format!("route add {gateway}/{len} dev eth0"));
        ip(&pod, &format!("route add default via {gateway} dev eth0"));
        ip(&node.ns, &format!("route add {addr}/{len} dev {link}"));
        let mac =
            pod.ip(&["link", "show", "eth0"])[0]["address"].as_str().expect("a link has one").to_owned();
        must(node.ns.command("ip").args(["neigh", "add", &addr.to_string(), "lladdr", &mac, "dev", &link]));
        pod
    }
}
