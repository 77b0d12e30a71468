//! Stored objects as BGP reads them: a line each, the end of the key, a blank, the value. What is wished follows from what is
//! there, not from the order in which it came; what is gone leaves nothing behind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::bgp::{BgpConfiguration, BgpFilter, BgpPeer, CalicoNodeStatus, SecretKey};
use model::keys::{self, Key};
use model::{Scope, Stored};
use peering::{Cluster, Identity, PeerKey, Secret, Wish};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// An object of this name is there from the beginning, or nothing would be wished.
const NODE: &str = "/calico/resources/v3/projectcalico.org/nodes/n";
const PASSWORD: &str = "correct horse";

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut objects = BTreeMap::new();
    for (tail, value) in text.lines().take(32).filter_map(|line| line.split_once(' ')) {
        let key = match tail.starts_with('/') {
            true => tail.to_owned(),
            false => format!("/calico/resources/v3/projectcalico.org/{tail}"),
        };
        if !is_canonical(&key) {
            continue;
        }
        round_trip::<BgpConfiguration>(&key, value.as_bytes());
        round_trip::<BgpFilter>(&key, value.as_bytes());
        round_trip::<CalicoNodeStatus>(&key, value.as_bytes());
        if let Some(peer) = round_trip::<BgpPeer>(&key, value.as_bytes()) {
            let _ = peer.spec.peer();
        }
        objects.insert(key, value.to_owned());
    }
    let forward = wish(objects.iter());
    assert_eq!(forward, wish(objects.iter().rev()));
    forward.iter().for_each(check);
    let mut cluster = filled(objects.iter());
    objects.keys().filter(|key| *key != NODE).for_each(|key| cluster.delete(key));
    if !objects.contains_key(NODE) {
        assert_eq!(cluster.wish(), filled(std::iter::empty()).wish());
    }
});

/// Of affinities only the node's own are watched, and each has one key.
fn is_canonical(key: &str) -> bool {
    match keys::parse(key) {
        Some(Key::Affinity { cidr, .. }) => key == keys::affinity(&Scope::Cluster, "n", &cidr),
        _ => true,
    }
}

fn round_trip<T: Stored + PartialEq + Debug>(key: &str, value: &[u8]) -> Option<T> {
    let first = T::decode(key, value).ok()?;
    let second = T::decode(key, &first.encode()).expect("our own writing is understood");
    assert_eq!(first, second);
    Some(first)
}

fn filled<'a>(objects: impl Iterator<Item = (&'a String, &'a String)>) -> Cluster {
    let me = Identity { node: "n".into(), kubernetes_node: "n".into(), ..Identity::default() };
    let mut cluster = Cluster::new(me);
    cluster.put(NODE, br#"{"metadata":{"name":"n"},"spec":{"bgp":{"ipv4Address":"10.0.0.1/24","ipv6Address":"fd00::1/64"}}}"#);
    objects.for_each(|(key, value)| cluster.put(key, value.as_bytes()));
    cluster
}

fn wish<'a>(objects: impl Iterator<Item = (&'a String, &'a String)>) -> Option<Wish> {
    let mut cluster = filled(objects);
    let wanted: Vec<SecretKey> = cluster.secrets_wanted().into_iter().collect();
    for key in wanted {
        cluster.set_secret(key, Ok(Secret(PASSWORD.into())));
    }
    cluster.wish()
}

/// What the driver relies on.
fn check(wish: &Wish) {
    assert_ne!(wish.port, 0);
    assert!(!format!("{wish:?}").contains(PASSWORD));
    for (key, peer) in &wish.peers {
        assert!(!matches!(key, PeerKey::At(addr, _) if wish.rib.router_id == *addr));
        assert!(peer.session.restart.is_none_or(|restart| restart.time <= 4095));
        assert_ne!(peer.ttl_security, Some(0));
        assert!(peer.bfd.is_none_or(|bfd| !bfd.interval.is_zero() && bfd.multiplier > 0));
    }
}
