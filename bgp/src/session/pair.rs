//! Two sessions and a network between them, in virtual time.

use std::collections::BTreeMap;

use crate::Time;

use super::*;

pub(super) const LATENCY: Time = Time::from_millis(10);

pub(super) fn config(local_as: u32, id: u8, peer_as: u32) -> SessionConfig {
    SessionConfig::new(local_as, [10, 0, 0, id].into(), peer_as)
}

/// Sides are 0 and 1.
pub(super) struct Pair {
    pub now: Time,
    pub sessions: [Session; 2],
    /// All outputs that are for the owner, not for the network.
    pub log: [Vec<Output>; 2],
    /// Nothing arrives while it is set, and connecting fails.
    pub cut: bool,
    in_flight: BTreeMap<(Time, u64), (usize, Input)>,
    order: u64,
    next_conn: u32,
}

impl Pair {
    pub fn new(a: SessionConfig, b: SessionConfig) -> Pair {
        Pair {
            now: Time::ZERO,
            sessions: [Session::new(a, 1), Session::new(b, 2)],
            log: Default::default(),
            cut: false,
            in_flight: BTreeMap::new(),
            order: 0,
            next_conn: 0,
        }
    }

    pub fn started(a: SessionConfig, b: SessionConfig) -> Pair {
        let mut pair = Pair::new(a, b);
        pair.handle(0, Input::Start);
        pair.handle(1, Input::Start);
        pair
    }

    pub fn established(a: SessionConfig, b: SessionConfig) -> Pair {
        let mut pair = Pair::started(a, b);
        pair.run(Time::from_secs(10));
        assert_eq!(pair.states(), [State::Established; 2]);
        pair
    }

    pub fn states(&self) -> [State; 2] {
        [self.sessions[0].state(), self.sessions[1].state()]
    }

    pub fn handle(&mut self, side: usize, input: Input) {
        self.sessions[side].handle(input, self.now);
        self.collect_now(side);
    }

    fn post(&mut self, after: Time, side: usize, input: Input) {
        self.order += 1;
        self.in_flight.insert((self.now + after, self.order), (side, input));
    }

    /// Takes what a session has to say; needed after a call that went around [`Pair::handle`].
    pub fn collect_now(&mut self, side: usize) {
        while let Some(output) = self.sessions[side].poll_output() {
            let other = 1 - side;
            match output {
                Output::Connect if self.cut => self.post(LATENCY, side, Input::ConnectFailed),
                Output::Connect => {
                    self.next_conn += 1;
                    let id = ConnId(self.next_conn);
                    self.post(LATENCY, other, Input::Accepted(id));
                    self.post(LATENCY, side, Input::Connected(id));
                }
                Output::CancelConnect => {}
                Output::Send(..) | Output::Close(_) if self.cut => {}
                Output::Send(id, octets) => self.post(LATENCY, other, Input::Received(id, octets)),
                Output::Close(id) => self.post(LATENCY, other, Input::Closed(id)),
                event => self.log[side].push(event),
            }
        }
    }

    /// Lets `time` pass.
    pub fn run(&mut self, time: Time) {
        let end = self.now + time;
        while let Some(next) = self.next_event().filter(|t| *t <= end) {
            self.now = self.now.max(next);
            while let Some(entry) = self.in_flight.first_entry().filter(|e| e.key().0 <= self.now) {
                let (side, input) = entry.remove();
                if !self.cut || input == Input::ConnectFailed {
                    self.handle(side, input);
                }
            }
            for side in 0..2 {
                self.sessions[side].handle_timeout(self.now);
                self.collect_now(side);
            }
        }
        self.now = end;
    }

    fn next_event(&self) -> Option<Time> {
        let timers = self.sessions.iter().filter_map(Session::poll_timeout);
        timers.chain(self.in_flight.keys().map(|k| k.0).take(1)).min()
    }

    /// The last end of an established session on a side.
    pub fn down(&self, side: usize) -> Option<&Down> {
        self.log[side].iter().rev().find_map(|o| match o {
            Output::Down(down) => Some(down),
            _ => None,
        })
    }

    pub fn ups(&self, side: usize) -> usize {
        self.log[side].iter().filter(|o| matches!(o, Output::Up(_))).count()
    }
}
