//! Leases that host-local gave out before this network was ours (decision 25): taken over once, so that
//! no running container loses its address and nobody gets it a second time.

use super::addresses::Own;
use super::call::Call;
use super::{delegated, failure, leases, migration, ready};
use crate::hostlocal::{self, Directory, Glance, Lease, Survey};
use cni_protocol::{Attachment, CniError, Code};
use datastore::embedded::Mode;
use datastore::{Store, drive};
use ipam::{Ask, Assign, Pools};
use model::keys::Scope;
use model::store::View;
use model::{Family, Pod};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The interface of a lease whose file does not say one: host-local before 0.7 served only this.
const DEFAULT_IFNAME: &str = "eth0";

const PODS: &str = "/kubernetes/pods/";

/// Imports the directory where there is one: that of `ipam.dataDir`, or host-local's default one for
/// this network's name. A network of cluster pools has none unless it says so.
pub(crate) fn host_local(call: &Call, own: &Own) -> Result<(), CniError> {
    let data_dir = call.conf.ipam.data_dir.as_deref();
    if data_dir.is_none() && own.scope == Scope::Cluster {
        return Ok(());
    }
    let path = hostlocal::directory(data_dir, &call.conf.name);
    match hostlocal::glance(&path)? {
        Glance::Absent | Glance::Done => return Ok(()),
        Glance::Pending | Glance::Changed => {}
    }
    let Some(directory) = Directory::lock(&path, call.deadline)? else { return Ok(()) };
    let survey = directory.survey()?;
    if survey.imported_before && !survey.leases.is_empty() {
        call.note(&format!(
            "host-local still writes to {}; import it by removing its marker",
            path.display()
        ));
        return Ok(());
    }
    // Unlocked before the directory is done with: until then the next ADD comes by here again.
    if call.is_cluster() && own.scope == Scope::Cluster {
        migration::lock(call)?;
        let taken = take_over(call, own, &survey);
        migration::unlock(call).and(taken)?;
    } else {
        take_over(call, own, &survey)?;
    }
    directory.retire(&survey)?;
    Ok(())
}

/// As [`ready::for_add`]; but a migration of this node that was killed, or one whose node has not come
/// back, is gone on with or ended first.
pub(crate) fn for_add(call: &Call) -> Result<(), CniError> {
    match ready::for_add(call) {
        Err(why) if why.code == Code::TryAgain && resume(call)? => ready::for_add(call),
        answer => answer,
    }
}

/// Whether there was a broken-off migration to go on with.
fn resume(call: &Call) -> Result<bool, CniError> {
    if !call.is_cluster() || delegated::is_delegated(call.conf) || !migration::is_resumable(call) {
        return Ok(false);
    }
    host_local(call, &Own::of(call)?)?;
    migration::unlock(call)?;
    call.note("ended a migration from host-local that was broken off");
    Ok(true)
}

fn take_over(call: &Call, own: &Own, survey: &Survey) -> Result<(), CniError> {
    let mut by_owner: BTreeMap<Attachment, Vec<IpAddr>> = BTreeMap::new();
    for lease in &survey.leases {
        by_owner.entry(owner(call, lease)).or_default().push(lease.ip);
    }
    let pods = pods(call);
    for (at, ips) in &by_owner {
        assign(call, own, at, ips, &pods)?;
    }
    for unclear in &survey.unclear {
        call.note(&format!("host-local's file {} was not understood and set aside", unclear.file));
    }
    if !survey.leases.is_empty() {
        call.note(&format!("imported {} addresses from host-local", survey.leases.len()));
    }
    Ok(())
}

/// Namespace and name of pods by their addresses.
type Pods = BTreeMap<IpAddr, (String, String)>;

/// The pods of this node, so that Calico's and our clean-up know whose the addresses are. Where they
/// are not to be had the addresses are imported without.
fn pods(call: &Call) -> Pods {
    let kubernetes = |store: &&Arc<dyn Store>| store.identity().starts_with("kubernetes:");
    let store = call.store(Mode::Existing).ok().filter(kubernetes);
    let listed = store.and_then(|store| store.list(PODS, call.deadline).ok()).unwrap_or_default();
    let mut pods = Pods::new();
    for pod in listed.iter().filter_map(|entry| Pod::decode(&entry.key, &entry.value).ok()) {
        if pod.node == call.node && !pod.host_network {
            let owner = (pod.namespace.clone(), pod.name.clone());
            pods.extend(pod.addresses().into_iter().map(|ip| (ip, owner.clone())));
        }
    }
    pods
}

fn owner(call: &Call, lease: &Lease) -> Attachment {
    let ifname = lease.ifname.as_deref().unwrap_or(DEFAULT_IFNAME);
    Attachment::new(&*call.conf.name, &*lease.container, ifname)
}

/// One container's addresses under its name. Already there: imported before a crash.
fn assign(call: &Call, own: &Own, at: &Attachment, ips: &[IpAddr], pods: &Pods) -> Result<(), CniError> {
    let asks: Vec<Ask> = ips.iter().filter_map(|ip| ask(call, own, *ip)).collect();
    if asks.is_empty() {
        return Ok(());
    }
    let mut attrs = at.attributes();
    attrs.insert("node".to_owned(), call.node.clone());
    if let Some((namespace, pod)) = ips.iter().find_map(|ip| pods.get(ip)) {
        attrs.insert("namespace".to_owned(), namespace.clone());
        attrs.insert("pod".to_owned(), pod.clone());
    }
    attrs.insert("note".to_owned(), "imported from host-local".to_owned());
    let request = Assign {
        handle: at.handle(),
        attrs,
        asks,
        create_pools: own.create_pools.clone(),
        locked: true,
        ..Assign::default()
    };
    let store = call.store(Mode::Create).map_err(|e| e.into_cni())?;
    let _lock = call.ipam_lock()?;
    let cx = leases::context(call, &own.scope);
    drive(store.as_ref(), &mut View::new(), call.deadline, |view| ipam::plan_assign(view, &cx, &request))
        .map(|_| ())
        .map_err(failure::drive)
}

/// The ask for exactly this address, unless the network no longer has it.
fn ask(call: &Call, own: &Own, ip: IpAddr) -> Option<Ask> {
    let fits = |ask: &&Ask| match &ask.pools {
        Pools::Given(ranges) => ranges.iter().any(|range| range.cidr.contains(&ip)),
        Pools::Named(_) | Pools::Enabled => ask.family == Family::of(ip),
    };
    let Some(ask) = own.asks.iter().find(fits) else {
        call.note(&format!("{ip} of host-local is outside of this network's ranges and was left out"));
        return None;
    };
    Some(Ask { family: ask.family, explicit: Some(ip), pools: ask.pools.clone() })
}
