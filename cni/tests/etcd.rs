//! The plugin with its objects in a real etcd: life of a container, a dead server, two hosts at once.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

#[path = "etcd/host.rs"]
mod host;
#[path = "../../datastore/etcd/tests/support/mod.rs"]
mod support;

use datastore::Store;
use datastore_etcd::{Config, Etcd};
use host::{Host, Ran, Session};
use model::store::{Expect, Write};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use support::Server;
use support::certs::Certs;
use support::users;

fn pools() -> Value {
    json!({"type": "percale-ipam", "pools": [{"cidr": "10.91.0.0/16"}]})
}

/// What the agents of a cluster's nodes and its administrator put there.
fn prepared(server: &Server) {
    let object = |kind: &str, name: &str, spec: Value| {
        let key = format!("/calico/resources/v3/projectcalico.org/{kind}/{name}");
        let value = json!({"metadata": {"name": name}, "spec": spec}).to_string().into_bytes();
        Write { key, expect: Expect::Any, value: Some(value) }
    };
    let writes = [
        object("clusterinformations", "default", json!({"datastoreReady": true})),
        object("nodes", "node-1", json!({})),
        object("nodes", "node-2", json!({})),
        object("ippools", "pods", json!({"cidr": "10.91.0.0/16"})),
        object("ippools", "small", json!({"cidr": "10.92.0.0/21", "blockSize": 28})),
    ];
    server.open().commit(&writes, support::soon()).unwrap();
}

fn leased(server: &Server) -> usize {
    leased_in(&server.open())
}

fn leased_in(store: &Etcd) -> usize {
    let blocks = store.list("/calico/ipam/v2/assignment/", support::soon()).unwrap();
    let used = |value: &[u8]| {
        let block: Value = serde_json::from_slice(value).unwrap();
        block["allocations"].as_array().unwrap().iter().filter(|a| !a.is_null()).count()
    };
    blocks.iter().map(|entry| used(&entry.value)).sum()
}

#[test]
fn a_container_lives_on_etcd_within_its_budget_of_calls() {
    let session = Session::new();
    let server = Server::start();
    prepared(&server);
    let host = Host::new("node-1", json!({"etcd_endpoints": server.url(), "ipam": pools()}));
    let first = session.pod(1);
    let before = host::Calls::of(&server);
    host.run("ADD", "first", Some(&first), None).ok();
    let claim = host::Calls::of(&server).since(&before);
    println!("etcd calls of a host's first ADD: {claim}");
    assert!(claim.puts + claim.deletes <= 6, "a claim adds at most three: {claim}");
    let pod = session.pod(2);
    let before = host::Calls::of(&server);
    let added = host.run("ADD", "second", Some(&pod), None).ok();
    let add = host::Calls::of(&server).since(&before);
    host.run("CHECK", "second", Some(&pod), Some(&added)).ok();
    let before = host::Calls::of(&server);
    host.run("DEL", "second", Some(&pod), Some(&added)).ok();
    let del = host::Calls::of(&server).since(&before);
    println!("etcd calls of an ADD: {add}; of a DEL: {del}");
    assert!(add.puts + add.deletes <= 3 && add.txns + add.ranges <= 12, "{add}");
    assert_eq!(add.lists, 0, "what the ADD before it listed is read by name: {add}");
    assert!(del.puts + del.deletes <= 3 && del.lists == 0, "{del}");
    assert_eq!(leased(&server), 1);
    let repeated = host.run("DEL", "second", None, None);
    assert_eq!(repeated.json(), None, "{repeated:?}");
    assert!(host.identity().starts_with("etcdv3:"));
}

