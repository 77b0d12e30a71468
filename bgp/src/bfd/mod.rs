//! Bidirectional forwarding detection: RFC 5880 (asynchronous mode), RFC 5881 (single hop), RFC 5883 (multihop).
//!
//! ```text
//!                              +--+
//!                              |  | Up, AdminDown, timer
//!                              |  V
//!                      Down  +------+  Init
//!               +------------|      |------------+
//!               |            | DOWN |            |
//!               |  +-------->|      |<--------+  |
//!               |  |         +------+         |  |
//!               |  | AdminDown,    AdminDown, |  |
//!               |  | timer         Down,      |  |
//!               |  |               timer      |  |
//!               V  |                          |  V
//!             +------+                      +------+
//!        +----|      |                      |      |----+
//!    Down|    | INIT |--------------------->|  UP  |    |Init, Up
//!        +--->|      | Init, Up             |      |<---+
//!             +------+                      +------+
//! ```
//! A session is driven as a BGP one: after every [`Session::handle`] and [`Session::handle_timeout`] take all of
//! [`Session::poll_output`], then ask [`Session::poll_timeout`]. An early call does nothing.

mod packet;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

pub use packet::{Diagnostic, LENGTH, Packet, PacketError, State};

use crate::Time;
use crate::session::Jitter;

/// How far the peer is; it decides the port and what a received TTL proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// RFC 5881: on the same link.
    SingleHop,
    /// RFC 5883: packets with a TTL below the least are not from there.
    MultiHop { min_ttl: u8 },
}

impl Reach {
    /// The UDP port that control packets go to (RFC 5881 section 4, RFC 5883 section 5).
    pub fn port(self) -> u16 {
        match self {
            Reach::SingleHop => 3784,
            Reach::MultiHop { .. } => 4784,
        }
    }

    /// Whether a packet that came with this TTL or hop limit may be from the peer (RFC 5881 section 5).
    pub fn accepts_ttl(self, ttl: u8) -> bool {
        match self {
            Reach::SingleHop => ttl == 255,
            Reach::MultiHop { min_ttl } => ttl >= min_ttl,
        }
    }
}

/// How often packets go; at most 4,294 seconds, at least a microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    pub desired_min_tx: Duration,
    pub required_min_rx: Duration,
    /// Packets that may be lost in a row, less one; at least 1.
    pub detect_mult: u8,
}

/// What happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A packet of this session; its TTL was checked.
    Packet(Packet),
    /// Take the session down, or up again, by hand.
    AdminDown(bool),
    /// New intervals, agreed on with the peer by a poll sequence.
    Intervals(Intervals),
}

/// What the owner has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Send(Packet),
    Up,
    Down(Down),
}

/// The end of an Up session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    pub diagnostic: Diagnostic,
    /// The peer was taken down by hand: no reason to think that the path is broken (RFC 5882 section 3.2).
    pub peer_admin_down: bool,
    /// The peer's bit C (RFC 5882 section 4.3).
    pub forwarding_independent: bool,
}

/// RFC 5880 section 6.8.3: no faster than that unless Up.
const SLOW: Duration = Duration::from_secs(1);

/// What the peer said last.
#[derive(Clone, Copy, Debug)]
struct Remote {
    discriminator: u32,
    state: State,
    desired_min_tx: Duration,
    required_min_rx: Duration,
    detect_mult: u8,
    demand: bool,
    independent: bool,
}

