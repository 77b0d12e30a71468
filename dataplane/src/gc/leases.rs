//! This node's leases, and which of them lost their namespace.

use crate::context::Context;
use anyhow::{Result, anyhow};
use cni_protocol::Attachment;
use datastore::{Deadline, drive};
use ipam::{Held, IpamError};
use model::keys::{self, Key as StoredKey};
use model::store::{Plan, Query, Stop, View};
use model::{Family, Scope};
use netlink::Nl;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

const STORE_LIMIT: Duration = Duration::from_secs(30);
const KERNEL_TIMEOUT: Duration = Duration::from_secs(10);

/// A lease of this node, and whose it is.
pub(super) struct Forgotten {
    pub scope: Scope,
    pub at: Attachment,
    pub held: Held,
}

/// What tells one allocation from another of the same address.
pub(super) type Key = (std::net::IpAddr, Attachment, Option<u64>, String);

impl Forgotten {
    fn of(scope: &Scope, held: Held, node: &str) -> Option<Self> {
        let attr = |key: &str| held.attrs.get(key).map(String::as_str);
        let (network, ifname) = (attr("network")?, attr("ifname")?);
        // Tunnel addresses and reservations have a type.
        if attr("node") != Some(node) || attr("type").is_some() {
            return None;
        }
        let container = held.handle.as_deref()?.strip_prefix(network)?.strip_prefix('.')?;
        Some(Self { scope: scope.clone(), at: Attachment::new(network, container, ifname), held })
    }

    pub fn key(&self) -> Key {
        let since = self.held.attrs.get("timestamp").cloned().unwrap_or_default();
        (self.held.ip, self.at.clone(), self.held.sequence, since)
    }

    /// Key of the pod in Kubernetes, and its UID, where the lease records both.
    pub fn pod(&self) -> Option<(String, &str)> {
        let attr = |key: &str| self.held.attrs.get(key).map(String::as_str);
        Some((model::pod::key(attr("namespace")?, attr("pod")?), attr("poduid")?))
    }

    fn namespace(&self) -> Option<(&str, u64)> {
        let (path, inode) = model::netns::parse(self.held.attrs.get("netns")?);
        Some((path, inode?))
    }

    pub fn records_no_namespace(&self) -> bool {
        self.namespace().is_none() || !self.held.attrs.contains_key("boot_id")
    }
}

/// What of the host proves that a namespace is there or gone.
pub(super) struct Host {
    boot_id: String,
    /// Owners of our links: a pod's link goes with its namespace, also where this process cannot see the
    /// namespace's path.
    linked: BTreeSet<Attachment>,
}

impl Host {
    pub fn look() -> Result<Self> {
        let boot_id = netlink::boot_id()?;
        let links = netlink::links(&mut Nl::here(KERNEL_TIMEOUT)?, "")?;
        let owner = |link: &netlink::Link| Attachment::from_alias(link.alias.as_deref()?);
        Ok(Self { boot_id, linked: links.iter().filter_map(owner).collect() })
    }

    /// The first proof. False where the lease does not say.
    pub fn is_without_namespace(&self, lease: &Forgotten) -> bool {
        if lease.records_no_namespace() || self.linked.contains(&lease.at) {
            return false;
        }
        if lease.held.attrs.get("boot_id") != Some(&self.boot_id) {
            return true;
        }
        let Some((path, inode)) = lease.namespace() else { return false };
        match fs::metadata(path) {
            Ok(found) => found.ino() != inode,
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        }
    }
}

/// The leases of this node's attachments, in the blocks that are affine to it, of every scope, and in
/// those that it borrowed from.
pub(super) fn own(context: &Context) -> Result<Vec<Forgotten>> {
    let mut view = View::new();
    let scopes = read(context, &mut view, ipam::scopes)?;
    let mut all = Vec::new();
    for scope in &scopes {
        let of = Of { scope, node: &context.node_name, borrowed: borrowed(context, scope) };
        read(context, &mut view, |view| of.blocks(view))?;
        let change =
            crate::owed::change(context, scope.clone(), ipam::BatchItem::Release(ipam::Release::default()));
        let blocks = of.only(&view)?;
        let held = match ipam::holdings(&blocks, &change.context()) {
            Ok(holdings) => holdings.held,
            Err(_) => return Err(anyhow!("blocks of {scope:?} cannot be read")),
        };
        all.extend(held.into_iter().filter_map(|held| Forgotten::of(scope, held, &context.node_name)));
    }
    Ok(all)
}

fn read<T>(
    context: &Context,
    view: &mut View,
    plan: impl Fn(&View) -> Result<T, Stop<IpamError>>,
) -> Result<T> {
    let deadline = Deadline::after(STORE_LIMIT);
    let (out, _) = drive(context.store.as_ref(), view, deadline, |view| plan(view).map(Plan::Done))?;
    Ok(out)
}

/// Keys of blocks of others that this node has addresses of. The plane's word does: what it does not know
/// yet is collected later.
fn borrowed(context: &Context, scope: &Scope) -> Vec<String> {
    match scope {
        Scope::Cluster => context.plane.borrowed().iter().map(|cidr| keys::block(scope, cidr)).collect(),
        Scope::Network(_) => Vec::new(),
    }
}

/// Whose blocks are looked at.
struct Of<'a> {
    scope: &'a Scope,
    node: &'a str,
    borrowed: Vec<String>,
}

impl Of<'_> {
    /// Reads the blocks that the node has claimed, and those that it borrowed from.
    fn blocks(&self, view: &View) -> Result<Vec<String>, Stop<IpamError>> {
        let prefixes = Family::BOTH.map(|family| keys::affinities(self.scope, self.node, family));
        view.require(prefixes.iter().cloned().map(Query::List))?;
        let mut blocks = self.borrowed.clone();
        for prefix in &prefixes {
            blocks.extend(view.list(prefix)?.filter_map(|entry| match keys::parse(&entry.key) {
                Some(StoredKey::Affinity { cidr, .. }) => Some(keys::block(self.scope, &cidr)),
                _ => None,
            }));
        }
        blocks.sort();
        blocks.dedup();
        view.require(blocks.iter().cloned().map(Query::Get))?;
        Ok(blocks)
    }

    /// A view in which these are all the blocks there are.
    fn only(&self, view: &View) -> Result<View> {
        let ours = self.blocks(view).map_err(|_| anyhow!("blocks were not read"))?;
        let mut blocks = View::new();
        for family in Family::BOTH {
            let prefix = keys::blocks(self.scope, family);
            let entries = ours.iter().filter(|key| key.starts_with(&prefix));
            let entries = entries.filter_map(|key| view.get(key).ok().flatten().cloned()).collect();
            blocks.put_list(&prefix, entries);
        }
        Ok(blocks)
    }
}
