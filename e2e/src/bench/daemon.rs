//! The daemon: a pod through it, many pods at once, on a slow cluster's store, and beside a thousand nodes.
//! `PERCALE_BENCH_CASES` names parts to run, with commas: `one,dels,etcd,kubernetes,scale`.

mod scale;
mod slow;

use super::contender::Contender;
use super::report::{Case, Report};
use super::{Families, Rounds, burst, calls};
use crate::cluster::Kind;
use std::time::Duration;

/// How much is measured.
struct Size {
    rounds: Rounds,
    /// Pods that come or go at once.
    pods: usize,
    /// By which a cluster's store is late, in milliseconds.
    delays: &'static [u64],
    nodes: u32,
    /// Pods of the node that is looked at beside the others.
    own_pods: usize,
    /// For how long an idle daemon is looked at.
    idle: Duration,
}

impl Size {
    /// `PERCALE_BENCH_SMOKE=1`: a few seconds, to see that all of it works.
    fn from_env(rounds: Rounds) -> Self {
        if std::env::var_os("PERCALE_BENCH_SMOKE").is_none() {
            let (delays, idle) = (&[5, 20], Duration::from_secs(30));
            return Self { rounds, pods: 110, delays, nodes: 1000, own_pods: 250, idle };
        }
        let rounds = Rounds { calls: 3, bursts: 1 };
        Self { rounds, pods: 12, delays: &[20], nodes: 40, own_pods: 6, idle: Duration::from_secs(2) }
    }
}

/// Runs all parts, or those that the environment names.
pub fn daemon(rounds: Rounds) {
    let chosen = std::env::var("PERCALE_BENCH_CASES").unwrap_or_default();
    let wanted = |part: &str| chosen.is_empty() || chosen.split(',').any(|name| name == part);
    let mut report = Report::new("daemon");
    let size = Size::from_env(rounds);
    if wanted("one") {
        one_at_a_time(&size.rounds, &mut report);
    }
    if wanted("dels") {
        dels_at_once(&size, &mut report);
    }
    for (kind, name) in [(Kind::Etcd, "etcd"), (Kind::Kubernetes, "kubernetes")] {
        if wanted(name) {
            slow::pods_at_once(kind, name, &size, &mut report);
        }
    }
    if wanted("scale") {
        scale::many_nodes(&size, &mut report);
    }
    report.finish();
}

fn one_at_a_time(rounds: &Rounds, report: &mut Report) {
    for (families, what) in [(Families::V4, "IPv4"), (Families::Dual, "dual stack")] {
        let all = [
            Contender::percale(families).asking(),
            Contender::percale(families),
            Contender::ptp(families, false),
        ];
        let _daemon = all[0].daemon();
        let times = calls::add_and_del(&all, rounds.calls);
        let name = format!("ADD, {what}");
        report.push(Case::new(&name, &times.add[0], "percale by itself", &times.add[1], Some(1.0)));
        report.push(Case::new(&name, &times.add[0], &all[2].name, &times.add[2], None));
        let name = format!("DEL, {what}");
        report.push(Case::goal(&name, &times.del[0], 6.0));
        report.push(Case::new(&name, &times.del[0], &all[2].name, &times.del[2], None));
    }
}

fn dels_at_once(size: &Size, report: &mut Report) {
    let families = Families::V4;
    let all = [
        Contender::percale(families).asking(),
        Contender::ptp(families, false),
        Contender::ptp(families, true),
    ];
    let _daemon = all[0].daemon();
    let (times, floor) = burst::del(&all, size.pods, size.rounds.bursts);
    let name = format!("{} DELs at once", size.pods);
    report.against(&name, Some(5.0), &all, &times);
    report.push(Case::alone("  as many processes that do nothing", &floor));
}
