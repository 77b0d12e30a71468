//! What peers are told: attributes by kind of peer, reflection, communities, policy.

use crate::policy::{Action, Match, Policy, Rule, Verdict};
use crate::wire::{AsPath, Attributes, well_known};

use super::tests::fixture::*;
use super::*;

const X: &str = "192.0.2.0/24";

fn told(rib: &mut Rib, n: u32) -> Vec<Attributes> {
    drain(rib, n).announced.into_iter().map(|(_, a)| a).collect()
}

fn withheld(rib: &mut Rib, n: u32) -> Withheld {
    let found = rib.explain(p(X)).unwrap();
    let (_, told) = found.told.into_iter().find(|(id, _)| id.0 == n).unwrap();
    told.unwrap_err()
}

#[test]
fn to_an_external_peer_our_as_and_address_are_put_in() {
    let mut rib = with_peers(&[(1, false), (2, false)]);
    announce_with(&mut rib, 1, p(X).into(), |a| {
        a.med = Some(5);
        a.add_community(7);
    });
    let [a] = &told(&mut rib, 2)[..] else { panic!() };
    assert_eq!(a.as_path, AsPath::sequence(&[US, US + 1]));
    assert_eq!(a.next_hop.addr.to_string(), "10.0.0.100");
    assert_eq!((a.med, a.local_pref, &a.communities[..]), (None, None, &[7][..]));
}

#[test]
fn to_an_internal_peer_path_and_next_hop_stay() {
    let mut rib = with_peers(&[(1, false), (2, true)]);
    announce_with(&mut rib, 1, p(X).into(), |a| a.med = Some(5));
    let [a] = &told(&mut rib, 2)[..] else { panic!() };
    assert_eq!(a.as_path, AsPath::sequence(&[US + 1]));
    assert_eq!(a.next_hop.addr.to_string(), "10.0.0.1");
    assert_eq!((a.med, a.local_pref), (Some(5), Some(100)));
}

#[test]
fn next_hop_options() {
    let mut rib = with_peers(&[(1, false), (2, true), (3, false)]);
    announce(&mut rib, 1, X);
    let mut options = rib.neighbor(PeerId(2)).unwrap().options.clone();
    options.next_hop_self = true;
    rib.reconfigure(PeerId(2), options.clone());
    options.next_hop_self = false;
    options.keep_next_hop = true;
    rib.reconfigure(PeerId(3), options);
    assert_eq!(told(&mut rib, 2)[0].next_hop.addr.to_string(), "10.0.0.100");
    assert_eq!(told(&mut rib, 3)[0].next_hop.addr.to_string(), "10.0.0.1");
}

#[test]
fn own_routes_carry_our_address_of_the_session() {
    let mut rib = with_peers(&[(1, true), (2, false)]);
    rib.originate(p(X), Attributes { med: Some(3), ..Attributes::local([1, 1, 1, 1].into()) });
    for n in [1, 2] {
        let [a] = &told(&mut rib, n)[..] else { panic!() };
        assert_eq!((a.next_hop.addr.to_string().as_str(), a.med), ("10.0.0.100", Some(3)));
    }
}

#[test]
fn without_an_address_of_the_family_nothing_is_told() {
    let mut rib = with_peers(&[(2, false)]);
    let mut options = rib.neighbor(PeerId(2)).unwrap().options.clone();
    options.next_hop.v4 = None;
    rib.reconfigure(PeerId(2), options.clone());
    rib.originate(p(X), Attributes::local([1, 1, 1, 1].into()));
    assert_eq!(told(&mut rib, 2), []);
    assert_eq!(withheld(&mut rib, 2), Withheld::NoNextHop);
    // With RFC 8950 the IPv6 address does.
    let mut neighbor = rib.neighbor(PeerId(2)).unwrap().clone();
    neighbor.extended_next_hop = true;
    neighbor.options.next_hop.v4 = neighbor.options.next_hop.v6;
    rib.peer_down(PeerId(2), PerFamily::NONE);
    rib.peer_up(PeerId(2), neighbor);
    assert_eq!(told(&mut rib, 2)[0].next_hop.addr.to_string(), "fd00::100");
}

#[test]
fn nothing_goes_back_to_where_it_came_from() {
    let mut rib = with_peers(&[(1, false)]);
    announce(&mut rib, 1, X);
    assert_eq!(told(&mut rib, 1), []);
    assert_eq!(withheld(&mut rib, 1), Withheld::SamePeer);
}

