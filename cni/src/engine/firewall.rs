//! What our nftables table must hold: nobody spoofs, and what leaves the pod networks is masqueraded
//! where a pool (`natOutgoing`) or the configuration (`ipMasq`) asks for it.

use super::call::Call;
use super::failure;
use cni_protocol::CniError;
use datastore::embedded::Mode;
use datastore::{Age, How, drive_as, drive_hinted};
use ipam::IpamError;
use ipnet::IpNet;
use model::decode::Stored;
use model::store::{Expect, Plan, Query, Stop, View, Write};
use model::{IpPool, keys, veth};
use netlink::Firewall;
use std::collections::BTreeSet;

/// Our table of family `inet`.
const TABLE: &str = "percale";

/// Puts the table in place, if it is not there in this form already.
pub(crate) fn ensure(call: &Call, networks: &[IpNet]) -> Result<(), CniError> {
    let store = call.store(Mode::Create).map_err(|e| e.into_cni())?;
    let (view, plan) = (&mut View::new(), |view: &View| plan(view, call, networks));
    let planned = match call.hints(store) {
        Some(hints) => {
            let is_unchanged = |plan: &Plan<Nat>| matches!(plan, Plan::Done(_));
            drive_hinted(store.as_ref(), view, call.deadline, &hints, is_unchanged, plan)
        }
        // The addresses were committed a moment ago: what was read then is new enough.
        None => drive_as(How::of(Age::Before), store.as_ref(), view, call.deadline, plan),
    };
    let (nat, _) = planned.map_err(failure::drive)?;
    let wish = Firewall {
        table: TABLE.to_owned(),
        prefix: veth::PREFIX.to_owned(),
        guard: true,
        masquerade: nat.from,
        not_to: nat.not_to,
    };
    let lock = call.req.paths.state_dir.join("nft.lock");
    netlink::ensure_firewall(&wish, &lock, call.kernel_timeout()).map_err(|e| failure::firewall(&e))?;
    Ok(())
}

/// Sources to masquerade, and destinations that need none.
struct Nat {
    from: Vec<IpNet>,
    not_to: Vec<IpNet>,
}

/// Pools speak for themselves; networks without a pool object are on record per network, so that the
/// table can be made whole again whichever network is called first after a reboot.
fn plan(view: &View, call: &Call, networks: &[IpNet]) -> Result<Plan<Nat>, Stop<IpamError>> {
    view.require([Query::List(keys::pools()), Query::List(keys::MASQUERADE.to_owned())])?;
    let own = keys::masquerade(&call.conf.name);
    let mut nat = Nat { from: Vec::new(), not_to: Vec::new() };
    for entry in view.list(&keys::pools())? {
        // One that cannot be read is reported by the allocator.
        let Ok(pool) = IpPool::decode(&entry.key, &entry.value) else { continue };
        let Some(net) = pool.spec.net() else { continue };
        nat.not_to.push(net);
        if pool.spec.nat_outgoing {
            nat.from.push(net);
        }
    }
    let mut mine = BTreeSet::new();
    for entry in view.list(keys::MASQUERADE)? {
        let nets: Vec<IpNet> = serde_json::from_slice(&entry.value).unwrap_or_default();
        if entry.key == own {
            mine.extend(nets);
        } else {
            nat.add(nets);
        }
    }
    let wanted = wanted(call, networks, &mine);
    nat.add(wanted.iter().copied());
    if wanted == mine {
        return Ok(Plan::Done(nat));
    }
    let value = serde_json::to_vec(&wanted).expect("networks are plain strings");
    Ok(Plan::Commit(vec![Write { key: own, expect: Expect::Any, value: Some(value) }], nat))
}

/// This network's record: what it masquerades now, and, as running pods may still need it, did before.
fn wanted(call: &Call, networks: &[IpNet], mine: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let now = networks.iter().map(IpNet::trunc).filter(|_| call.conf.ip_masq);
    mine.iter().copied().chain(now).collect()
}

impl Nat {
    fn add(&mut self, nets: impl IntoIterator<Item = IpNet>) {
        for net in nets {
            self.from.push(net);
            self.not_to.push(net);
        }
    }
}

/// Whether an ADD could put the table in place: it is there, or `nft` is.
pub(crate) fn is_possible() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|dir| dir.join("nft").is_file())
}
