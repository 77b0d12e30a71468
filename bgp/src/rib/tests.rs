//! Changes, their differences, and the queue towards peers.

pub(in crate::rib) mod fixture;

use crate::wire::{Attributes, Nlri, RefreshKind, Update};

use super::*;
use fixture::*;

const X: &str = "192.0.2.0/24";
const Y: &str = "198.51.100.0/24";

#[test]
fn a_new_peer_is_told_everything_and_then_the_end() {
    let mut rib = rib();
    rib.originate(p(X), Attributes::local([1, 1, 1, 1].into()));
    rib.originate(p("fd01::/64"), Attributes::local("fd00::1".parse().unwrap()));
    rib.peer_up(PeerId(1), neighbor(1, true));
    let heard = drain(&mut rib, 1);
    assert_eq!(heard.prefixes(), [X, "fd01::/64"]);
    assert_eq!(heard.end_of_rib, Family::ALL);
    assert!(rib.is_told(PeerId(1)));
}

#[test]
fn one_change_is_one_message() {
    let mut rib = with_peers(&[(1, true), (2, true)]);
    for i in 0..1000 {
        rib.originate(
            p(&format!("10.{}.{}.0/24", 10 + i / 256, i % 256)),
            Attributes::local([1, 1, 1, 1].into()),
        );
    }
    assert_eq!(drain(&mut rib, 1).messages, 1, "1,000 prefixes of the same attributes fit one message");
    drain(&mut rib, 2);
    rib.retract(p("10.10.5.0/24"));
    let heard = drain(&mut rib, 1);
    assert_eq!((heard.messages, heard.gone()), (1, vec!["10.10.5.0/24".to_string()]));
}

#[test]
fn what_came_and_went_is_not_told() {
    let mut rib = with_peers(&[(1, false), (2, false)]);
    announce(&mut rib, 1, X);
    withdraw(&mut rib, 1, X);
    announce(&mut rib, 1, Y);
    assert_eq!(drain(&mut rib, 2).prefixes(), [Y]);
    withdraw(&mut rib, 1, Y);
    announce(&mut rib, 1, Y);
    assert_eq!(drain(&mut rib, 2), Heard::default());
}

#[test]
fn the_loss_of_the_best_path_tells_the_next() {
    let mut rib = with_peers(&[(1, false), (2, false), (3, true)]);
    announce(&mut rib, 1, X);
    announce(&mut rib, 2, X);
    drain(&mut rib, 3);
    rib.peer_down(PeerId(1), PerFamily::NONE);
    let heard = drain(&mut rib, 3);
    assert_eq!(heard.prefixes(), [X]);
    assert_eq!(heard.announced[0].1.next_hop.addr.to_string(), "10.0.0.2");
    rib.peer_down(PeerId(2), PerFamily::NONE);
    assert_eq!(drain(&mut rib, 3).gone(), [X]);
    assert_eq!((rib.len(), rib.count(PeerId(2))), (0, PerFamily::default()));
}

#[test]
fn a_worse_path_is_no_news() {
    let mut rib = with_peers(&[(1, false), (2, false), (3, true)]);
    announce(&mut rib, 1, X);
    drain(&mut rib, 3);
    fib(&mut rib);
    announce_with(&mut rib, 2, p(X).into(), |a| a.as_path.prepend(9, 3));
    assert_eq!(drain(&mut rib, 3), Heard::default());
    assert_eq!(fib(&mut rib), []);
}

#[test]
fn changes_behind_a_walk_that_goes_on_are_not_lost() {
    let mut rib = rib();
    let prefix = |i: u32| p(&format!("10.{}.{}.0/24", i / 256, i % 256));
    (0..10_000).for_each(|i| rib.originate(prefix(i), Attributes::local([1, 1, 1, 1].into())));
    rib.peer_up(PeerId(1), neighbor(1, true));
    let mut octets = rib.poll_updates(PeerId(1)).unwrap().len();
    // One that was told and one that was not are taken back, one of each is changed.
    for (gone, changed) in [(0, 1), (9_998, 9_999)] {
        rib.retract(prefix(gone));
        rib.originate(prefix(changed), Attributes { med: Some(1), ..Attributes::local([1, 1, 1, 1].into()) });
    }
    let heard = drain(&mut rib, 1);
    octets += heard.messages;
    assert!(octets > 2);
    assert_eq!(heard.withdrawn, [Nlri::from(prefix(0))], "the other was never told");
    assert_eq!(heard.announced.iter().filter(|(_, a)| a.med == Some(1)).count(), 2);
    assert_eq!(heard.end_of_rib, Family::ALL);
}

#[test]
fn a_refresh_tells_all_again_between_markers() {
    let mut rib = with_peers(&[(1, true)]);
    rib.originate(p(X), Attributes::local([1, 1, 1, 1].into()));
    drain(&mut rib, 1);
    rib.refresh(PeerId(1), Family::Ipv4);
    let heard = drain(&mut rib, 1);
    assert_eq!(heard.prefixes(), [X]);
    assert_eq!(
        heard.refreshes.iter().map(|r| r.kind).collect::<Vec<_>>(),
        [RefreshKind::Begin, RefreshKind::End]
    );
    assert_eq!(heard.end_of_rib, []);
}

