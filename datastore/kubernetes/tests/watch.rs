//! Watches that lose their connection, their place or their server.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use datastore::{Event, Store};
use datastore_kubernetes::Config;
use model::store::Expect;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::proxy::Proxy;
use support::{Bed, commit, delete, next, put, within};

const VALUE: &str = r#"{"block":{"10.0.0.0/26":1},"deleted":false}"#;

fn handle(name: &str) -> String {
    format!("/calico/ipam/v2/handle/{name}")
}

fn through(bed: &Bed, proxy: &Proxy) -> datastore_kubernetes::Kubernetes {
    let watch_silence = Some(Duration::from_secs(2));
    support::open(&Config { endpoint: proxy.url("https"), watch_silence, ..bed.config() })
}

fn is_put(event: &Event, key: &str) -> bool {
    matches!(event, Event::Put(entry) if entry.key == key)
}

// REQ: K-04
#[test]
fn a_cut_watch_goes_on_where_it_was() {
    let bed = Bed::shared();
    let (proxy, direct) = (Proxy::to(bed.port()), bed.open());
    let store = through(&bed, &proxy);
    let mut watch = store.watch(&handle("cut.")).unwrap();
    assert_eq!(next(&mut *watch), Event::Synced);
    for n in 0..5 {
        let key = handle(&format!("cut.{n}"));
        commit(&direct, &[put(&key, Expect::Absent, VALUE)]);
        assert!(is_put(&next(&mut *watch), &key));
        proxy.cut();
        commit(&direct, &[delete(&key, Expect::Any)]);
        assert_eq!(next(&mut *watch), Event::Delete { key });
    }
}

// REQ: K-04
#[test]
fn a_half_open_watch_is_noticed_and_replaced() {
    let bed = Bed::shared();
    let (proxy, direct) = (Proxy::to(bed.port()), bed.open());
    let store = through(&bed, &proxy);
    let mut watch = store.watch(&handle("half.")).unwrap();
    assert_eq!(next(&mut *watch), Event::Synced);
    // Silence alone is no event and no error.
    assert_eq!(watch.next(within(Duration::from_secs(3))).unwrap(), None);
    proxy.stall(true);
    let began = Instant::now();
    let error = loop {
        match watch.next(within(Duration::from_secs(30))) {
            Err(error) => break error,
            Ok(event) => assert_eq!(event, None),
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nobody noticed");
    };
    assert!(began.elapsed() < Duration::from_secs(15), "{error} after {:?}", began.elapsed());
    commit(&direct, &[put(&handle("half.1"), Expect::Absent, VALUE)]);
    proxy.cut();
    proxy.stall(false);
    assert!(is_put(&next(&mut *watch), &handle("half.1")));
}

/// Ends the server and starts it again as it was.
fn restart(bed: &Bed) {
    let pid = bed.server_pid();
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let words: Vec<&str> = std::str::from_utf8(&line).unwrap().trim_end_matches('\0').split('\0').collect();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let gone = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", bed.port())).is_ok() {
        assert!(gone.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = std::fs::File::create(bed.dir.join("kube-apiserver-2.log")).unwrap();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
    let mut child = command.spawn().unwrap();
    // `down` ends it by this.
    std::fs::write(bed.dir.join("kube-apiserver.pid"), child.id().to_string()).unwrap();
    std::thread::spawn(move || child.wait());
}

// REQ: K-04
#[test]
fn a_watch_whose_place_is_forgotten_begins_anew() {
    let bed = Bed::up();
    let (proxy, direct) = (Proxy::to(bed.port()), bed.open());
    let store = through(&bed, &proxy);
    let (gone, stays, new) = (handle("old.gone"), handle("old.stays"), handle("old.new"));
    commit(&direct, &[put(&gone, Expect::Absent, VALUE), put(&stays, Expect::Absent, VALUE)]);
    let mut watch = store.watch(&handle("old.")).unwrap();
    assert!(is_put(&next(&mut *watch), &gone) && is_put(&next(&mut *watch), &stays));
    assert_eq!(next(&mut *watch), Event::Synced);
    // What happens now is not told, and a new server does not know what happened before it.
    proxy.stall(true);
    commit(&direct, &[delete(&gone, Expect::Any), put(&new, Expect::Absent, VALUE)]);
    restart(&bed);
    proxy.cut();
    proxy.stall(false);
    assert_eq!(next(&mut *watch), Event::Reset);
    assert!(is_put(&next(&mut *watch), &new) && is_put(&next(&mut *watch), &stays));
    assert_eq!(next(&mut *watch), Event::Synced);
    let last = handle("old.x");
    commit(&bed.open(), &[put(&last, Expect::Absent, VALUE)]);
    assert!(is_put(&next(&mut *watch), &last));
}

#[test]
fn several_resources_under_one_prefix() {
    let bed = Bed::shared();
    let store = bed.open();
    let mut watch = store.watch("/percale/").unwrap();
    assert_eq!(next(&mut *watch), Event::Synced);
    let record = "/percale/ipam/sticky/watched";
    commit(&store, &[put(record, Expect::Absent, "{}")]);
    assert!(is_put(&next(&mut *watch), record));
    let mut all = store.watch("/calico/ipam/v2/h").unwrap();
    let mut synced = 0;
    while synced == 0 {
        synced += usize::from(next(&mut *all) == Event::Synced);
    }
    commit(&store, &[put(&handle("several.1"), Expect::Absent, VALUE)]);
    let affinity = "/calico/ipam/v2/host/several/ipv4/block/10.8.0.0-26";
    commit(&store, &[put(affinity, Expect::Absent, r#"{"state":"pending","deleted":false}"#)]);
    let mut wanted = vec![handle("several.1"), affinity.to_owned()];
    while !wanted.is_empty() {
        if let Event::Put(entry) = next(&mut *all) {
            wanted.retain(|key| *key != entry.key);
        }
    }
}
