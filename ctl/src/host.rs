//! What this host knows about its attachments: namespaces, links, routes, locks.

use crate::session::Places;
use anyhow::{Context as _, Result};
use cni_protocol::Attachment;
use datastore::lock::AttachmentLock;
use ipam::audit::{HostFacts, Witness};
use ipam::{Context, Held, Now};
use model::Scope;
use netlink::{Link, Netns, NetnsError, Nl, RETIRED_GROUP, RouteKind, UNFINISHED_GROUP};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bound on each look at the kernel.
const KERNEL_WAIT: Duration = Duration::from_secs(5);

/// Routes asked for at once: a socket takes about 200 kB in one message.
const ROUTE_BATCH: usize = 256;

/// Who this host is, and when.
#[derive(Clone, Debug)]
pub struct Host {
    /// The node's name: pinned in the state directory, else the host's name (decision 31).
    pub node: String,
    pub boot_id: String,
    wall_ns: u64,
    boottime_ms: u64,
    transactional: bool,
}

impl Host {
    pub fn look(places: &Places) -> Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let boot = clock_gettime(ClockId::Boottime);
        Ok(Self {
            node: node_name(&places.state_dir),
            boot_id: netlink::boot_id()?,
            wall_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            boottime_ms: boot.tv_sec.unsigned_abs() * 1000 + boot.tv_nsec.unsigned_abs() / 1_000_000,
            transactional: places.backend.is_transactional(),
        })
    }

    /// What planners are told.
    pub fn context<'a>(&'a self, scope: &'a Scope) -> Context<'a> {
        let now = Now { wall_ns: self.wall_ns, boot_id: &self.boot_id, boottime_ms: self.boottime_ms };
        Context { scope, host: &self.node, now, chance: self.wall_ns, transactional: self.transactional }
    }

    /// Looks at everything that could prove these allocations alive.
    pub fn facts(&self, held: &[Held], links: &[Link]) -> Result<HostFacts> {
        let texts: BTreeSet<&str> =
            held.iter().filter_map(|h| h.attrs.get("netns")).map(String::as_str).collect();
        let netns: BTreeMap<String, bool> =
            texts.into_iter().filter_map(|text| Some((text.to_owned(), netns_lives(text)?))).collect();
        // A route is asked for only where a living namespace does not settle it.
        let lives = |h: &&Held| h.attrs.get("netns").and_then(|text| netns.get(text)) == Some(&true);
        let unsettled: Vec<IpAddr> = held.iter().filter(|h| !lives(h)).map(|h| h.ip).collect();
        let owners = links.iter().filter(|l| is_live(l)).filter_map(owner);
        Ok(HostFacts {
            host: self.node.clone(),
            boot_id: self.boot_id.clone(),
            links: owners.map(|at| (at.handle(), at.ifname)).collect(),
            routed: routed(&unsettled, links)?,
            netns,
            witness: Witness::Nothing,
            now_ns: self.wall_ns,
        })
    }
}

fn node_name(state_dir: &Path) -> String {
    let pinned = std::fs::read_to_string(state_dir.join("nodename")).unwrap_or_default();
    match pinned.trim() {
        "" => rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase(),
        pinned => pinned.to_owned(),
    }
}

/// Whether that very namespace exists; `None` where that cannot be seen.
fn netns_lives(text: &str) -> Option<bool> {
    let (path, inode) = model::netns::parse(text);
    match Netns::open(Path::new(path)) {
        Ok(netns) => match (inode, netns.id()) {
            (Some(inode), Ok(id)) => Some(id.ino == inode),
            (Some(_), Err(_)) => None,
            (None, _) => Some(true),
        },
        Err(NetnsError::Missing { .. } | NetnsError::NotANamespace { .. }) => Some(false),
        Err(_) => None,
    }
}

/// Which of these addresses have a host route of their own to a link that is in use.
fn routed(addresses: &[IpAddr], links: &[Link]) -> Result<BTreeSet<IpAddr>> {
    if addresses.is_empty() {
        return Ok(BTreeSet::new());
    }
    let live: BTreeSet<u32> = links.iter().filter(|l| is_live(l)).map(|l| l.index).collect();
    let leads = |route: &netlink::HostRoute| {
        route.kind == RouteKind::Unicast && route.ifindex.is_some_and(|index| live.contains(&index))
    };
    let (mut nl, mut found) = (socket()?, BTreeSet::new());
    for batch in addresses.chunks(ROUTE_BATCH) {
        let routes = netlink::routes_to(&mut nl, batch)?;
        found.extend(routes.into_iter().filter(leads).map(|route| route.ip));
    }
    Ok(found)
}

