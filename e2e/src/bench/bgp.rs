//! BGP speakers as the receivers of one feed: how long until everybody heard everything, and how much memory.
//!
//! The speaker is alone in a namespace, the feeds (`bgp/examples/load.rs`) are in another, a veth between them. No
//! speaker writes routes into the kernel: what is compared is BGP. A speaker that is not done after 120 s is cut off.
//! `PERCALE_BENCH_ONLY=10x100000:BIRD,FRR` runs one case, and of the peers those named.

use super::Verdict;
use super::report::{Case, Report, median};
use crate::bins::target_dir;
use crate::netns::{Netns, must};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

mod speakers;

use speakers::Kind;

/// Feeds, and prefixes of each.
const CASES: [(usize, usize); 3] = [(10, 100_000), (1, 1_000_000), (500, 100)];

/// What one run of a speaker showed.
struct Run {
    all_ms: f64,
    change_ms: f64,
    peak_mib: f64,
    /// Time of its threads on a processor: what else runs on the machine hardly counts.
    cpu_ms: f64,
    /// Not done in time.
    cut_off: bool,
}

/// What of it is wanted.
struct Only(String);

impl Only {
    fn case(&self, feeds: usize, each: usize) -> bool {
        let case = self.0.split(':').next().unwrap_or_default();
        case.is_empty() || case == format!("{feeds}x{each}")
    }

    fn kinds(&self) -> Vec<Kind> {
        let named = self.0.split_once(':').map_or("", |(_, names)| names);
        let wanted = |kind: &Kind| {
            *kind == Kind::Percale || named.is_empty() || named.split(',').any(|n| kind.name().ends_with(n))
        };
        Kind::ALL.into_iter().filter(wanted).collect()
    }
}

/// Runs every case, the speakers in turn.
pub fn bgp(rounds: usize) -> Verdict {
    let only = Only(std::env::var("PERCALE_BENCH_ONLY").unwrap_or_default());
    let kinds = only.kinds();
    let mut report = Report::new("bgp");
    for (feeds, each) in CASES.into_iter().filter(|(feeds, each)| only.case(*feeds, *each)) {
        let mut runs: Vec<Vec<Run>> = kinds.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (kind, runs) in kinds.iter().zip(&mut runs) {
                runs.push(run(*kind, feeds, each));
            }
        }
        compare(&format!("{feeds} x {each} prefixes"), &kinds, &runs, &mut report);
    }
    report.finish();
    Verdict::Within
}

fn compare(name: &str, kinds: &[Kind], runs: &[Vec<Run>], report: &mut Report) {
    let of = |i: usize, what: fn(&Run) -> f64| runs[i].iter().map(what).collect::<Vec<_>>();
    for (i, peer) in kinds.iter().enumerate().skip(1) {
        let unfinished = runs[i].iter().any(|r| r.cut_off);
        let case = |what: &str, value: fn(&Run) -> f64, goal| {
            Case::new(&format!("{name}, {what}"), &of(0, value), peer.name(), &of(i, value), goal)
                .unfinished(unfinished)
        };
        report.push(case("taken in and told", |r| r.all_ms, Some(1.0)));
        if !unfinished {
            report.push(case("one change", |r| r.change_ms, None));
        }
        report.push(case("processor time", |r| r.cpu_ms, None));
        let goal = Some(1.0 / 1.5).filter(|_| *peer == Kind::Bird);
        report.push(case("peak memory", |r| r.peak_mib, goal).in_mib());
    }
    println!("one change reaches a peer in {:.2} ms (goal: under 10)", median(&of(0, |r| r.change_ms)));
}

fn run(kind: Kind, feeds: usize, each: usize) -> Run {
    let bed = Bed::new(feeds);
    let mut speaker = Running(speakers::start(kind, &bed.speaker, bed.dir.path(), feeds));
    let load = target_dir().join("release/examples/load");
    let counts = [feeds.to_string(), each.to_string()];
    let answer = must(bed.feeds.command(load).arg("10.0.0.1").args(counts));
    let (peak_mib, cpu_ms) = (speaker.peak_mib(), speaker.cpu_ms());
    let value: Value = serde_json::from_slice(&answer).expect("load prints JSON");
    let number = |name: &str| value[name].as_f64().expect("a number");
    let cut_off = value["cut_off"] == true;
    let run = Run { all_ms: number("all_ms"), change_ms: number("change_ms"), peak_mib, cpu_ms, cut_off };
    let (all, change) = (run.all_ms, run.change_ms);
    let cut_off = if cut_off { " (cut off)" } else { "" };
    eprintln!(
        "{}: {feeds} x {each}: {all:.0} ms{cut_off}, {cpu_ms:.0} ms of processor, one change {change:.2} ms, {peak_mib:.0} MiB",
        kind.name()
    );
    run
}

/// A speaker, ended with its bed.
struct Running(Child);

impl Running {
    fn peak_mib(&mut self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("the speaker runs");
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("Linux tells the peak");
        let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok());
        kib.expect("a number") / 1024.0
    }

    /// By the clock ticks of proc(5), of a hundredth of a second.
    fn cpu_ms(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("the speaker runs");
        // Behind the name, which may have spaces: user time is field 14, system time 15.
        let fields = stat.rsplit(')').next().expect("a name in brackets").split_whitespace();
        let ticks: f64 = fields.skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
        ticks * 10.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two namespaces with a veth between them.
struct Bed {
    speaker: Netns,
    feeds: Netns,
    dir: TempDir,
}

impl Bed {
    fn new(feeds: usize) -> Bed {
        let pid = std::process::id();
        let bed = Bed {
            speaker: Netns::new(&format!("pbgps{pid}")),
            feeds: Netns::new(&format!("pbgpf{pid}")),
            dir: TempDir::with_prefix("percale-bgp.").expect("the temporary directory is writable"),
        };
        let peer = ["peer", "name", "eth0", "netns", bed.feeds.name()];
        must(bed.speaker.command("ip").args(["link", "add", "eth0", "type", "veth"]).args(peer));
        let mut of_feeds = String::from("link set eth0 up\naddr add 10.0.250.1/16 dev eth0\n");
        for (address, _) in speakers::feeds(feeds) {
            writeln!(of_feeds, "addr add {address}/16 dev eth0").expect("a string takes all");
        }
        batch(&bed.speaker, bed.dir.path(), "link set eth0 up\naddr add 10.0.0.1/16 dev eth0\n");
        batch(&bed.feeds, bed.dir.path(), &of_feeds);
        bed
    }
}

fn batch(ns: &Netns, dir: &Path, lines: &str) {
    let file = dir.join("ip.batch");
    fs::write(&file, lines).expect("the bed is writable");
    must(ns.command("ip").arg("-batch").arg(file));
}

/// A program of a speaker, quiet.
fn quiet(mut command: Command, log: &Path) -> Child {
    let log = fs::File::create(log).expect("the bed is writable");
    let copy = log.try_clone().expect("a file can be shared");
    command.stdin(Stdio::null()).stdout(log).stderr(copy).spawn().expect("the speaker is installed")
}
