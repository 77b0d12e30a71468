//! Benchmarks against the peers: alternating, in one run, on one kernel.
//!
//! A call's time is that of its process from spawn to exit, with the configuration written to it
//! and its answer read, as a runtime sees it.

mod bgp;
mod burst;
mod calls;
mod compare;
mod contender;
mod counts;
mod daemon;
mod kernel;
mod memory;
mod report;

use contender::Contender;
use report::{Case, Report};

pub use bgp::bgp;
pub use compare::builds;
pub use counts::{Verdict, measure as counts};
pub use daemon::daemon;

/// What a pod gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    V4,
    /// Both, with the kernel's duplicate address detection off on all sides: what is compared is
    /// the work, not who waits a second and a half for an answer that cannot come.
    Dual,
    /// Both, on a kernel as it is.
    DualWithDetection,
}

impl Families {
    /// The subnets that ours and the peers' IPAM take addresses from.
    fn subnets(self) -> &'static [&'static str] {
        match self {
            Self::V4 => &["10.91.0.0/16"],
            Self::Dual | Self::DualWithDetection => &["10.91.0.0/16", "fd00:10:91::/64"],
        }
    }
}

/// How often each case is measured.
pub struct Rounds {
    pub calls: usize,
    pub bursts: usize,
}

/// Runs everything about the plugin, or of it only the cases named in `only` (`calls`, `ipam`, `bursts`,
/// `memory`); answers the verdict on the instruction counts.
pub fn cni(rounds: &Rounds, only: &[String]) -> Verdict {
    let wanted = |case: &str| only.is_empty() || only.iter().any(|name| name == case);
    let mut report = Report::new("cni");
    if wanted("calls") {
        one_at_a_time(rounds, &mut report);
    }
    if wanted("ipam") {
        ipam_alone(rounds, &mut report);
    }
    for pods in [30, 110].into_iter().filter(|_| wanted("bursts")) {
        bursts(rounds, pods, &mut report);
    }
    if wanted("memory") {
        peak_memory(&mut report);
    }
    report.finish();
    counts::measure()
}

fn contenders(families: Families) -> Vec<Contender> {
    vec![
        Contender::percale(families),
        Contender::ptp(families, false),
        Contender::bridge(families),
        Contender::ptp(families, true),
    ]
}

fn one_at_a_time(rounds: &Rounds, report: &mut Report) {
    for (families, what) in [(Families::V4, "IPv4"), (Families::Dual, "dual stack")] {
        let all = contenders(families);
        let times = calls::add_and_del(&all, rounds.calls);
        report.against(&format!("ADD, {what}"), Some(3.5), &all, &times.add);
        report.against(&format!("DEL, {what}"), Some(1.0), &all, &times.del);
        // At most 1.15 times the bare deletion is at least 0.87 of its speed.
        report.push(Case::new(
            &format!("DEL, {what}"),
            &times.del[0],
            "bare RTM_DELLINK",
            &times.bare,
            Some(0.87),
        ));
    }
    let all = contenders(Families::DualWithDetection);
    let times = calls::add_and_del(&all, rounds.calls.div_ceil(10));
    report.against("ADD, dual stack, detection on", None, &all, &times.add);
}

fn ipam_alone(rounds: &Rounds, report: &mut Report) {
    let all = [
        Contender::percale(Families::V4),
        Contender::ptp(Families::V4, false),
        Contender::ptp(Families::V4, true),
    ];
    let times = calls::ipam(&all, rounds.calls);
    for (peer, time) in all.iter().zip(&times).skip(1) {
        report.push(Case::new("IPAM alone, ADD", &times[0], &peer.ipam_name(), time, Some(3.0)));
    }
}

fn bursts(rounds: &Rounds, pods: usize, report: &mut Report) {
    let all = contenders(Families::V4);
    let times = burst::add(&all, pods, rounds.bursts);
    report.against(&format!("{pods} ADDs at once, less empty processes"), Some(4.0), &all, &times);
}

fn peak_memory(report: &mut Report) {
    let all = contenders(Families::V4);
    let peaks: Vec<Vec<f64>> = all.iter().map(memory::peaks_of_add).collect();
    for (i, (peer, peak)) in all.iter().zip(&peaks).enumerate().skip(1) {
        let goal = Some(2.0).filter(|_| i == 1);
        report.push(Case::new("peak memory of one ADD", &peaks[0], &peer.name, peak, goal).in_mib());
    }
}
