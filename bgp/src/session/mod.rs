//! A session with one peer: RFC 4271 section 8 without sockets.
//!
//! ```text
//!          Start                 Connected / Accepted            OPEN             KEEPALIVE
//!  Idle ---------> Connect/Active -----------------> OpenSent ---------> OpenConfirm -----> Established
//!   ^  ^              |   ^                              |  error             |  error           |
//!   |  +-- idle hold -+---+------- lost, retry ----------+--------------------+------------------+
//!   +-- Stop, from everywhere
//! ```
//! A session may have several connections for a moment: ours, the peer's, and after a silent restart of the peer the
//! dead one. [`Connection`] has the states from OpenSent on, [`Session`] the others and the choice between
//! connections (collision detection, section 6.8).
//!
//! How to drive it: after every [`Session::handle`], [`Session::handle_timeout`] or [`Session::send`], take
//! all of [`Session::poll_output`], then ask [`Session::poll_timeout`] when to call `handle_timeout` next.
//! Calling it early does nothing.

mod config;
mod connection;
mod event;
mod negotiate;
mod receive;
mod timers;

#[cfg(test)]
mod pair;
#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

pub use config::{AddPath, RestartConfig, SessionConfig};
pub use event::{ConnId, Down, Input, Output, Reason, Stop};
pub use negotiate::{Negotiated, PeerRestart};
pub use timers::Timer;

use connection::{Connection, Phase};
pub(crate) use timers::Jitter;
use timers::Timers;

use crate::wire::{self, Cease, Code, Notification};
use crate::{Family, Time};

/// The states of RFC 4271 section 8.2.2. With several connections, that of the furthest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

