//! Settings that pods need on the host, kept as they are to be.

use crate::link::{self, Link};
use crate::request::Request;
use crate::{Error, Nl, sysctl};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;

/// Brings back the settings of pods' host ends (links of this prefix whose alias begins with `alias`);
/// the names of those that had lost one. `v6`: whether this host does IPv6.
///
/// # Errors
/// The kernel's, and those of files under `/proc/sys`. A link that went meanwhile is none.
pub fn keep_host_ends(nl: &mut Nl, prefix: &str, alias: &str, v6: bool) -> Result<Vec<String>, Error> {
    let make = |flags| {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        Request::route("list links", prefix, message, flags)
    };
    let is_ours = |link: &Link| {
        link.up
            && link.name.starts_with(prefix)
            && link.alias.as_deref().is_some_and(|text| text.starts_with(alias))
    };
    let seen = nl.dump(make, |reply| {
        let link = link::parse(&reply).filter(is_ours)?;
        Some((link.name, link::settings(&reply)))
    })?;
    let mut restored = Vec::new();
    for (name, settings) in seen {
        let mut changed = false;
        if !settings.v4_forwarding {
            changed |= sysctl::set_v4(&name, "forwarding")?;
        }
        if !settings.proxy_arp {
            changed |= sysctl::set_v4(&name, "proxy_arp")?;
        }
        if let Some(now) = settings.v6.filter(|_| v6) {
            changed |= sysctl::keep_host_end_v6(&name, now)?;
        }
        if changed {
            restored.push(name);
        }
    }
    Ok(restored)
}
