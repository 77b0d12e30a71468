//! Restarts: of peers, of ours, and refreshes.

use crate::wire::{Attributes, well_known};

use super::tests::fixture::*;
use super::*;

const X: &str = "192.0.2.0/24";
const Y: &str = "198.51.100.0/24";
const V4: PerFamily<bool> = PerFamily { v4: true, v6: false };

fn restarting() -> Rib {
    let mut rib = with_peers(&[(1, false), (2, true)]);
    announce(&mut rib, 1, X);
    announce(&mut rib, 1, Y);
    drain(&mut rib, 2);
    fib(&mut rib);
    rib.peer_down(PeerId(1), V4);
    rib
}

#[test]
fn a_restart_that_changes_nothing_is_not_noticed() {
    let mut rib = restarting();
    rib.peer_up(PeerId(1), neighbor(1, false));
    announce(&mut rib, 1, X);
    announce(&mut rib, 1, Y);
    rib.end_of_rib(PeerId(1), Family::Ipv4);
    assert_eq!(drain(&mut rib, 2), Heard::default());
    assert_eq!(fib(&mut rib), []);
    assert!(rib.explain(p(X)).unwrap().paths.iter().all(|r| r.freshness == Freshness::Fresh));
}

#[test]
fn what_was_not_told_again_goes_at_the_end_of_rib() {
    let mut rib = restarting();
    rib.peer_up(PeerId(1), neighbor(1, false));
    announce(&mut rib, 1, X);
    assert_eq!(drain(&mut rib, 2), Heard::default());
    rib.end_of_rib(PeerId(1), Family::Ipv4);
    assert_eq!(drain(&mut rib, 2).gone(), [Y]);
    assert_eq!(fib(&mut rib), [(Y.to_string(), vec![])]);
}

#[test]
fn a_peer_that_stays_away_loses_its_routes() {
    let mut rib = restarting();
    rib.expire_stale(PeerId(1), Family::Ipv4, false);
    assert_eq!(drain(&mut rib, 2).gone(), [X, Y]);
    assert!(rib.neighbor(PeerId(1)).is_none());
}

#[test]
fn a_second_restart_does_not_prolong_the_first() {
    let mut rib = restarting();
    rib.peer_up(PeerId(1), neighbor(1, false));
    announce(&mut rib, 1, X);
    rib.peer_down(PeerId(1), V4);
    assert_eq!(drain(&mut rib, 2).gone(), [Y]);
}

#[test]
fn families_without_restart_go_at_once() {
    let mut rib = with_peers(&[(1, false), (2, true)]);
    announce(&mut rib, 1, X);
    announce_with(&mut rib, 1, p("fd00:1::/64").into(), |a| {
        a.next_hop = IpAddr::V6("fd00::1".parse().unwrap()).into();
    });
    drain(&mut rib, 2);
    rib.peer_down(PeerId(1), V4);
    assert_eq!(drain(&mut rib, 2).gone(), ["fd00:1::/64"]);
}

#[test]
fn another_router_at_the_same_address_inherits_nothing() {
    let mut rib = restarting();
    let mut other = neighbor(1, false);
    other.router_id = [9, 9, 9, 9].into();
    rib.peer_up(PeerId(1), other);
    assert_eq!(drain(&mut rib, 2).gone(), [X, Y]);
}

#[test]
fn long_lived_routes_are_the_last_choice_and_say_so() {
    let mut rib = with_peers(&[(1, false), (2, true), (3, false)]);
    let mut four = neighbor(4, true);
    four.long_lived = PerFamily::BOTH;
    rib.peer_up(PeerId(4), four);
    announce(&mut rib, 1, X);
    announce_with(&mut rib, 1, p(Y).into(), |a| a.add_community(well_known::NO_LLGR));
    [2, 4].into_iter().for_each(|n| drop(drain(&mut rib, n)));
    rib.peer_down(PeerId(1), V4);
    rib.expire_stale(PeerId(1), Family::Ipv4, true);
    assert_eq!(drain(&mut rib, 2).gone(), [X, Y], "2 would not know that X is stale");
    let heard = drain(&mut rib, 4);
    assert_eq!((heard.prefixes(), heard.gone()), (vec![X.into()], vec![Y.into()]));
    assert!(heard.announced[0].1.has_community(well_known::LLGR_STALE));
    announce_with(&mut rib, 3, p(X).into(), |a| a.as_path.prepend(9, 9));
    assert_eq!(fates(&mut rib, X), [(3, Fate::Best), (1, Fate::Lost(Step::NotLongLived))]);
    rib.expire_stale(PeerId(1), Family::Ipv4, false);
    assert_eq!(fates(&mut rib, X), [(3, Fate::Best)]);
}

