//! The order of selection, step by step, through the RIB's own door.

use crate::wire::{AsPath, Attributes, Nlri, Origin};

use super::tests::fixture::*;
use super::*;

const X: &str = "192.0.2.0/24";

/// Peers 1 to 3 announce X with these changes; answers who is best and what became of the others.
fn race(peers: &[(u32, bool)], edits: &[&dyn Fn(&mut Attributes)]) -> Vec<(u32, Fate)> {
    let mut first = None;
    // The order of arrival must not matter.
    for rotation in 0..peers.len() {
        let mut rib = with_peers(peers);
        for i in (0..peers.len()).map(|i| (i + rotation) % peers.len()) {
            announce_with(&mut rib, peers[i].0, p(X).into(), |a| edits[i](a));
        }
        let mut got = fates(&mut rib, X);
        got[1..].sort_by_key(|f| f.0);
        assert_eq!(*first.get_or_insert(got.clone()), got, "arrival order {rotation}");
    }
    first.unwrap()
}

const AS_IS: &dyn Fn(&mut Attributes) = &|_| {};

fn duel(better: &dyn Fn(&mut Attributes), worse: &dyn Fn(&mut Attributes), step: Step) {
    // The better one has the higher router id, so that only the step in question can prefer it.
    let got = race(&[(2, false), (1, false)], &[better, worse]);
    assert_eq!(got, [(2, Fate::Best), (1, Fate::Lost(step))]);
}

#[test]
fn each_step_decides_in_its_turn() {
    duel(&|a| a.local_pref = Some(101), AS_IS, Step::LocalPref);
    duel(AS_IS, &|a| a.local_pref = Some(99), Step::LocalPref);
    duel(AS_IS, &|a| a.as_path.prepend(7, 1), Step::AsPathLength);
    duel(AS_IS, &|a| a.origin = Origin::Egp, Step::Origin);
    duel(&|a| a.origin = Origin::Egp, &|a| a.origin = Origin::Incomplete, Step::Origin);
    let via_7 = |a: &mut Attributes, med| {
        a.as_path = AsPath::sequence(&[7]);
        a.med = med;
    };
    duel(&|a| via_7(a, Some(1)), &|a| via_7(a, Some(2)), Step::Med);
    duel(&|a| via_7(a, None), &|a| via_7(a, Some(2)), Step::Med);
}

#[test]
fn an_as_set_counts_once() {
    use crate::wire::Segment;
    let set = |a: &mut Attributes| a.as_path = AsPath(vec![Segment::Set(vec![1, 2, 3])]);
    let got = race(&[(2, false), (1, false)], &[&set, &|a| a.as_path.prepend(7, 1)]);
    assert_eq!(got, [(2, Fate::Best), (1, Fate::Lost(Step::AsPathLength))]);
}

#[test]
fn med_of_different_neighbours_is_not_compared_whatever_the_order() {
    // RFC 4271 leaves a choice that depends on the order if paths are compared in pairs; as elimination it does not.
    let via = |asn: u32, med: u32, cost_by_path: u8| {
        move |a: &mut Attributes| {
            a.as_path = AsPath::sequence(&[asn, 9]);
            a.med = Some(med);
            a.origin = if cost_by_path == 0 { Origin::Igp } else { Origin::Egp };
        }
    };
    let got = race(&[(1, false), (2, false), (3, false)], &[&via(7, 20, 0), &via(8, 5, 0), &via(7, 10, 0)]);
    assert_eq!(got[0].0, 2, "3 beats 1 by MED, and 2 beats 3 by router id");
    assert!(got.contains(&(1, Fate::Lost(Step::Med))));
    assert!(got.contains(&(3, Fate::Equal { used: true, step: Step::RouterId })));
}

#[test]
fn external_beats_internal() {
    let got = race(&[(2, false), (1, true)], &[AS_IS, &|a| a.as_path = AsPath::sequence(&[9])]);
    assert_eq!(got, [(2, Fate::Best), (1, Fate::Lost(Step::External))]);
}

