//! One request: is it ours to serve, and what is the answer.

use super::reaper::Reaper;
use super::socket::Peer;
use crate::config::StoreChoice;
use crate::context::Context;
use crate::own::{Held, kind};
use cni::daemon;
use cni::daemon::message::{Ask, LogPart, OLDEST, Reply};
use cni::engine::{self, Engine};
use cni::log::{Level, Log};
use cni::plugin;
use cni_protocol::netconf::Defaults;
use cni_protocol::{CniError, Request, Verb};
use datastore::Deadline;
use netlink::Netns;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The answer is on its way this long before the plugin's patience ends.
const HEADROOM: Duration = Duration::from_millis(500);

pub(super) struct Service {
    context: Arc<Context>,
    /// The store, as the plugin calls it.
    label: String,
    reaper: Reaper,
    log: Log,
    metrics: Metrics,
}

struct Metrics {
    served: prometheus::IntCounter,
    failed: prometheus::IntCounter,
    refused: prometheus::IntCounter,
    seconds: prometheus::Histogram,
}

impl Metrics {
    fn new(all: &crate::metrics::Metrics) -> Self {
        let buckets = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
        Self {
            served: all.counter("percale_cni_requests_total", "Requests of the plugin that were served."),
            failed: all.counter("percale_cni_errors_total", "Requests that were answered with an error."),
            refused: all.counter("percale_cni_refused_total", "Requests left to the plugin to serve."),
            seconds: all.histogram("percale_cni_request_seconds", "Duration of served requests.", &buckets),
        }
    }
}

impl Service {
    pub fn new(context: Arc<Context>, reaper: Reaper) -> Self {
        let label = match &context.config.store {
            StoreChoice::Embedded(dir) => engine::embedded_label(dir),
            StoreChoice::Etcd(config) => engine::etcd_label(config),
            StoreChoice::Kubernetes(_) => engine::KUBERNETES_LABEL.to_owned(),
        };
        let metrics = Metrics::new(&context.metrics);
        Self { context, label, reaper, log: Log::stderr(Level::Warn), metrics }
    }

    /// Reads one request and answers it.
    pub fn serve(&self, peer: Peer) {
        let Ok((message, netns)) = peer.request() else { return };
        let (reply, version) = match Ask::decode(&message) {
            Ok((ask, version)) => (self.answer(&ask, netns), version),
            // A refusal has one form in all versions.
            Err(e) => (Reply::refused(e.to_string()), OLDEST),
        };
        if let Reply::Refused { why, .. } = &reply {
            self.metrics.refused.inc();
            tracing::debug!(why, "left to the plugin");
        }
        peer.reply(&reply.encode(version));
    }

    fn answer(&self, ask: &Ask, netns: Option<OwnedFd>) -> Reply {
        if let Err(why) = self.is_ours(ask) {
            return Reply::refused(why);
        }
        let parsed = ask
            .env()
            .and_then(|env| Request::parse(env, ask.config.as_bytes(), Defaults::for_name(&ask.program)));
        let req = match parsed {
            Ok(req) => self.of_our_store(req),
            Err(error) => return Reply::Served { outcome: Err(error), log: LogPart::default() },
        };
        if let Err(why) = self.may_serve(ask, &req) {
            return Reply::refused(why);
        }
        let deadline = Deadline::after(ask.left.saturating_sub(HEADROOM.min(ask.left / 4)));
        self.run(ask, &req, netns, deadline)
    }

    /// The label was the same, so the store is ours whatever this process's environment would say.
    fn of_our_store(&self, mut req: Request) -> Request {
        req.conf.backends.datastore_type = Some(kind(&self.context.config.store));
        req
    }

    fn run(&self, ask: &Ask, req: &Request, netns: Option<OwnedFd>, deadline: Deadline) -> Reply {
        let start = Instant::now();
        let stores = Held(self.context.memory.clone());
        let engine = Engine {
            stores: &stores,
            ledger: self.context.ledger.as_ref(),
            log: &self.log,
            role: plugin::role(&ask.program),
            calico: matches!(ask.program.as_str(), "calico" | "calico-ipam"),
            reaped: true,
        };
        let mut record = plugin::record(req);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let netns = opened(netns)?;
            engine.serve(req, netns.as_ref(), deadline, &mut record)
        }));
        let outcome = caught.unwrap_or_else(|panic| Err(plugin::panicked(panic.as_ref())));
        if matches!(req.verb, Verb::Del | Verb::Gc) {
            self.reaper.wake();
        }
        self.metrics.served.inc();
        self.metrics.seconds.observe(start.elapsed().as_secs_f64());
        if let Err(error) = &outcome {
            self.metrics.failed.inc();
            tracing::debug!(verb = %req.verb, %error, "answered with an error");
        }
        let version = req.conf.cni_version;
        let outcome = outcome.map(|result| result.map(|result| result.to_json(version).to_string()));
        Reply::Served { outcome, log: daemon::log_part(&record) }
    }

    /// Before anything is parsed: the same store, and the same state directory.
    fn is_ours(&self, ask: &Ask) -> Result<(), String> {
        if ask.store != self.label {
            return Err(format!("it serves the store {}, and the network's is {}", self.label, ask.store));
        }
        let own = fs::metadata(&self.context.state_dir).ok().map(|meta| (meta.dev(), meta.ino()));
        match (ask.state_dir, own) {
            (Some(theirs), Some(own)) if theirs != own => {
                Err(format!("its {} is another directory than the host's", self.context.state_dir.display()))
            }
            _ => Ok(()),
        }
    }

    fn may_serve(&self, ask: &Ask, req: &Request) -> Result<(), String> {
        let config = &self.context.config;
        same("state_dir", &req.paths.state_dir, &config.state_dir)?;
        same("attachment_dir", &req.paths.attachment_dir, &config.attachment_dir)?;
        if engine::needs_host_files(&req.conf, plugin::role(&ask.program)) {
            return Err("the request needs files that are the plugin's to read".to_owned());
        }
        let node = engine::node_name(req);
        match node == self.context.node_name {
            true => Ok(()),
            false => Err(format!("it is node {}, and the request is node {node}'s", self.context.node_name)),
        }
    }
}

fn same(key: &str, theirs: &Path, own: &Path) -> Result<(), String> {
    match theirs.components().eq(own.components()) {
        true => Ok(()),
        false => Err(format!("its {key} is {}, and the network's is {}", own.display(), theirs.display())),
    }
}

/// The descriptor that came along, if it is a network namespace.
fn opened(fd: Option<OwnedFd>) -> Result<Option<Netns>, CniError> {
    let netns = fd.map(Netns::from_fd).transpose();
    netns.map_err(|e| CniError::environment("CNI_NETNS: is no network namespace").caused_by(&e))
}
