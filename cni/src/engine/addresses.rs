//! Where an attachment's addresses come from, by its configuration: our own allocator, called as a
//! library, or another IPAM plugin, executed.

use super::call::Call;
use super::leases;
use super::pods::Facts;
use cni_protocol::netconf::{PoolRef, PoolSpec, RangeSpec};
use cni_protocol::{CniError, Code, NetConf};
use ipam::{Ask, Assign, Pools, Range};
use model::{Family, Scope};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// In which part the engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The main plugin: it wires the container.
    Main,
    /// The IPAM of another main plugin.
    Ipam,
    /// The IPAM of a main plugin, answering as Calico's does (decision 25).
    CalicoIpam,
}

/// What our allocator is asked for, before the attachment is known.
pub(crate) struct Own {
    pub scope: Scope,
    pub asks: Vec<Ask>,
    pub create_pools: Vec<ipam::PoolSpec>,
    /// Labels of the pod's namespace, where they are known.
    pub namespace: Option<BTreeMap<String, String>>,
}

impl Own {
    /// # Errors
    /// Code 7 when the configuration gives no address at all, 102 for a requested address that no
    /// range holds.
    pub fn of(call: &Call) -> Result<Self, CniError> {
        let (req, conf, role) = (call.req, call.conf, call.role);
        let wanted = req.requested_ips();
        if !conf.ipam.ranges.is_empty() {
            return Self::ranges(conf, &wanted);
        }
        match (role, conf.ipam.pools.is_empty()) {
            (Role::Ipam, true) => Err(CniError::config(
                "ipam.pools or ipam.ranges: one of them must say which addresses this network has",
            )),
            (Role::Ipam, false) => Ok(Self::pools_as_ranges(conf, &wanted)),
            // The pools of a cluster are its administrator's.
            _ if call.is_cluster() => Ok(Self { create_pools: Vec::new(), ..Self::pools(call, &wanted)? }),
            _ => Self::pools(call, &wanted),
        }
    }

    /// host-local's way: one address of each set, scoped to the network's name.
    fn ranges(conf: &NetConf, wanted: &[IpAddr]) -> Result<Self, CniError> {
        let mut left = wanted.to_vec();
        let asks = conf.ipam.ranges.iter().map(|set| ask_of_set(set, &mut left)).collect();
        match left.first() {
            None => Ok(Self {
                scope: Scope::Network(conf.name.clone()),
                asks,
                create_pools: Vec::new(),
                namespace: None,
            }),
            Some(ip) => Err(CniError::new(
                Code::AddressRefused,
                format!("the requested address {ip} is in no range of ipam.ranges"),
            )),
        }
    }

    /// Pools under another plugin: the subnets of this network, of each family one address.
    fn pools_as_ranges(conf: &NetConf, wanted: &[IpAddr]) -> Self {
        let asks = families(conf)
            .into_iter()
            .map(|family| Ask {
                family,
                explicit: pick(wanted, family),
                pools: Pools::Given(of_family(&conf.ipam.pools, family).map(range_of_pool).collect()),
            })
            .collect();
        Self { scope: Scope::Network(conf.name.clone()), asks, create_pools: Vec::new(), namespace: None }
    }

    /// Calico's way: blocks of the cluster's pools.
    fn pools(call: &Call, wanted: &[IpAddr]) -> Result<Self, CniError> {
        let (conf, families) = (call.conf, asked_families(call));
        if families.is_empty() {
            return Err(CniError::config(
                "ipam.assign_ipv4, ipam.assign_ipv6: both are false; no address would be assigned",
            ));
        }
        let asks = families
            .into_iter()
            .map(|family| Ask { family, explicit: pick(wanted, family), pools: pool_choice(conf, family) })
            .collect();
        Ok(Self {
            scope: Scope::Cluster,
            asks,
            create_pools: conf.ipam.pools.iter().map(pool_spec).collect(),
            namespace: None,
        })
    }

    /// What the pod asks for, in place of what the configuration says. Ranges are for all pods alike.
    pub fn wished(self, call: &Call, facts: &Facts) -> Self {
        if self.scope != Scope::Cluster || facts.pod.is_none() {
            return self;
        }
        let wishes = &facts.wishes;
        let exactly =
            |ip: &IpAddr| Ask { family: Family::of(*ip), explicit: Some(*ip), pools: Pools::Enabled };
        let asks = if wishes.addresses.is_empty() {
            let wanted = call.req.requested_ips();
            let families =
                if wishes.families.is_empty() { asked_families(call) } else { wishes.families.clone() };
            let ask = |family| match wishes.pools(family) {
                [] => Ask { family, explicit: pick(&wanted, family), pools: pool_choice(call.conf, family) },
                pools => Ask { family, explicit: pick(&wanted, family), pools: Pools::Named(pools.to_vec()) },
            };
            families.into_iter().map(ask).collect()
        } else {
            wishes.addresses.iter().map(exactly).collect()
        };
        Self { asks, namespace: facts.namespace_labels(), ..self }
    }

