//! Links to other nodes, and which of them a route takes.

use super::kernel::{Done, gateway};
use super::wireguard;
use ipnet::IpNet;
use model::Family;
use netlink::{Nl, NodeRoute, VtepEntry, VxlanLink};
use policy::mtu::Mtus;
use policy::{Graph, Via, Wish};
use std::collections::BTreeMap;

/// Names of Calico's, so that its links are taken over.
const VXLAN: [(Family, &str); 2] = [(Family::V4, "vxlan.calico"), (Family::V6, "vxlan-v6.calico")];
const IPIP: &str = "tunl0";

/// Interface indexes of what is there.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    vxlan: BTreeMap<Family, u32>,
    ipip: Option<u32>,
    pub wireguard: BTreeMap<Family, u32>,
    /// The links that hold this node's addresses.
    parents: BTreeMap<Family, u32>,
}

impl Tunnels {
    pub fn find_parents(&mut self, graph: &Graph, addresses: &[(u32, IpNet)]) {
        let own = |family: Family| {
            let ip = graph.own_node()?.family(family).address?.addr();
            let (index, _) = addresses.iter().find(|(_, net)| net.addr() == ip)?;
            Some((family, *index))
        };
        self.parents = Family::BOTH.into_iter().filter_map(own).collect();
    }

    pub fn is_vxlan(&self, ifindex: u32) -> bool {
        self.vxlan.values().any(|index| *index == ifindex)
    }

    /// How the kernel is told; `None` where the link is missing.
    pub fn route(&self, dst: &IpNet, via: Via) -> Option<NodeRoute> {
        let family = Family::of_net(dst);
        let ifindex = match via {
            Via::Blackhole => return Some(NodeRoute::Blackhole),
            Via::Direct(_) => *self.parents.get(&family)?,
            Via::Vxlan(_) => *self.vxlan.get(&family)?,
            Via::Ipip(_) => self.ipip?,
        };
        gateway(via).map(|gateway| NodeRoute::Via { ifindex, gateway })
    }

    /// Makes all wished links.
    pub fn ensure(&mut self, nl: &mut Nl, graph: &Graph, mtus: Option<Mtus>, done: &mut Done) {
        let Some(mtus) = mtus else { return };
        self.vxlan.clear();
        for (family, name) in VXLAN {
            if let Some(index) = self.ensure_vxlan(nl, graph, family, name, mtus, done) {
                self.vxlan.insert(family, index);
            }
        }
        self.ipip = graph
            .wish()
            .ipip
            .and_then(|ipip| ensured(netlink::ensure_ipip(nl, IPIP, ipip.inner.into(), mtus.ipip), done));
        self.wireguard = wireguard::ensure(nl, graph.wish(), mtus, done);
    }

    fn ensure_vxlan(
        &self,
        nl: &mut Nl,
        graph: &Graph,
        family: Family,
        name: &str,
        mtus: Mtus,
        done: &mut Done,
    ) -> Option<u32> {
        let vxlan = graph.wish().vxlan.get(&family)?;
        let Some(parent) = self.parents.get(&family) else {
            done.problems.push(format!("this node's address {} is on no interface", vxlan.outer));
            return None;
        };
        let link = VxlanLink {
            name: name.to_owned(),
            vni: vxlan.vni,
            port: vxlan.port,
            local: vxlan.outer,
            parent: *parent,
            mac: vxlan.mac,
            mtu: if family == Family::V4 { mtus.vxlan } else { mtus.vxlan_v6 },
            address: vxlan.inner,
        };
        ensured(netlink::ensure_vxlan(nl, &link), done)
    }
}

pub(super) fn ensured(outcome: Result<netlink::Ensured, netlink::Error>, done: &mut Done) -> Option<u32> {
    match outcome {
        Ok(ensured) => {
            done.changed += usize::from(ensured.changed);
            Some(ensured.ifindex)
        }
        Err(error) => {
            done.problems.push(error.to_string());
            None
        }
    }
}

/// Whom the VXLAN links reach.
pub(super) fn sync_vteps(nl: &mut Nl, tunnels: &Tunnels, wish: &Wish) -> Result<usize, netlink::Error> {
    let mut changed = 0;
    for (family, ifindex) in &tunnels.vxlan {
        let of_family = wish.vteps.iter().filter(|((of, _), _)| of == family);
        let entries: Vec<VtepEntry> =
            of_family.map(|(_, v)| VtepEntry { mac: v.mac, inner: v.inner, outer: v.outer }).collect();
        changed += netlink::sync_vteps(nl, *ifindex, *family == Family::V4, &entries)?;
    }
    Ok(changed)
}

/// Links of ours that nobody wants any more.
pub(super) fn remove_unwished(nl: &mut Nl, graph: &Graph, done: &mut Done) {
    let wish = graph.wish();
    for (family, name) in VXLAN {
        if !wish.vxlan.contains_key(&family) {
            done.step(netlink::remove_tunnel(nl, name, "vxlan").map(usize::from));
        }
    }
    if wish.ipip.is_none() {
        done.step(netlink::remove_tunnel(nl, IPIP, "ipip").map(usize::from));
    }
    wireguard::remove_unwished(nl, graph, done);
}
