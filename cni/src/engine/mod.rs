//! The engine: all verbs of one request, whoever hosts it.
//!
//! ```text
//!              ┌ add ──┬ lease: addresses ► leases ► ipam (plan) ► datastore (commit)
//!   serve ► Call       ├ firewall, forwarding
//!              │       ├ links, wire ► netlink        each step pushed on the undo stack
//!              │       └ endpoint (clusters; what the pod asks for: pods)
//!              ├ del ── retire link and routes ► endpoint ► release or journal ► delete link
//!              ├ check ─ compare         ├ gc ── del of what is not valid      └ status
//!              └ ipam_verbs: the same leases without a link
//! ```

mod add;
mod addresses;
mod call;
mod check;
mod clock;
mod del;
mod delegated;
mod endpoint;
mod failure;
mod firewall;
mod former;
mod gates;
mod gc;
mod import;
mod ipam_verbs;
mod journal;
mod label;
mod leases;
pub mod ledger;
mod links;
mod migration;
mod node;
pub mod owed;
mod pod_cidr;
mod pods;
mod ready;
mod result;
mod small;
mod status;
mod stores;
mod undo;
mod unsupported;

pub use addresses::Role;
pub use call::{OpenError, Stores};
pub use label::{KUBERNETES_LABEL, embedded_label, etcd_label, store_label};
pub use ledger::{Direct, Ledger};
pub use node::name as node_name;
pub(crate) use stores::is_cluster;
pub use stores::{ClusterStores, EmbeddedStores};

use crate::log;
use call::Call;
use cni_protocol::{Attachment, CniError, CniResult, NetConf, Request, Verb};
use datastore::Deadline;
use ipam::Held;
use model::Scope;
use netlink::{Netns, NetnsId};

/// Serves CNI requests. Its host reads them and prints the answers.
pub struct Engine<'a> {
    pub stores: &'a dyn Stores,
    pub ledger: &'a dyn Ledger,
    pub log: &'a log::Log,
    pub role: Role,
    /// Runs under a Calico name: plain containers get Calico's interface names.
    pub calico: bool,
    /// Somebody deletes the links of [`netlink::RETIRED_GROUP`] soon: DEL need not wait for the kernel
    /// (decision 16).
    pub reaped: bool,
}

/// Whether a request needs files that only the plugin's process is sure to see: another IPAM plugin, or
/// leases of host-local (decision 9).
pub fn needs_host_files(conf: &NetConf, role: Role) -> bool {
    delegated::is_delegated(conf)
        || addresses::is_scoped(conf, role)
        || conf.ipam.data_dir.is_some()
        || conf.ipam.use_pod_cidr
}

/// Opens the container's namespace for a request of the main plugin. DEL does without where it is gone;
/// an IPAM never looks (decision 25).
///
/// # Errors
/// Code 3 or 4 for ADD and CHECK, which need it.
pub fn open_netns(role: Role, req: &Request) -> Result<Option<Netns>, CniError> {
    let Some(path) = req.netns.as_ref().filter(|_| role == Role::Main) else { return Ok(None) };
    match req.verb {
        Verb::Add | Verb::Check => Netns::open(path).map(Some).map_err(|e| failure::netns(&e)),
        _ => Ok(Netns::open(path).ok()),
    }
}

impl Engine<'_> {
    /// Serves one request until `deadline`. `netns` is what [`open_netns`] opened for it; `record`
    /// gathers what the call's log line says.
    ///
    /// # Errors
    /// What the runtime is told. Everything that the call did is undone, or found by the next DEL.
    pub fn serve(
        &self,
        req: &Request,
        netns: Option<&Netns>,
        deadline: Deadline,
        record: &mut log::Call,
    ) -> Result<Option<CniResult>, CniError> {
        let with_subnets;
        let req = match req.conf.ipam.use_pod_cidr {
            true => {
                with_subnets = pod_cidr::resolved(self.stores, req, deadline)?;
                &with_subnets
            }
            false => req,
        };
        let call = Call::new(self, req, netns, deadline, record)?;
        match self.role {
            Role::Main => Self::main_verb(&call),
            Role::Ipam | Role::CalicoIpam => Self::ipam_verb(&call),
        }
    }

    /// Carries out all releases that are owed to this store; how many are left. `req` says where everything
    /// is; for the daemon, which does it unasked.
    ///
    /// # Errors
    /// What the store or the journal met.
    pub fn replay(&self, req: &Request, deadline: Deadline) -> Result<usize, CniError> {
        let mut record = log::Call::default();
        let left = journal::replay_all(&Call::new(self, req, None, deadline, &mut record)?)?;
        if !record.note.is_empty() {
            self.log.line(log::Level::Info, &[("note", &record.note)]);
        }
        Ok(left)
    }

    /// Frees one address of an attachment that is gone, if it is still held as it was seen: flows and
    /// endpoint first. The caller holds the attachment's lock. Whether it was freed.
    ///
    /// # Errors
    /// What the store met.
    pub fn free_forgotten(
        &self,
        req: &Request,
        deadline: Deadline,
        scope: &Scope,
        at: &Attachment,
        held: &Held,
    ) -> Result<bool, CniError> {
        let mut record = log::Call::default();
        gc::free_forgotten(&Call::new(self, req, None, deadline, &mut record)?, scope, at, held)
    }

    fn main_verb(call: &Call) -> Result<Option<CniResult>, CniError> {
        match call.req.verb {
            Verb::Add => add::add(call, containers_netns(call)?).map(Some),
            Verb::Check => check::check(call, containers_netns(call)?).map(|()| None),
            Verb::Del => del::del(call).map(|()| None),
            Verb::Gc => gc::gc(call).map(|()| None),
            Verb::Status => status::status(call).map(|()| None),
            Verb::Version => Ok(None),
        }
    }

    fn ipam_verb(call: &Call) -> Result<Option<CniResult>, CniError> {
        match call.req.verb {
            Verb::Add => ipam_verbs::add(call).map(Some),
            Verb::Check => check::check_lease(call).map(|()| None),
            Verb::Del => ipam_verbs::del(call).map(|()| None),
            Verb::Gc => gc::gc_leases(call).map(|()| None),
            Verb::Status => status::status(call).map(|()| None),
            Verb::Version => Ok(None),
        }
    }
}

/// The container's namespace, for the verbs that cannot do without.
fn containers_netns<'a>(call: &Call<'a>) -> Result<&'a Netns, CniError> {
    let netns =
        call.netns.ok_or_else(|| CniError::environment("CNI_NETNS: a network namespace is needed"))?;
    if call.req.netns_override {
        return Ok(netns);
    }
    let own = NetnsId::own().map_err(|e| failure::netns(&e))?;
    if netns.id().map_err(|e| failure::netns(&e))? == own {
        return Err(CniError::environment(
            "CNI_NETNS: is the host's own network namespace, not a container's",
        ));
    }
    Ok(netns)
}
