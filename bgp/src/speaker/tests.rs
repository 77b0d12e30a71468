//! What only sessions and RIB together show, on small simulated networks.

use std::time::Duration;

use crate::rib::{Freshness, Withheld};
use crate::session::{Input, RestartConfig};
use crate::sim::{LinkOptions, Net, NodeOptions, address};
use crate::wire::{Action, Code, EncodeParams, Kind};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn two(edit: impl Fn(usize, &mut PeerConfig)) -> Net {
    let mut net = Net::new(&[NodeOptions::new(65000), NodeOptions::new(65001)], 1);
    net.join(0, 1, LinkOptions::default(), edit);
    net.originate(0, p("10.1.0.0/16"));
    net.originate(0, p("10.2.0.0/16"));
    net.run(10 * SECOND);
    assert!(net.all_up());
    net
}

fn held(net: &mut Net, node: usize) -> usize {
    net.speaker(node).rib().received_from(PeerId(1 - node as u32)).len()
}

/// Sends octets of our own on a live session.
fn inject(net: &mut Net, node: usize, message: Vec<u8>) {
    let now = net.now();
    let id = PeerId(1 - node as u32);
    net.speaker(node).with_session(id, |s| assert!(s.send(message, now)));
    net.speaker(node).collect(id, now);
    net.poke(node);
    net.run(SECOND);
}

#[test]
fn too_many_prefixes_end_the_session_and_nothing_is_kept() {
    let mut net = two(|node, c| c.options.max_prefixes.v4 = (node == 1).then_some(2));
    net.originate(0, p("10.3.0.0/16"));
    net.run(SECOND);
    assert_eq!(net.speaker(1).state(PeerId(0)), Some(State::Idle));
    assert_eq!((held(&mut net, 1), net.kernel(1).len()), (0, 0));
    let downs: Vec<_> = net.downs(0).iter().map(|d| d.reason.clone()).collect();
    let [Reason::Received(n)] = &downs[..] else { panic!("{downs:?}") };
    assert_eq!((n.code, n.data[..2].to_vec()), (Code::Cease(Cease::HardReset), vec![6, 1]));
    net.retract(0, p("10.3.0.0/16"));
    net.run(60 * SECOND);
    assert_eq!(held(&mut net, 1), 2);
}

#[test]
fn a_refresh_brings_back_what_was_lost() {
    let mut net = two(|_, _| {});
    // A withdrawal that 0 knows nothing of.
    let encode = EncodeParams { as4: true, add_path: PerFamily::NONE, extended_message: false };
    let gone = wire::withdraw(Family::Ipv4, &[p("10.1.0.0/16").into()], &encode).remove(0);
    inject(&mut net, 0, gone);
    assert_eq!(held(&mut net, 1), 1);
    let now = net.now();
    assert!(net.speaker(1).request_refresh(PeerId(0), Family::Ipv4, now));
    net.poke(1);
    net.run(SECOND);
    assert_eq!(held(&mut net, 1), 2);
    assert!(!net.speaker(1).request_refresh(PeerId(0), Family::Ipv6, now), "not a family of this session");
    assert!(!net.speaker(1).request_refresh(PeerId(7), Family::Ipv4, now), "nobody");
}

#[test]
fn an_enhanced_refresh_sweeps_a_route_that_was_never_withdrawn() {
    let mut net = two(|_, _| {});
    let mut ghost = Attributes::local(address(0).into());
    ghost.as_path.prepend(65000, 1);
    let encode = EncodeParams { as4: true, add_path: PerFamily::NONE, extended_message: false };
    let ghost = wire::announce(&ghost, Family::Ipv4, &[p("10.66.0.0/16").into()], &encode).unwrap().remove(0);
    inject(&mut net, 0, ghost);
    assert_eq!(held(&mut net, 1), 3);
    let now = net.now();
    net.speaker(1).request_refresh(PeerId(0), Family::Ipv4, now);
    net.poke(1);
    net.run(SECOND);
    assert_eq!(held(&mut net, 1), 2);
}

#[test]
fn a_malformed_update_withdraws_its_routes_and_the_session_lives() {
    let mut net = two(|_, _| {});
    // ORIGIN 9, AS_PATH 65000, NEXT_HOP, for 10.1.0.0/16.
    let attributes = [0x40, 1, 1, 9, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8, 0x40, 3, 4, 10, 0, 0, 1];
    let mut message = vec![0xff; 16];
    message.extend([0, 0, Kind::Update as u8, 0, 0, 0, attributes.len() as u8]);
    message.extend(attributes);
    message.extend([16, 10, 1]);
    let len = message.len() as u16;
    message[16..18].copy_from_slice(&len.to_be_bytes());
    inject(&mut net, 0, message);
    assert_eq!(held(&mut net, 1), 1);
    assert_eq!(net.malformed(1), [Problem { attribute: 1, action: Action::Withdraw }]);
    assert!(net.all_up() && net.downs(1).is_empty());
}