#[test]
fn the_nearer_next_hop_wins_and_an_unreachable_one_is_out() {
    let mut rib = with_peers(&[(1, true), (2, true)]);
    announce(&mut rib, 1, X);
    announce(&mut rib, 2, X);
    rib.set_next_hop("10.0.0.1".parse().unwrap(), Some(20));
    rib.set_next_hop("10.0.0.2".parse().unwrap(), Some(10));
    assert_eq!(fates(&mut rib, X), [(2, Fate::Best), (1, Fate::Lost(Step::NextHopCost))]);
    rib.set_next_hop("10.0.0.2".parse().unwrap(), None);
    assert_eq!(fates(&mut rib, X), [(1, Fate::Best), (2, Fate::Unreachable)]);
    rib.set_next_hop("10.0.0.1".parse().unwrap(), None);
    assert_eq!(fib(&mut rib), [(X.to_string(), vec![])], "only the last state counts");
}

#[test]
fn ties_are_broken_by_identifier_clusters_and_address() {
    let got = race(&[(1, true), (2, true)], &[AS_IS, AS_IS]);
    assert_eq!(got, [(1, Fate::Best), (2, Fate::Equal { used: true, step: Step::RouterId })]);
    let originator = |a: &mut Attributes| a.originator_id = Some([9, 9, 9, 9].into());
    let both = |clusters: usize| {
        move |a: &mut Attributes| {
            originator(a);
            a.cluster_list = vec![[1, 1, 1, 1].into(); clusters];
        }
    };
    let got = race(&[(2, true), (1, true)], &[&both(1), &both(2)]);
    assert_eq!(got, [(2, Fate::Best), (1, Fate::Equal { used: true, step: Step::ClusterList })]);
    let got = race(&[(1, true), (2, true)], &[&both(1), &both(1)]);
    assert_eq!(got, [(1, Fate::Best), (2, Fate::Equal { used: true, step: Step::PeerAddress })]);
    let got = race(&[(2, true), (1, true)], &[AS_IS, &originator]);
    // ORIGINATOR_ID 9.9.9.9 is lower than 10.0.0.2.
    assert_eq!(got, [(1, Fate::Best), (2, Fate::Equal { used: true, step: Step::RouterId })]);
}

#[test]
fn two_paths_of_one_peer_are_told_apart_by_their_identifier() {
    let mut rib = with_peers(&[(1, false)]);
    for path_id in [5, 3] {
        announce_with(&mut rib, 1, Nlri { prefix: p(X), path_id }, |_| {});
    }
    let found = rib.explain(p(X)).unwrap();
    assert_eq!(found.paths.iter().map(|r| r.path_id).collect::<Vec<_>>(), [3, 5]);
    assert_eq!(found.paths[1].fate, Fate::Equal { used: true, step: Step::PathId });
}

#[test]
fn what_starts_here_wins() {
    let mut rib = with_peers(&[(1, true)]);
    announce_with(&mut rib, 1, p(X).into(), |a| a.local_pref = Some(1000));
    rib.originate(p(X), Attributes::local([10, 0, 0, 100].into()));
    assert_eq!(fates(&mut rib, X)[1], (1, Fate::Lost(Step::Local)));
    assert_eq!(fib(&mut rib), [(X.to_string(), vec![])], "the kernel has it from elsewhere");
    rib.retract(p(X));
    assert_eq!(fib(&mut rib), [(X.to_string(), vec!["10.0.0.1".to_string()])]);
}

// The RIB's half of D-04; the kernel's is the daemon's.
#[test]
fn equal_paths_are_used_together_up_to_the_limit() {
    let mut rib = with_peers(&[(1, false), (2, false), (3, false)]);
    rib.options.max_paths = 2;
    for n in [3, 1, 2] {
        announce(&mut rib, n, X);
    }
    assert_eq!(rib.lookup("192.0.2.7".parse().unwrap()).unwrap().next_hops.len(), 2);
    let got = fates(&mut rib, X);
    assert_eq!(got[2], (3, Fate::Equal { used: false, step: Step::RouterId }));
    withdraw(&mut rib, 1, X);
    let want = vec!["10.0.0.2".to_string(), "10.0.0.3".to_string()];
    assert_eq!(fib(&mut rib), [(X.to_string(), want)]);
}

#[test]
fn the_documented_order_is_the_order() {
    let want = "NotLongLived Local LocalPref AsPathLength Origin Med External NextHopCost RouterId ClusterList \
                PeerAddress PathId";
    assert_eq!(ORDER.map(|s| format!("{s:?}")).join(" "), want);
}
