//! `--watch`: tokens, certificates, repairs.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::{Bed, Running, plugin, wait_for};

fn watching(bed: &Bed) -> Running {
    let running = Running(bed.command(&["--watch"]).spawn().unwrap());
    wait_for("the first installation", || bed.exists("net.d/10-percale.conflist"));
    running
}

// REQ: I-04
#[test]
fn a_projected_token_and_certificates_are_followed() {
    let bed = Bed::new().account("first");
    bed.put("secrets/etcd-key", "KEY 1", 0o600);
    let mut running = watching(&bed);
    let token = || bed.json("net.d/percale-kubeconfig")["users"][0]["user"]["token"].clone();
    assert_eq!(token(), "first");
    // As the kubelet does: another file is renamed into its place.
    bed.put("account/token", "second", 0o600);
    wait_for("the new token", || token() == "second");
    bed.put("secrets/etcd-key", "KEY 2", 0o600);
    wait_for("the new key", || bed.text("net.d/percale-tls/etcd-key") == "KEY 2");
    assert!(running.0.try_wait().unwrap().is_none());
}

#[test]
fn what_others_overwrite_is_repaired() {
    let bed = Bed::new();
    let _running = watching(&bed);
    std::fs::remove_file(bed.path("bin/percale-ipam")).unwrap();
    wait_for("a removed plugin", || bed.exists("bin/percale-ipam"));
    std::fs::write(bed.path("net.d/10-percale.conflist"), "{}").unwrap();
    wait_for("an overwritten configuration", || {
        bed.text("net.d/10-percale.conflist").contains("percale-ipam")
    });
    bed.put("bin/portmap", &plugin("another"), 0o755);
    wait_for("an overwritten plugin", || bed.text("bin/portmap") == plugin("portmap 1"));
}

#[test]
fn sleep_true_stays_and_sigterm_ends_it() {
    let bed = Bed::new().env("SLEEP", "true");
    let mut running = Running(bed.command(&[]).spawn().unwrap());
    wait_for("the first installation", || bed.exists("net.d/10-percale.conflist"));
    assert!(running.0.try_wait().unwrap().is_none());
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(running.0.wait().unwrap().code().is_none_or(|code| code == 0));
    assert!(Bed::new().env("SLEEP", "false").run(&[]).status.success());
}
