//! One request while it is served: what it is about, its clock, its locks, its store, its record.

use super::addresses::Role;
use super::clock::Clock;
use super::ledger::Ledger;
use super::{Engine, failure, node, stores};
use crate::log;
use cni_protocol::{Attachment, CniError, NetConf, Request};
use datastore::embedded::Mode;
use datastore::hints::Hints;
use datastore::lock::{AttachmentLock, Kind, Lock};
use datastore::{Deadline, ErrorKind, Store};
use model::store::View;
use netlink::Netns;
use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest conversation with the kernel.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the engine's host gets the store of a request from: the plugin opens one for each call, a
/// daemon keeps it.
pub trait Stores: Send + Sync {
    /// # Errors
    /// `ErrorKind::Missing` for `Mode::Existing` and no store; else whatever opening met.
    fn open(&self, req: &Request, mode: Mode, deadline: Deadline) -> Result<Arc<dyn Store>, OpenError>;

    /// Where pods are, for a network whose own objects are elsewhere.
    ///
    /// # Errors
    /// As [`Stores::open`]; a configuration's for a host that knows no Kubernetes.
    fn pods(&self, _: &Request, _: Deadline) -> Result<Arc<dyn Store>, OpenError> {
        Err(OpenError::Config(CniError::config(
            "policy.type: k8s needs Kubernetes, which is not served here",
        )))
    }
}

/// Why there is no store for a call.
#[derive(Debug)]
pub enum OpenError {
    /// The configuration names none, or another than this host uses.
    Config(CniError),
    Store(datastore::Error),
}

impl OpenError {
    pub(crate) fn into_cni(self) -> CniError {
        match self {
            OpenError::Config(error) => error,
            OpenError::Store(error) => failure::store(&error),
        }
    }

    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, OpenError::Store(e) if e.kind == ErrorKind::Missing)
    }
}

pub(crate) struct Call<'a> {
    pub req: &'a Request,
    pub conf: &'a NetConf,
    pub log: &'a log::Log,
    pub role: Role,
    pub calico: bool,
    pub node: String,
    pub clock: Clock,
    /// Random bits.
    pub chance: u64,
    /// The container's, where its host opened it.
    pub netns: Option<&'a Netns>,
    pub netns_inode: Option<u64>,
    pub deadline: Deadline,
    /// Links out of use are deleted by somebody else.
    pub reaped: bool,
    pub ledger: &'a dyn Ledger,
    stores: &'a dyn Stores,
    store: OnceCell<Arc<dyn Store>>,
    is_cluster: OnceCell<bool>,
    is_kubernetes: OnceCell<bool>,
    /// What was read of the store a moment ago.
    known: RefCell<View>,
    hints: OnceCell<Arc<Hints>>,
    /// What the attachment owes since an earlier DEL.
    debts: RefCell<Vec<datastore::journal::Id>>,
    /// The store did not take a release of this call.
    owes: Cell<bool>,
    record: RefCell<&'a mut log::Call>,
}

impl<'a> Call<'a> {
    pub fn new(
        engine: &Engine<'a>,
        req: &'a Request,
        netns: Option<&'a Netns>,
        deadline: Deadline,
        record: &'a mut log::Call,
    ) -> Result<Self, CniError> {
        let id = netns.map(Netns::id).transpose().map_err(|e| failure::netns(&e))?;
        Ok(Self {
            req,
            conf: &req.conf,
            log: engine.log,
            role: engine.role,
            calico: engine.calico,
            node: node::name(req),
            clock: Clock::read(),
            chance: chance(),
            netns,
            netns_inode: id.map(|id| id.ino),
            deadline,
            reaped: engine.reaped,
            ledger: engine.ledger,
            stores: engine.stores,
            store: OnceCell::new(),
            is_cluster: OnceCell::new(),
            is_kubernetes: OnceCell::new(),
            known: RefCell::default(),
            hints: OnceCell::new(),
            debts: RefCell::default(),
            owes: Cell::new(false),
            record: RefCell::new(record),
        })
    }

