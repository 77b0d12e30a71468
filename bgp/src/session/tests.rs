//! The state machine between two live ends, and its transition table.

use std::time::Duration;

use crate::wire::{
    Attributes, Cease, Code, EncodeParams, FsmError, Kind, Notification, OpenError, Update, UpdateError,
    announce, encode_keepalive, encode_notification,
};
use crate::{Family, PerFamily};

use super::connection::Step;
use super::pair::{LATENCY, Pair, config};
use super::*;

const SECOND: Time = Time::from_secs(1);

fn two() -> (SessionConfig, SessionConfig) {
    (config(65001, 1, 65002), config(65002, 2, 65001))
}

fn passive(mut c: SessionConfig) -> SessionConfig {
    c.passive = true;
    c
}

#[test]
fn the_transition_table() {
    let n = Pair::established(two().0, two().1).sessions[0].negotiated().unwrap().clone();
    let phases = [Phase::OpenSent, Phase::OpenConfirm(n.clone()), Phase::Established(n)];
    let kinds = [Kind::Open, Kind::Update, Kind::Notification, Kind::Keepalive, Kind::Refresh];
    let [s, c, e] =
        [FsmError::InOpenSent, FsmError::InOpenConfirm, FsmError::InEstablished].map(Step::Unexpected);
    let table = [
        [Step::Negotiate, s, Step::PeerEnds, s, s],
        [c, c, Step::PeerEnds, Step::Establish, c],
        [e, Step::Deliver, Step::PeerEnds, Step::Alive, Step::Deliver],
    ];
    for (phase, row) in phases.iter().zip(table) {
        for (kind, want) in kinds.into_iter().zip(row) {
            assert_eq!(phase.step(kind), want, "{kind:?}");
        }
    }
}

#[test]
fn two_active_sides_meet_in_one_session() {
    let (a, b) = two();
    let pair = Pair::established(a, b);
    let [x, y] = [0, 1].map(|s| pair.sessions[s].negotiated().unwrap().clone());
    assert_eq!((x.peer_as, y.peer_as, x.internal), (65002, 65001, false));
    assert_eq!((pair.ups(0), pair.ups(1)), (1, 1));
    assert_eq!((pair.down(0), pair.down(1)), (None, None));
}

#[test]
fn simultaneous_connections_leave_the_one_of_the_higher_identifier() {
    for (id_a, id_b) in [(1, 2), (2, 1)] {
        let mut pair = Pair::new(config(65001, id_a, 65002), config(65002, id_b, 65001));
        for side in [0, 1] {
            pair.handle(side, Input::Start);
        }
        // Both connect in the same instant, whatever their jitter.
        pair.sessions.iter_mut().for_each(|s| s.timers.set(Timer::ConnectRetry, SECOND));
        pair.run(2 * SECOND);
        assert_eq!(pair.states(), [State::Established; 2]);
        let incoming: Vec<bool> = pair.sessions.iter().map(|s| s.connections[0].incoming).collect();
        assert_eq!(incoming, [id_a < id_b, id_b < id_a]);
        let lost = |side: usize| {
            pair.log[side].iter().any(|o| {
                matches!(o, Output::Failed(Reason::Sent(n) | Reason::Received(n))
                if n.code == Code::Cease(Cease::Collision))
            })
        };
        assert!(lost(0) || lost(1));
        assert_eq!((pair.ups(0), pair.ups(1)), (1, 1));
    }
}

#[test]
fn equal_identifiers_of_two_systems_are_settled_by_the_as() {
    let mut pair = Pair::started(config(65001, 1, 65002), config(65002, 1, 65001));
    pair.sessions.iter_mut().for_each(|s| s.timers.set(Timer::ConnectRetry, SECOND));
    pair.run(2 * SECOND);
    assert_eq!(pair.states(), [State::Established; 2]);
    assert!(pair.sessions[0].connections[0].incoming, "AS 65002 made it");
}

#[test]
fn a_passive_side_waits_and_the_other_comes() {
    let (a, b) = two();
    let pair = Pair::established(passive(a), b);
    assert!(pair.sessions[0].connections[0].incoming);
}

#[test]
fn keepalives_hold_a_silent_session_for_a_day() {
    let (mut a, b) = two();
    a.hold_time = 9;
    let mut pair = Pair::established(a, b);
    assert_eq!(pair.sessions[1].negotiated().unwrap().hold_time, Duration::from_secs(9));
    pair.run(86_400 * SECOND);
    assert_eq!((pair.down(0), pair.down(1)), (None, None));
}

