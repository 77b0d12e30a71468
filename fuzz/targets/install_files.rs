//! What the installer decodes: runtimes' TOML, tokens, its own records, profiles and DaemonSets; and what the daemon
//! reads of iptables. The first byte chooses.
#![no_main]
#![allow(dead_code, reason = "modules of the installer, of which a part is driven here")]

use libfuzzer_sys::fuzz_target;
use plan::{Observed, Records};
use runtimes::Runtime;
use serde_json::Value;

#[path = "../../install/src/placement.rs"]
mod placement;
#[path = "../../install/src/plan.rs"]
mod plan;
#[path = "../../install/src/runtimes.rs"]
mod runtimes;
#[path = "../../install/src/set.rs"]
mod set;
#[path = "../../install/src/token.rs"]
mod token;

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match choice % 5 {
        0 => runtime(&text),
        1 => life(&text),
        2 => records(rest),
        3 => placed(rest),
        _ => chains(&text),
    }
});

fn runtime(text: &str) {
    let Ok(table) = text.parse() else { return };
    let usual =
        || Runtime { name: "x", file: "/x".into(), bin_dirs: vec!["/b".into()], conf_dir: "/c".into() };
    for take in [runtimes::take_containerd, runtimes::take_crio] {
        let mut runtime = usual();
        take(&table, &mut runtime);
        assert!(!runtime.bin_dirs.is_empty(), "there is always a directory");
    }
}

fn life(text: &str) {
    if let (Some((issued, expires)), Some(at)) = (token::lifetime(text), token::renew_at(text)) {
        assert!(at >= issued && (at <= expires || expires < issued));
    }
}

/// Whatever is recorded, every way leads somewhere, and nothing is removed that no record names.
fn records(bytes: &[u8]) {
    let Ok(records) = serde_json::from_slice::<Records>(bytes) else { return };
    let wishes = [Some(plan::restored(&records)), plan::rolled_back(&records)];
    for wish in wishes.into_iter().flatten() {
        let plan = plan::plan(&Observed::default(), &records, &wish, "0");
        let removes = plan.steps.iter().any(|step| matches!(step, plan::Step::Remove { .. }));
        assert!(!removes, "an empty disk has nothing to remove");
        let after = plan::completed(&records, plan.target);
        assert!(after.pending.is_none());
        let _kept = plan::referenced(&after);
    }
}

fn placed(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let none = serde_json::Map::new();
    let labels = value["labels"].as_object().unwrap_or(&none);
    placement::may_run(&value["pod"], labels, "node");
}

fn chains(text: &str) {
    let Some(removal) = policy::felix::removal(text) else { return };
    for line in removal.script.lines() {
        let known = ["*", ":cali-", "-D ", "-X cali-", "COMMIT"];
        assert!(known.iter().any(|start| line.starts_with(start)), "{line}");
        assert!(!line.starts_with("-D cali-"), "a chain of Felix's is emptied whole");
    }
}
