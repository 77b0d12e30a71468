//! What must hold once every pod is gone.

use crate::bed::Bed;
use crate::netns::Netns;
use serde_json::Value;
use std::net::IpAddr;
use std::process::{Command, Output};

/// `percalectl` on the bed's embedded store.
pub fn percalectl(bed: &Bed, args: &[&str]) -> Output {
    let bins = bed.bins.as_ref().expect("a bed with our binaries");
    let mut command: Command = bed.host.command(bins.percalectl());
    command.args(["--datastore-type", "embedded", "--datastore-path"]).arg(bed.path("state/store"));
    command.arg("--ipam-lock-file").arg(bed.path("run/ipam.lock"));
    command.arg("--attachment-dir").arg(bed.path("run/attachments")).args(args);
    command.output().expect("percalectl can be run")
}

/// What `percalectl ipam check` finds, and its exit status.
pub fn check(bed: &Bed, fix: bool) -> (Value, Option<i32>) {
    let args: &[&str] =
        if fix { &["ipam", "check", "-o", "json", "--fix"] } else { &["ipam", "check", "-o", "json"] };
    let out = percalectl(bed, args);
    let told = String::from_utf8_lossy(&out.stdout);
    let report = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("ipam check: {e}: {told} {}", String::from_utf8_lossy(&out.stderr)));
    (report, out.status.code())
}

/// Asserts that no address is held, and that the check finds nothing wrong. A store that was
/// never made holds nothing.
pub fn nothing_held(bed: &Bed) {
    if !bed.path("state/store").exists() {
        return;
    }
    let (report, status) = check(bed, false);
    assert_eq!(report["allocations"], 0, "addresses are still held: {report}");
    assert_eq!(status, Some(0), "the check finds fault: {report}");
}

/// Asserts that exactly `count` addresses are held, each by a living pod.
pub fn held(bed: &Bed, count: usize) {
    let (report, status) = check(bed, false);
    assert_eq!(report["allocations"], count, "addresses held: {report}");
    assert_eq!(status, Some(0), "the check finds fault: {report}");
}

/// Asserts that the host's kernel keeps no link and no route of a pod.
///
/// A link may go up to a second after DEL has answered; its routes may not.
pub fn kernel_is_clean(host: &Netns) {
    assert_eq!(pod_routes(host), Vec::<Value>::new(), "routes to pods that are gone");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(3);
    loop {
        let links = pod_links(host);
        if links.is_empty() {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "links of pods that are gone: {links:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// The veth links on the host. All belong to pods, but [`crate::netns::join`]'s.
pub fn pod_links(host: &Netns) -> Vec<String> {
    let is_veth = |l: &&Value| l["linkinfo"]["info_kind"] == "veth";
    let links = host.links();
    let names = links.iter().filter(is_veth).filter_map(|l| l["ifname"].as_str());
    names.filter(|name| *name != "up0").map(str::to_owned).collect()
}

/// The host's routes to single addresses, but those to its own.
pub fn pod_routes(host: &Netns) -> Vec<Value> {
    let of_pod = |r: &Value| r["dev"] != "lo" && r["dst"].as_str().is_some_and(is_single);
    host.routes().into_iter().filter(of_pod).collect()
}

fn is_single(dst: &str) -> bool {
    dst.parse::<IpAddr>().is_ok() || dst.ends_with("/32") || dst.ends_with("/128")
}
