//! The text of our table for `nft -f`, and the mark that tells one content from another.

use crate::Firewall;
use crate::error::FirewallError;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt::Write;

/// A whole table as one transaction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub text: String,
    /// The name of an empty chain in it: changes with the content.
    pub mark: String,
}

pub(crate) fn of(wish: &Firewall) -> Result<Rules, FirewallError> {
    check("table", &wish.table, 64, "-_")?;
    check("prefix", &wish.prefix, 14, "-_.")?;
    let mut chains = String::new();
    if wish.guard {
        chains.push_str(&guard(&wish.prefix));
    }
    chains.push_str(&masquerade(wish));
    Ok(whole(&wish.table, &chains))
}

/// A table of the caller's own content.
pub(crate) fn custom(table: &str, content: &str) -> Result<Rules, FirewallError> {
    check("table", table, 64, "-_")?;
    Ok(whole(table, content))
}

fn whole(table: &str, content: &str) -> Rules {
    let mark = format!("v-{:016x}", fnv1a(content.as_bytes()));
    // To delete needs something to delete: the first line makes it if it is not there.
    let text = format!(
        "table inet {table}\ndelete table inet {table}\n\
         table inet {table} {{\n{content}\tchain {mark} {{\n\t}}\n}}\n"
    );
    Rules { text, mark }
}

pub(crate) fn removal(table: &str) -> Result<String, FirewallError> {
    check("table", table, 64, "-_")?;
    Ok(format!("table inet {table}\ndelete table inet {table}\n"))
}

/// A source that the host would not answer through the same link is not the pod's. The unspecified
/// IPv6 source is needed before a pod has an address (duplicate detection, group reports); it goes
/// to link-local groups only and no router forwards it.
fn guard(prefix: &str) -> String {
    format!(
        "\tchain pod-guard {{\n\
         \t\ttype filter hook prerouting priority raw; policy accept;\n\
         \t\tiifname \"{prefix}*\" jump pod-source\n\
         \t}}\n\
         \tchain pod-source {{\n\
         \t\tip saddr 0.0.0.0 drop\n\
         \t\tip6 saddr :: ip6 daddr ff02::/16 icmpv6 type {{ nd-neighbor-solicit, nd-router-solicit, \
         mld-listener-report, mld2-listener-report, mld-listener-done }} accept\n\
         \t\tfib saddr . iif oif missing drop\n\
         \t}}\n"
    )
}

fn masquerade(wish: &Firewall) -> String {
    let (from4, from6) = split(&wish.masquerade);
    let (to4, to6) = split(&wish.not_to);
    let mut rules = String::new();
    rules.push_str(&masquerade_rule("ip", "224.0.0.0/4", &texts(&from4), &texts(&to4)));
    rules.push_str(&masquerade_rule("ip6", "ff00::/8", &texts(&from6), &texts(&to6)));
    if rules.is_empty() {
        return rules;
    }
    format!(
        "\tchain pod-nat {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\toifname \"{}*\" return\n{rules}\t}}\n",
        wish.prefix
    )
}

fn masquerade_rule(family: &str, multicast: &str, from: &[String], to: &[String]) -> String {
    let mut rule = String::new();
    if !from.is_empty() {
        let mut keep = to.to_vec();
        keep.push(multicast.to_owned());
        let (from, keep) = (from.join(", "), keep.join(", "));
        writeln!(
            rule,
            "\t\t{family} saddr {{ {from} }} {family} daddr != {{ {keep} }} masquerade fully-random"
        )
        .expect("writing to a String cannot fail");
    }
    rule
}

/// By family, without overlaps: nftables refuses a set whose intervals overlap.
fn split(nets: &[IpNet]) -> (Vec<Ipv4Net>, Vec<Ipv6Net>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for net in nets {
        match net {
            IpNet::V4(net) => v4.push(net.trunc()),
            IpNet::V6(net) => v6.push(net.trunc()),
        }
    }
    (Ipv4Net::aggregate(&v4), Ipv6Net::aggregate(&v6))
}

fn texts<T: ToString>(nets: &[T]) -> Vec<String> {
    nets.iter().map(T::to_string).collect()
}

/// Names go into the text unquoted.
fn check(field: &'static str, value: &str, max: usize, extra: &str) -> Result<(), FirewallError> {
    let first = value.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let rest = value.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c));
    if first && rest && value.len() <= max {
        return Ok(());
    }
    Err(FirewallError::BadField { field, value: value.chars().take(80).collect() })
}

/// FNV-1a, 64 bits: the same in every build, which std's hashers do not promise.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
