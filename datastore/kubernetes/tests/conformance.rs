//! The rules of every store, on a real API server.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use datastore::{Store as _, conformance};
use support::Bed;

#[test]
fn the_back_end_conforms() {
    let bed = Bed::shared();
    conformance::run(&bed.open(), false);
}

#[test]
fn the_identity_is_the_cluster_s() {
    let bed = Bed::shared();
    let namespace = bed.api("GET", "/api/v1/namespaces/kube-system", None);
    let uid = namespace["metadata"]["uid"].as_str().unwrap().to_owned();
    for config in [bed.config(), bed.plugin_config()] {
        assert_eq!(support::open(&config).identity(), format!("kubernetes:{uid}"));
    }
}
