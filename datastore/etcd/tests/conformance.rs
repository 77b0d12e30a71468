//! etcd does what every back end must.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod support;

use datastore::conformance;
use datastore::{ErrorKind, Store};
use datastore_etcd::{Config, Etcd, MAX_COMMIT, MAX_WRITES};
use model::store::Expect;
use support::certs::Certs;
use support::{Server, commit_kind, get, kind, open, put, soon};

#[test]
fn etcd_conforms() {
    let server = Server::start();
    conformance::run(&server.open(), true);
}

// REQ: C-13
#[test]
fn etcd_conforms_behind_tls() {
    let server = Server::start_tls(Certs::make());
    let store = server.open();
    conformance::run(&store, true);
    let by_name = Config { endpoints: vec![format!("https://localhost:{}", server.port)], ..server.config() };
    assert_eq!(open(&by_name).identity(), store.identity());
}

// REQ: C-13
#[test]
fn without_its_certificate_nobody_gets_in() {
    let server = Server::start_tls(Certs::make());
    let key = get(&server.open(), "/k");
    assert_eq!(key, None);
    let stranger = Certs::make();
    let wrong = [
        Config { cert_file: None, key_file: None, ..server.config() },
        Config { ca_cert_file: Some(stranger.ca.clone()), ..server.config() },
        Config {
            cert_file: Some(stranger.client_cert.clone()),
            key_file: Some(stranger.client_key.clone()),
            ..server.config()
        },
        Config { endpoints: vec![format!("http://127.0.0.1:{}", server.port)], ..server.config() },
    ];
    for config in wrong {
        let error = Etcd::open(&config, soon()).err().unwrap();
        assert!(matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Denied), "{error}");
        println!("{error}");
    }
    let missing = Config { ca_cert_file: Some("/nowhere/ca.pem".into()), ..server.config() };
    let error = Etcd::open(&missing, soon()).err().unwrap();
    assert!(error.kind == ErrorKind::Denied && error.detail.contains("/nowhere/ca.pem"), "{error}");
}

#[test]
fn the_identity_is_the_cluster_s() {
    let (one, two) = (Server::start(), Server::start());
    let identity = one.open().identity();
    assert!(
        identity.strip_prefix("etcdv3:").is_some_and(|id| u64::from_str_radix(id, 16).is_ok()),
        "{identity}"
    );
    assert_eq!(one.open().identity(), identity);
    // Two fresh clusters differ where their members' addresses do.
    assert_ne!(two.open().identity(), identity);
}

#[test]
fn what_is_too_large_for_one_commit_is_refused_before_it_is_sent() {
    let server = Server::start();
    let store = server.open();
    let many: Vec<_> = (0..=MAX_WRITES).map(|n| put(&format!("/k/{n}"), Expect::Any, "1")).collect();
    assert_eq!(commit_kind(store.commit(&many, soon())), ErrorKind::Invalid);
    let large = [put("/large", Expect::Any, vec![b'x'; MAX_COMMIT])];
    assert_eq!(commit_kind(store.commit(&large, soon())), ErrorKind::Invalid);
    assert!(store.keys("", soon()).unwrap().is_empty());
    let fits = [put("/fits", Expect::Absent, vec![b'x'; MAX_COMMIT - 100])];
    store.commit(&fits, soon()).unwrap();
    assert_eq!(get(&store, "/fits").unwrap().value.len(), MAX_COMMIT - 100);
}

/// Far more than one message of gRPC's usual limit (4 MiB).
#[test]
fn a_huge_prefix_is_listed() {
    let server = Server::start();
    let store = server.open();
    for n in 0..24 {
        store
            .commit(&[put(&format!("/huge/{n:02}"), Expect::Absent, vec![b'x'; 900 << 10])], soon())
            .unwrap();
    }
    let entries = store.list("/huge/", soon()).unwrap();
    assert_eq!((entries.len(), entries.iter().map(|e| e.value.len()).sum::<usize>()), (24, 24 * (900 << 10)));
    assert_eq!(store.keys("/huge/1", soon()).unwrap().len(), 10);
    assert_eq!(store.keys("", soon()).unwrap().len(), 24);
}

#[test]
fn bad_endpoints_are_invalid_at_once() {
    for endpoints in [vec![], vec!["ftp://a".to_owned()]] {
        assert_eq!(kind(Etcd::open(&Config { endpoints, ..Config::default() }, soon())), ErrorKind::Invalid);
    }
    let discovery = Config { discovery_srv: "example".into(), ..Config::default() };
    let error = Etcd::open(&discovery, soon()).err().unwrap();
    assert!(error.kind == ErrorKind::Invalid && error.detail.contains("etcd_discovery_srv"), "{error}");
}
