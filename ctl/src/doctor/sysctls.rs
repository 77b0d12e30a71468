//! Kernel settings: forwarding, and those of each pod's link.
//!
//! The plugin sets them when it wires a pod; here it shows when something has undone that.

use super::{Finding, Host};
use netlink::Link;

const CHECK: &str = "sysctls";

pub fn check(host: &Host<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if get(host, "net.ipv4.ip_forward").is_none() {
        let what = format!("{} cannot be read", host.path("/proc/sys/net/ipv4/ip_forward").display());
        let cure = "mount -t proc proc /proc, or name another --host-root".to_owned();
        return vec![Finding::note(CHECK, what, "no kernel setting could be looked at", cure)];
    }
    findings.extend(forwarding(host, "net.ipv4.ip_forward", "IPv4"));
    if host.ipv6 {
        findings.extend(forwarding(host, "net.ipv6.conf.all.forwarding", "IPv6"));
        findings.extend(disabled_ipv6(host));
        findings.extend(router_advertisements(host));
    }
    findings.extend(host.pod_links.iter().flat_map(|link| of_link(host, link)));
    findings
}

/// The value of a sysctl by its dotted name. Interface names may hold dots: those go by [`get_of`].
fn get(host: &Host<'_>, name: &str) -> Option<String> {
    host.read(format!("/proc/sys/{}", name.replace('.', "/")))
}

fn get_of(host: &Host<'_>, family: &str, link: &str, name: &str) -> Option<String> {
    host.read(format!("/proc/sys/net/{family}/conf/{link}/{name}"))
}

/// The first pod turns forwarding on; off beside pods means that something turned it off again.
fn forwarding(host: &Host<'_>, name: &str, family: &str) -> Option<Finding> {
    if get(host, name)? == "1" {
        return None;
    }
    let what = format!("{name} is off");
    if host.pod_links.is_empty() {
        let why = format!("the plugin turns it on with the first {family} pod; nothing to do");
        return Some(Finding::note(CHECK, what, &why, format!("sysctl -w {name}=1")));
    }
    // IPv4 pods alone need no IPv6 forwarding, and turning it on can cost a host its own routes.
    let make = if family == "IPv4" { Finding::wrong } else { Finding::note };
    let why = format!("no {family} packet of a pod leaves its host; something turned it off again");
    let cure = format!(
        "sysctl -w {name}=1, and look for who resets it: grep -r forward /etc/sysctl.conf /etc/sysctl.d"
    );
    Some(make(CHECK, what, &why, cure))
}

fn disabled_ipv6(host: &Host<'_>) -> Option<Finding> {
    let name = "net.ipv6.conf.all.disable_ipv6";
    (get(host, name)? == "1").then(|| {
        let why =
            "every interface that appears later has no IPv6, until the plugin allows it on a pod's link";
        Finding::note(CHECK, format!("{name} is 1"), why, format!("sysctl -w {name}=0 (for IPv6 pods)"))
    })
}

/// A host that forwards ignores router advertisements unless `accept_ra` is 2.
fn router_advertisements(host: &Host<'_>) -> Vec<Finding> {
    if get(host, "net.ipv6.conf.all.forwarding").as_deref() != Some("1") {
        return Vec::new();
    }
    let Ok(links) = std::fs::read_dir(host.path("/sys/class/net")) else { return Vec::new() };
    let real = links.flatten().filter(|entry| entry.path().join("device").exists());
    let names = real.filter_map(|entry| entry.file_name().into_string().ok());
    let deaf = names.filter(|name| get_of(host, "ipv6", name, "accept_ra").as_deref() == Some("1"));
    let finding = |name: String| {
        let sysctl = format!("net/ipv6/conf/{name}/accept_ra");
        let why = "a host that forwards IPv6 ignores router advertisements at 1: a default route learnt that way is lost";
        Finding::note(
            CHECK,
            format!("{sysctl} is 1"),
            why,
            format!("sysctl -w {sysctl}=2 (if this host learns its IPv6 route so)"),
        )
    };
    deaf.map(finding).collect()
}

/// Setting, what it must be, and what breaks otherwise.
const V4: &[(&str, &str, &str)] = &[
    ("forwarding", "1", "packets from this pod are not forwarded"),
    ("proxy_arp", "1", "pods that a Calico made find no gateway"),
];