    /// The attachment of a verb that has one.
    ///
    /// # Panics
    /// For GC and STATUS; `Request::parse` gives every other verb an attachment.
    pub fn at(&self) -> &'a Attachment {
        self.req.attachment.as_ref().expect("ADD, DEL and CHECK have an attachment")
    }

    /// Holds off every other verb of this attachment, whoever runs it (decision 5).
    pub fn lock(&self) -> Result<AttachmentLock, CniError> {
        AttachmentLock::acquire(&self.req.paths.attachment_dir, &self.at().file_name(), self.deadline)
            .map_err(|e| busy(&e, "another call of this container is still running"))
    }

    /// The lock of an attachment, if nobody holds it.
    pub fn try_lock(&self, at: &Attachment) -> Option<AttachmentLock> {
        AttachmentLock::try_acquire(&self.req.paths.attachment_dir, &at.file_name()).ok().flatten()
    }

    /// The host's IPAM lock (decision 6), around each commit.
    pub fn ipam_lock(&self) -> Result<Lock, CniError> {
        let limit = self.conf.ipam_lock_timeout.min(self.deadline.left());
        Lock::acquire(&self.req.paths.ipam_lock_file, Kind::Exclusive, Deadline::after(limit))
            .map_err(|e| busy(&e, "the host's IPAM lock is held by another process"))
    }

    /// The store, opened at the first use.
    pub fn store(&self, mode: Mode) -> Result<&Arc<dyn Store>, OpenError> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let opened = self.stores.open(self.req, mode, self.deadline)?;
        Ok(self.store.get_or_init(|| opened))
    }

    /// Whether other hosts share the store, and an agent of the cluster keeps it in order.
    pub fn is_cluster(&self) -> bool {
        *self.is_cluster.get_or_init(|| stores::is_cluster(self.req))
    }

    /// Whether the store is Kubernetes itself, where endpoints are views of pods.
    pub fn is_kubernetes(&self) -> bool {
        *self.is_kubernetes.get_or_init(|| stores::is_kubernetes(self.req))
    }

    /// Kubernetes, for a network whose own objects are elsewhere.
    pub fn pods_store(&self) -> Result<Arc<dyn Store>, OpenError> {
        self.stores.pods(self.req, self.deadline)
    }

    /// What this host saw of a cluster's store before. A store of this host alone is read as fast.
    pub fn hints(&self, store: &Arc<dyn Store>) -> Option<Arc<Hints>> {
        let make = || {
            let dir = self.req.paths.state_dir.join("hints");
            Arc::new(Hints::new(&dir, &store.identity(), &self.clock.boot_id, self.clock.boottime_ms))
        };
        (self.is_cluster() && !self.reaped).then(|| self.hints.get_or_init(make).clone())
    }

    /// Remembers what was read, for the plans to come: stale knowledge costs them a conflict.
    pub fn learn(&self, view: View) {
        self.known.replace(view);
    }

    /// What was read, once.
    pub fn known(&self) -> View {
        self.known.take()
    }

    pub fn set_debts(&self, debts: Vec<datastore::journal::Id>) {
        self.debts.replace(debts);
    }

    pub fn take_debts(&self) -> Vec<datastore::journal::Id> {
        self.debts.take()
    }

    /// Notes that the store is of no use just now, so that nothing more is tried with it.
    pub fn gave_up(&self) {
        self.owes.set(true);
    }

    pub fn has_given_up(&self) -> bool {
        self.owes.get()
    }

    /// No store: nothing was ever leased here (decision 29).
    pub fn store_is_missing(&self) -> bool {
        self.store(Mode::Existing).err().is_some_and(|e| e.is_missing())
    }

    /// Times a part of the call for the log.
    pub fn phase<T>(&self, name: &'static str, part: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let out = part();
        self.record.borrow_mut().phase(name, start.elapsed());
        out
    }

    /// Adds something worth knowing to the call's log line.
    pub fn note(&self, text: &str) {
        let mut record = self.record.borrow_mut();
        if !record.note.is_empty() {
            record.note.push_str("; ");
        }
        record.note.push_str(text);
    }

    pub fn log_addresses<T: ToString>(&self, addresses: impl IntoIterator<Item = T>) {
        self.record.borrow_mut().addresses.extend(addresses.into_iter().map(|a| a.to_string()));
    }

    /// The bound on one conversation with the kernel.
    pub fn kernel_timeout(&self) -> Duration {
        self.deadline.left().clamp(Duration::from_millis(1), KERNEL_TIMEOUT)
    }
}

fn chance() -> u64 {
    let mut bytes = [0; 8];
    // Before the kernel's generator is ready the clock must do.
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => Clock::read().wall_ns,
    }
}

fn busy(error: &datastore::Error, why: &str) -> CniError {
    match error.kind {
        ErrorKind::Timeout => CniError::try_again(format!("{why}; try again")).caused_by(error),
        _ => failure::store(error),
    }
}
