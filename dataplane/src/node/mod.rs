//! This node among the others: its name, addresses, tunnel addresses, and the word that it is ready.
//!
//! ```text
//!   default pools ─► addresses of the host ─► Node object ─► tunnel addresses ─► nodename file
//!                                                 then, once the plane is in place: NetworkUnavailable=False, conflist
//! ```
//! A pass does all of it and changes only what differs. It is repeated when pools change, and every
//! AUTODETECT_POLL_INTERVAL.

mod address;
mod cluster;
mod object;
mod pools;
mod publish;
mod settings;
mod tunnels;

use crate::context::Context;
use crate::health::Condition;
use anyhow::Result;
use datastore::Deadline;
use model::keys;
use model::node::NodeNet;
use settings::Settings;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Bound on one call of the store.
const CALL: Duration = Duration::from_secs(10);
/// Pause after a failed pass.
const RETRY: Duration = Duration::from_secs(2);
/// The plane and the shutdown are looked at that often.
const TURN: Duration = Duration::from_millis(500);
/// What changes together makes one pass.
const GATHER: Duration = Duration::from_millis(20);
/// Pause before a watch that failed is begun again.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait of a watch. Its thread ends with the process.
const QUIET: Duration = Duration::from_secs(60);

pub(crate) use settings::random_key;

/// Runs until the shutdown is set; the node's object and addresses stay.
pub(crate) fn run(context: &Arc<Context>) -> Result<()> {
    let mut node = NodePart {
        context,
        settings: Settings::read(&|name| std::env::var(name).ok())?,
        condition: context.health.condition("node"),
        pools_made: false,
        published: false,
        own: None,
    };
    let beat = context.health.heartbeat("node", Duration::from_secs(120));
    let changes = watch(context)?;
    while !context.shutdown.is_set() {
        beat.beat();
        let pause = match node.pass() {
            Ok(()) => {
                node.condition.ready();
                node.settings.poll
            }
            Err(error) => {
                node.condition.not_ready(format!("{error:#}"));
                RETRY
            }
        };
        wait(&changes, pause, &mut node);
    }
    Ok(())
}

struct NodePart<'a> {
    context: &'a Context,
    settings: Settings,
    condition: Condition,
    pools_made: bool,
    published: bool,
    /// This node's object, once it has all that it needs.
    own: Option<NodeNet>,
}

impl NodePart<'_> {
    fn pass(&mut self) -> Result<()> {
        let (context, settings) = (self.context, &self.settings);
        if !self.pools_made {
            cluster::ensure(context)?;
            pools::ensure(context)?;
            self.pools_made = true;
        }
        object::ensure(context, settings)?;
        tunnels::ensure(context)?;
        self.own = object::read(context)?.map(|node| NodeNet::of(&node));
        publish::nodename(context)
    }

    /// What is done once, when the kernel is as this node's object, tunnel addresses and all, wants it.
    fn announce(&mut self) {
        let is_in_place = || self.own.as_ref().is_some_and(|own| self.context.plane.is_synced_as(own));
        if self.published || !is_in_place() {
            return;
        }
        match publish::announce(self.context, &self.settings) {
            Ok(()) => self.published = true,
            Err(error) => tracing::warn!("{error:#}"),
        }
    }
}

/// Hears of changes of pools and of this node's object.
fn watch(context: &Arc<Context>) -> Result<Receiver<()>> {
    let (tell, changes) = channel();
    for prefix in [keys::pools(), keys::node(&context.node_name)] {
        let (context, tell) = (context.clone(), tell.clone());
        let follow = move || while follow(&context, &prefix, &tell) {};
        std::thread::Builder::new().name("node-watch".into()).spawn(follow)?;
    }
    Ok(changes)
}

/// Until the watch fails; what it missed counts as a change. False: nobody listens any more.
fn follow(context: &Context, prefix: &str, tell: &Sender<()>) -> bool {
    if let Ok(mut watch) = context.store.watch(prefix) {
        while let Ok(event) = watch.next(Deadline::after(QUIET)) {
            if event.is_some() && tell.send(()).is_err() {
                return false;
            }
        }
    }
    !context.shutdown.wait(PAUSE) && tell.send(()).is_ok()
}

/// Waits for the next pass: until something changed or `pause` is over.
fn wait(changes: &Receiver<()>, pause: Duration, node: &mut NodePart) {
    let until = Instant::now() + pause;
    let wireguard = node.context.plane.wireguard();
    while Instant::now() < until && !node.context.shutdown.is_set() {
        node.announce();
        if node.context.plane.wireguard() != wireguard {
            return;
        }
        if changes.recv_timeout(TURN.min(pause)).is_ok() {
            while changes.recv_timeout(GATHER).is_ok() {}
            return;
        }
    }
}
