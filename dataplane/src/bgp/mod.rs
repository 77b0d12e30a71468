//! BGP and BFD on sockets, as Calico's resources ask for it.

mod bfd;
mod conn;
mod control;
mod engine;
mod fib;
mod health;
mod node_status;
mod peers;
mod poller;
mod report;
mod secrets;
mod sockets;
mod source;
mod state;
mod topology;
mod watch;

use crate::context::Context;
use anyhow::{Context as _, Result};
use bfd::Bfd;
use control::Control;
use engine::{Engine, Message, Parts};
use fib::Fib;
use health::Health;
use netlink::Nl;
use peering::{Cluster, Identity};
use poller::Waker;
use secrets::Secrets;
use source::Source;
use state::StateFile;
use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use topology::Topology;
use watch::{Heard, Maker, Watched};

/// For one answer of the kernel.
const KERNEL: Duration = Duration::from_secs(5);

/// The part of the daemon. It is idle, and opens no port, as long as the node has no BGP address or no peer.
pub(crate) fn run(context: &Arc<Context>) -> Result<()> {
    if !crate::plane::is_bgp(&|name| env::var_os(name)) {
        tracing::info!("CALICO_NETWORKING_BACKEND: no BGP on this node");
        context.health.condition("bgp").ready();
        while !context.shutdown.wait(Duration::from_secs(3600)) {}
        return Ok(());
    }
    let (inbox, messages) = channel();
    let waker = Waker::new()?;
    let (heard, hear) = channel();
    let (drain, drains) = channel();
    let cluster = Cluster::new(identity(context));
    let kubernetes = Source::kubernetes(context);
    let watches = watches(context, &cluster, kubernetes.as_ref());
    let (asker, tell) = (context.clone(), heard.clone());
    let watch_secrets = Box::new(move |watched| {
        let started = watch::start_one(&asker, watched, move |event| tell.send(Heard::Secret(event)).is_ok());
        if let Err(error) = started {
            tracing::error!(%error, "changes of Secrets will not be noticed");
        }
    });
    let mut maker =
        Maker::new(cluster, &watches, secrets(kubernetes), watch_secrets, inbox.clone(), waker.clone());
    let socket = context.config.socket.with_file_name("bgp.sock");
    let control = Control::bind(&socket, inbox.clone(), waker.clone())?;
    let parts = Parts {
        node: context.node_name.clone(),
        inbox: messages,
        waker: waker.clone(),
        bfd: start_bfd(&inbox, &waker)?,
        drain,
        state: StateFile::new(&context.state_dir),
        topology: Topology::new(Nl::here(KERNEL)?, workload_prefix())
            .context("reading the kernel's routes")?,
        fib: Fib::adopt(Nl::here(KERNEL)?).context("reading the kernel's routes")?,
        health: Health::new(context),
    };
    let engine = Engine::new(parts, &context.shutdown)?;
    watch::start(context, &watches, &heard)?;
    spawn("bgp-drain", move || drains.iter().all(|drained| heard.send(Heard::Drain(drained)).is_ok()))?;
    spawn("bgp-wish", move || maker.run(&hear))?;
    let (asker, asked, wake) = (context.clone(), inbox.clone(), waker.clone());
    spawn("bgp-node-status", move || {
        if let Err(error) = node_status::run(&asker, &asked, &wake) {
            tracing::warn!(%error, "CalicoNodeStatus objects are not filled");
        }
    })?;
    let stop = context.shutdown.clone();
    spawn("bgp-control", move || control.run(&stop))?;
    engine.run().context("the BGP engine")
}

fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(body)?;
    Ok(())
}

fn start_bfd(inbox: &Sender<Message>, engine: &Waker) -> Result<(Sender<bfd::Wanted>, Waker)> {
    let (orders, order) = channel();
    let waker = Waker::new()?;
    let (inbox, engine, own) = (inbox.clone(), engine.clone(), waker.clone());
    let report = move |addr, event| {
        // The engine's end ends the process.
        let _ = inbox.send(Message::Bfd(addr, event));
        engine.wake();
    };
    let bfd = Bfd::new(&waker, report)?;
    spawn("bfd", move || {
        if let Err(error) = bfd.run(&order, &own) {
            tracing::error!(%error, "BFD ended");
        }
    })?;
    Ok((orders, waker))
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn identity(context: &Context) -> Identity {
    Identity {
        node: context.node_name.clone(),
        kubernetes_node: text("CALICO_K8S_NODE_REF").unwrap_or_else(|| context.node_name.clone()),
        router_id: text("CALICO_ROUTER_ID").unwrap_or_default(),
        cluster_ranges: text("CALICO_ADVERTISE_CLUSTER_IPS"),
    }
}

fn watches(context: &Context, cluster: &Cluster, kubernetes: Option<&Source>) -> Vec<Watched> {
    let own = Source::of(context.store.clone());
    let each = |store: &Source, prefix: String| Watched { prefix, store: store.clone() };
    let mut all: Vec<Watched> = cluster.watched().into_iter().map(|prefix| each(&own, prefix)).collect();
    if let Some(source) = kubernetes {
        all.extend(Cluster::watched_of_kubernetes().map(|prefix| each(source, prefix)));
    }
    all
}

fn secrets(kubernetes: Option<Source>) -> Secrets {
    if let Some(source) = kubernetes {
        return Secrets::in_cluster(source, text("NAMESPACE").unwrap_or_else(|| "kube-system".into()));
    }
    let dir = text("PERCALE_SECRETS_DIR").map_or_else(|| "/etc/percale/secrets".into(), PathBuf::from);
    Secrets::in_dir(dir)
}

fn workload_prefix() -> String {
    text("FELIX_INTERFACEPREFIX").unwrap_or_else(|| "cali".into())
}
