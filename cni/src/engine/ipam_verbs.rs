//! The verbs of `percale-ipam`: the IPAM of another main plugin. Never looks into CNI_NETNS or
//! CNI_PATH, whose values may mean nothing here (decision 25).

use super::addresses::Own;
use super::call::Call;
use super::{import, journal, leases, result};
use cni_protocol::result::IpConfig;
use cni_protocol::{CniError, CniResult, Code};
use ipnet::IpNet;

/// Leases addresses; the answer has the subnet's prefix and gateway, or, as `calico-ipam`, the block's.
pub(crate) fn add(call: &Call) -> Result<CniResult, CniError> {
    let _lock = call.phase("lock", || call.lock())?;
    journal::cancel(call);
    let mut own = Own::of(call)?;
    own.namespace = super::pods::namespace_of(call);
    call.phase("store", || import::for_add(call))?;
    import::host_local(call, &own)?;
    let assigned = call.phase("ipam", || leases::assign(call, &own, &own.assign(call, &[])))?;
    let settled = call.phase("sync", || leases::settle(call));
    // Best effort: the runtime's DEL frees what stays.
    settled.inspect_err(|_| drop(leases::release(call, &own.scope, &leases::release_of(call, call.at()))))?;
    assigned.report.iter().for_each(|note| call.note(&note.to_string()));
    call.log_addresses(assigned.addresses.iter().map(|given| given.ip));
    let ips = assigned.addresses.iter().map(|given| IpConfig {
        interface: None,
        address: IpNet::new(given.ip, given.prefix_len).unwrap_or_else(|_| IpNet::from(given.ip)),
        gateway: given.gateway,
    });
    Ok(CniResult {
        ips: ips.collect(),
        routes: call.conf.ipam.routes.clone(),
        dns: result::dns(call.conf),
        ..CniResult::default()
    })
}

/// Frees them. What the store does not take is journalled.
pub(crate) fn del(call: &Call) -> Result<(), CniError> {
    let lock = call.phase("lock", || call.lock())?;
    let (scope, held) = match leases::held_anywhere(call, call.at()) {
        Ok(found) => found,
        Err(_) if call.store_is_missing() => return Ok(()),
        Err(why) if why.code == Code::InvalidConfig => return Err(why),
        Err(_) => {
            let [scope, _] = leases::scopes(call);
            (scope, Vec::new())
        }
    };
    let known: Vec<_> = held.iter().map(|h| h.ip).collect();
    call.log_addresses(&known);
    if let Err(why) = leases::release(call, &scope, &leases::release_of(call, call.at())) {
        call.note(&format!("the store did not take the release, journalled: {why}"));
        journal::owe(call, call.at(), &scope, &held, &known)?;
    }
    let _ = lock.remove_and_release();
    journal::replay(call);
    Ok(())
}
