//! Runs a benchmark: `bench cni [calls|ipam|bursts|memory]...`, or of it only what does not depend on time: `bench counts`; `bench bgp`; `bench daemon`; `bench ipam`.
//! `bench builds DIR...` compares builds of ours, each a directory of binaries, with each other.
//! Called by `scripts/bench` and `scripts/test`, which build what it measures.

use e2e::bench::{Rounds, Verdict, bgp, builds, cni, counts, daemon};
use e2e::bench_ipam::{Size, ipam};
use std::process::ExitCode;

fn main() -> ExitCode {
    let calls = count("PERCALE_BENCH_CALLS", 60);
    let bursts = count("PERCALE_BENCH_BURSTS", 5);
    let verdict = match std::env::args().nth(1).as_deref() {
        Some("cni") => {
            let only: Vec<String> = std::env::args().skip(2).collect();
            cni(&Rounds { calls, bursts }, &only)
        }
        Some("bgp") => bgp(count("PERCALE_BENCH_ROUNDS", 3)),
        Some("counts") => counts(),
        Some("daemon") => {
            daemon(Rounds { calls, bursts });
            Verdict::Within
        }
        Some("ipam") => {
            ipam(&Size::from_env());
            Verdict::Within
        }
        Some("builds") => {
            let dirs: Vec<_> = std::env::args_os().skip(2).map(Into::into).collect();
            builds(&dirs, calls);
            Verdict::Within
        }
        _ => {
            eprintln!("usage: bench bgp|cni|counts|daemon|ipam|builds DIR...");
            return ExitCode::from(64);
        }
    };
    match verdict {
        Verdict::Within => ExitCode::SUCCESS,
        Verdict::Worse => ExitCode::FAILURE,
    }
}

fn count(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}
