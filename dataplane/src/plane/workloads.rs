//! Routes to this node's pods, as leases and links say. The plugin makes them; here they are brought back
//! when somebody else took them away.

use super::kernel::Done;
use cni_protocol::Attachment;
use model::{HostNameOf, host_name};
use netlink::{Link, Nl, RouteError};
use policy::Graph;
use policy::wish::Workload;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How the aliases of our links begin.
const ALIAS: &str = "percale:";
/// Addresses that are asked about in one write.
const BATCH: usize = 128;

pub(super) fn sync(nl: &mut Nl, graph: &Graph, done: &mut Done) {
    let prefix = &graph.config().interface_prefix;
    match netlink::keep_host_ends(nl, prefix, ALIAS, graph.config().ipv6) {
        Ok(restored) if restored.is_empty() => {}
        Ok(restored) => {
            tracing::info!(links = ?restored, "settings of pods' links restored");
            done.changed += restored.len();
        }
        Err(error) => done.problems.push(error.to_string()),
    }
    done.step(routes(nl, graph));
}

fn routes(nl: &mut Nl, graph: &Graph) -> Result<usize, netlink::Error> {
    let workloads = &graph.wish().workloads;
    if workloads.is_empty() {
        return Ok(0);
    }
    let links = netlink::links(nl, &graph.config().interface_prefix)?;
    let links: BTreeMap<&str, &Link> = links.iter().filter(|l| l.up).map(|l| (l.name.as_str(), l)).collect();
    let aliases: BTreeMap<&str, &Link> =
        links.values().filter_map(|link| Some((link.alias.as_deref()?, *link))).collect();
    let wanted: Vec<(IpAddr, u32)> = workloads
        .iter()
        .filter_map(|(ip, workload)| Some((*ip, link_of(workload, &links, &aliases)?)))
        .collect();
    let mut changed = 0;
    for part in wanted.chunks(BATCH) {
        changed += restore(nl, part)?;
    }
    Ok(changed)
}

/// The link whose alias names the attachment; of a pod that Calico wired, the one with the pod's name.
fn link_of(
    workload: &Workload,
    links: &BTreeMap<&str, &Link>,
    aliases: &BTreeMap<&str, &Link>,
) -> Option<u32> {
    if let (Some(network), Some(ifname)) = (&workload.network, &workload.ifname) {
        let container = workload.handle.strip_prefix(network.as_str())?.strip_prefix('.')?;
        let alias = Attachment::new(network, container, ifname).alias();
        return aliases.get(alias.as_str()).map(|link| link.index);
    }
    let (namespace, pod) = workload.pod.as_ref()?;
    let link = links.get(host_name(&HostNameOf::Pod { namespace, pod }).as_str())?;
    link.alias.is_none().then_some(link.index)
}

fn restore(nl: &mut Nl, wanted: &[(IpAddr, u32)]) -> Result<usize, netlink::Error> {
    let ips: Vec<IpAddr> = wanted.iter().map(|(ip, _)| *ip).collect();
    let there: BTreeMap<IpAddr, Option<u32>> =
        netlink::routes_to(nl, &ips)?.into_iter().map(|route| (route.ip, route.ifindex)).collect();
    let mut changed = 0;
    for (ip, ifindex) in wanted.iter().filter(|(ip, ifindex)| there.get(ip) != Some(&Some(*ifindex))) {
        match netlink::replace_host_route(nl, *ifindex, *ip) {
            Ok(()) => {
                tracing::info!(%ip, "route to a pod restored");
                changed += 1;
            }
            Err(RouteError::Conflict(conflict)) => tracing::warn!("{conflict}"),
            // The link may have gone down or away since: its DEL is under way.
            Err(RouteError::Kernel(error)) => tracing::debug!(%ip, "{error}"),
        }
    }
    Ok(changed)
}