#[test]
fn hold_time_zero_sends_nothing_and_never_expires() {
    let (mut a, b) = two();
    a.hold_time = 0;
    let mut pair = Pair::established(a, b);
    assert_eq!(pair.sessions.iter().filter_map(Session::poll_timeout).next(), None);
    pair.cut = true;
    pair.run(86_400 * SECOND);
    assert_eq!(pair.states(), [State::Established; 2]);
}

#[test]
fn a_cut_link_ends_the_session_at_the_hold_time_and_it_comes_back() {
    let (mut a, b) = two();
    a.hold_time = 90;
    let mut pair = Pair::established(a, b);
    pair.cut = true;
    pair.run(59 * SECOND);
    assert_eq!(pair.states(), [State::Established; 2]);
    pair.run(31 * SECOND);
    let reason = &pair.down(0).unwrap().reason;
    assert_eq!(*reason, Reason::Sent(Notification::new(Code::HoldTimerExpired)));
    pair.cut = false;
    pair.run(60 * SECOND);
    assert_eq!(pair.states(), [State::Established; 2]);
}

#[test]
fn an_early_timeout_does_nothing() {
    let (a, b) = two();
    let mut pair = Pair::established(a, b);
    let s = &mut pair.sessions[0];
    let due = s.poll_timeout().unwrap();
    s.handle_timeout(due - Duration::from_nanos(1));
    assert_eq!((s.poll_output(), s.poll_timeout()), (None, Some(due)));
    s.handle_timeout(due);
    assert!(s.poll_output().is_some());
}

#[test]
fn a_wrong_as_is_refused_with_growing_patience() {
    let (a, mut b) = two();
    b.local_as = 65009;
    let mut pair = Pair::started(a, b);
    pair.run(300 * SECOND);
    let refused = Reason::Sent(Notification::new(OpenError::PeerAs));
    let tries = pair.log[0].iter().filter(|o| **o == Output::Failed(refused.clone())).count();
    assert!((8..=18).contains(&tries), "{tries} tries in 5 minutes, at 5 to 30 s each");
    assert_eq!(pair.ups(0), 0);
}

#[test]
fn one_identifier_twice_in_an_as_is_refused() {
    let mut pair = Pair::started(config(65001, 1, 65001), config(65001, 1, 65001));
    pair.run(20 * SECOND);
    assert_eq!(pair.ups(0), 0);
    let refused = Output::Failed(Reason::Sent(Notification::new(OpenError::RouterId)));
    assert!(pair.log[0].contains(&refused) || pair.log[1].contains(&refused));
}

#[test]
fn no_common_family_is_refused() {
    let (mut a, mut b) = two();
    a.families = PerFamily { v4: true, v6: false };
    b.families = PerFamily { v4: false, v6: true };
    let mut pair = Pair::started(a, b);
    pair.run(20 * SECOND);
    assert_eq!(pair.ups(0), 0);
}

#[test]
fn only_what_both_offer_is_settled() {
    let (mut a, mut b) = two();
    a.add_path.v4 = AddPath { send: true, receive: true };
    b.add_path.v4 = AddPath { send: false, receive: true };
    a.extended_next_hop = true;
    b.extended_message = false;
    b.families.v6 = false;
    b.restart = None;
    let pair = Pair::established(a, b);
    let [x, y] = [0, 1].map(|s| pair.sessions[s].negotiated().unwrap().clone());
    assert_eq!(x.families, PerFamily { v4: true, v6: false });
    assert!(x.encode.add_path.v4 && y.decode.add_path.v4);
    assert!(!x.decode.add_path.v4 && !y.encode.add_path.v4);
    assert!(!x.decode.extended_next_hop && !x.encode.extended_message && !y.encode.extended_message);
    assert!(x.refresh && x.enhanced_refresh && x.encode.as4);
    assert_eq!(x.restart.unwrap().families, PerFamily::default(), "a helper only");
}

#[test]
fn stop_tells_the_peer_why() {
    let (a, b) = two();
    let mut pair = Pair::established(a, b);
    let stop = Stop::Cease { code: Cease::Shutdown, communication: "node drained".into() };
    pair.handle(0, Input::Stop(stop));
    pair.run(SECOND);
    let down = pair.down(1).unwrap();
    let Reason::Received(n) = &down.reason else { panic!("{down:?}") };
    // Inside a hard reset: the shutdown, and the words.
    assert_eq!(n.code, Code::Cease(Cease::HardReset));
    let inner = Notification { code: Code::from_wire(n.data[0], n.data[1]), data: n.data[2..].to_vec() };
    assert_eq!(inner.communication(), Some("node drained"));
    assert!(!down.retain);
    assert_eq!(pair.sessions[0].state(), State::Idle);
    pair.run(600 * SECOND);
    assert_eq!(pair.sessions[0].state(), State::Idle, "stopped is stopped");
}