fn long_lived(_: usize, c: &mut PeerConfig) {
    c.session.restart = Some(RestartConfig {
        time: 60,
        forwarding: PerFamily::BOTH,
        long_lived: PerFamily { v4: 600, v6: 0 },
    });
}

#[test]
fn a_peer_that_is_away_for_long_leaves_stale_then_long_lived_then_no_routes() {
    let mut net = two(long_lived);
    net.set_link(0, 1, false);
    // The hold time, and a moment.
    net.run(241 * SECOND);
    let freshness = |net: &mut Net, wait: Duration| {
        net.run(wait);
        net.speaker(1).explain(p("10.1.0.0/16")).map(|e| e.paths[0].freshness)
    };
    assert_eq!(freshness(&mut net, SECOND), Some(Freshness::Stale));
    assert_eq!(freshness(&mut net, 61 * SECOND), Some(Freshness::LongLived));
    assert_eq!(freshness(&mut net, 500 * SECOND), Some(Freshness::LongLived));
    assert_eq!(freshness(&mut net, 101 * SECOND), None);
    net.set_link(0, 1, true);
    assert_eq!(freshness(&mut net, 60 * SECOND), Some(Freshness::Fresh));
}

#[test]
fn a_peer_that_lost_its_forwarding_loses_its_routes_when_it_is_back() {
    let mut net = two(|_, _| {});
    let changes = net.kernel_changes(1);
    net.configure_quietly(0, 1, |c| {
        c.session.restart =
            Some(RestartConfig { time: 120, forwarding: PerFamily::NONE, long_lived: PerFamily::default() });
    });
    net.restart(0, 2 * SECOND);
    net.run(60 * SECOND);
    assert_eq!(net.kernel(1).len(), 2);
    assert_eq!(net.kernel_changes(1), changes + 4, "gone with the new session, told again in it");
}

#[test]
fn without_graceful_restart_the_kernel_sees_it() {
    // The control experiment to `a_restart_changes_no_route_anywhere`.
    let mut net = two(|_, c| c.session.restart = None);
    let changes = net.kernel_changes(1);
    net.restart(0, SECOND);
    net.run(60 * SECOND);
    assert_eq!(net.kernel_changes(1), changes + 4);
}

#[test]
fn two_that_restart_together_do_not_wait_for_each_other_for_long() {
    let mut net = two(|_, _| {});
    net.originate(1, p("10.3.0.0/16"));
    net.run(SECOND);
    let routes = (net.kernel(0).clone(), net.kernel(1).clone());
    let changes = [0, 1].map(|n| net.kernel_changes(n));
    net.restart(0, SECOND);
    net.restart(1, SECOND);
    net.run(20 * SECOND);
    assert!(net.all_up() && (0..2).all(|n| !net.speaker(n).rib().is_deferred()), "the wait is over");
    assert_eq!((net.kernel(0).clone(), net.kernel(1).clone()), routes);
    assert_eq!([0, 1].map(|n| net.kernel_changes(n)), changes, "no route went in between");
}

#[test]
fn explain_tells_what_each_peer_is_told() {
    let nodes = [65000, 65001, 65002].map(NodeOptions::new);
    let mut net = Net::new(&nodes, 1);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        net.join(a, b, LinkOptions::default(), |_, _| {});
    }
    net.originate(1, p("10.1.0.0/16"));
    net.run(10 * SECOND);
    let found = net.speaker(0).explain(p("10.1.0.0/16")).unwrap();
    let paths: Vec<_> = found.paths.iter().map(|r| (r.peer.0, r.attributes.as_path.to_string())).collect();
    assert_eq!(paths, [(1, "65001".into()), (2, "65002 65001".into())]);
    let told: Vec<_> =
        found.told.iter().map(|(id, t)| (id.0, t.as_ref().map(|a| a.as_path.to_string()))).collect();
    assert_eq!(told, [(1, Err(&Withheld::SamePeer)), (2, Ok("65000 65001".to_string()))]);
    assert_eq!(net.speaker(0).explain(p("10.9.0.0/16")), None);
}

#[test]
fn a_removed_peer_leaves_nothing() {
    let mut net = two(|_, _| {});
    let now = net.now();
    net.speaker(1).remove_peer(PeerId(0), now);
    net.poke(1);
    net.run(SECOND);
    assert_eq!((net.speaker(1).state(PeerId(0)), net.kernel(1).len()), (None, 0));
    net.speaker(1).handle(PeerId(0), Input::Start, now);
    assert_eq!(net.speaker(1).poll_output(), None, "nobody is there to hear it");
}

#[test]
fn an_unchanged_configuration_changes_nothing() {
    let mut net = two(|_, _| {});
    net.configure(0, 1, |_| {});
    net.run(SECOND);
    assert!(net.all_up() && net.downs(0).is_empty());
}
