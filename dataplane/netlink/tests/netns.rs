//! Opening and entering namespaces.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use netlink::{Netns, NetnsError, Nl};
use std::fs::File;
use std::path::Path;
use support::{PATIENCE, new_netns, on_new_host, sh};

fn kind(path: &Path) -> NetnsError {
    Netns::open(path).map(|netns| netns.path().to_owned()).unwrap_err()
}

#[test]
fn what_is_no_namespace_is_told_apart_from_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("file"), "").unwrap();
    std::fs::create_dir(at("dir")).unwrap();
    std::os::unix::fs::symlink("loop", at("loop")).unwrap();
    sh(&format!("mkfifo {}", at("fifo").display()));
    std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for name in ["file", "dir", "loop", "fifo", "socket"] {
        let error = kind(&at(name));
        assert!(matches!(error, NetnsError::NotANamespace { .. }), "{name}: {error}");
    }
    for name in ["none", "none/none", "file/none"] {
        assert!(matches!(kind(&at(name)), NetnsError::Missing { .. }), "{name}");
    }
    for other in ["/proc/self/ns/mnt", "/proc/self/ns/user", "/proc/self/ns/pid", "/dev/null", "/dev/tty"] {
        let error = kind(Path::new(other));
        assert!(matches!(error, NetnsError::NotANamespace { .. }), "{other}: {error}");
    }
    assert!(matches!(kind(Path::new("/proc/999999999/ns/net")), NetnsError::Missing { .. }));
    assert!(matches!(kind(Path::new("")), NetnsError::Missing { .. }));
    let text = kind(&at("none")).to_string();
    assert!(text.contains(at("none").to_str().unwrap()), "the path is in the message: {text}");
}

#[test]
fn a_descriptor_must_be_a_network_namespace_too() {
    let file = File::open("/proc/self/ns/uts").unwrap();
    assert!(matches!(Netns::from_fd(file.into()), Err(NetnsError::NotANamespace { .. })));
    let file = File::open("/proc/thread-self/ns/net").unwrap();
    let here = Netns::from_fd(file.into()).unwrap();
    assert_eq!(here.id().unwrap(), Netns::current().unwrap().id().unwrap());
}

#[test]
fn running_inside_comes_back() {
    let (home, other) = (Netns::current().unwrap().id().unwrap(), new_netns());
    let seen = other.run(|| Netns::current().unwrap().id().unwrap()).unwrap();
    assert_eq!(seen, other.id().unwrap());
    assert_ne!(seen, home);
    assert_eq!(Netns::current().unwrap().id().unwrap(), home);
}

#[test]
fn a_panic_inside_comes_back_too() {
    let (home, other) = (Netns::current().unwrap().id().unwrap(), new_netns());
    let result = std::panic::catch_unwind(|| other.run(|| panic!("inside")));
    assert!(result.is_err());
    assert_eq!(Netns::current().unwrap().id().unwrap(), home);
}

#[test]
fn sockets_stay_where_they_were_opened() {
    on_new_host(|| {
        let other = new_netns();
        sh("ip link add here type veth peer name here2");
        let mut inside = Nl::inside(&other, PATIENCE).unwrap();
        assert_eq!(netlink::links(&mut inside, "").unwrap().len(), 1);
        assert_eq!(netlink::links(&mut Nl::here(PATIENCE).unwrap(), "").unwrap().len(), 3);
    });
}
