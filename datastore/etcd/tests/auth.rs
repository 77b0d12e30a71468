//! Users, passwords and permissions.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod support;

use datastore::{CommitError, ErrorKind, Store};
use datastore_etcd::{Config, Etcd};
use etcd_client::Client;
use model::store::Expect;
use support::users::{admin, enable};
use support::{Server, get, kind, open, put, soon};

fn as_user(server: &Server, user: &str, password: &str) -> Config {
    Config { user: user.into(), password: password.into(), ..server.config() }
}

// REQ: C-13
#[test]
fn permissions_are_kept_and_refusals_are_told() {
    let server = Server::start();
    server.open();
    admin(enable(&server.url()));
    for (user, password) in [("", ""), ("percale", "wrong"), ("nobody", "secret")] {
        let error = Etcd::open(&as_user(&server, user, password), soon()).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Denied, "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let store = open(&as_user(&server, "percale", "secret"));
    datastore::conformance::run(&store, true);
    assert_eq!(kind(store.get(&["/elsewhere"], soon())), ErrorKind::Denied);
    let reader = open(&as_user(&server, "reader", "secret"));
    let key = model::keys::pool("p");
    assert_eq!(get(&reader, &key), None);
    match reader.commit(&[put(&key, Expect::Any, "{}")], soon()) {
        Err(CommitError::Store(error)) => assert_eq!(error.kind, ErrorKind::Denied, "{error}"),
        other => panic!("{other:?}"),
    }
    let mut denied = store.watch("/elsewhere/").unwrap();
    assert_eq!(denied.next(soon()).unwrap_err().kind, ErrorKind::Denied);
}

/// A change of permissions, like the end of a token's life, makes old tokens useless.
#[test]
fn a_stale_token_is_renewed() {
    let server = Server::start();
    server.open();
    admin(enable(&server.url()));
    let store = open(&as_user(&server, "percale", "secret"));
    let key = model::keys::pool("p");
    store.commit(&[put(&key, Expect::Absent, "1")], soon()).unwrap();
    admin(async {
        let options = etcd_client::ConnectOptions::new().with_user("root", "rootpw");
        let mut client = Client::connect([server.url()], Some(options)).await.unwrap();
        client.role_add("more").await.unwrap();
        client.user_grant_role("percale", "more").await.unwrap();
    });
    store.commit(&[put(&key, Expect::Any, "2")], soon()).unwrap();
    assert_eq!(get(&store, &key).unwrap().value, b"2");
}