/// One BFD session.
#[derive(Debug)]
pub struct Session {
    intervals: Intervals,
    /// While a poll sequence runs: what was in force before it.
    before_poll: Option<Intervals>,
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    remote: Option<Remote>,
    jitter: Jitter,
    transmit_at: Option<Time>,
    detect_at: Option<Time>,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A session in state Down that sends its first packet at `now`. `discriminator` is not 0 and is unique on
    /// this host; `seed` spreads the packets.
    pub fn new(intervals: Intervals, discriminator: u32, seed: u64, now: Time) -> Self {
        Session {
            intervals,
            before_poll: None,
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::None,
            remote: None,
            jitter: Jitter::new(seed),
            transmit_at: Some(now),
            detect_at: None,
            outputs: VecDeque::new(),
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// By which the peer's packets name this session.
    pub fn discriminator(&self) -> u32 {
        self.discriminator
    }

    /// Tells the session what happened.
    pub fn handle(&mut self, input: Input, now: Time) {
        match input {
            Input::Packet(packet) => self.received(&packet, now),
            Input::AdminDown(down) => self.admin_down(down, now),
            Input::Intervals(intervals) => {
                // RFC 5880 section 6.8.3: what is in force stays until the peer has seen the new ones.
                self.before_poll.get_or_insert(self.intervals);
                self.intervals = intervals;
                self.transmit_at = Some(now);
            }
        }
    }

    /// When to call [`Session::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Time> {
        self.transmit_at.into_iter().chain(self.detect_at).min()
    }

    /// Does what has fallen due by `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.detect_at.is_some_and(|at| at <= now) {
            self.detect_at = None;
            let independent = self.independent();
            // RFC 5880 section 6.8.1: without a packet for a detection time the peer's number is forgotten.
            self.remote = None;
            if matches!(self.state, State::Init | State::Up) {
                self.go_down(Diagnostic::DetectionTimeExpired, false, independent, now);
            }
        }
        if self.transmit_at.is_some_and(|at| at <= now) {
            self.transmit(now);
        }
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The time without a packet after which the peer counts as lost (RFC 5880 section 6.8.4).
    pub fn detection_time(&self) -> Option<Duration> {
        let remote = self.remote?;
        let old = self.before_poll.map_or(Duration::ZERO, |i| i.required_min_rx);
        let interval = self.intervals.required_min_rx.max(old).max(remote.desired_min_tx);
        Some(interval * u32::from(remote.detect_mult))
    }

    fn desired_min_tx(&self) -> Duration {
        if self.state == State::Up {
            self.intervals.desired_min_tx
        } else {
            self.intervals.desired_min_tx.max(SLOW)
        }
    }

    /// RFC 5880 sections 6.8.2 and 6.8.7. `None`: the peer wants no packets.
    fn transmit_interval(&mut self) -> Option<Duration> {
        let mut desired = self.desired_min_tx();
        if let Some(old) = self.before_poll.filter(|_| self.state == State::Up) {
            desired = desired.min(old.desired_min_tx);
        }
        let base = match self.remote {
            Some(r) if r.required_min_rx.is_zero() => return None,
            // Demand mode of the peer: it asks by polls (section 6.6).
            Some(r) if r.demand && r.state == State::Up && self.state == State::Up && !self.polling() => {
                return None;
            }
            Some(r) => desired.max(r.required_min_rx),
            None => desired,
        };
        let spread = self.jitter.spread(base);
        // With a multiplier of 1 the last packet must come well before the end.
        Some(if self.intervals.detect_mult == 1 { spread.min(base * 9 / 10) } else { spread })
    }

    fn polling(&self) -> bool {
        self.before_poll.is_some()
    }

    fn transmit(&mut self, now: Time) {
        let poll = self.polling();
        self.send(poll, false);
        self.transmit_at = self.transmit_interval().map(|t| now + t);
    }

