//! What Felix and BIRD left on this node goes once ours is in place (decision 35), and ours goes once theirs is back.
//!
//! ```text
//!   all:         plane in place ─► Felix's chains ─► BIRD's routes, each once we have one to the same network
//!   given back:  Felix's chains are there ─► our routes, our tables
//! ```
//! Routes to pods and those with Felix's protocol are taken over by the plane itself.

mod chains;
mod routes;

use crate::context::Context;
use crate::health::Condition;
use crate::stage::Stage;
use anyhow::Result;
use chains::Found;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at first, when calico-node could still write.
const TURN: Duration = Duration::from_secs(2);
/// Between two looks later on.
const RESYNC: Duration = Duration::from_secs(60);
const EARLY: Duration = Duration::from_secs(120);
/// BIRD's routes without a counterpart of ours go after this: by then sessions are up and routes learnt.
const LEARNING: Duration = Duration::from_secs(120);

/// Runs until the shutdown is set.
pub(crate) fn run(context: &Arc<Context>) -> Result<()> {
    match context.stage {
        Stage::All => take_over(context),
        Stage::GivenBack => give_back(context),
        Stage::Own | Stage::Plugin => {
            context.health.condition("take-over").ready();
            while !context.shutdown.wait(RESYNC) {}
            Ok(())
        }
    }
}

fn take_over(context: &Context) -> Result<()> {
    let condition = context.health.condition("take-over");
    condition.not_ready("waiting for routes and rules of our own before Calico's go");
    while !context.plane.is_synced() {
        if context.shutdown.wait(TURN / 4) {
            return Ok(());
        }
    }
    let begun = Instant::now();
    let mut seen = Seen::default();
    while !context.shutdown.is_set() {
        match chains::remove() {
            Ok(found) => seen.tell(&condition, found),
            Err(error) => condition.not_ready(format!("Calico's rules cannot be removed: {error:#}")),
        }
        if let Err(error) = routes::supersede(context, begun.elapsed() > LEARNING) {
            tracing::warn!("BIRD's routes: {error:#}");
        }
        let is_early = begun.elapsed() < EARLY || seen.is_back();
        context.shutdown.wait(if is_early { TURN } else { RESYNC });
    }
    Ok(())
}

/// When Felix's chains were removed: first, and last of those times when they had come back.
#[derive(Default)]
struct Seen {
    removed: bool,
    back: Option<Instant>,
}

impl Seen {
    /// A calico-node that runs writes again within this time.
    fn is_back(&self) -> bool {
        self.back.is_some_and(|at| at.elapsed() < EARLY)
    }

    fn tell(&mut self, condition: &Condition, found: Found) {
        match found {
            Found::Removed(count) => {
                tracing::info!(count, "Felix's chains are removed");
                self.back = self.removed.then(Instant::now);
                self.removed = true;
            }
            Found::ForwardDrops => {
                return condition.not_ready(
                    "Calico's chains stay, because the policy of FORWARD is DROP and only they let pods through: \
                     iptables -P FORWARD ACCEPT",
                );
            }
            Found::Nothing => {}
        }
        match self.is_back() {
            false => condition.ready(),
            true => condition.not_ready(
                "calico-node is still at work on this node: its chains came back, and were removed again. Keep it off \
                 (percale-install --take-over=all says how)",
            ),
        }
    }
}

fn give_back(context: &Context) -> Result<()> {
    let condition = context.health.condition("take-over");
    condition.not_ready("given back to Calico; our routes and rules stay until calico-node's are there");
    while !context.shutdown.is_set() {
        if chains::are_there().unwrap_or(false) {
            match routes::withdraw() {
                Ok(0) => condition.ready(),
                Ok(count) => tracing::info!(count, "calico-node is back: our routes and rules are withdrawn"),
                Err(error) => tracing::warn!("our routes and rules: {error:#}"),
            }
        }
        context.shutdown.wait(TURN);
    }
    Ok(())
}
