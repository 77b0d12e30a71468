//! Properties of whole networks: they converge, packets do not loop, both ends of a session agree, a restart is
//! not noticed.

use crate::policy::Policy;
use crate::session::State;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn prefix(node: usize) -> Prefix {
    p(&format!("10.200.{node}.0/24"))
}

fn lossy(chance: &mut Chance) -> LinkOptions {
    LinkOptions { latency: Duration::from_millis(1 + chance.below(50)), loss: chance.below(200) }
}

fn plain(_: usize, _: &mut PeerConfig) {}

/// Each node in an AS of its own, a random tree with some more links, each with a prefix.
fn internet(nodes: usize, seed: u64) -> Net {
    let mut chance = Chance::new(seed);
    let options: Vec<NodeOptions> = (0..nodes).map(|i| NodeOptions::new(65000 + i as u32)).collect();
    let mut net = Net::new(&options, seed);
    for i in 1..nodes {
        let other = chance.below(i as u64) as usize;
        net.join(i, other, lossy(&mut chance), plain);
    }
    for _ in 0..nodes {
        let (a, b) = (chance.below(nodes as u64) as usize, chance.below(nodes as u64) as usize);
        if a != b && net.link(a, b).is_none() {
            net.join(a, b, lossy(&mut chance), plain);
        }
    }
    (0..nodes).for_each(|i| net.originate(i, prefix(i)));
    net
}

/// Everybody reaches everybody in `among`, without a loop, and both ends of every session agree.
fn assert_whole(net: &mut Net, among: &[usize], what: &str) {
    assert_eq!(net.disagreements(), [], "{what}");
    for from in among {
        for to in among {
            let path =
                net.trace(*from, prefix(*to)).unwrap_or_else(|| panic!("{what}: loop from {from} to {to}"));
            assert_eq!(path.last(), Some(to), "{what}: from {from} by {path:?}");
        }
    }
}

fn rounds() -> u64 {
    if std::env::var_os("PERCALE_FULL").is_some() { 500 } else { 8 }
}

#[test]
fn random_networks_converge_without_loops_through_cuts_and_restarts() {
    for seed in 0..rounds() {
        let mut net = internet(10, seed);
        let all: Vec<usize> = (0..10).collect();
        net.run(60 * SECOND);
        assert!(net.all_up(), "seed {seed}");
        assert_whole(&mut net, &all, &format!("seed {seed} at first"));
        let mut chance = Chance::new(seed ^ 77);
        for round in 0..4 {
            let (a, b) = *net.links.keys().nth(chance.below(net.links.len() as u64) as usize).unwrap();
            net.set_link(a, b, false);
            net.retract(round, prefix(round));
            net.run(300 * SECOND);
            net.set_link(a, b, true);
            net.originate(round, prefix(round));
            net.restart(chance.below(10) as usize, Duration::from_millis(chance.below(4000)));
            net.run(200 * SECOND);
            assert!(net.all_up(), "seed {seed} round {round}");
            assert_whole(&mut net, &all, &format!("seed {seed} round {round}"));
        }
    }
}

#[test]
fn the_outcome_does_not_depend_on_timing() {
    let kernels = |timing: u64| {
        let mut net = internet(8, 5);
        net.chance = Chance::new(timing);
        net.run(120 * SECOND);
        (0..8).map(|i| net.kernel(i).clone()).collect::<Vec<_>>()
    };
    let first = kernels(1);
    (2..6).for_each(|timing| assert_eq!(kernels(timing), first));
}

#[test]
fn a_cut_link_is_routed_around_and_comes_back() {
    let options: Vec<NodeOptions> = (0..3).map(|i| NodeOptions::new(65000 + i)).collect();
    let mut net = Net::new(&options, 1);
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        net.join(a, b, LinkOptions::default(), |_, c| c.session.hold_time = 9);
    }
    (0..3).for_each(|i| net.originate(i, prefix(i)));
    net.run(10 * SECOND);
    assert_eq!(net.trace(0, prefix(1)), Some(vec![0, 1]));
    net.set_link(0, 1, false);
    // The hold time, and then the restart time for which its routes are kept.
    net.run(9 * SECOND + 121 * SECOND);
    assert_eq!(net.trace(0, prefix(1)), Some(vec![0, 2, 1]));
    net.set_link(0, 1, true);
    net.run(60 * SECOND);
    assert_eq!(net.trace(0, prefix(1)), Some(vec![0, 1]));
}

fn mesh(nodes: usize) -> Net {
    let mut net = Net::new(&vec![NodeOptions::new(64512); nodes], 3);
    for a in 0..nodes {
        (0..a).for_each(|b| net.join(a, b, LinkOptions::default(), plain));
    }
    (0..nodes).for_each(|i| net.originate(i, prefix(i)));
    net.run(20 * SECOND);
    net
}

#[test]
fn a_full_mesh_reaches_all_in_one_hop() {
    let mut net = mesh(12);
    assert_whole(&mut net, &(0..12).collect::<Vec<_>>(), "mesh");
    assert!((1..12).all(|to| net.trace(0, prefix(to)).unwrap().len() == 2));
}

/// What Calico's own test asks of a restart: `ip monitor route` prints nothing, on the node or its peers.
#[test]
fn a_restart_changes_no_route_anywhere() {
    let mut net = mesh(6);
    for away in [0, 1, 20, 100] {
        let before: Vec<usize> = (0..6).map(|i| net.kernel_changes(i)).collect();
        net.restart(2, away * SECOND);
        net.run(100 * SECOND);
        assert!(net.all_up());
        let after: Vec<usize> = (0..6).map(|i| net.kernel_changes(i)).collect();
        assert_eq!(before, after, "away for {away} s");
        assert_whole(&mut net, &[0, 1, 2, 3, 4, 5], "restarted");
    }
}

