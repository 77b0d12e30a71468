//! What an administrator is told of the daemon by `percalectl node status` and `percalectl doctor`.

#![allow(clippy::unwrap_used)]

use e2e::Bed;
use e2e::daemon::{Daemon, Start};
use serde_json::Value;

fn ctl(bed: &Bed, args: &[&str]) -> (i32, Value) {
    let mut command = bed.host.command(bed.bins.as_ref().unwrap().percalectl());
    command.arg("--state-dir").arg(bed.path("state")).arg("--ipam-lock-file").arg(bed.path("run/ipam.lock"));
    let out = command.args(args).args(["-o", "json"]).output().unwrap();
    let told = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"));
    (out.status.code().unwrap(), told)
}

fn status(bed: &Bed) -> (i32, Value) {
    let socket = bed.path("run/bgp.sock");
    ctl(bed, &["node", "status", "--bgp-socket", socket.to_str().unwrap()])
}

/// What `doctor` found about the daemon.
fn findings(bed: &Bed) -> Vec<Value> {
    let (_, told) = ctl(bed, &["--datastore-type", "embedded", "doctor"]);
    let all = told["findings"].as_array().unwrap().iter();
    all.filter(|finding| finding["check"] == "daemon").cloned().collect()
}

#[test]
fn a_daemon_that_is_well_unready_or_dead_is_told_apart() {
    let bed = Bed::new("dstatus");
    assert_eq!(findings(&bed), Vec::<Value>::new(), "a host may have no daemon");
    let env = vec![
        ("DATASTORE_TYPE".into(), "embedded".into()),
        ("CALICO_NETWORKING_BACKEND".into(), "none".into()),
        ("FELIX_VXLANPORT".into(), "many".into()),
    ];
    let mut how = Start { env, ..Start::default() };
    let daemon = Daemon::start_as(&bed, &how);
    e2e::bed::wait_for("it is ready", || daemon.get(9099, "/readiness").0 == 204);
    assert_eq!(daemon.get(9099, "/liveness").0, 204);
    let (code, told) = status(&bed);
    let told = &told["daemon"];
    assert_eq!((code, &told["not_ready"], &told["hung"]), (2, &Value::Array(vec![]), &Value::Array(vec![])));
    assert!(told["warnings"][0].as_str().unwrap().to_lowercase().contains("vxlanport"), "{told}");
    let found = findings(&bed);
    assert_eq!((found.len(), &found[0]["severity"]), (1, &Value::from("note")), "{found:?}");
    // A directory stands where a file must be written.
    daemon.kill();
    std::fs::remove_file(bed.path("state/mtu")).unwrap();
    std::fs::create_dir(bed.path("state/mtu")).unwrap();
    how.env.pop();
    let daemon = Daemon::start_as(&bed, &how);
    e2e::bed::wait_for("it is unready", || daemon.get(9099, "/readiness").1.contains("plane: writing"));
    let (code, told) = status(&bed);
    assert_eq!(code, 2);
    assert!(told["daemon"]["not_ready"][0].as_str().unwrap().contains("state/mtu"), "{told}");
    let found = findings(&bed);
    assert!(found.iter().any(|finding| finding["severity"] == "wrong"), "{found:?}");
    std::fs::remove_dir(bed.path("state/mtu")).unwrap();
    e2e::bed::wait_for("it is ready again", || daemon.get(9099, "/readiness").0 == 204);
    assert_eq!(status(&bed).0, 0);
    assert_eq!(findings(&bed), Vec::<Value>::new());
    daemon.kill();
    let found = findings(&bed);
    assert!(found[0]["what"].as_str().unwrap().starts_with("nobody listens on"), "{found:?}");
}
