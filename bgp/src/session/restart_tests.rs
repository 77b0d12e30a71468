//! Which ends of a session let the peer's routes stay: RFC 4724, RFC 8538, and BFD beside them.

use crate::wire::{Cease, Code, Notification};

use super::pair::{Pair, config};
use super::*;

const SECOND: Time = Time::from_secs(1);

fn pair() -> Pair {
    Pair::established(config(65001, 1, 65002), config(65002, 2, 65001))
}

#[test]
fn a_silent_stop_keeps_routes_on_both_sides() {
    let mut pair = pair();
    pair.handle(0, Input::Stop(Stop::Silent));
    pair.run(SECOND);
    assert_eq!(*pair.down(1).unwrap(), Down { reason: Reason::ConnectionLost, retain: true });
    assert_eq!(*pair.down(0).unwrap(), Down { reason: Reason::StoppedSilently, retain: true });
}

#[test]
fn a_lost_connection_keeps_routes_and_comes_back_within_the_connect_delay() {
    let mut pair = pair();
    let id = pair.sessions[1].connections[0].id;
    pair.handle(1, Input::Closed(id));
    assert!(pair.down(1).unwrap().retain);
    pair.run(3 * SECOND);
    assert_eq!(pair.states(), [State::Established; 2]);
}

#[test]
fn a_peer_that_connects_again_has_restarted() {
    let mut pair = pair();
    // The old process is gone without a trace: its side starts anew, ours still believes.
    let fresh = config(65001, 1, 65002);
    pair.sessions[0] = Session::new(fresh, 9);
    pair.sessions[0].set_restarting(true);
    pair.handle(0, Input::Start);
    pair.run(10 * SECOND);
    assert_eq!(*pair.down(1).unwrap(), Down { reason: Reason::PeerReconnected, retain: true });
    assert_eq!(pair.states(), [State::Established; 2]);
    assert!(pair.sessions[1].negotiated().unwrap().restart.unwrap().restarting);
}

#[test]
fn hold_timer_expiry_keeps_routes_where_notifications_do() {
    let mut pair = pair();
    pair.cut = true;
    pair.run(240 * SECOND);
    assert!(pair.down(0).unwrap().retain);
}

#[test]
fn a_peer_without_restart_for_a_family_keeps_nothing() {
    let mut b = config(65002, 2, 65001);
    b.restart = None;
    let mut pair = Pair::established(config(65001, 1, 65002), b);
    let id = pair.sessions[0].connections[0].id;
    pair.handle(0, Input::Closed(id));
    assert!(!pair.down(0).unwrap().retain);
}

#[test]
fn a_hard_reset_keeps_nothing_but_another_cease_does() {
    for (code, retain) in [(Cease::HardReset, false), (Cease::OutOfResources, true)] {
        let mut pair = pair();
        let id = pair.sessions[0].connections[0].id;
        let message = crate::wire::encode_notification(&Notification::new(code));
        pair.handle(0, Input::Received(id, message));
        assert_eq!(pair.down(0).unwrap().retain, retain, "{code:?}");
    }
}

#[test]
fn a_reset_of_ours_is_a_hard_one() {
    let mut pair = pair();
    let now = pair.now;
    pair.sessions[0].reset(Notification::new(Cease::MaxPrefixes), now);
    pair.collect_now(0);
    pair.run(SECOND);
    for side in [0, 1] {
        let down = pair.down(side).unwrap();
        let (Reason::Sent(n) | Reason::Received(n)) = &down.reason else { panic!("{down:?}") };
        assert_eq!(n.code, Code::Cease(Cease::HardReset));
        assert!(!down.retain);
    }
}

#[test]
fn bfd_yields_to_graceful_restart_unless_forwarding_is_its_own() {
    for (forwarding_independent, retain) in [(false, true), (true, false)] {
        let mut pair = pair();
        pair.handle(0, Input::BfdDown { forwarding_independent });
        assert_eq!(*pair.down(0).unwrap(), Down { reason: Reason::BfdDown, retain });
        pair.run(SECOND / 2);
        assert_eq!(pair.down(1).unwrap().retain, retain);
    }
}
