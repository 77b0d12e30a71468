//! Readiness and metrics of BGP (reference 4.9).

use super::peers::Peers;
use crate::context::Context;
use crate::health::{Condition, Heartbeat};
use bgp::speaker::Speaker;
use prometheus::IntGauge;
use std::time::{Duration, Instant};

/// At the start all sessions are waited for, no longer than that; later one has to be up.
const PATIENCE: Duration = Duration::from_secs(30);
/// A round of the engine is far shorter.
const HUNG: Duration = Duration::from_secs(60);

pub(super) struct Health {
    condition: Condition,
    heartbeat: Heartbeat,
    begun: Instant,
    was_ready: bool,
    configured: IntGauge,
    established: IntGauge,
    routes: IntGauge,
    installed: IntGauge,
}

impl Health {
    pub fn new(context: &Context) -> Self {
        let gauge = |name: &str, help: &str| context.metrics.gauge(name, help);
        let condition = context.health.condition("bgp");
        condition.not_ready("the store has not told everything yet");
        Health {
            condition,
            heartbeat: context.health.heartbeat("bgp", HUNG),
            begun: Instant::now(),
            was_ready: false,
            configured: gauge("percale_bgp_peers", "Peers that are configured or let in by a range."),
            established: gauge("percale_bgp_peers_established", "Peers whose session is up."),
            routes: gauge("percale_bgp_prefixes", "Prefixes in the BGP table."),
            installed: gauge("percale_bgp_kernel_routes", "Routes of BGP in the kernel."),
        }
    }

    pub fn beat(&self) {
        self.heartbeat.beat();
    }

    /// BGP has nothing to do on this node.
    pub fn idle(&mut self) {
        self.condition.ready();
    }

    pub fn update(&mut self, peers: &Peers, speaker: Option<&Speaker>, restarting: bool, installed: usize) {
        let Some(speaker) = speaker else { return };
        let up = peers.established().count();
        self.configured.set(peers.len() as i64);
        self.established.set(up as i64);
        self.routes.set(speaker.rib().len() as i64);
        self.installed.set(installed as i64);
        let starting = !self.was_ready && self.begun.elapsed() < PATIENCE;
        let enough = if starting { peers.len() } else { peers.len().min(1) };
        if up < enough {
            self.condition.not_ready(format!("{up} of {} sessions are established", peers.len()));
        } else if restarting && starting {
            self.condition.not_ready("routes of peers are awaited after a restart");
        } else {
            self.was_ready = true;
            self.condition.ready();
        }
    }
}
