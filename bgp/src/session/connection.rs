//! One TCP connection from OPEN to the end: the states of RFC 4271 section 8.2.2 that need a connection.

use std::sync::Arc;

use crate::Time;
use crate::wire::{Framer, FsmError, Kind, Notification};

use super::event::ConnId;
use super::negotiate::Negotiated;
use super::timers::{Jitter, Timer, Timers};

/// RFC 4271 section 8.2.2 suggests four minutes for the peer's OPEN.
const OPEN_HOLD: Time = Time::from_secs(240);

/// How far the handshake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    OpenSent,
    OpenConfirm(Arc<Negotiated>),
    Established(Arc<Negotiated>),
}

/// What a message means in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The peer's OPEN: negotiate, look for a collision.
    Negotiate,
    /// The KEEPALIVE that makes the session.
    Establish,
    /// Routes, refreshes: for the owner.
    Deliver,
    /// A sign of life.
    Alive,
    /// The peer ends it.
    PeerEnds,
    /// RFC 6608.
    Unexpected(FsmError),
}

impl Phase {
    /// The transition table of RFC 4271 section 8.2.2, for events 19 and 21 to 28. Every pair is written out.
    pub fn step(&self, kind: Kind) -> Step {
        match (self, kind) {
            (Phase::OpenSent, Kind::Open) => Step::Negotiate,
            (Phase::OpenSent, Kind::Keepalive | Kind::Update | Kind::Refresh) => {
                Step::Unexpected(FsmError::InOpenSent)
            }
            (Phase::OpenConfirm(_), Kind::Keepalive) => Step::Establish,
            (Phase::OpenConfirm(_), Kind::Open | Kind::Update | Kind::Refresh) => {
                Step::Unexpected(FsmError::InOpenConfirm)
            }
            (Phase::Established(_), Kind::Keepalive) => Step::Alive,
            (Phase::Established(_), Kind::Update | Kind::Refresh) => Step::Deliver,
            (Phase::Established(_), Kind::Open) => Step::Unexpected(FsmError::InEstablished),
            (Phase::OpenSent | Phase::OpenConfirm(_) | Phase::Established(_), Kind::Notification) => {
                Step::PeerEnds
            }
        }
    }

    pub fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        match self {
            Phase::OpenSent => None,
            Phase::OpenConfirm(n) | Phase::Established(n) => Some(n),
        }
    }

    pub fn is_established(&self) -> bool {
        matches!(self, Phase::Established(_))
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub id: ConnId,
    /// The peer made it.
    pub incoming: bool,
    pub phase: Phase,
    pub framer: Framer,
    pub timers: Timers,
}

impl Connection {
    pub fn new(id: ConnId, incoming: bool, now: Time) -> Self {
        let mut timers = Timers::default();
        timers.set(Timer::Hold, now + OPEN_HOLD);
        Connection { id, incoming, phase: Phase::OpenSent, framer: Framer::default(), timers }
    }

    /// RFC 8538 section 3.1: where notifications do not end graceful restart, a real end must say so.
    pub fn hard(&self, notification: Notification) -> Notification {
        match &self.phase {
            Phase::Established(n) if n.restart.is_some_and(|r| r.notification) => notification.hard_reset(),
            Phase::Established(_) | Phase::OpenSent | Phase::OpenConfirm(_) => notification,
        }
    }

    /// The peer was heard of.
    pub fn heard(&mut self, now: Time) {
        match self.phase.negotiated().map(|n| n.hold_time) {
            Some(Time::ZERO) => self.timers.stop(Timer::Hold),
            Some(hold) => self.timers.set(Timer::Hold, now + hold),
            None => {}
        }
    }

    /// Something was sent: the next keepalive is due a third of the hold time later.
    pub fn sent(&mut self, now: Time, jitter: &mut Jitter) {
        match self.phase.negotiated().map(|n| n.hold_time) {
            None | Some(Time::ZERO) => {}
            Some(hold) => self.timers.set(Timer::Keepalive, now + jitter.spread(hold / 3)),
        }
    }
}