#[test]
fn two_that_restart_together_change_no_route_anywhere() {
    for seed in 0..rounds() {
        let mut net = mesh(6);
        net.chance = Chance::new(seed);
        let before: Vec<usize> = (0..6).map(|i| net.kernel_changes(i)).collect();
        net.restart(2, Duration::from_millis(net.chance.clone().below(3000)));
        net.restart(3, Duration::from_millis(net.chance.clone().below(3000)));
        net.run(100 * SECOND);
        assert!(net.all_up());
        let after: Vec<usize> = (0..6).map(|i| net.kernel_changes(i)).collect();
        assert_eq!(before, after, "seed {seed}");
        assert_whole(&mut net, &[0, 1, 2, 3, 4, 5], "restarted");
    }
}

#[test]
fn a_node_that_stays_away_longer_than_its_restart_time_is_given_up() {
    let mut net = mesh(4);
    net.restart(2, 130 * SECOND);
    assert!(!net.kernel(0).contains_key(&prefix(2)));
    net.run(60 * SECOND);
    assert_whole(&mut net, &[0, 1, 2, 3], "back again");
}

#[test]
fn a_restart_beside_a_dead_peer_does_not_wait_for_it() {
    let mut net = mesh(4);
    net.set_link(2, 3, false);
    net.run(400 * SECOND);
    net.restart(2, SECOND);
    net.run(8 * SECOND);
    assert!(!net.speaker(2).rib().is_deferred(), "3 was not up before, so it is not waited for");
}

#[test]
fn a_drained_node_is_withdrawn_at_once() {
    let mut net = mesh(4);
    for other in [0, 1, 3] {
        let stop = Stop::Cease { code: crate::wire::Cease::Shutdown, communication: "drain".into() };
        net.tell(2, PeerId(other), Input::Stop(stop));
    }
    net.run(SECOND);
    assert!([0, 1, 3].iter().all(|n| !net.kernel(*n).contains_key(&prefix(2))));
}

#[test]
fn route_reflectors_serve_clients_that_do_not_know_each_other() {
    // Two redundant reflectors of one cluster (nodes 0 and 1), five clients each joined to both.
    let reflector = NodeOptions { cluster_id: Some([1, 1, 1, 1].into()), ..NodeOptions::new(64512) };
    let mut nodes = vec![reflector; 2];
    nodes.extend(vec![NodeOptions::new(64512); 5]);
    let mut net = Net::new(&nodes, 4);
    net.join(0, 1, LinkOptions::default(), plain);
    for client in 2..7 {
        [0, 1].into_iter().for_each(|r| net.join(client, r, LinkOptions::default(), plain));
    }
    (2..7).for_each(|i| net.originate(i, prefix(i)));
    net.run(20 * SECOND);
    assert_eq!(net.disagreements(), []);
    for from in 2..7 {
        for to in (2..7).filter(|to| *to != from) {
            assert_eq!(
                net.trace(from, prefix(to)),
                Some(vec![from, to]),
                "next hops are the clients themselves"
            );
        }
    }
    // One reflector gone, nothing changes.
    let before: Vec<usize> = (2..7).map(|i| net.kernel_changes(i)).collect();
    net.restart(0, 200 * SECOND);
    net.run(30 * SECOND);
    assert_eq!(before, (2..7).map(|i| net.kernel_changes(i)).collect::<Vec<_>>());
}

#[test]
fn equal_paths_from_two_peers_become_one_multipath_route() {
    let multi = NodeOptions { max_paths: 8, ..NodeOptions::new(65000) };
    let nodes = [multi, NodeOptions::new(65001), NodeOptions::new(65002), NodeOptions::new(65003)];
    let mut net = Net::new(&nodes, 1);
    for (a, b) in [(0, 1), (0, 2), (1, 3), (2, 3)] {
        net.join(a, b, LinkOptions::default(), plain);
    }
    net.originate(3, prefix(3));
    net.run(10 * SECOND);
    let hops: Vec<IpAddr> = net.kernel(0)[&prefix(3)].iter().map(|h| h.addr).collect();
    assert_eq!(hops, [address(1), address(2)].map(IpAddr::V4));
}

#[test]
fn a_policy_change_resets_no_session_and_reaches_the_peer() {
    let mut net = mesh(3);
    let up_since = net.speaker(0).negotiated(PeerId(1)).unwrap().clone();
    net.configure(0, 1, |c| c.options.export = Policy::REJECT);
    net.run(SECOND);
    assert!(!net.kernel(1).contains_key(&prefix(0)));
    assert!(net.kernel(2).contains_key(&prefix(0)));
    assert!(std::sync::Arc::ptr_eq(&up_since, net.speaker(0).negotiated(PeerId(1)).unwrap()));
    net.configure(0, 1, |c| c.options.export = Policy::ACCEPT);
    net.run(SECOND);
    assert!(net.kernel(1).contains_key(&prefix(0)));
    // A change of the session's own parameters does reset it.
    net.configure(0, 1, |c| c.session.hold_time = 30);
    assert_ne!(net.speaker(0).state(PeerId(1)), Some(State::Established));
    net.run(60 * SECOND);
    assert_eq!(net.speaker(0).negotiated(PeerId(1)).unwrap().hold_time, 30 * SECOND);
}
