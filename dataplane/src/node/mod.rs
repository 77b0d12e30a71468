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
use datastore::{Deadline, Watch};
use model::keys;
use model::node::NodeNet;
use settings::Settings;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bound on one call of the store.
const CALL: Duration = Duration::from_secs(10);
/// Pause after a failed pass.
const RETRY: Duration = Duration::from_secs(2);
const TURN: Duration = Duration::from_millis(500);

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
    let mut watches = Vec::new();
    while !context.shutdown.is_set() {
        beat.beat();
        if watches.is_empty() {
            watches = node.watches();
        }
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
        if !wait(&mut watches, pause, &mut node) {
            watches.clear();
        }
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

    fn watches(&self) -> Vec<Box<dyn Watch>> {
        let prefixes = [keys::pools(), keys::node(&self.context.node_name)];
        prefixes.iter().filter_map(|prefix| self.context.store.watch(prefix).ok()).collect()
    }
}

/// Waits for the next pass: until something changed or `pause` is over. False: a watch has failed.
fn wait(watches: &mut [Box<dyn Watch>], pause: Duration, node: &mut NodePart) -> bool {
    let until = Instant::now() + pause;
    let wireguard = node.context.plane.wireguard();
    while Instant::now() < until && !node.context.shutdown.is_set() {
        node.announce();
        if node.context.plane.wireguard() != wireguard {
            return true;
        }
        if watches.is_empty() {
            return !node.context.shutdown.wait(TURN);
        }
        let mut changed = false;
        for watch in watches.iter_mut() {
            match watch.next(Deadline::after(TURN / 2)) {
                Ok(event) => changed |= event.is_some(),
                Err(_) => return false,
            }
        }
        if changed {
            return drain(watches);
        }
    }
    true
}

/// Takes what is there already: one pass does for all of it.
fn drain(watches: &mut [Box<dyn Watch>]) -> bool {
    for watch in watches {
        loop {
            match watch.next(Deadline::after(Duration::from_millis(20))) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return false,
            }
        }
    }
    true
}
