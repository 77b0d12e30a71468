//! What one ADD costs in system calls, netlink messages, syncs and instructions. These do not
//! depend on the machine's mood; instructions are compared with the recorded figures.

use super::Families;
use super::contender::Contender;
use crate::bins::workspace;
use crate::cnirun::{Answer, Attachment};
use crate::strace;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Whether the instruction counts are still within the tolerance of the recorded ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Within,
    /// More instructions than recorded, beyond the tolerance.
    Worse,
}

/// Counts for a pod of each kind, prints them, and compares. `PERCALE_BLESS=1` records them anew.
pub fn measure() -> Verdict {
    let mut verdict = Verdict::Within;
    let mut recorded = read_record();
    for (families, key) in [(Families::V4, "add_ipv4"), (Families::Dual, "add_dual")] {
        let counted = count(families);
        println!("one {key}: {counted}");
        let now = counted["instructions"].as_f64().expect("a count");
        let before = recorded["instructions"][key].as_f64();
        let tolerance = recorded["tolerance"].as_f64().expect("the record has a tolerance");
        if bless() || before.is_none() {
            recorded["instructions"][key] = counted["instructions"].clone();
        } else if before.is_some_and(|before| now > before * (1.0 + tolerance)) {
            println!("{key}: {now} instructions, {before:?} recorded: more than {tolerance} above");
            verdict = Verdict::Worse;
        }
    }
    if bless() {
        let text = serde_json::to_string_pretty(&recorded).expect("a JSON value can be written");
        fs::write(record(), text + "\n").expect("the tree is writable");
    }
    verdict
}

fn bless() -> bool {
    std::env::var_os("PERCALE_BLESS").is_some_and(|v| v == "1")
}

fn record() -> PathBuf {
    workspace().join("testdata/bench/instructions.json")
}

fn read_record() -> Value {
    match fs::read(record()) {
        Ok(text) => serde_json::from_slice(&text).expect("the record is JSON"),
        Err(_) => json!({"tolerance": 0.05, "instructions": {}}),
    }
}

/// Counts a warm ADD: the store, the firewall table and the node's block are there.
fn count(families: Families) -> Value {
    let ours = Contender::percale(families);
    add(&ours, Vec::new(), 0);
    let calls = ours.bed.path("calls");
    add(&ours, strace::count_into(&calls), 1);
    let trace = ours.bed.path("trace");
    add(&ours, strace::write_into(&trace), 2);
    let profile = ours.bed.path("callgrind");
    let answer = add(&ours, callgrind(&profile), 3);
    json!({
        "syscalls": total_calls(&read(&calls)),
        "netlink_messages": netlink_messages(&read(&trace)),
        "netlink_sends": netlink_sends(&read(&trace)),
        "syncs": syncs(&read(&trace)),
        "instructions": instructions(&answer.stderr_text()),
    })
}

fn add(ours: &Contender, wrap: Vec<OsString>, i: usize) -> Answer {
    let mut network = ours.network();
    network.wrap = wrap;
    let ns = ours.pod("pod");
    let pod = Attachment::new(&format!("n{i}"), &ns);
    let answer = network.exec("ADD", &network.config(&network.plugins[0], None), &pod);
    answer.result().unwrap_or_else(|e| panic!("ADD: {e}"));
    answer
}

fn callgrind(out: &Path) -> Vec<OsString> {
    let file = format!("--callgrind-out-file={}", out.display());
    ["valgrind", "--tool=callgrind", &file].map(OsString::from).to_vec()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The calls of strace's closing line: `% time, seconds, usecs/call, calls, [errors], total`.
fn total_calls(table: &str) -> u64 {
    let line = table.lines().rev().find(|l| l.trim_end().ends_with("total")).expect("strace counts");
    line.split_whitespace().nth(3).and_then(|calls| calls.parse().ok()).expect("a number of calls")
}

/// Messages that were sent, several of which may go in one call.
fn netlink_messages(trace: &str) -> usize {
    trace.lines().filter(|l| l.contains("send")).map(|l| l.matches("nlmsg_type=").count()).sum()
}

fn netlink_sends(trace: &str) -> usize {
    trace.lines().filter(|l| l.contains("send") && l.contains("nlmsg_type=")).count()
}

fn syncs(trace: &str) -> usize {
    trace
        .lines()
        .filter(|l| l.contains("fsync(") || l.contains("fdatasync(") || l.contains("syncfs("))
        .count()
}

/// Callgrind's last line: `==PID== Collected : N`.
fn instructions(stderr: &str) -> u64 {
    let line =
        stderr.lines().find(|l| l.contains("Collected :")).unwrap_or_else(|| panic!("callgrind: {stderr}"));
    line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number of instructions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_read_from_what_the_tools_print() {
        let table = "------ --- ---\n100.00    0.000000           0       123         5 total\n";
        assert_eq!(total_calls(table), 123);
        assert_eq!(instructions("==7== \n==7== Collected : 4567\n"), 4567);
        let trace = "7 sendto(3, [{nlmsg_len=40, nlmsg_type=RTM_NEWLINK}, {nlmsg_len=9, nlmsg_type=X}], 4)\n\
                     7 fdatasync(5) = 0\n7 recvfrom(3, [{nlmsg_len=36, nlmsg_type=NLMSG_ERROR}])\n";
        assert_eq!((netlink_sends(trace), syncs(trace), netlink_messages(trace)), (1, 1, 2));
    }
}
