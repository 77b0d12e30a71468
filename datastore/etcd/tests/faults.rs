//! Servers that die, stand still, come back as others, and networks that lie.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod support;

use datastore::{CommitError, Deadline, ErrorKind, Store};
use datastore_etcd::{Config, Etcd};
use model::store::{Entry, Expect};
use std::time::{Duration, Instant};
use support::proxy::Proxy;
use support::{Server, commit_kind, free_port, get, kind, open, put, soon, within};

/// A dead store is known after at most this long.
const SECONDS: Duration = Duration::from_secs(10);

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

fn to(endpoints: &[String]) -> Config {
    Config { endpoints: endpoints.to_vec(), ..Config::default() }
}

/// The first success within 20 seconds.
fn until_ok<T>(mut work: impl FnMut() -> Result<T, datastore::Error>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match work() {
            Ok(done) => return done,
            Err(e) => assert!(Instant::now() < end, "{e}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

// REQ: K-04
#[test]
fn a_killed_server_is_unreachable_at_once_and_used_again_when_it_is_back() {
    let mut server = Server::start();
    let store = server.open();
    let revision = store.commit(&[put("/k", Expect::Absent, "1")], soon()).unwrap();
    server.kill();
    let (got, took) = timed(|| kind(store.get(&["/k"], soon())));
    assert_eq!(got, ErrorKind::Unreachable);
    assert!(took < SECONDS, "{took:?}");
    assert_eq!(commit_kind(store.commit(&[put("/k", Expect::Any, "2")], soon())), ErrorKind::Unreachable);
    assert_eq!(kind(Etcd::open(&server.config(), soon())), ErrorKind::Unreachable);
    server.spawn();
    let entry = until_ok(|| store.get(&["/k"], soon())).remove(0);
    assert_eq!(entry, Some(Entry { key: "/k".into(), value: b"1".into(), revision }));
}

// REQ: K-04
#[test]
fn a_paused_server_is_known_within_seconds_and_a_deadline_is_kept() {
    let server = Server::start();
    let store = server.open();
    server.pause();
    let (got, took) = timed(|| kind(store.get(&["/k"], within(Duration::from_millis(300)))));
    assert_eq!(got, ErrorKind::Timeout);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (got, took) = timed(|| kind(store.get(&["/k"], soon())));
    assert!(matches!(got, ErrorKind::Timeout | ErrorKind::Unreachable));
    assert!(took < SECONDS, "{took:?}");
    let (got, took) = timed(|| kind(Etcd::open(&server.config(), soon())));
    assert_eq!(got, ErrorKind::Unreachable);
    assert!(took < SECONDS, "{took:?}");
    server.go_on();
    until_ok(|| store.get(&["/k"], soon()));
}

/// A commit without an answer may have happened: it is told as such, never repeated.
#[test]
fn a_commit_during_a_pause_is_made_once_or_not_at_all() {
    let server = Server::start();
    let store = server.open();
    store.commit(&[put("/k", Expect::Absent, "0")], soon()).unwrap();
    server.pause();
    let made = store.commit(&[put("/k", Expect::Any, "1")], within(Duration::from_millis(500)));
    assert_eq!(commit_kind(made), ErrorKind::Timeout);
    server.go_on();
    let entry = until_ok(|| store.get(&["/k"], soon())).remove(0).unwrap();
    assert!(entry.value == b"0" || entry.value == b"1");
    until_ok(|| match store.commit(&[put("/k", Expect::Any, "2")], soon()) {
        Ok(revision) => Ok(revision),
        Err(CommitError::Store(e)) => Err(e),
        Err(conflict) => panic!("{conflict}"),
    });
    assert_eq!(get(&store, "/k").unwrap().value, b"2");
}

#[test]
fn a_commit_whose_answer_is_lost_is_not_repeated() {
    let server = Server::start();
    server.open();
    let proxy = Proxy::to(server.port);
    let store = open(&to(&[proxy.url("http")]));
    store.commit(&[put("/count", Expect::Absent, "0")], soon()).unwrap();
    proxy.deafen(true);
    let (made, took) = timed(|| store.commit(&[put("/count", Expect::Any, "1")], soon()));
    assert!(matches!(commit_kind(made), ErrorKind::Timeout | ErrorKind::Unreachable));
    assert!(took < SECONDS, "{took:?}");
    proxy.deafen(false);
    let entry = until_ok(|| store.get(&["/count"], soon())).remove(0).unwrap();
    assert_eq!(entry.value, b"1");
    let direct = server.open();
    let history = direct.commit(&[put("/other", Expect::Absent, "1")], soon()).unwrap();
    assert_eq!(history, entry.revision + 1, "the commit was made exactly once");
}

// REQ: K-04
#[test]
fn a_cut_connection_is_replaced_unseen() {
    let server = Server::start();
    server.open();
    let proxy = Proxy::to(server.port);
    let store = open(&to(&[proxy.url("http")]));
    for n in 0..5 {
        proxy.cut();
        // The end of the connection reaches us in its own time; commits are not repeated meanwhile.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(get(&store, "/k").is_some(), n > 0);
        store.commit(&[put("/k", Expect::Any, n.to_string())], soon()).unwrap();
    }
    assert!(proxy.accepted() >= 6);
}

// REQ: K-04
#[test]
fn a_stalled_connection_is_left_for_another_endpoint() {
    let server = Server::start();
    server.open();
    let (one, two) = (Proxy::to(server.port), Proxy::to(server.port));
    let store = open(&to(&[one.url("http"), two.url("http")]));
    store.commit(&[put("/k", Expect::Absent, "1")], soon()).unwrap();
    one.stall(true);
    two.stall(true);
    let (got, took) = timed(|| kind(store.get(&["/k"], soon())));
    assert!(matches!(got, ErrorKind::Timeout | ErrorKind::Unreachable));
    assert!(took < 2 * SECONDS, "{took:?}");
    two.stall(false);
    let (found, took) = timed(|| get(&store, "/k"));
    assert_eq!(found.unwrap().value, b"1");
    assert!(took < SECONDS, "{took:?}");
}

/// However short the deadlines are, the next call goes elsewhere.
#[test]
fn short_deadlines_find_the_living_endpoint_too() {
    let server = Server::start();
    server.open();
    let proxies = [Proxy::to(server.port), Proxy::to(server.port)];
    let store = open(&to(&[proxies[0].url("http"), proxies[1].url("http")]));
    let used = usize::from(proxies[0].accepted() == 0);
    proxies[used].stall(true);
    let short = || within(Duration::from_secs(1));
    assert_eq!(kind(store.get(&["/k"], short())), ErrorKind::Timeout);
    store.get(&["/k"], short()).unwrap();
}

#[test]
fn endpoints_that_are_dead_are_passed_over() {
    let server = Server::start();
    server.open();
    let dead = format!("http://127.0.0.1:{}", free_port());
    let no_such = "http://no-such-host.invalid:2379".to_owned();
    let store = Etcd::open(&to(&[dead.clone(), no_such.clone(), server.url()]), soon()).unwrap();
    store.commit(&[put("/k", Expect::Absent, "1")], soon()).unwrap();
    let error = Etcd::open(&to(&[dead, no_such]), soon()).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.detail.contains("no-such-host.invalid") && error.detail.contains("127.0.0.1"), "{error}");
}

/// Behind the same address there is another cluster now.
#[test]
fn another_cluster_is_never_taken_for_the_first() {
    let one = Server::start();
    let two = Server::start();
    two.open();
    let store = open(&to(&[one.url(), two.url()]));
    let (here, mut there) = match store.identity() == one.open().identity() {
        true => (two, one),
        false => (one, two),
    };
    there.kill();
    let error = store.commit(&[put("/k", Expect::Any, "1")], soon()).unwrap_err();
    assert!(error.to_string().contains("cluster"), "{error}");
    assert_eq!(get(&here.open(), "/k"), None);
}

#[test]
fn an_idle_store_keeps_working_from_several_threads() {
    let server = Server::start();
    let store = server.open();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                let key = format!("/t/{thread}");
                for n in 0..30 {
                    store.commit(&[put(&key, Expect::Any, n.to_string())], soon()).unwrap();
                    assert_eq!(get(store, &key).unwrap().value, n.to_string().into_bytes());
                }
            });
        }
    });
    assert_eq!(store.keys("/t/", Deadline::after(Duration::from_secs(5))).unwrap().len(), 8);
}
