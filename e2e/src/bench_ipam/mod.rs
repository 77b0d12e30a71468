//! The allocator on a real etcd and a real API server: many hosts at once on pools that are nearly
//! full, and pools that are full altogether.
//!
//! The servers run on the same machine as all the hosts, so that the rates are those of the whole.

mod full;
mod load;
mod store;

use crate::bins::target_dir;
use crate::cluster::{Cluster, Kind};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

/// How much is measured.
pub struct Size {
    pub seconds: u64,
    pub hosts: usize,
    pub workers: usize,
    /// Blocks of the pool that is full: 16,384 are a /12.
    pub blocks: usize,
}

impl Size {
    /// `PERCALE_BENCH_SMOKE=1`: a few seconds on a small pool, to see that all of it works.
    pub fn from_env() -> Self {
        let all = Self { seconds: 60, hosts: 50, workers: 8, blocks: 16_384 };
        let smoke = Self { seconds: 4, hosts: 6, workers: 2, blocks: 256 };
        let chosen = if std::env::var_os("PERCALE_BENCH_SMOKE").is_some() { smoke } else { all };
        let seconds = std::env::var("PERCALE_BENCH_SECONDS").ok().and_then(|text| text.parse().ok());
        Self { seconds: seconds.unwrap_or(chosen.seconds), ..chosen }
    }
}

/// One line of the table and of `target/bench/ipam.json`.
struct Case {
    name: String,
    ms: f64,
    /// What it is compared with: a goal, or a case of the same run.
    peer: String,
    peer_ms: f64,
    more: Value,
}

impl Case {
    fn new(name: String, took: Duration, peer: &str, peer_ms: f64, more: Value) -> Self {
        Self { name, ms: took.as_secs_f64() * 1000.0, peer: peer.to_owned(), peer_ms, more }
    }

    fn print(&self) {
        println!(
            "{:<58} {:>10.2} ms   {:<26} {:>9.2} ms   {}",
            self.name, self.ms, self.peer, self.peer_ms, self.more
        );
    }

    fn json(&self) -> Value {
        let mut case = json!({
            "case": self.name, "percale_ms": self.ms, "peer": self.peer, "peer_ms": self.peer_ms,
            "ratio": self.peer_ms / self.ms,
        });
        crate::conf::put_all(&mut case, self.more.clone());
        case
    }
}

/// A part of the benchmark.
type Part = fn(&Cluster, Kind, &Size) -> Vec<Case>;

/// Runs everything on both stores, or on the one that `PERCALE_BENCH_STORE` names (`etcd`, `kubernetes`);
/// `PERCALE_BENCH_ONLY` names a part (`load`, `full`).
///
/// # Panics
/// When an address is given twice, or the counts are not exact at the end.
pub fn ipam(size: &Size) {
    let mut cases = Vec::new();
    let is_asked = |variable: &str, name: &str| {
        std::env::var(variable).map_or(true, |only| name.to_lowercase().contains(&only.to_lowercase()))
    };
    let parts: [(&str, Part); 2] = [("load", load::run), ("full", full::run)];
    for kind in Kind::BOTH.into_iter().filter(|kind| is_asked("PERCALE_BENCH_STORE", &format!("{kind:?}"))) {
        let cluster = Cluster::own();
        for (_, run) in parts.iter().filter(|(name, _)| is_asked("PERCALE_BENCH_ONLY", name)) {
            for case in run(&cluster, kind, size) {
                case.print();
                cases.push(case.json());
            }
        }
    }
    let dir = target_dir().join("bench");
    fs::create_dir_all(&dir).expect("the target directory is writable");
    let text = serde_json::to_string_pretty(&cases).expect("a JSON value can be written");
    fs::write(dir.join("ipam.json"), text + "\n").expect("the target directory is writable");
}