    /// The whole request for an attachment.
    pub fn assign(&self, call: &Call, excluded: &[IpAddr]) -> Assign {
        let conf = call.conf;
        Assign {
            handle: call.at().handle(),
            attrs: leases::attributes(call),
            asks: self.asks.clone(),
            excluded: excluded.to_vec(),
            reuse_delay: conf.ipam.reuse_delay,
            sticky: conf.ipam.sticky.then(|| leases::sticky_name(call)),
            max_blocks: conf.ipam.max_blocks_per_host,
            create_pools: self.create_pools.clone(),
            namespace: self.namespace.clone(),
            locked: false,
        }
    }
}

fn pick(wanted: &[IpAddr], family: Family) -> Option<IpAddr> {
    wanted.iter().copied().find(|ip| Family::of(*ip) == family)
}

/// Under Calico's names, a call whose CNI_ARGS have an `IP` is for that address and no other, as Calico's own
/// IPAM understands it.
fn asked_families(call: &Call) -> Vec<Family> {
    let exactly = &call.req.args.ips;
    if !call.calico || exactly.is_empty() {
        return families(call.conf);
    }
    let both = [Family::V4, Family::V6];
    both.into_iter().filter(|family| pick(exactly, *family).is_some()).collect()
}

fn families(conf: &NetConf) -> Vec<Family> {
    let on = conf.ipam.families();
    [(on.v4, Family::V4), (on.v6, Family::V6)]
        .into_iter()
        .filter_map(|(on, family)| on.then_some(family))
        .collect()
}

fn pool_choice(conf: &NetConf, family: Family) -> Pools {
    let named = match family {
        Family::V4 => &conf.ipam.ipv4_pools,
        Family::V6 => &conf.ipam.ipv6_pools,
    };
    let listed: Vec<String> = of_family(&conf.ipam.pools, family).map(|pool| pool.cidr.to_string()).collect();
    match (named.is_empty(), listed.is_empty()) {
        (false, _) => Pools::Named(named.iter().map(pool_text).collect()),
        (true, false) => Pools::Named(listed),
        (true, true) => Pools::Enabled,
    }
}

fn pool_text(pool: &PoolRef) -> String {
    match pool {
        PoolRef::Cidr(cidr) => cidr.to_string(),
        PoolRef::Name(name) => name.clone(),
    }
}

fn of_family(pools: &[PoolSpec], family: Family) -> impl Iterator<Item = &PoolSpec> {
    pools.iter().filter(move |pool| Family::of_net(&pool.cidr) == family)
}

fn ask_of_set(set: &[RangeSpec], left: &mut Vec<IpAddr>) -> Ask {
    let family = set.first().map_or(Family::V4, |range| Family::of_net(&range.subnet));
    let at = left.iter().position(|&ip| set.iter().any(|range| range.subnet.contains(&ip)));
    let explicit = at.map(|i| left.remove(i));
    Ask { family, explicit, pools: Pools::Given(set.iter().map(range_of_spec).collect()) }
}

fn range_of_spec(range: &RangeSpec) -> Range {
    let (start, end, gateway) = (Some(range.start), Some(range.end), Some(range.gateway));
    Range { start, end, gateway, ..Range::new(range.subnet) }
}

fn range_of_pool(pool: &PoolSpec) -> Range {
    Range { block_size: Some(pool.block_size), ..Range::new(pool.cidr) }
}

fn pool_spec(pool: &PoolSpec) -> ipam::PoolSpec {
    ipam::PoolSpec { cidr: pool.cidr, block_size: Some(pool.block_size), nat_outgoing: pool.nat_outgoing }
}

/// Whether leases belong to the network's name (decision 25): ranges always, pools under another plugin.
pub(crate) fn is_scoped(conf: &NetConf, role: Role) -> bool {
    !conf.ipam.ranges.is_empty() || role == Role::Ipam
}

/// The refusal of an address that a pod brought along.
pub(crate) fn refused_unmanaged(conflict: &netlink::Conflict) -> CniError {
    let msg =
        format!("annotation cni.projectcalico.org/ipAddrsNoIpam: {} is not free: {conflict}", conflict.ip);
    CniError::new(Code::AddressRefused, msg)
}

/// The refusal of an address because the host routes it elsewhere, once too often.
pub(crate) fn too_many_conflicts(seen: &[String]) -> CniError {
    CniError::new(
        Code::AddressRefused,
        "every address tried is already routed by this host; see `percalectl ipam check`",
    )
    .with_details(seen.join("; "))
}
