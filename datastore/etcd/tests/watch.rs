//! Watches through compactions, restarts, cut and half-open connections.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod support;

use datastore::{Deadline, ErrorKind, Event, Store, Watch};
use datastore_etcd::Config;
use etcd_client::Client;
use model::store::Expect;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::proxy::Proxy;
use support::{Server, delete, next, open, put, soon};

fn through(proxy: &Proxy) -> Config {
    Config { endpoints: vec![proxy.url("http")], ..Config::default() }
}

fn compact(server: &Server, revision: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = Client::connect([server.url()], None).await.unwrap();
        client.compact(revision.try_into().unwrap(), None).await.unwrap();
    });
}

fn synced(watch: &mut dyn Watch) {
    while next(watch) != Event::Synced {}
}

fn key_of(event: Event) -> String {
    match event {
        Event::Put(entry) => entry.key,
        other => panic!("{other:?}"),
    }
}

// REQ: K-04
#[test]
fn changes_of_an_outage_are_told_after_it() {
    let server = Server::start();
    let direct = server.open();
    let proxy = Proxy::to(server.port);
    let store = open(&through(&proxy));
    let mut watch = store.watch("/w/").unwrap();
    synced(&mut *watch);
    for n in 0..4 {
        proxy.cut();
        direct.commit(&[put(&format!("/w/{n}"), Expect::Absent, "1")], soon()).unwrap();
        assert_eq!(key_of(next(&mut *watch)), format!("/w/{n}"));
    }
    direct.commit(&[delete("/w/0", Expect::Any)], soon()).unwrap();
    assert_eq!(next(&mut *watch), Event::Delete { key: "/w/0".into() });
}

// REQ: K-04
#[test]
fn a_compaction_of_an_outage_means_reset_and_the_whole_list() {
    let server = Server::start();
    let direct = server.open();
    let proxy = Proxy::to(server.port);
    let store = open(&through(&proxy));
    direct.commit(&[put("/w/a", Expect::Absent, "1"), put("/w/b", Expect::Absent, "1")], soon()).unwrap();
    let mut watch = store.watch("/w/").unwrap();
    synced(&mut *watch);
    proxy.stall(true);
    direct.commit(&[delete("/w/a", Expect::Any)], soon()).unwrap();
    let last = direct.commit(&[put("/w/c", Expect::Absent, "1")], soon()).unwrap();
    compact(&server, last);
    proxy.cut();
    proxy.stall(false);
    assert_eq!(next(&mut *watch), Event::Reset);
    assert_eq!(key_of(next(&mut *watch)), "/w/b");
    assert_eq!(key_of(next(&mut *watch)), "/w/c");
    assert_eq!(next(&mut *watch), Event::Synced);
    direct.commit(&[put("/w/d", Expect::Absent, "1")], soon()).unwrap();
    assert_eq!(key_of(next(&mut *watch)), "/w/d");
}

// REQ: K-04
#[test]
fn a_half_open_connection_is_found_out() {
    let server = Server::start();
    let direct = server.open();
    let proxy = Proxy::to(server.port);
    let store = open(&through(&proxy));
    let mut watch = store.watch("/w/").unwrap();
    synced(&mut *watch);
    proxy.stall(true);
    direct.commit(&[put("/w/a", Expect::Absent, "1")], soon()).unwrap();
    let start = Instant::now();
    // One error for the outage, then silence until the deadline.
    let error = watch.next(soon()).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Timeout | ErrorKind::Unreachable), "{error}");
    println!("found out after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(watch.next(Deadline::after(Duration::from_millis(100))).unwrap(), None);
    proxy.cut();
    proxy.stall(false);
    assert_eq!(key_of(next(&mut *watch)), "/w/a");
}

// REQ: K-04
#[test]
fn a_watch_survives_a_kill_a_pause_and_a_store_that_was_never_there() {
    let mut server = Server::start();
    let store = server.open();
    let mut watch = store.watch("/w/").unwrap();
    synced(&mut *watch);
    server.kill();
    assert_eq!(watch.next(soon()).unwrap_err().kind, ErrorKind::Unreachable);
    server.spawn();
    let other = server.open();
    other.commit(&[put("/w/a", Expect::Absent, "1")], soon()).unwrap();
    assert_eq!(key_of(next(&mut *watch)), "/w/a");
    server.pause();
    std::thread::sleep(Duration::from_secs(1));
    server.go_on();
    other.commit(&[put("/w/b", Expect::Absent, "1")], soon()).unwrap();
    assert_eq!(key_of(next(&mut *watch)), "/w/b");
}

/// The data directory was put back to an older state: revisions run backwards.
#[test]
fn a_restored_backup_means_reset() {
    let mut server = Server::start();
    let store = server.open();
    store.commit(&[put("/w/a", Expect::Absent, "1")], soon()).unwrap();
    server.kill();
    let (data, backup) = (server.dir.path().join("data"), server.dir.path().join("backup"));
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        assert!(std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    copy(&data, &backup);
    server.spawn();
    let store = server.open();
    let mut watch = store.watch("/w/").unwrap();
    synced(&mut *watch);
    for n in 0..20 {
        store.commit(&[put(&format!("/w/new{n}"), Expect::Absent, "1")], soon()).unwrap();
        next(&mut *watch);
    }
    server.kill();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    server.spawn();
    assert_eq!(next(&mut *watch), Event::Reset);
    assert_eq!(key_of(next(&mut *watch)), "/w/a");
    assert_eq!(next(&mut *watch), Event::Synced);
}

#[test]
fn a_slow_listener_misses_nothing_of_thousands_of_changes() {
    let server = Server::start();
    let store = server.open();
    let mut watch = store.watch("/w/").unwrap();
    synced(&mut *watch);
    for n in 0..60 {
        let writes: Vec<_> = (0..100).map(|i| put(&format!("/w/{i}"), Expect::Any, n.to_string())).collect();
        store.commit(&writes, soon()).unwrap();
    }
    let mut seen = BTreeMap::new();
    for _ in 0..6000 {
        match next(&mut *watch) {
            Event::Put(e) => assert!(seen.insert(e.key, e.revision) < Some(e.revision)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen.len(), 100);
}

/// Long enough for two signs of life to be asked for; 3 seconds unless the full counts are run.
#[test]
fn an_idle_watch_stays_without_a_word() {
    let server = Server::start();
    let store = server.open();
    let mut watch = store.watch("/w/").unwrap();
    synced(&mut *watch);
    let long = std::env::var_os("PERCALE_FULL").is_some();
    let idle = Duration::from_secs(if long { 75 } else { 3 });
    assert_eq!(watch.next(Deadline::after(idle)).unwrap(), None);
    store.commit(&[put("/w/a", Expect::Absent, "1")], soon()).unwrap();
    assert_eq!(key_of(watch.next(soon()).unwrap().unwrap()), "/w/a");
}