fn of_link(host: &Host<'_>, link: &Link) -> Vec<Finding> {
    let name = link.name.as_str();
    let differs = |(sysctl, wanted, why): &(&str, &str, &str)| {
        let now = get_of(host, "ipv4", name, sysctl)?;
        let path = format!("net/ipv4/conf/{name}/{sysctl}");
        (now != *wanted).then(|| {
            let what = format!("{path} is {now}, not {wanted}");
            Finding::wrong(CHECK, what, why, format!("sysctl -w {path}={wanted}"))
        })
    };
    let mut findings: Vec<Finding> = V4.iter().filter_map(differs).collect();
    findings.extend(reverse_path(host, name));
    findings
}

/// The kernel uses the larger of `all` and the interface's (ip-sysctl: rp_filter).
fn reverse_path(host: &Host<'_>, name: &str) -> Option<Finding> {
    let number = |link: &str| get_of(host, "ipv4", link, "rp_filter")?.parse::<u8>().ok();
    let effective = number("all")?.max(number(name)?);
    (effective == 2).then(|| {
        let what = format!("rp_filter of {name} is 2 (loose)");
        let why = "loose filtering alone would let a pod send from others' addresses; the nftables table percale still stops it";
        Finding::note(CHECK, what, why, format!("sysctl -w net/ipv4/conf/all/rp_filter=1 net/ipv4/conf/{name}/rp_filter=1"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Severity, fake, fake_places, pod_link, put};
    use super::*;

    fn set(root: &std::path::Path, values: &[(&str, &str)]) {
        values.iter().for_each(|(name, value)| put(root, &format!("proc/sys/net/{name}"), value));
    }

    #[test]
    fn a_host_as_the_plugin_leaves_it_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        set(
            dir.path(),
            &[
                ("ipv4/ip_forward", "1\n"),
                ("ipv6/conf/all/forwarding", "1\n"),
                ("ipv6/conf/all/disable_ipv6", "0\n"),
                ("ipv4/conf/cali1/forwarding", "1\n"),
                ("ipv4/conf/cali1/proxy_arp", "1\n"),
                ("ipv4/conf/all/rp_filter", "0\n"),
                ("ipv4/conf/cali1/rp_filter", "1\n"),
            ],
        );
        let places = fake_places(dir.path());
        let mut host = fake(&places, dir.path());
        host.pod_links = vec![pod_link("cali1")];
        assert_eq!(check(&host), []);
    }

    #[test]
    fn settings_that_stop_pods_are_named_with_their_cure() {
        let dir = tempfile::tempdir().unwrap();
        set(
            dir.path(),
            &[
                ("ipv4/ip_forward", "0\n"),
                ("ipv4/conf/cali1/forwarding", "1\n"),
                ("ipv4/conf/cali1/proxy_arp", "0\n"),
                ("ipv4/conf/all/rp_filter", "2\n"),
                ("ipv4/conf/cali1/rp_filter", "0\n"),
            ],
        );
        let places = fake_places(dir.path());
        let mut host = fake(&places, dir.path());
        host.pod_links = vec![pod_link("cali1")];
        let found = check(&host);
        let whats: Vec<_> = found.iter().map(|f| (f.severity, f.what.as_str())).collect();
        assert_eq!(
            whats,
            [
                (Severity::Wrong, "net.ipv4.ip_forward is off"),
                (Severity::Wrong, "net/ipv4/conf/cali1/proxy_arp is 0, not 1"),
                (Severity::Note, "rp_filter of cali1 is 2 (loose)"),
            ]
        );
        assert!(found[0].cure.starts_with("sysctl -w net.ipv4.ip_forward=1"));
    }

    #[test]
    fn a_host_without_pods_may_still_have_forwarding_off() {
        let dir = tempfile::tempdir().unwrap();
        set(dir.path(), &[("ipv4/ip_forward", "0\n")]);
        let places = fake_places(dir.path());
        assert!(check(&fake(&places, dir.path())).iter().all(|f| f.severity == Severity::Note));
    }

    #[test]
    fn a_forwarding_host_that_ignores_router_advertisements_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        set(
            dir.path(),
            &[
                ("ipv4/ip_forward", "1\n"),
                ("ipv6/conf/all/forwarding", "1\n"),
                ("ipv6/conf/eth0/accept_ra", "1\n"),
                ("ipv6/conf/lo/accept_ra", "1\n"),
            ],
        );
        put(dir.path(), "sys/class/net/eth0/device/vendor", "");
        put(dir.path(), "sys/class/net/lo/mtu", "");
        let places = fake_places(dir.path());
        let found = check(&fake(&places, dir.path()));
        assert_eq!(found.len(), 1);
        assert!(found[0].cure.contains("net/ipv6/conf/eth0/accept_ra=2"));
    }
}
