//! Runs a benchmark: `bench cni`. Called by `scripts/bench`, which builds what it measures.

use e2e::bench::{Rounds, Verdict, cni};
use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    if name != "cni" {
        eprintln!("usage: bench cni");
        return ExitCode::from(64);
    }
    let calls = count("PERCALE_BENCH_CALLS", 60);
    match cni(&Rounds { calls, bursts: count("PERCALE_BENCH_BURSTS", 5) }) {
        Verdict::Within => ExitCode::SUCCESS,
        Verdict::Worse => ExitCode::FAILURE,
    }
}

fn count(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}
