//! Octets from the peer: messages, the handshake, and the choice between two connections.

use std::sync::Arc;

use crate::wire::{self, Cease, DecodeParams, Frame, Message, Notification, Open};
use crate::{PerFamily, Time};

use super::Session;
use super::connection::{Connection, Phase, Step};
use super::event::{ConnId, Down, Output, Reason};
use super::negotiate::{Negotiated, negotiate};

/// Before the OPENs are settled no UPDATE is decoded, so nothing depends on these.
const UNSETTLED: DecodeParams = DecodeParams {
    as4: true,
    internal: false,
    families: PerFamily::NONE,
    add_path: PerFamily::NONE,
    extended_next_hop: false,
};

impl Session {
    pub(super) fn received(&mut self, id: ConnId, octets: &[u8], now: Time) {
        let Some(c) = self.find(id) else { return };
        // Taken out so that messages can be read from it while the session changes.
        let mut framer = std::mem::take(&mut c.framer);
        framer.push(octets);
        while let Some(c) = self.find(id) {
            let extended = c.phase.negotiated().is_some_and(|n| n.encode.extended_message);
            match framer.next(extended) {
                Ok(Some(frame)) => self.frame(id, &frame, now),
                Ok(None) => break,
                Err(notification) => self.fail(id, notification, now),
            }
        }
        if let Some(c) = self.find(id) {
            c.framer = framer;
        }
    }

    fn frame(&mut self, id: ConnId, frame: &Frame<'_>, now: Time) {
        let Some(c) = self.find(id) else { return };
        let step = c.phase.step(frame.kind);
        if let Step::Unexpected(e) = step {
            return self.fail(id, Notification::with_data(e, &[frame.kind as u8]), now);
        }
        c.heard(now);
        let params = c.phase.negotiated().map_or(UNSETTLED, |n| n.decode);
        match Message::decode(frame, &params) {
            Ok(message) => self.message(id, step, message, now),
            Err(notification) => self.fail(id, notification, now),
        }
    }

    fn message(&mut self, id: ConnId, step: Step, message: Message, now: Time) {
        match (step, message) {
            (Step::Negotiate, Message::Open(open)) => self.opened(id, &open, now),
            (Step::Establish, Message::Keepalive) => self.establish(id, now),
            (Step::Deliver, Message::Update(update)) => self.outputs.push_back(Output::Update(update)),
            (Step::Deliver, Message::Refresh(refresh)) => self.outputs.push_back(Output::Refresh(refresh)),
            (Step::PeerEnds, Message::Notification(n)) => self.peer_ends(id, n, now),
            // A keepalive, or a refresh of a subtype to be ignored.
            (_, Message::Keepalive | Message::Ignored) => {}
            (step, message) => unreachable!("{step:?} is not the step of {message:?}"),
        }
    }

    fn peer_ends(&mut self, id: ConnId, notification: Notification, now: Time) {
        if let Some(c) = self.take(id) {
            self.outputs.push_back(Output::Close(id));
            self.lost(&c, Reason::Received(notification), now);
        }
    }

    fn opened(&mut self, id: ConnId, open: &Open, now: Time) {
        let negotiated = match negotiate(&self.config, open) {
            Ok(negotiated) => Arc::new(negotiated),
            Err(notification) => return self.fail(id, notification, now),
        };
        if !self.survives_collision(id, &negotiated, now) {
            return self.fail(id, Notification::new(Cease::Collision), now);
        }
        if let Some(c) = self.find(id) {
            c.phase = Phase::OpenConfirm(negotiated);
            c.heard(now);
            self.keepalive(id, now);
        }
    }

    /// RFC 4271 section 6.8: of several connections with one peer one remains. True if it is this one; the
    /// others are then closed.
    fn survives_collision(&mut self, id: ConnId, n: &Negotiated, now: Time) -> bool {
        let incoming = self.find(id).is_some_and(|c| c.incoming);
        let rivals: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|c| c.id != id && c.phase != Phase::OpenSent)
            .map(|c| c.id)
            .collect();
        for rival in rivals {
            let Some(c) = self.find(rival) else { continue };
            if c.phase.is_established() {
                if !self.replaces_established(rival, incoming, now) {
                    return false;
                }
            } else if c.incoming != incoming && incoming == self.ours_wins(n) {
                return false;
            } else {
                self.fail(rival, Notification::new(Cease::Collision), now);
            }
        }
        true
    }

    /// The connection made by the side with the higher identifier stays (RFC 6286 section 2.3 breaks the tie by AS).
    fn ours_wins(&self, n: &Negotiated) -> bool {
        (self.config.router_id, self.config.local_as) > (n.peer_id, n.peer_as)
    }

    /// RFC 4724 section 5: a peer that does graceful restart and connects again has lost the old session.
    fn replaces_established(&mut self, old: ConnId, incoming: bool, now: Time) -> bool {
        let restarts =
            self.find(old).is_some_and(|c| c.phase.negotiated().is_some_and(|n| n.restart.is_some()));
        if !(incoming && restarts) {
            return false;
        }
        if let Some(c) = self.take(old) {
            self.outputs.push_back(Output::Close(old));
            self.lost(&c, Reason::PeerReconnected, now);
        }
        true
    }

    fn establish(&mut self, id: ConnId, now: Time) {
        let Some(c) = self.find(id) else { return };
        let Some(n) = c.phase.negotiated().cloned() else { return };
        c.phase = Phase::Established(n.clone());
        c.heard(now);
        self.failures = 0;
        self.cancel_connect();
        self.close_others(id);
        self.outputs.push_back(Output::Up(n));
    }

    /// What had not got as far lost the race.
    fn close_others(&mut self, id: ConnId) {
        let (mine, others): (Vec<Connection>, Vec<Connection>) =
            std::mem::take(&mut self.connections).into_iter().partition(|c| c.id == id);
        self.connections = mine;
        for c in others {
            let notification = Notification::new(Cease::Collision);
            self.outputs.push_back(Output::Send(c.id, wire::encode_notification(&notification)));
            self.outputs.push_back(Output::Close(c.id));
            self.ended(&c, Down { reason: Reason::Sent(notification), retain: false });
        }
    }
}