/// A peer's session.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    jitter: Jitter,
    wanted: bool,
    /// An answer to [`Output::Connect`] is awaited.
    connecting: bool,
    /// We restarted, and our routes are not complete yet: bit R of graceful restart.
    restarting: bool,
    /// Protocol errors since the session was last up.
    failures: u32,
    /// Idle hold and connect retry; the other two are each connection's own.
    timers: Timers,
    connections: Vec<Connection>,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A session that waits for [`Input::Start`]. `seed` spreads its timers.
    pub fn new(config: SessionConfig, seed: u64) -> Self {
        Session {
            config,
            jitter: Jitter::new(seed),
            wanted: false,
            connecting: false,
            restarting: false,
            failures: 0,
            timers: Timers::default(),
            connections: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Whether OPENs from now on say that we have just restarted (RFC 4724 section 4.1).
    pub fn set_restarting(&mut self, restarting: bool) {
        self.restarting = restarting;
    }

    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// Parameters for the next connection; what is up stays up.
    pub fn set_config(&mut self, config: SessionConfig) {
        self.config = config;
    }

    pub fn state(&self) -> State {
        let of = |c: &Connection| match c.phase {
            Phase::OpenSent => State::OpenSent,
            Phase::OpenConfirm(_) => State::OpenConfirm,
            Phase::Established(_) => State::Established,
        };
        self.connections.iter().map(of).max().unwrap_or(match (self.wanted, self.connecting) {
            (true, true) => State::Connect,
            (true, false) if !self.timers.is_set(Timer::IdleHold) => State::Active,
            _ => State::Idle,
        })
    }

    /// What the OPENs settled, while the session is established.
    pub fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        self.connections.iter().find(|c| c.phase.is_established()).and_then(|c| c.phase.negotiated())
    }

    /// Tells the session what happened.
    pub fn handle(&mut self, input: Input, now: Time) {
        match input {
            Input::Start => self.start(now),
            Input::Stop(stop) => self.stop(stop),
            Input::Connected(id) if self.connecting => {
                self.connecting = false;
                self.adopt(id, false, now);
            }
            Input::Accepted(id) if self.wanted && !self.timers.is_set(Timer::IdleHold) => {
                self.adopt(id, true, now)
            }
            Input::Connected(id) | Input::Accepted(id) => self.outputs.push_back(Output::Close(id)),
            Input::ConnectFailed if self.connecting => {
                self.connecting = false;
                self.retry(self.config.connect_retry, now);
            }
            Input::ConnectFailed => {}
            Input::Received(id, octets) => self.received(id, &octets, now),
            Input::Closed(id) => self.closed(id, now),
            Input::BfdDown { forwarding_independent } => self.bfd_down(forwarding_independent, now),
        }
    }

    /// Sends an UPDATE or ROUTE-REFRESH made by the caller. False, and nothing sent, unless established.
    pub fn send(&mut self, message: Vec<u8>, now: Time) -> bool {
        let Some(c) = self.connections.iter_mut().find(|c| c.phase.is_established()) else { return false };
        c.sent(now, &mut self.jitter);
        self.outputs.push_back(Output::Send(c.id, message));
        true
    }

    /// Ends the session with a NOTIFICATION after which nothing is kept, and tries again later.
    pub fn reset(&mut self, notification: Notification, now: Time) {
        let found = self.connections.iter().find(|c| c.phase.is_established());
        if let Some((id, message)) = found.map(|c| (c.id, c.hard(notification))) {
            self.fail(id, message, now);
        }
    }

    /// When to call [`Session::handle_timeout`]; `None` for never.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.connections.iter().map(|c| &c.timers).chain([&self.timers]).filter_map(Timers::next).min()
    }

    /// Does what has fallen due by `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.timers.fire(Timer::IdleHold, now) {
            self.retry(Time::ZERO, now);
        }
        if self.timers.fire(Timer::ConnectRetry, now) {
            self.connect();
        }
        let ids: Vec<ConnId> = self.connections.iter().map(|c| c.id).collect();
        for id in ids {
            self.connection_timeout(id, now);
        }
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn start(&mut self, now: Time) {
        if !self.wanted {
            self.wanted = true;
            self.failures = 0;
            self.retry(self.config.connect_delay, now);
        }
    }

    fn stop(&mut self, stop: Stop) {
        self.wanted = false;
        self.timers = Timers::default();
        self.cancel_connect();
        while let Some(c) = self.connections.pop() {
            let reason = self.say_goodbye(&c, &stop);
            self.outputs.push_back(Output::Close(c.id));
            let retain = matches!(stop, Stop::Silent) && self.keeps_routes(&c, &reason);
            self.ended(&c, Down { reason, retain });
        }
    }

    fn say_goodbye(&mut self, c: &Connection, stop: &Stop) -> Reason {
        let Stop::Cease { code, communication } = stop else { return Reason::StoppedSilently };
        let plain = match code {
            Cease::Shutdown | Cease::Reset => Notification::with_communication(*code, communication),
            _ => Notification::new(*code),
        };
        let notification = c.hard(plain);
        self.outputs.push_back(Output::Send(c.id, wire::encode_notification(&notification)));
        Reason::Sent(notification)
    }

    fn retry(&mut self, wait: Time, now: Time) {
        if self.wanted && !self.config.passive && !self.connecting {
            let wait = self.jitter.spread(wait);
            self.timers.set(Timer::ConnectRetry, now + wait);
        }
    }

    fn connect(&mut self) {
        if self.wanted && !self.config.passive && !self.connecting && !self.has_promising_connection() {
            self.connecting = true;
            self.outputs.push_back(Output::Connect);
        }
    }

    /// One of our own, or one of the peer's on which it has spoken.
    fn has_promising_connection(&self) -> bool {
        self.connections.iter().any(|c| !c.incoming || c.phase != Phase::OpenSent)
    }

    fn cancel_connect(&mut self) {
        self.timers.stop(Timer::ConnectRetry);
        if std::mem::take(&mut self.connecting) {
            self.outputs.push_back(Output::CancelConnect);
        }
    }

    /// Takes a new connection and says OPEN on it. A peer's newer one replaces an older one that got nowhere.
    fn adopt(&mut self, id: ConnId, incoming: bool, now: Time) {
        // A number that comes again tells that its old connection is gone.
        self.closed(id, now);
        let stale =
            self.connections.iter().position(|c| c.incoming && incoming && c.phase == Phase::OpenSent);
        if let Some(at) = stale {
            let old = self.connections.swap_remove(at);
            self.outputs.push_back(Output::Close(old.id));
        }
        let open = negotiate::our_open(&self.config, self.restarting);
        self.connections.push(Connection::new(id, incoming, now));
        self.outputs.push_back(Output::Send(id, wire::encode_open(&open)));
    }

    fn closed(&mut self, id: ConnId, now: Time) {
        if let Some(c) = self.take(id) {
            self.lost(&c, Reason::ConnectionLost, now);
        }
    }

    fn bfd_down(&mut self, forwarding_independent: bool, now: Time) {
        let Some(c) = self.established_id().and_then(|id| self.take(id)) else { return };
        let retain = !forwarding_independent && self.keeps_routes(&c, &Reason::BfdDown);
        let notification = Notification::new(Cease::BfdDown);
        let message = if retain { notification } else { notification.hard_reset() };
        self.outputs.push_back(Output::Send(c.id, wire::encode_notification(&message)));
        self.outputs.push_back(Output::Close(c.id));
        self.ended(&c, Down { reason: Reason::BfdDown, retain });
        self.retry(self.config.connect_delay, now);
    }

    fn connection_timeout(&mut self, id: ConnId, now: Time) {
        let Some(c) = self.find(id) else { return };
        if c.timers.fire(Timer::Hold, now) {
            return self.fail(id, Notification::new(Code::HoldTimerExpired), now);
        }
        if c.timers.fire(Timer::Keepalive, now) {
            self.keepalive(id, now);
        }
    }

    fn keepalive(&mut self, id: ConnId, now: Time) {
        self.outputs.push_back(Output::Send(id, wire::encode_keepalive()));
        if let Some(at) = self.connections.iter().position(|c| c.id == id) {
            self.connections[at].sent(now, &mut self.jitter);
        }
    }

    /// Ends a connection with a NOTIFICATION of ours.
    fn fail(&mut self, id: ConnId, notification: Notification, now: Time) {
        let Some(c) = self.take(id) else { return };
        self.outputs.push_back(Output::Send(id, wire::encode_notification(&notification)));
        self.outputs.push_back(Output::Close(id));
        self.lost(&c, Reason::Sent(notification), now);
    }

    /// After a connection is gone: report it, and wait as long as its end deserves.
    fn lost(&mut self, c: &Connection, reason: Reason, now: Time) {
        let damp = deserves_damping(&reason);
        let retain = self.keeps_routes(c, &reason);
        self.ended(c, Down { reason, retain });
        if !self.connections.is_empty() || !self.wanted {
            return;
        }
        if damp {
            self.cancel_connect();
            let (first, most) = self.config.idle_hold;
            let wait = first.saturating_mul(1 << self.failures.min(16)).min(most);
            self.failures += 1;
            self.timers.set(Timer::IdleHold, now + self.jitter.spread(wait));
        } else {
            self.retry(self.config.connect_delay, now);
        }
    }

    fn ended(&mut self, c: &Connection, down: Down) {
        self.outputs.push_back(match c.phase {
            Phase::Established(_) => Output::Down(down),
            Phase::OpenSent | Phase::OpenConfirm(_) => Output::Failed(down.reason),
        });
    }

    /// Whether graceful restart covers this end: RFC 4724 section 4.2, RFC 8538 section 4.
    fn keeps_routes(&self, c: &Connection, reason: &Reason) -> bool {
        let Phase::Established(n) = &c.phase else { return false };
        let Some(restart) = n.restart.filter(|r| Family::ALL.iter().any(|f| r.families[*f].is_some())) else {
            return false;
        };
        match reason {
            Reason::ConnectionLost | Reason::PeerReconnected | Reason::StoppedSilently | Reason::BfdDown => {
                true
            }
            Reason::Sent(m) | Reason::Received(m) => {
                restart.notification && m.code != Code::Cease(Cease::HardReset)
            }
        }
    }

    fn established_id(&self) -> Option<ConnId> {
        self.connections.iter().find(|c| c.phase.is_established()).map(|c| c.id)
    }

    fn find(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.id == id)
    }

    fn take(&mut self, id: ConnId) -> Option<Connection> {
        let at = self.connections.iter().position(|c| c.id == id)?;
        Some(self.connections.remove(at))
    }
}

/// Errors would come again at once; a lost connection, a collision or an orderly end need no penalty.
fn deserves_damping(reason: &Reason) -> bool {
    match reason {
        Reason::Sent(n) | Reason::Received(n) => n.code != Code::Cease(Cease::Collision),
        Reason::ConnectionLost | Reason::StoppedSilently | Reason::PeerReconnected | Reason::BfdDown => false,
    }
}
