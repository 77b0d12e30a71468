//! Two sessions over a network that delays, loses and is cut, in virtual time.

use std::collections::BTreeMap;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn fast(interval: u32) -> Intervals {
    Intervals { desired_min_tx: MS * interval, required_min_rx: MS * interval, detect_mult: 3 }
}

struct Pair {
    now: Time,
    sessions: [Session; 2],
    in_flight: BTreeMap<(Time, u64), (usize, Packet)>,
    sent: u64,
    /// Loses every n-th packet.
    lose_each: u64,
    cut: [bool; 2],
    log: Vec<(Time, usize, Output)>,
}

impl Pair {
    fn new(a: Intervals, b: Intervals) -> Pair {
        Pair {
            now: Time::ZERO,
            sessions: [Session::new(a, 11, 1, Time::ZERO), Session::new(b, 22, 2, Time::ZERO)],
            in_flight: BTreeMap::new(),
            sent: 0,
            lose_each: u64::MAX,
            cut: [false; 2],
            log: Vec::new(),
        }
    }

    fn up(a: Intervals, b: Intervals) -> Pair {
        let mut pair = Pair::new(a, b);
        pair.run(3000 * MS);
        assert_eq!(pair.states(), [State::Up; 2]);
        pair
    }

    fn states(&self) -> [State; 2] {
        [self.sessions[0].state(), self.sessions[1].state()]
    }

    fn collect(&mut self, side: usize) {
        while let Some(output) = self.sessions[side].poll_output() {
            match output {
                Output::Send(packet) => {
                    self.sent += 1;
                    if !self.cut[side] && !self.sent.is_multiple_of(self.lose_each) {
                        self.in_flight.insert((self.now + 2 * MS, self.sent), (1 - side, packet));
                    }
                }
                event => self.log.push((self.now, side, event)),
            }
        }
    }

    fn handle(&mut self, side: usize, input: Input) {
        self.sessions[side].handle(input, self.now);
        self.collect(side);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timers = self.sessions.iter().filter_map(Session::poll_timeout);
            let next = timers.chain(self.in_flight.keys().next().map(|k| k.0)).min();
            let Some(next) = next.filter(|t| *t <= end) else { break };
            self.now = self.now.max(next);
            while let Some(entry) = self.in_flight.first_entry().filter(|e| e.key().0 <= self.now) {
                let (side, packet) = entry.remove();
                let octets = packet.encode();
                self.handle(side, Input::Packet(Packet::decode(&octets).unwrap()));
            }
            for side in 0..2 {
                self.sessions[side].handle_timeout(self.now);
                self.collect(side);
            }
        }
        self.now = end;
    }

    fn downs(&self, side: usize) -> Vec<(Time, Down)> {
        let of = |(at, s, o): &(Time, usize, Output)| match o {
            Output::Down(down) if *s == side => Some((*at, *down)),
            _ => None,
        };
        self.log.iter().filter_map(of).collect()
    }
}

