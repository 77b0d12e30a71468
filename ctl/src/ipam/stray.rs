//! Host links that no lease accounts for.

use crate::host;
use cni_protocol::Attachment;
use ipam::Held;
use model::veth::{HostNameOf, host_name};
use netlink::{Link, RETIRED_GROUP, UNFINISHED_GROUP};
use std::collections::{BTreeMap, BTreeSet};

/// A link of ours that should not be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Stray {
    pub link: Link,
    /// Whose lock keeps plugins away while the link is judged and removed.
    pub owner: Option<Attachment>,
    pub reason: &'static str,
    /// Certain enough to be removed: no pod can be using it.
    pub removable: bool,
}

/// Finds strays among `links`, given every lease in the store.
pub fn find(links: &[Link], held: &[Held]) -> Vec<Stray> {
    let leases = Leases::of(held);
    links.iter().filter(|link| host::is_ours(link)).filter_map(|link| leases.judge(link)).collect()
}

/// The leases by what a link can be recognised by.
struct Leases<'a> {
    attachments: BTreeSet<(String, String)>,
    /// Handles of leases that name no interface: a Calico wrote them.
    bare_handles: BTreeSet<&'a str>,
    /// Networks whose addresses come from our store.
    networks: BTreeSet<&'a str>,
    link_names: BTreeMap<String, Attachment>,
}

impl<'a> Leases<'a> {
    fn of(held: &'a [Held]) -> Self {
        let owners = || held.iter().filter_map(host::holder);
        let bare = held.iter().filter(|h| !h.attrs.contains_key("ifname"));
        Self {
            attachments: owners().map(|at| (at.handle(), at.ifname)).collect(),
            bare_handles: bare.filter_map(|h| h.handle.as_deref()).collect(),
            networks: held.iter().filter_map(|h| h.attrs.get("network")).map(String::as_str).collect(),
            link_names: held.iter().flat_map(link_names).collect(),
        }
    }

    fn judge(&self, link: &Link) -> Option<Stray> {
        let owner = host::owner(link);
        let (owner, reason, removable) = match (link.group, owner) {
            (RETIRED_GROUP, owner) => (owner, "a DEL was cut off before it deleted this link", true),
            (UNFINISHED_GROUP, _) => {
                let owner = self.link_names.get(&link.name).cloned();
                let known = owner.is_some();
                (owner, "an ADD was cut off while it made this link", known)
            }
            // The hash of a long name: nothing proves anything.
            (_, None) => return None,
            (_, Some(owner)) if self.has(&owner) => return None,
            (_, Some(owner)) if !link.lower_up => {
                (Some(owner), "its attachment has no lease and no carrier", true)
            }
            // Another plugin gives the addresses of this network.
            (_, Some(owner)) if !self.networks.contains(owner.network.as_str()) => return None,
            (_, Some(owner)) => {
                (Some(owner), "its attachment has no lease, but its pod is connected: delete the pod", false)
            }
        };
        Some(Stray { link: link.clone(), owner, reason, removable })
    }

    fn has(&self, at: &Attachment) -> bool {
        let handle = at.handle();
        self.bare_handles.contains(handle.as_str()) || self.attachments.contains(&(handle, at.ifname.clone()))
    }
}

/// The names that a lease's host link can have (decision 3).
fn link_names(held: &Held) -> Vec<(String, Attachment)> {
    let Some(at) = host::holder(held) else { return Vec::new() };
    let (network, container_id, ifname) = (&at.network, &at.container_id, &at.ifname);
    let mut names = vec![host_name(&HostNameOf::Attachment { network, container_id, ifname })];
    if let (Some(namespace), Some(pod)) = (held.attrs.get("namespace"), held.attrs.get("pod")) {
        names.push(host_name(&HostNameOf::Pod { namespace, pod }));
    }
    names.into_iter().map(|name| (name, at.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, alias: Option<&str>, group: u32, carrier: bool) -> Link {
        Link {
            index: 5,
            name: name.into(),
            alias: alias.map(str::to_owned),
            mac: None,
            mtu: 1500,
            up: true,
            lower_up: carrier,
            kind: Some("veth".into()),
            peer_ifindex: None,
            peer_netnsid: None,
            group,
        }
    }

    fn lease(handle: &str, attrs: &[(&str, &str)]) -> Held {
        Held {
            ip: "10.0.0.1".parse().unwrap(),
            handle: Some(handle.into()),
            attrs: attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            sequence: None,
            block: "10.0.0.0/26".parse().unwrap(),
        }
    }

    fn verdict(link: Link, held: &[Held]) -> Option<bool> {
        find(&[link], held).first().map(|stray| stray.removable)
    }

    #[test]
    fn only_what_no_pod_can_be_using_is_removable() {
        let held = [lease("net.c1", &[("network", "net"), ("ifname", "eth0")]), lease("net.old", &[])];
        let with = |alias, carrier| verdict(link("cali1", Some(alias), 0, carrier), &held);
        assert_eq!(with("percale:net/c1/eth0", false), None, "it has a lease");
        assert_eq!(with("percale:net/old/eth0", false), None, "a Calico's lease names no interface");
        assert_eq!(with("percale:net/c1/eth1", false), Some(true));
        assert_eq!(with("percale:net/c2/eth0", false), Some(true));
        assert_eq!(with("percale:net/c2/eth0", true), Some(false), "a running pod");
        assert_eq!(with("percale:other/c2/eth0", true), None, "another plugin's addresses");
        assert_eq!(with("percale:sha1/00ff", false), None);
        assert_eq!(with("someone else", false), None);
    }

    #[test]
    fn links_of_broken_off_calls_are_strays() {
        assert_eq!(
            verdict(link("retired-5", Some("percale:net/c1/eth0"), RETIRED_GROUP, false), &[]),
            Some(true)
        );
        assert_eq!(verdict(link("cali1", None, UNFINISHED_GROUP, false), &[]), Some(false));
        let held =
            [lease("net.c1", &[("network", "net"), ("ifname", "eth0"), ("namespace", "ns"), ("pod", "p")])];
        let name = host_name(&HostNameOf::Pod { namespace: "ns", pod: "p" });
        let stray = find(&[link(&name, None, UNFINISHED_GROUP, false)], &held).remove(0);
        assert_eq!((stray.removable, stray.owner.unwrap().container_id.as_str()), (true, "c1"));
    }
}
