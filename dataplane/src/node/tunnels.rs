//! Tunnel addresses: given by the IPAM under Calico's handles, kept while they fit, taken back when no
//! pool asks for them any more (reference 5.5).

use super::settings::random;
use super::{CALL, object};
use crate::context::Context;
use anyhow::{Result, anyhow};
use datastore::lock::{Kind, Lock};
use datastore::{Deadline, drive};
use ipam::{Ask, Assign, Context as IpamContext, Held, Now, Pools, Release};
use model::node::{NodeField, NodeNet};
use model::selector::Selector;
use model::store::{Plan, View};
use model::{Family, IpPool, Scope, Stored, keys};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// A tunnel of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tunnel {
    Ipip,
    Vxlan(Family),
    Wireguard(Family),
}

const ALL: [Tunnel; 5] = [
    Tunnel::Ipip,
    Tunnel::Vxlan(Family::V4),
    Tunnel::Vxlan(Family::V6),
    Tunnel::Wireguard(Family::V4),
    Tunnel::Wireguard(Family::V6),
];

impl Tunnel {
    fn family(self) -> Family {
        match self {
            Tunnel::Ipip => Family::V4,
            Tunnel::Vxlan(family) | Tunnel::Wireguard(family) => family,
        }
    }

    /// Start of the handle, and the `type` attribute.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Tunnel::Ipip => ("ipip", "ipipTunnelAddress"),
            Tunnel::Vxlan(Family::V4) => ("vxlan", "vxlanTunnelAddress"),
            Tunnel::Vxlan(Family::V6) => ("vxlan-v6", "vxlanV6TunnelAddress"),
            Tunnel::Wireguard(Family::V4) => ("wireguard", "wireguardTunnelAddress"),
            Tunnel::Wireguard(Family::V6) => ("wireguard-v6", "wireguardV6TunnelAddress"),
        }
    }

    fn field(self) -> NodeField {
        match self {
            Tunnel::Ipip => NodeField::Ipip,
            Tunnel::Vxlan(family) => NodeField::Vxlan(family),
            Tunnel::Wireguard(family) => NodeField::Wireguard(family),
        }
    }

    fn current(self, node: &NodeNet) -> Option<IpAddr> {
        match self {
            Tunnel::Ipip => node.ipip.map(IpAddr::V4),
            Tunnel::Vxlan(family) => node.family(family).vxlan,
            Tunnel::Wireguard(family) => node.family(family).wireguard,
        }
    }

    fn uses(self, pool: &IpPool, node: &NodeNet) -> bool {
        let on = |mode: &str| matches!(mode, "Always" | "CrossSubnet");
        match self {
            Tunnel::Ipip => on(&pool.spec.ipip_mode),
            Tunnel::Vxlan(_) => on(&pool.spec.vxlan_mode),
            Tunnel::Wireguard(family) => node.family(family).wireguard_key.is_some(),
        }
    }
}

/// Makes the node's tunnel addresses those that its pools ask for.
pub(super) fn ensure(context: &Context) -> Result<()> {
    let Some(node) = object::read(context)? else { return Ok(()) };
    let node = NodeNet::of(&node);
    let stored = context.store.list(&keys::pools(), Deadline::after(CALL))?;
    let pools: Vec<IpPool> =
        stored.iter().filter_map(|entry| IpPool::decode(&entry.key, &entry.value).ok()).collect();
    let mut fields = Vec::new();
    for tunnel in ALL {
        let fitting: Vec<&IpPool> = pools.iter().filter(|pool| fits(tunnel, pool, &node)).collect();
        let address = one(context, tunnel, &fitting, &node)?;
        fields.push((tunnel.field(), address.map(|ip| ip.to_string())));
    }
    object::set(context, &fields)
}

fn fits(tunnel: Tunnel, pool: &IpPool, node: &NodeNet) -> bool {
    let of_family = pool.spec.net().is_some_and(|net| Family::of_net(&net) == tunnel.family());
    let uses = &pool.spec.allowed_uses;
    let allowed = uses.is_empty() || uses.iter().any(|text| text == "Tunnel");
    let selected = || Selector::parse(&pool.spec.node_selector).is_ok_and(|s| s.matches(&node.labels));
    of_family && allowed && !pool.spec.disabled && tunnel.uses(pool, node) && selected()
}