#[test]
fn two_sessions_come_up_within_two_slow_intervals() {
    let mut pair = Pair::new(fast(50), fast(50));
    pair.run(2000 * MS);
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn a_cut_is_found_within_three_intervals() {
    let mut pair = Pair::up(fast(50), fast(50));
    pair.cut = [true; 2];
    let cut_at = pair.now;
    pair.run(1000 * MS);
    for side in 0..2 {
        let [(at, down)] = pair.downs(side)[..] else { panic!("once, not {:?}", pair.downs(side)) };
        assert_eq!(down.diagnostic, Diagnostic::DetectionTimeExpired);
        assert!(at - cut_at <= 152 * MS, "{:?}", at - cut_at);
    }
    pair.cut = [false; 2];
    pair.run(3000 * MS);
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn one_way_loss_takes_both_down() {
    let mut pair = Pair::up(fast(50), fast(50));
    pair.cut = [true, false];
    pair.run(400 * MS);
    assert_eq!(pair.downs(1)[0].1.diagnostic, Diagnostic::DetectionTimeExpired);
    assert_eq!(pair.downs(0)[0].1.diagnostic, Diagnostic::NeighborSignaledDown);
}

#[test]
fn every_third_packet_lost_is_borne_for_an_hour() {
    let mut pair = Pair::up(fast(50), fast(50));
    pair.lose_each = 3;
    pair.run(3_600_000 * MS);
    assert_eq!((pair.downs(0), pair.downs(1)), (vec![], vec![]));
}

#[test]
fn the_slower_side_sets_the_pace() {
    let mut pair = Pair::up(fast(50), fast(300));
    assert_eq!(pair.sessions[0].detection_time(), Some(900 * MS));
    assert_eq!(pair.sessions[1].detection_time(), Some(900 * MS));
    let before = pair.sent;
    pair.run(60_000 * MS);
    let each = (pair.sent - before) / 2;
    assert!((200..=270).contains(&each), "{each} packets a minute at 225 to 300 ms");
}

#[test]
fn before_it_is_up_it_sends_no_faster_than_once_a_second() {
    let mut pair = Pair::new(fast(10), fast(10));
    pair.cut = [true; 2];
    pair.run(60_000 * MS);
    assert!((120..=162).contains(&pair.sent), "{} packets of two in a minute", pair.sent);
}

#[test]
fn new_intervals_take_force_without_a_flap() {
    let mut pair = Pair::up(fast(50), fast(50));
    for interval in [200, 20, 400] {
        pair.handle(0, Input::Intervals(fast(interval)));
        pair.run(2000 * MS);
        let slower = interval.max(50);
        assert_eq!(pair.sessions[1].detection_time(), Some(3 * slower * MS), "{interval}");
    }
    assert_eq!((pair.downs(0), pair.downs(1)), (vec![], vec![]));
}

#[test]
fn an_operator_takes_it_down_and_the_peer_knows_that() {
    let mut pair = Pair::up(fast(50), fast(50));
    pair.handle(0, Input::AdminDown(true));
    pair.run(500 * MS);
    assert_eq!(pair.states(), [State::AdminDown, State::Down]);
    assert!(pair.downs(1)[0].1.peer_admin_down);
    pair.handle(0, Input::AdminDown(false));
    pair.run(3000 * MS);
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn the_transition_table() {
    use State::*;
    // Rows: our state Down, Init, Up. Columns: the peer's AdminDown, Down, Init, Up.
    let table = [[Down, Init, Up, Down], [Down, Init, Up, Up], [Down, Down, Up, Up]];
    for (from, row) in [Down, Init, Up].into_iter().zip(table) {
        for (remote, want) in State::ALL.into_iter().zip(row) {
            let mut s = Session::new(fast(50), 1, 1, Time::ZERO);
            s.state = from;
            s.step(remote, Time::ZERO);
            assert_eq!(s.state(), want, "{from:?} and {remote:?}");
        }
    }
}

#[test]
fn packets_for_another_session_and_early_timeouts_change_nothing() {
    let mut pair = Pair::up(fast(50), fast(50));
    let s = &mut pair.sessions[0];
    let due = s.poll_timeout().unwrap();
    s.handle_timeout(due - Duration::from_nanos(1));
    assert_eq!((s.poll_output(), s.poll_timeout()), (None, Some(due)));
    s.send(false, false);
    let Some(Output::Send(packet)) = s.poll_output() else { panic!() };
    s.handle(Input::Packet(Packet { your_discriminator: 99, state: State::Down, ..packet }), pair.now);
    assert_eq!(s.state(), State::Up);
}

#[test]
fn a_peer_that_wants_no_packets_gets_none() {
    let mut pair = Pair::up(fast(50), fast(50));
    let quiet = Intervals { required_min_rx: Duration::ZERO, ..fast(50) };
    pair.sessions[0].remote.as_mut().unwrap().required_min_rx = quiet.required_min_rx;
    assert_eq!(pair.sessions[0].transmit_interval(), None);
}

#[test]
fn ports_and_hops() {
    assert_eq!((Reach::SingleHop.port(), Reach::MultiHop { min_ttl: 250 }.port()), (3784, 4784));
    assert!(Reach::SingleHop.accepts_ttl(255) && !Reach::SingleHop.accepts_ttl(254));
    let far = Reach::MultiHop { min_ttl: 250 };
    assert!(far.accepts_ttl(250) && !far.accepts_ttl(249));
}
