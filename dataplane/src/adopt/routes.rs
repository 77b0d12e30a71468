//! BIRD's routes give way to ours; ours are withdrawn when the node is Calico's again.

use crate::context::Context;
use anyhow::Result;
use datastore::Deadline;
use ipnet::IpNet;
use model::{IpPool, Stored, keys};
use netlink::{FibRoute, MAIN_TABLE, NODE_METRIC, NODE_PROTOCOL, Nl};
use std::collections::BTreeSet;
use std::time::Duration;

/// `RTPROT_BIRD` (linux/rtnetlink.h), and what our BGP writes.
const BIRD: u8 = 12;
const BGP: (u8, u32) = (179, 32);
const PATIENCE: Duration = Duration::from_secs(10);

fn is_ours(route: &FibRoute) -> bool {
    [(NODE_PROTOCOL, NODE_METRIC), BGP].contains(&(route.protocol, route.metric))
}

/// Removes BIRD's routes to networks that we have a route to. With `all`, also its routes inside of Calico's pools:
/// what is left there then is to nodes that are gone. Another BIRD's routes to elsewhere stay.
pub(super) fn supersede(context: &Context, all: bool) -> Result<()> {
    let mut nl = Nl::here(PATIENCE)?;
    let routes = netlink::fib_routes(&mut nl, MAIN_TABLE)?;
    if !routes.iter().any(|route| route.protocol == BIRD) {
        return Ok(());
    }
    let ours: BTreeSet<IpNet> = routes.iter().filter(|route| is_ours(route)).map(|route| route.net).collect();
    let pools = if all { pools(context)? } else { Vec::new() };
    let inside = |net: &IpNet| pools.iter().any(|pool| pool.contains(net));
    let gone: Vec<FibRoute> = routes
        .into_iter()
        .filter(|route| route.protocol == BIRD && (ours.contains(&route.net) || inside(&route.net)))
        .collect();
    remove(&mut nl, &gone)?;
    if !gone.is_empty() {
        tracing::info!(count = gone.len(), "BIRD's routes are superseded");
    }
    Ok(())
}

fn pools(context: &Context) -> Result<Vec<IpNet>> {
    let entries = context.store.list(&keys::pools(), Deadline::after(PATIENCE))?;
    let read =
        |entry: &model::store::Entry| IpPool::decode(&entry.key, &entry.value).ok()?.spec.cidr.parse().ok();
    Ok(entries.iter().filter_map(read).collect())
}

/// Removes our routes and tables; how many there were. Pods' own routes stay: they are Felix's as much as ours.
pub(super) fn withdraw() -> Result<usize> {
    let mut nl = Nl::here(PATIENCE)?;
    let ours: Vec<FibRoute> = netlink::fib_routes(&mut nl, MAIN_TABLE)?.into_iter().filter(is_ours).collect();
    remove(&mut nl, &ours)?;
    let mut count = ours.len();
    for table in ["percale", "percale-node"] {
        if netlink::xtables::has_table(table, PATIENCE)? {
            netlink::remove_firewall(table, PATIENCE)?;
            count += 1;
        }
    }
    Ok(count)
}

fn remove(nl: &mut Nl, routes: &[FibRoute]) -> Result<()> {
    for outcome in netlink::remove_fib_routes(nl, routes)? {
        outcome?;
    }
    Ok(())
}