#[test]
fn internal_routes_are_reflected_only_from_or_to_clients() {
    // RFC 4456 section 6: 1 and 2 are clients, 3 and 4 are not, 5 is external.
    let mut rib = with_peers(&[(1, true), (2, true), (3, true), (4, true), (5, false)]);
    for n in [1, 2] {
        let mut options = rib.neighbor(PeerId(n)).unwrap().options.clone();
        options.client = true;
        rib.reconfigure(PeerId(n), options);
    }
    let table = [(1, [2, 3, 4, 5].as_slice()), (3, &[1, 2, 5]), (5, &[1, 2, 3, 4])];
    for (from, to) in table {
        announce(&mut rib, from, X);
        let got: Vec<u32> = (1..=5).filter(|n| drain(&mut rib, *n).prefixes() == [X]).collect();
        assert_eq!(got, to, "from {from}");
        withdraw(&mut rib, from, X);
        (1..=5).for_each(|n| drop(drain(&mut rib, n)));
    }
    announce(&mut rib, 3, X);
    assert_eq!(withheld(&mut rib, 4), Withheld::InternalToInternal);
}

#[test]
fn reflection_leaves_its_traces_and_external_peers_do_not_see_them() {
    let mut rib = with_peers(&[(1, true), (2, true), (5, false)]);
    let mut options = rib.neighbor(PeerId(1)).unwrap().options.clone();
    options.client = true;
    rib.reconfigure(PeerId(1), options);
    announce_with(&mut rib, 1, p(X).into(), |a| a.cluster_list = vec![[7, 7, 7, 7].into()]);
    let [a] = &told(&mut rib, 2)[..] else { panic!() };
    assert_eq!(a.originator_id, Some([10, 0, 0, 1].into()));
    assert_eq!(a.cluster_list, [[10, 0, 0, 100], [7, 7, 7, 7]].map(Ipv4Addr::from));
    let [a] = &told(&mut rib, 5)[..] else { panic!() };
    assert_eq!((a.originator_id, a.cluster_list.len()), (None, 0));
}