fn one(context: &Context, tunnel: Tunnel, pools: &[&IpPool], node: &NodeNet) -> Result<Option<IpAddr>> {
    let current = tunnel.current(node);
    let calls = Calls::new(context, tunnel);
    let held = calls.held()?;
    if pools.is_empty() {
        if !held.is_empty() {
            calls.release()?;
        }
        return Ok(None);
    }
    let inside = |ip: &IpAddr| pools.iter().any(|pool| pool.spec.net().is_some_and(|net| net.contains(ip)));
    let usable: Vec<IpAddr> = held.iter().map(|held| held.ip).filter(|ip| inside(ip)).collect();
    match usable.as_slice() {
        [ip] if held.len() == 1 => return Ok(Some(*ip)),
        [] if held.is_empty() => {}
        _ => calls.release()?,
    }
    // One that the object names and nobody holds stays; else any.
    let kept = current.filter(inside).and_then(|ip| calls.assign(pools, Some(ip)).ok());
    match kept {
        Some(ip) => Ok(Some(ip)),
        None => calls.assign(pools, None).map(Some),
    }
}

/// Calls of the IPAM for one tunnel.
struct Calls<'a> {
    context: &'a Context,
    tunnel: Tunnel,
    handle: String,
    attrs: BTreeMap<String, String>,
}

impl<'a> Calls<'a> {
    fn new(context: &'a Context, tunnel: Tunnel) -> Self {
        let (start, kind) = tunnel.names();
        let attrs = [("node", context.node_name.as_str()), ("type", kind)];
        Self {
            context,
            tunnel,
            handle: format!("{start}-tunnel-addr-{}", context.node_name),
            attrs: attrs.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    fn held(&self) -> Result<Vec<Held>> {
        self.run(|view, cx| ipam::lookup(view, cx, &self.handle, &BTreeMap::new()).map(Plan::Done))
    }

    fn assign(&self, pools: &[&IpPool], explicit: Option<IpAddr>) -> Result<IpAddr> {
        let names = pools.iter().map(|pool| pool.name().to_owned()).collect();
        let ask = Ask { family: self.tunnel.family(), explicit, pools: Pools::Named(names) };
        let request = Assign {
            handle: self.handle.clone(),
            attrs: self.attrs.clone(),
            asks: vec![ask],
            ..Assign::default()
        };
        let assigned = self.locked(|view, cx| ipam::plan_assign(view, cx, &request))?;
        let given = assigned.addresses.first().map(|given| given.ip);
        given.ok_or_else(|| anyhow!("{}: no address was given", self.handle))
    }

    fn release(&self) -> Result<()> {
        let request = Release { handle: self.handle.clone(), ..Release::default() };
        self.locked(|view, cx| ipam::plan_release(view, cx, &request)).map(drop)
    }

    /// Under the host's IPAM lock (decision 5).
    fn locked<T>(
        &self,
        plan: impl FnMut(&View, &IpamContext) -> Result<Plan<T>, model::store::Stop<ipam::IpamError>>,
    ) -> Result<T> {
        let _lock =
            Lock::acquire(&self.context.config.ipam_lock_file, Kind::Exclusive, Deadline::after(CALL))?;
        self.run(plan)
    }

    fn run<T>(
        &self,
        mut plan: impl FnMut(&View, &IpamContext) -> Result<Plan<T>, model::store::Stop<ipam::IpamError>>,
    ) -> Result<T> {
        let store = &*self.context.store;
        let boot_id = netlink::boot_id().unwrap_or_default();
        let cx = IpamContext {
            scope: &Scope::Cluster,
            host: &self.context.node_name,
            now: Now { wall_ns: wall_ns(), boot_id: &boot_id, boottime_ms: 0 },
            chance: random(),
            transactional: store.is_transactional(),
        };
        let outcome = drive(store, &mut View::new(), Deadline::after(CALL), |view| plan(view, &cx));
        outcome.map(|(out, _)| out).map_err(|error| anyhow!("{}: {error}", self.handle))
    }
}

fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
