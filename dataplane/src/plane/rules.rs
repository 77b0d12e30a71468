//! Our nftables tables: the plugin's (`percale`: sources, masquerading), written from the same facts, and
//! the daemon's own (`percale-node`: who may send encapsulated packets).

use super::kernel::PATIENCE;
use anyhow::Result;
use ipnet::IpNet;
use model::{Family, veth};
use netlink::{Firewall, TableKeeper};
use policy::wish::Rules;
use std::fmt::Write as _;
use std::path::Path;

const NODE_TABLE: &str = "percale-node";
const POD_TABLE: &str = "percale";

/// Both tables, and what they looked like when they were written.
#[derive(Default)]
pub(super) struct Tables {
    pods: TableKeeper,
    node: TableKeeper,
}

/// Puts both tables in place; how many had to be written.
pub(super) fn sync(tables: &mut Tables, wish: &Rules, state_dir: &Path) -> Result<usize> {
    let lock = state_dir.join("nft.lock");
    let pods = Firewall {
        table: POD_TABLE.to_owned(),
        prefix: veth::PREFIX.to_owned(),
        guard: true,
        masquerade: wish.masquerade.iter().copied().collect(),
        not_to: wish.not_to.iter().copied().collect(),
    };
    let pods = tables.pods.keep_firewall(&pods, &lock, PATIENCE)?;
    let node = tables.node.keep_table(NODE_TABLE, &content(wish), &lock, PATIENCE)?;
    Ok(usize::from(pods) + usize::from(node))
}

/// Before connection tracking, so that a dropped packet leaves no entry.
fn content(wish: &Rules) -> String {
    let mut text = String::new();
    for family in Family::BOTH {
        let nodes: Vec<String> =
            wish.nodes.iter().filter(|net| Family::of_net(net) == family).map(IpNet::to_string).collect();
        let elements =
            if nodes.is_empty() { String::new() } else { format!(" elements = {{ {} }};", nodes.join(", ")) };
        let version = family.version();
        put(
            &mut text,
            format_args!(
                "\tset nodes{version} {{ type ipv{version}_addr; flags interval; auto-merge;{elements} }}"
            ),
        );
    }
    put(
        &mut text,
        format_args!("\tchain from-pods {{\n\t\ttype filter hook prerouting priority -310; policy accept;"),
    );
    if let Some(port) = wish.no_vxlan_from_pods {
        put(&mut text, format_args!("\t\tiifname \"{}*\" udp dport {port} counter drop", wish.prefix));
    }
    if wish.no_ipip_from_pods {
        put(&mut text, format_args!("\t\tiifname \"{}*\" meta l4proto 4 counter drop", wish.prefix));
    }
    put(
        &mut text,
        format_args!(
            "\t}}\n\tchain from-outside {{\n\t\ttype filter hook input priority -310; policy accept;"
        ),
    );
    if let Some(port) = wish.vxlan {
        put(&mut text, format_args!("\t\tudp dport {port} ip saddr != @nodes4 counter drop"));
        put(&mut text, format_args!("\t\tudp dport {port} ip6 saddr != @nodes6 counter drop"));
    }
    if wish.ipip {
        put(&mut text, format_args!("\t\tmeta l4proto 4 ip saddr != @nodes4 counter drop"));
    }
    put(&mut text, format_args!("\t}}"));
    text
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String cannot fail");
}
