//! The daemon: a pod through it, many pods at once, on a slow cluster's store, and beside a thousand nodes.
//! `PERCALE_BENCH_CASES` names parts to run, with commas: `one,dels,etcd,kubernetes,scale`.

mod scale;
mod slow;

use super::contender::Contender;
use super::report::{Case, Report};
use super::{Families, Rounds, burst, calls};
use crate::cluster::Kind;

/// Runs all parts, or those that the environment names.
pub fn daemon(rounds: &Rounds) {
    let chosen = std::env::var("PERCALE_BENCH_CASES").unwrap_or_default();
    let wanted = |part: &str| chosen.is_empty() || chosen.split(',').any(|name| name == part);
    let mut report = Report::new("daemon");
    if wanted("one") {
        one_at_a_time(rounds, &mut report);
    }
    if wanted("dels") {
        dels_at_once(rounds, &mut report);
    }
    for (kind, name) in [(Kind::Etcd, "etcd"), (Kind::Kubernetes, "kubernetes")] {
        if wanted(name) {
            slow::pods_at_once(kind, name, rounds.bursts, &mut report);
        }
    }
    if wanted("scale") {
        scale::thousand_nodes(&mut report);
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

fn dels_at_once(rounds: &Rounds, report: &mut Report) {
    let families = Families::V4;
    let all = [
        Contender::percale(families).asking(),
        Contender::ptp(families, false),
        Contender::ptp(families, true),
    ];
    let _daemon = all[0].daemon();
    let times = burst::del(&all, 110, rounds.bursts);
    report.against("110 DELs at once", Some(5.0), &all, &times);
}