#[test]
fn an_update_reaches_the_other_side_and_a_bad_one_ends_the_session() {
    let (a, b) = two();
    let mut pair = Pair::established(a, b);
    let mut attributes = Attributes::local("10.0.0.1".parse().unwrap());
    attributes.as_path.prepend(65001, 1);
    let encode = EncodeParams { as4: true, add_path: PerFamily::NONE, extended_message: false };
    let nlri = ["10.9.0.0/16".parse::<crate::Prefix>().unwrap().into()];
    let message = announce(&attributes, Family::Ipv4, &nlri, &encode).unwrap().remove(0);
    assert!(pair.sessions[0].send(message, pair.now));
    pair.collect_now(0);
    pair.run(SECOND);
    let got: Vec<&Update> =
        pair.log[1].iter().filter_map(|o| if let Output::Update(u) = o { Some(u) } else { None }).collect();
    assert_eq!(got[0].reach[0].nlri, nlri);

    let mut bad = encode_keepalive();
    bad[17] = 23;
    bad[18] = Kind::Update as u8;
    bad.extend([0, 9, 0, 0]);
    pair.sessions[0].send(bad, pair.now);
    pair.collect_now(0);
    pair.run(SECOND);
    let want = Reason::Sent(Notification::new(UpdateError::MalformedList));
    assert_eq!(pair.down(1).unwrap().reason, want);
    pair.run(60 * SECOND);
    assert_eq!(pair.states(), [State::Established; 2]);
}

#[test]
fn a_message_out_of_turn_is_an_error_that_names_the_state() {
    let (a, _) = two();
    let mut s = Session::new(passive(a), 1);
    s.handle(Input::Start, Time::ZERO);
    s.handle(Input::Accepted(ConnId(7)), Time::ZERO);
    assert!(matches!(s.poll_output(), Some(Output::Send(ConnId(7), _))));
    s.handle(Input::Received(ConnId(7), encode_keepalive()), Time::ZERO);
    let want = Notification::with_data(FsmError::InOpenSent, &[Kind::Keepalive as u8]);
    assert_eq!(s.poll_output(), Some(Output::Send(ConnId(7), encode_notification(&want))));
    assert_eq!(s.poll_output(), Some(Output::Close(ConnId(7))));
    assert_eq!(s.state(), State::Idle, "damped");
    s.handle(Input::Accepted(ConnId(8)), Time::ZERO);
    s.poll_output();
    assert_eq!(s.poll_output(), Some(Output::Close(ConnId(8))), "refused while damped");
}

#[test]
fn a_peer_that_never_speaks_is_given_up_after_four_minutes() {
    let (a, _) = two();
    let mut s = Session::new(passive(a), 1);
    s.handle(Input::Start, Time::ZERO);
    s.handle(Input::Accepted(ConnId(1)), Time::ZERO);
    assert_eq!(s.poll_timeout(), Some(240 * SECOND));
    s.handle_timeout(240 * SECOND);
    let all: Vec<Output> = std::iter::from_fn(|| s.poll_output()).collect();
    assert!(all.contains(&Output::Failed(Reason::Sent(Notification::new(Code::HoldTimerExpired)))));
}

#[test]
fn unknown_connections_and_stray_events_change_nothing() {
    let (a, b) = two();
    let mut pair = Pair::established(a, b);
    let stray = ConnId(999);
    pair.handle(0, Input::Received(stray, vec![1, 2, 3]));
    pair.handle(0, Input::Closed(stray));
    pair.handle(0, Input::ConnectFailed);
    pair.handle(0, Input::Connected(stray));
    pair.run(SECOND + LATENCY);
    assert_eq!(pair.states(), [State::Established; 2]);
}

#[test]
fn a_connection_number_that_comes_again_replaces_the_old_connection() {
    let (a, b) = two();
    let mut pair = Pair::established(a, b);
    let id = pair.sessions[0].connections[0].id;
    pair.handle(0, Input::Accepted(id));
    assert_eq!(pair.down(0).unwrap().reason, Reason::ConnectionLost);
    assert_eq!(pair.sessions[0].connections.len(), 1);
}