#[test]
fn add_path_tells_every_usable_path_and_takes_back_each() {
    let mut rib = with_peers(&[(1, false), (2, false)]);
    let mut three = neighbor(3, true);
    three.encode.add_path.v4 = true;
    rib.peer_up(PeerId(3), three);
    drain(&mut rib, 3);
    announce(&mut rib, 1, X);
    announce_with(&mut rib, 2, p(X).into(), |a| a.as_path.prepend(9, 3));
    let heard = drain(&mut rib, 3);
    let ids: Vec<u32> = heard.announced.iter().map(|(n, _)| n.path_id).collect();
    assert_eq!(ids, [1, 2]);
    withdraw(&mut rib, 1, X);
    let heard = drain(&mut rib, 3);
    assert_eq!(heard.withdrawn, [Nlri { prefix: p(X), path_id: 1 }]);
    assert_eq!(heard.announced.len(), 0, "the other is told already");
}

#[test]
fn too_many_prefixes_are_counted_per_family() {
    let mut rib = with_peers(&[(1, false)]);
    let mut options = rib.neighbor(PeerId(1)).unwrap().options.clone();
    options.max_prefixes.v4 = Some(2);
    rib.reconfigure(PeerId(1), options);
    for prefix in [X, Y, X, "fd00:1::/64"] {
        announce_with(&mut rib, 1, p(prefix).into(), |a| {
            if prefix.contains(':') {
                a.next_hop = IpAddr::V6("fd00::1".parse().unwrap()).into();
            }
        });
    }
    assert_eq!(rib.count(PeerId(1)), PerFamily { v4: 2, v6: 1 });
    let attributes = route(&rib, 1);
    let reach = vec![crate::wire::Reach { attributes, nlri: vec![p("203.0.113.0/24").into()] }];
    let too_many = TooMany { family: Family::Ipv4, limit: 2 };
    assert_eq!(rib.update(PeerId(1), Update { reach, ..Update::default() }), Err(too_many));
}

#[test]
fn our_own_number_in_a_path_is_judged_again_when_more_is_allowed() {
    let mut rib = with_peers(&[(1, false)]);
    let own = rib.neighbor(PeerId(1)).unwrap().local_as;
    announce_with(&mut rib, 1, p(X).into(), |a| a.as_path.prepend(own, 1));
    assert!(rib.next_hops(p(X)).is_empty());
    let mut options = rib.neighbor(PeerId(1)).unwrap().options.clone();
    options.allowed_own_as = 1;
    rib.reconfigure(PeerId(1), options.clone());
    assert_eq!(rib.next_hops(p(X)).len(), 1);
    options.allowed_own_as = 0;
    rib.reconfigure(PeerId(1), options);
    assert!(rib.next_hops(p(X)).is_empty());
}

#[test]
fn attributes_too_long_to_tell_are_withdrawn_instead() {
    let mut rib = with_peers(&[(1, true)]);
    let base = Attributes::local([1, 1, 1, 1].into());
    rib.originate(p(X), base.clone());
    assert_eq!(drain(&mut rib, 1).prefixes(), [X]);
    rib.originate(p(X), Attributes { communities: (0..2000).collect(), ..base });
    assert_eq!(drain(&mut rib, 1).gone(), [X]);
}

#[test]
fn lookup_takes_the_longest_usable_match() {
    let mut rib = with_peers(&[(1, false), (2, false)]);
    announce(&mut rib, 1, "192.0.2.0/24");
    announce(&mut rib, 2, "192.0.2.128/25");
    let hop = |rib: &Rib, a: &str| rib.lookup(a.parse().unwrap()).map(|f| f.next_hops[0].addr.to_string());
    assert_eq!(hop(&rib, "192.0.2.1"), Some("10.0.0.1".into()));
    assert_eq!(hop(&rib, "192.0.2.129"), Some("10.0.0.2".into()));
    rib.set_next_hop("10.0.0.2".parse().unwrap(), None);
    assert_eq!(hop(&rib, "192.0.2.129"), Some("10.0.0.1".into()));
    assert_eq!(hop(&rib, "203.0.113.1"), None);
}

#[test]
fn nothing_is_left_of_a_peer_that_is_gone() {
    let mut rib = with_peers(&[(1, false)]);
    (0..2000_u32).for_each(|i| {
        announce_with(&mut rib, 1, Prefix::host(IpAddr::V4(i.into())).into(), |a| a.med = Some(i));
    });
    rib.peer_down(PeerId(1), PerFamily::NONE);
    assert!(rib.is_empty() && rib.neighbor(PeerId(1)).is_none());
    assert_eq!(rib.peers().count(), 0);
}