/// All links of this host.
pub fn links() -> Result<Vec<Link>> {
    netlink::links(&mut socket()?, "").context("listing this host's links")
}

pub fn delete_link(link: &Link) -> Result<()> {
    netlink::delete_link(&mut socket()?, link.index).with_context(|| format!("deleting link {}", link.name))
}

fn socket() -> Result<Nl> {
    Nl::here(KERNEL_WAIT).context("opening a netlink socket")
}

/// In use: not on its way out (`retire`), and not half made.
pub fn is_live(link: &Link) -> bool {
    ![RETIRED_GROUP, UNFINISHED_GROUP].contains(&link.group)
}

/// Whether Percale made this link.
pub fn is_ours(link: &Link) -> bool {
    !is_live(link) || link.alias.as_deref().is_some_and(Attachment::is_alias)
}

/// The attachment that a link's alias names; none for names so long that only their hash fits.
pub fn owner(link: &Link) -> Option<Attachment> {
    Attachment::from_alias(link.alias.as_deref()?)
}

/// The attachment behind a lease; none for tunnel addresses and what a Calico wrote.
pub fn holder(held: &Held) -> Option<Attachment> {
    let (network, ifname) = (held.attrs.get("network")?, held.attrs.get("ifname")?);
    let container = held.handle.as_deref()?.strip_prefix(network.as_str())?.strip_prefix('.')?;
    Some(Attachment::new(network, container, ifname))
}

/// The attachment's lock; `None` while a plugin works on it.
pub fn try_lock(places: &Places, at: &Attachment) -> Result<Option<AttachmentLock>> {
    Ok(AttachmentLock::try_acquire(&places.attachment_dir, &at.file_name())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(alias: Option<&str>, group: u32) -> Link {
        Link {
            index: 5,
            name: "cali1".into(),
            alias: alias.map(str::to_owned),
            mac: None,
            mtu: 1500,
            up: true,
            lower_up: true,
            kind: Some("veth".into()),
            peer_ifindex: None,
            peer_netnsid: None,
            group,
        }
    }

    #[test]
    fn an_alias_names_its_attachment() {
        let at = owner(&link(Some("percale:net/c1/eth0"), 0)).unwrap();
        assert_eq!((at.handle().as_str(), at.ifname.as_str()), ("net.c1", "eth0"));
        for alias in [None, Some("percale:sha1/00"), Some("percale:a/b/c/d"), Some("other"), Some("")] {
            assert!(owner(&link(alias, 0)).is_none(), "{alias:?}");
        }
        assert!(is_ours(&link(Some("percale:sha1/00"), 0)) && !is_ours(&link(None, 0)));
        assert!(is_ours(&link(None, RETIRED_GROUP)) && !is_live(&link(None, RETIRED_GROUP)));
    }

    #[test]
    fn a_lease_names_its_attachment_where_its_handle_fits() {
        let held = |handle: &str, network: &str| Held {
            ip: "10.0.0.1".parse().unwrap(),
            handle: Some(handle.into()),
            attrs: [("network", network), ("ifname", "eth0")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            sequence: None,
            block: "10.0.0.0/26".parse().unwrap(),
        };
        assert_eq!(holder(&held("a.b.c", "a.b")).unwrap().container_id, "c");
        assert!(holder(&held("ab.c", "a")).is_none());
    }

    #[test]
    fn a_namespace_lives_only_under_its_own_inode() {
        let mine = Netns::current().unwrap().id().unwrap().ino;
        let text = |inode| model::netns::render("/proc/self/ns/net", inode);
        assert_eq!(netns_lives(&text(mine)), Some(true));
        assert_eq!(netns_lives(&text(mine + 1)), Some(false));
        assert_eq!(netns_lives("/proc/self/ns/net"), Some(true));
        assert_eq!(netns_lives("/no/such/namespace#1"), Some(false));
        assert_eq!(netns_lives("/etc/hostname"), Some(false));
    }
}