#[test]
fn loops_are_refused() {
    let mut rib = with_peers(&[(1, false), (2, true)]);
    rib.options.cluster_id = Some([5, 5, 5, 5].into());
    type Edit<'a> = &'a dyn Fn(&mut Attributes);
    let cases: [(u32, Edit<'_>, Refusal); 4] = [
        (1, &|a| a.as_path = AsPath::sequence(&[US + 1, US]), Refusal::AsLoop),
        (2, &|a| a.originator_id = Some([10, 0, 0, 100].into()), Refusal::OwnOriginator),
        (2, &|a| a.cluster_list = vec![[5, 5, 5, 5].into()], Refusal::OwnCluster),
        (2, &|a| a.next_hop = IpAddr::from([10, 0, 0, 100]).into(), Refusal::OwnNextHop),
    ];
    for (n, edit, want) in cases {
        announce_with(&mut rib, n, p(X).into(), edit);
        assert_eq!(fates(&mut rib, X), [(n, Fate::Refused(want))]);
        assert_eq!(rib.lookup("192.0.2.1".parse().unwrap()), None);
        withdraw(&mut rib, n, X);
    }
}

#[test]
fn well_known_communities_hold_routes_back() {
    let cases = [
        (well_known::NO_ADVERTISE, Some(Withheld::NoAdvertise), Some(Withheld::NoAdvertise)),
        (well_known::NO_EXPORT, None, Some(Withheld::NoExport)),
        (well_known::NO_EXPORT_SUBCONFED, None, Some(Withheld::NoExport)),
    ];
    for (community, internal, external) in cases {
        let mut rib = with_peers(&[(1, false), (2, true), (3, false)]);
        announce_with(&mut rib, 1, p(X).into(), |a| a.add_community(community));
        for (n, want) in [(2, internal), (3, external)] {
            let found = rib.explain(p(X)).unwrap().told.into_iter().find(|(id, _)| id.0 == n).unwrap();
            assert_eq!(found.1.err(), want, "{community:x} to {n}");
        }
    }
}

fn rule(matches: Vec<Match>, actions: Vec<Action>, verdict: Verdict) -> Rule {
    Rule { matches, actions, verdict: Some(verdict) }
}

#[test]
fn a_changed_export_policy_tells_only_the_difference() {
    let mut rib = with_peers(&[(1, false)]);
    for i in 0..10 {
        rib.originate(p(&format!("10.9.{i}.0/24")), Attributes::local([1, 1, 1, 1].into()));
    }
    assert_eq!(drain(&mut rib, 1).announced.len(), 10);
    let mut options = rib.neighbor(PeerId(1)).unwrap().options.clone();
    options.export.rules = vec![
        rule(vec![Match::exact(p("10.9.3.0/24"))], vec![], Verdict::Reject),
        rule(vec![Match::exact(p("10.9.4.0/24"))], vec![Action::AddCommunity(9)], Verdict::Accept),
    ];
    rib.reconfigure(PeerId(1), options.clone());
    let heard = drain(&mut rib, 1);
    assert_eq!((heard.gone(), heard.prefixes()), (vec!["10.9.3.0/24".into()], vec!["10.9.4.0/24".into()]));
    assert_eq!(heard.announced[0].1.communities, [9]);
    rib.reconfigure(PeerId(1), options);
    assert_eq!(drain(&mut rib, 1), Heard::default(), "the same again is nothing");
}

#[test]
fn a_changed_import_policy_needs_no_refresh() {
    let mut rib = with_peers(&[(1, false), (2, true)]);
    announce(&mut rib, 1, X);
    announce(&mut rib, 1, "198.51.100.0/24");
    drain(&mut rib, 2);
    let mut options = rib.neighbor(PeerId(1)).unwrap().options.clone();
    options.import.rules = vec![
        rule(vec![Match::exact(p(X))], vec![], Verdict::Reject),
        rule(vec![], vec![Action::SetLocalPref(200), Action::Prepend { asn: 9, times: 1 }], Verdict::Accept),
    ];
    rib.reconfigure(PeerId(1), options.clone());
    let heard = drain(&mut rib, 2);
    assert_eq!((heard.gone(), heard.prefixes()), (vec![X.into()], vec!["198.51.100.0/24".into()]));
    assert_eq!(heard.announced[0].1.local_pref, Some(200));
    assert_eq!(fates(&mut rib, X), [(1, Fate::Refused(Refusal::Policy { rule: Some(0) }))]);
    options.import = Policy::ACCEPT;
    rib.reconfigure(PeerId(1), options);
    let heard = drain(&mut rib, 2);
    assert_eq!(heard.prefixes().len(), 2);
    assert_eq!(heard.announced[0].1.local_pref, Some(100));
}

#[test]
fn becoming_a_client_opens_reflection_both_ways() {
    let mut rib = with_peers(&[(1, true), (2, true)]);
    announce(&mut rib, 1, X);
    announce(&mut rib, 2, "198.51.100.0/24");
    assert_eq!((drain(&mut rib, 1).messages, drain(&mut rib, 2).messages), (0, 0));
    let mut options = rib.neighbor(PeerId(1)).unwrap().options.clone();
    options.client = true;
    rib.reconfigure(PeerId(1), options.clone());
    assert_eq!(drain(&mut rib, 1).prefixes(), ["198.51.100.0/24"]);
    assert_eq!(drain(&mut rib, 2).prefixes(), [X]);
    options.client = false;
    rib.reconfigure(PeerId(1), options);
    assert_eq!(drain(&mut rib, 1).gone(), ["198.51.100.0/24"]);
    assert_eq!(drain(&mut rib, 2).gone(), [X]);
}

#[test]
fn a_changed_policy_counts_for_routes_that_were_only_noted() {
    let mut rib = with_peers(&[(1, false), (2, false)]);
    announce(&mut rib, 1, X);
    let mut options = rib.neighbor(PeerId(2)).unwrap().options.clone();
    options.export = Policy::REJECT;
    rib.reconfigure(PeerId(2), options);
    assert_eq!(drain(&mut rib, 2), Heard::default());
}

#[test]
fn a_peer_that_knows_us_by_another_as_sees_only_that() {
    let mut rib = with_peers(&[(1, false)]);
    let mut two = neighbor(2, false);
    two.local_as = 64999;
    rib.peer_up(PeerId(2), two);
    drain(&mut rib, 2);
    announce(&mut rib, 1, X);
    assert_eq!(told(&mut rib, 2)[0].as_path, AsPath::sequence(&[64999, US + 1]));
    announce_with(&mut rib, 2, p("198.51.100.0/24").into(), |a| {
        a.as_path = AsPath::sequence(&[US + 2, 64999])
    });
    assert_eq!(fates(&mut rib, "198.51.100.0/24"), [(2, Fate::Refused(Refusal::AsLoop))]);
}

#[test]
fn communities_of_own_routes_may_come_in_any_order() {
    let mut rib = with_peers(&[(2, false)]);
    let communities = vec![well_known::NO_EXPORT, 9, 5, 9];
    rib.originate(p(X), Attributes { communities, ..Attributes::local([1, 1, 1, 1].into()) });
    assert_eq!(withheld(&mut rib, 2), Withheld::NoExport);
}