#[test]
fn a_del_with_etcd_dead_succeeds_and_is_finished_later() {
    let session = Session::new();
    let mut server = Server::start();
    prepared(&server);
    let host = Host::new("node-1", json!({"etcd_endpoints": server.url(), "ipam": pools()}));
    let (one, two) = (session.pod(1), session.pod(2));
    let added = host.run("ADD", "one", Some(&one), None).ok();
    assert_eq!(leased(&server), 1);
    server.kill();
    let start = Instant::now();
    host.run("DEL", "one", Some(&one), Some(&added)).ok();
    println!("DEL with a dead server took {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10));
    let refused = host.run("ADD", "two", Some(&two), None);
    assert_eq!(refused.json().unwrap()["code"], 11, "{refused:?}");
    server.spawn();
    support::open(&server.config());
    assert_eq!(leased(&server), 1, "the release is owed");
    host.run("ADD", "two", Some(&two), None).ok();
    host.run("DEL", "two", Some(&two), None).ok();
    assert_eq!(leased(&server), 0, "the next calls finished it");
}

#[test]
fn a_del_with_etcd_paused_answers_in_time() {
    let session = Session::new();
    let server = Server::start();
    prepared(&server);
    let host = Host::new("node-1", json!({"etcd_endpoints": server.url(), "ipam": pools()}));
    let pod = session.pod(1);
    let added = host.run("ADD", "one", Some(&pod), None).ok();
    server.pause();
    let start = Instant::now();
    host.run("DEL", "one", Some(&pod), Some(&added)).ok();
    println!("DEL with a paused server took {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(15));
    server.go_on();
    support::open(&server.config());
    host.run("ADD", "one", Some(&pod), None).ok();
    assert_eq!(leased(&server), 1, "the same container started again keeps one address");
    host.run("DEL", "one", Some(&pod), None).ok();
    assert_eq!(leased(&server), 0);
}

// REQ: C-13
#[test]
fn certificates_of_the_configuration_and_a_name_of_the_hosts_file_are_used() {
    let session = Session::new();
    let server = Server::start_tls(Certs::make());
    prepared(&server);
    let tls = server.config();
    let url = format!("https://etcd-of-test.example:{}", server.port);
    let mut host = Host::new(
        "node-1",
        json!({
            "etcd_endpoints": url, "etcd_ca_cert_file": tls.ca_cert_file,
            "etcd_cert_file": tls.cert_file, "etcd_key_file": tls.key_file, "ipam": pools(),
        }),
    );
    let pod = session.pod(1);
    let unknown = host.run("ADD", "one", Some(&pod), None);
    assert_eq!(unknown.json().unwrap()["code"], 11, "{unknown:?}");
    host.hosts_file("127.0.0.1 etcd-of-test.example\n");
    host.run("ADD", "one", Some(&pod), None).ok();
    assert_eq!(leased(&server), 1);
    let mut without = host.conf.clone();
    without["etcd_key_file"] = json!("/nowhere/key.pem");
    without["etcd_cert_file"] = json!("/nowhere/cert.pem");
    host.conf = without;
    let refused = host.run("ADD", "two", Some(&session.pod(2)), None);
    assert!(refused.text().contains("/nowhere/cert.pem"), "{refused:?}");
}

/// As a cluster has it that Calico used: a user with a password, and several endpoints, the first one dead.
// REQ: C-13
#[test]
fn user_and_password_are_used_and_a_dead_endpoint_is_passed_over() {
    let session = Session::new();
    let server = Server::start();
    prepared(&server);
    users::admin(users::enable(&server.url()));
    let endpoints = format!("http://127.0.0.1:{},{}", support::free_port(), server.url());
    let mut host = Host::new("node-1", json!({"etcd_endpoints": endpoints, "ipam": pools()}));
    let with = |password| vec![("ETCD_USERNAME", "percale"), ("ETCD_PASSWORD", password)];
    let pod = session.pod(1);
    for (user, password, detail) in [
        ("", "", "user name is empty"),
        ("percale", "wrong", "authentication"),
        ("calico", "secret", ": /percale/"),
    ] {
        host.env = vec![("ETCD_USERNAME", user), ("CALICO_ETCD_PASSWORD", password)];
        let refused = host.run("ADD", "one", Some(&pod), None);
        assert_eq!(refused.json().unwrap()["code"], 5, "{refused:?}");
        assert!(refused.text().contains("check the user, password"), "{refused:?}");
        assert!(refused.text().contains(detail), "{refused:?}");
    }
    host.env = with("secret");
    let added = host.run("ADD", "one", Some(&pod), None).ok();
    host.run("CHECK", "one", Some(&pod), Some(&added)).ok();
    // A password that is no longer right owes the release, and tells nobody the right one.
    host.env = with("secret-of-yesterday");
    let owed = host.run("DEL", "one", Some(&pod), Some(&added));
    assert!(!format!("{owed:?}").contains("secret-of-yesterday"), "{owed:?}");
    owed.ok();
    host.env = with("secret");
    host.run("ADD", "one", Some(&pod), None).ok();
    host.run("DEL", "one", Some(&pod), None).ok();
    let root = Config { user: "root".into(), password: "rootpw".into(), ..server.config() };
    assert_eq!(leased_in(&support::open(&root)), 0);
}

#[test]
fn an_etcd_without_space_is_told_and_a_del_is_owed() {
    let session = Session::new();
    let server = Server::start();
    prepared(&server);
    let host = Host::new("node-1", json!({"etcd_endpoints": server.url(), "ipam": pools()}));
    let pod = session.pod(1);
    let added = host.run("ADD", "one", Some(&pod), None).ok();
    users::admin(users::out_of_space(&server.url(), true));
    let refused = host.run("ADD", "two", Some(&session.pod(2)), None);
    assert_eq!(refused.json().unwrap()["code"], 11, "{refused:?}");
    assert!(refused.text().contains("etcd has no space left"), "{refused:?}");
    host.run("DEL", "one", Some(&pod), Some(&added)).ok();
    assert_eq!(leased(&server), 1, "the release is owed");
    users::admin(users::out_of_space(&server.url(), false));
    host.run("DEL", "two", None, None).ok();
    assert_eq!(leased(&server), 0);
}

// REQ: C-14
#[test]
fn another_cluster_on_the_same_host_is_an_error_that_names_both() {
    let session = Session::new();
    let (one, two) = (Server::start(), Server::start());
    prepared(&one);
    prepared(&two);
    let mut host = Host::new("node-1", json!({"etcd_endpoints": one.url(), "ipam": pools()}));
    host.run("ADD", "one", Some(&session.pod(1)), None).ok();
    let first = host.identity();
    host.conf["etcd_endpoints"] = json!(two.url());
    let pod = session.pod(2);
    let refused = host.run("ADD", "two", Some(&pod), None);
    assert_eq!(refused.json().unwrap()["code"], 7, "{refused:?}");
    assert!(
        refused.text().contains(&first) && refused.text().contains(&two.open().identity()),
        "{refused:?}"
    );
    host.conf.as_object_mut().unwrap().remove("etcd_endpoints");
    host.conf["datastore_type"] = json!("embedded");
    assert_eq!(host.run("ADD", "two", Some(&pod), None).json().unwrap()["code"], 7);
}

#[test]
fn without_the_cluster_program_the_error_says_what_is_missing() {
    let _session = Session::new();
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("percale");
    std::fs::copy(env!("CARGO_BIN_EXE_percale"), &alone).unwrap();
    let host = Host::new("node-1", json!({"etcd_endpoints": "http://127.0.0.1:1", "ipam": pools()}));
    let refused = host.with_plugin(&alone).run("DEL", "one", None, None);
    assert_eq!(refused.json().unwrap()["code"], 5, "{refused:?}");
    assert!(refused.text().contains("percale-cluster: cannot be run"), "{refused:?}");
}

/// 2 hosts with 4 workers each, as the IPAM of another plugin.
#[test]
fn two_hosts_never_give_an_address_twice() {
    let _session = Session::new();
    let server = Server::start();
    prepared(&server);
    for role in ["percale-ipam", "calico-ipam"] {
        let each = if std::env::var_os("PERCALE_FULL").is_some() { 100 } else { 25 };
        race(&server, role, each);
    }
}

fn race(server: &Server, role: &str, each: usize) {
    let pools = json!({"type": role, "pools": [{"cidr": "10.92.0.0/21", "blockSize": 28}]});
    let conf = json!({"name": role, "etcd_endpoints": server.url(), "ipam": pools});
    let hosts = ["node-1", "node-2"].map(|name| Host::new(name, conf.clone()).named(role));
    let start = Instant::now();
    let given: Vec<Ran> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let host = &hosts[worker % 2];
                scope.spawn(move || add_many(host, worker, each))
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let took = start.elapsed();
    let addresses: Vec<String> = given.iter().map(|ran| host::address(&ran.ok_ref())).collect();
    let distinct: BTreeSet<&String> = addresses.iter().collect();
    println!(
        "{role}: {} ADDs in {took:?}, {:.0}/s",
        addresses.len(),
        addresses.len() as f64 / took.as_secs_f64()
    );
    assert_eq!(distinct.len(), 8 * each);
    for worker in 0..8 {
        (0..each)
            .for_each(|n| drop(hosts[worker % 2].run("DEL", &format!("w{worker}-{n}"), None, None).ok()));
    }
    let blocks = server.open().list("/", support::soon()).unwrap();
    let left = blocks.iter().filter(|entry| String::from_utf8_lossy(&entry.value).contains("w0-0")).count();
    assert_eq!(left, 0, "nothing names a container that is gone");
}

fn add_many(host: &Host, worker: usize, each: usize) -> Vec<Ran> {
    (0..each).map(|n| host.run("ADD", &format!("w{worker}-{n}"), Some("/var/run/netns/none"), None)).collect()
}
