//! Exit status and help.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bed;

use bed::{BIN, Bed, finish};
use std::process::Command;

fn run(args: &[&str], env: &[(&str, &str)]) -> bed::Ran {
    let mut command = Command::new(BIN);
    for name in
        ["DATASTORE_TYPE", "CALICO_DATASTORE_TYPE", "KUBECONFIG", "ETCD_ENDPOINTS", "PERCALE_DATASTORE_PATH"]
    {
        command.env_remove(name);
    }
    finish(command.args(args).envs(env.iter().copied()), "")
}

#[test]
fn bad_usage_is_64_and_help_is_0() {
    let bad: [&[&str]; 10] = [
        &[],
        &["nonsense"],
        &["ipam", "release"],
        &["ipam", "show", "--ip", "10.0.0.999"],
        &["ipam", "show", "--ip", "fe80::1%eth0"],
        &["--datastore-type", "mysql", "version"],
        &["apply"],
        &["get"],
        &["delete", "ippool"],
        &["get", "nonsense"],
    ];
    for args in bad {
        let ran = run(args, &[]).exits(64);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{args:?}: {ran:?}");
    }
    for args in [&["--help"][..], &["ipam", "check", "--help"], &["--version"], &["help", "store", "load"]] {
        let ran = run(args, &[]).exits(0);
        assert!(ran.out.contains("percalectl"), "{ran:?}");
    }
}

#[test]
fn every_command_has_the_common_options() {
    for args in [&["ipam", "show"][..], &["store", "dump"], &["get"], &["doctor"], &["version"]] {
        let help = run(&[args, &["--help"]].concat(), &[]).exits(0).out;
        for option in
            ["--datastore-type", "--datastore-path", "--ipam-lock-file", "--kubeconfig", "--context"]
        {
            assert!(help.contains(option), "{args:?} lacks {option}");
        }
        assert!(help.contains("Example"), "{args:?}");
    }
}

// REQ: C-14
#[test]
fn a_cluster_store_is_never_replaced_by_the_embedded_one() {
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);
    let cases: [(Case<'_>, &str); 4] = [
        ((&["--datastore-type", "kubernetes", "ipam", "show"], &[]), "Kubernetes"),
        ((&["ipam", "show"], &[("DATASTORE_TYPE", "etcdv3")]), "etcd_endpoints"),
        ((&["ipam", "show", "--kubeconfig", "/nowhere/k"], &[]), "/nowhere/k"),
        (
            (&["ipam", "show"], &[("CALICO_DATASTORE_TYPE", "kubernetes"), ("DATASTORE_TYPE", "embedded")]),
            "Kubernetes",
        ),
    ];
    for ((args, env), wanted) in cases {
        let ran = run(args, env).exits(1);
        assert!(ran.err.contains(wanted) && !ran.err.contains("embedded"), "{ran:?}");
    }
    run(&["ipam", "show"], &[("DATASTORE_TYPE", "mysql")]).exits(64);
}

#[test]
fn a_missing_store_is_reported_and_not_created() {
    let bed = Bed::new();
    for args in [
        &["ipam", "show"][..],
        &["ipam", "check"],
        &["ipam", "check", "--fix"],
        &["ipam", "release", "--ip", "10.0.0.1"],
        &["get", "ippools"],
        &["store", "dump"],
        &["delete", "ippool", "x"],
    ] {
        let ran = bed.run(args).exits(1);
        assert!(ran.err.contains("no store is there yet"), "{args:?}: {ran:?}");
    }
    assert!(!bed.store_dir().exists());
}

#[test]
fn version_and_completion_print() {
    assert_eq!(run(&["version", "-o", "json"], &[]).exits(0).json()["datastores"][0], "embedded");
    assert!(run(&["version"], &[]).exits(0).out.starts_with("percalectl "));
    assert!(run(&["completion", "bash"], &[]).exits(0).out.contains("percalectl"));
}