    fn send(&mut self, poll: bool, final_: bool) {
        let micros = |d: Duration| u32::try_from(d.as_micros()).unwrap_or(u32::MAX).max(1);
        self.outputs.push_back(Output::Send(Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll,
            final_,
            // Our control plane dies with our daemon; its forwarding does not, but BFD cannot tell (decision 33).
            control_plane_independent: false,
            demand: false,
            detect_mult: self.intervals.detect_mult.max(1),
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.map_or(0, |r| r.discriminator),
            desired_min_tx: micros(self.desired_min_tx()),
            required_min_rx: micros(self.intervals.required_min_rx),
            required_min_echo_rx: 0,
        }));
    }

    /// RFC 5880 section 6.8.6, from where the session is known.
    fn received(&mut self, p: &Packet, now: Time) {
        if p.your_discriminator != 0 && p.your_discriminator != self.discriminator {
            return;
        }
        let slow_before =
            self.remote.is_none_or(|r| r.required_min_rx > Duration::from_micros(p.required_min_rx.into()));
        self.remote = Some(Remote {
            discriminator: p.my_discriminator,
            state: p.state,
            desired_min_tx: Duration::from_micros(p.desired_min_tx.into()),
            required_min_rx: Duration::from_micros(p.required_min_rx.into()),
            detect_mult: p.detect_mult,
            demand: p.demand,
            independent: p.control_plane_independent,
        });
        if p.final_ {
            self.before_poll = None;
        }
        if self.state == State::AdminDown {
            return;
        }
        self.detect_at = self.detection_time().map(|t| now + t);
        self.step(p.state, now);
        if p.poll {
            self.send(false, true);
        }
        if slow_before || self.transmit_at.is_none() {
            self.hasten(now);
        }
    }

    /// The peer takes packets faster now: the next need not wait for the old interval.
    fn hasten(&mut self, now: Time) {
        let next = self.transmit_interval().map(|t| now + t);
        self.transmit_at = match (self.transmit_at, next) {
            (Some(planned), Some(next)) => Some(planned.min(next)),
            (_, next) => next,
        };
    }

    /// The state machine of section 6.2; every pair is written out.
    fn step(&mut self, remote: State, now: Time) {
        match (self.state, remote) {
            (State::AdminDown, _) => {}
            (State::Down, State::Down) => self.enter(State::Init, now),
            (State::Down, State::Init) => self.go_up(now),
            (State::Down, State::Up | State::AdminDown) => {}
            (State::Init, State::Init | State::Up) => self.go_up(now),
            (State::Init, State::Down) => {}
            (State::Up, State::Init | State::Up) => {}
            (State::Init | State::Up, State::AdminDown) => {
                self.go_down(Diagnostic::NeighborSignaledDown, true, self.independent(), now);
            }
            (State::Up, State::Down) => {
                self.go_down(Diagnostic::NeighborSignaledDown, false, self.independent(), now);
            }
        }
    }

    fn independent(&self) -> bool {
        self.remote.is_some_and(|r| r.independent)
    }

    /// A new state is told at once.
    fn enter(&mut self, state: State, now: Time) {
        self.state = state;
        self.transmit_at = Some(now);
    }

    /// The fast intervals take force, and the peer is asked to confirm them (section 6.8.3).
    fn go_up(&mut self, now: Time) {
        self.before_poll = Some(self.intervals);
        self.diagnostic = Diagnostic::None;
        self.enter(State::Up, now);
        self.outputs.push_back(Output::Up);
    }

    fn go_down(
        &mut self,
        diagnostic: Diagnostic,
        peer_admin_down: bool,
        forwarding_independent: bool,
        now: Time,
    ) {
        let was_up = self.state == State::Up;
        self.diagnostic = diagnostic;
        self.before_poll = None;
        self.enter(State::Down, now);
        if was_up {
            self.outputs.push_back(Output::Down(Down {
                diagnostic,
                peer_admin_down,
                forwarding_independent,
            }));
        }
    }

    fn admin_down(&mut self, down: bool, now: Time) {
        match (down, self.state) {
            (true, State::Down | State::Init | State::Up) => {
                self.go_down(Diagnostic::AdminDown, false, false, now);
                self.enter(State::AdminDown, now);
                self.detect_at = None;
            }
            (false, State::AdminDown) => self.enter(State::Down, now),
            (true, State::AdminDown) | (false, State::Down | State::Init | State::Up) => {}
        }
    }
}