#[test]
fn an_enhanced_refresh_sweeps_what_was_left_out() {
    let mut rib = with_peers(&[(1, false), (2, true)]);
    announce(&mut rib, 1, X);
    announce(&mut rib, 1, Y);
    drain(&mut rib, 2);
    rib.begin_refresh(PeerId(1), Family::Ipv4);
    announce(&mut rib, 1, X);
    assert_eq!(drain(&mut rib, 2), Heard::default());
    rib.end_of_rib(PeerId(1), Family::Ipv4);
    assert_eq!(drain(&mut rib, 2).gone(), [Y]);
}

#[test]
fn after_our_restart_nobody_is_told_before_all_is_known() {
    let mut rib = rib();
    rib.defer();
    rib.originate(p(Y), Attributes::local([1, 1, 1, 1].into()));
    for n in [1, 2] {
        rib.peer_up(PeerId(n), neighbor(n, n == 2));
    }
    announce(&mut rib, 1, X);
    assert_eq!((drain(&mut rib, 2), fib(&mut rib)), (Heard::default(), vec![]));
    rib.end_deferral();
    let heard = drain(&mut rib, 2);
    assert_eq!((heard.prefixes(), heard.end_of_rib.len()), (vec![X.into(), Y.into()], 2));
    assert_eq!(fib(&mut rib), [(X.to_string(), vec!["10.0.0.1".into()]), (Y.to_string(), vec![])]);
}

fn of_peer_one(rib: &mut Rib) -> Vec<(u32, Freshness)> {
    let mut found: Vec<_> =
        rib.explain(p(X)).unwrap().paths.iter().map(|r| (r.path_id, r.freshness)).collect();
    found.sort_by_key(|f| f.0);
    found
}

fn announce_id(rib: &mut Rib, path_id: u32) {
    announce_with(rib, 1, crate::wire::Nlri { prefix: p(X), path_id }, |_| {});
}

#[test]
fn the_paths_of_a_peer_age_each_for_itself() {
    let mut rib = with_peers(&[(1, false)]);
    [1, 2].into_iter().for_each(|id| announce_id(&mut rib, id));
    rib.peer_down(PeerId(1), V4);
    rib.expire_stale(PeerId(1), Family::Ipv4, true);
    rib.peer_up(PeerId(1), neighbor(1, false));
    announce_id(&mut rib, 2);
    rib.begin_refresh(PeerId(1), Family::Ipv4);
    assert_eq!(of_peer_one(&mut rib), [(1, Freshness::LongLived), (2, Freshness::Stale)]);
    announce_id(&mut rib, 2);
    rib.expire_stale(PeerId(1), Family::Ipv4, true);
    assert_eq!(of_peer_one(&mut rib), [(1, Freshness::LongLived), (2, Freshness::Fresh)]);
}

#[test]
fn options_that_changed_while_a_peer_was_away_reach_the_others() {
    let mut rib = with_peers(&[(1, true), (2, true)]);
    announce(&mut rib, 1, X);
    rib.peer_down(PeerId(1), V4);
    let mut client = neighbor(1, true);
    client.options.client = true;
    rib.peer_up(PeerId(1), client);
    assert_eq!(drain(&mut rib, 2).prefixes(), [X], "now it is reflected");
    rib.peer_down(PeerId(1), V4);
    rib.peer_up(PeerId(1), neighbor(1, true));
    assert_eq!(drain(&mut rib, 2).gone(), [X]);
}
