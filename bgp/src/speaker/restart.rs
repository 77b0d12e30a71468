//! Time limits of graceful restart, the peers' (RFC 4724 section 4.2, RFC 9494) and ours (section 4.1).

use std::collections::BTreeMap;

use crate::rib::PeerId;
use crate::session::{Down, Negotiated, State};
use crate::{Family, PerFamily, Time};

use super::{Output, Peer, Speaker};

/// Routes of a peer and family that are kept although nobody stands for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retention {
    pub until: Time,
    /// How long they may be kept as long-lived ones after that; zero if that time has begun.
    long_lived: Time,
}

/// How long a peer that says it restarts itself is waited for. RFC 4724 section 4.1 would not wait at all, so that
/// two who restart together do not wait for each other; but a peer may say so long after it has told all it has.
const RESTARTING_PEER: Time = Time::from_secs(5);

/// After our own restart: families of peers whose End-of-RIB is awaited.
///
/// Two that restart together both begin to select when they have waited for each other long enough, and then tell each
/// other. Until then the kernel's old routes must stay: so selection comes first, and the end of the wait later.
#[derive(Debug)]
pub(super) struct Deferral {
    until: Time,
    awaited: BTreeMap<PeerId, PerFamily<bool>>,
    /// Until when those of them are waited for that restart themselves.
    restarting: BTreeMap<PeerId, Time>,
    /// Routes are selected and told again.
    selecting: bool,
}

impl Deferral {
    pub fn is_selecting(&self) -> bool {
        self.selecting
    }

    pub fn until(&self) -> Time {
        if self.selecting {
            return self.until;
        }
        let mut awaited = self.awaited.iter().filter(|(_, families)| families.any()).map(|(id, _)| id);
        if awaited.any(|id| !self.restarting.contains_key(id)) {
            return self.until;
        }
        self.restarting.values().max().map_or(self.until, |last| self.until.min(*last))
    }
}

impl Speaker {
    /// We have just restarted and the kernel still forwards: sessions say so, and no route is selected before
    /// the peers in `expected` (as [`Speaker::expected`] was; waiting for others would hold the node back) have
    /// told all of theirs, or `wait` is over. Call it before peers are added.
    pub fn restarted(&mut self, expected: &[PeerId], wait: Time, now: Time) {
        let awaited: BTreeMap<_, _> = expected.iter().map(|id| (*id, PerFamily::BOTH)).collect();
        self.rib.defer();
        self.deferral =
            Some(Deferral { until: now + wait, awaited, restarting: BTreeMap::new(), selecting: false });
        for peer in self.peers.values_mut() {
            peer.session.set_restarting(true);
        }
        self.end_deferral_if_complete();
    }

    /// Whom a restart of ours would have to wait for: peers that are up, and those that are away and whose routes are
    /// kept until they are back.
    pub fn expected(&self) -> impl Iterator<Item = PeerId> + '_ {
        let counts = |p: &Peer| {
            p.session.state() == State::Established || Family::ALL.iter().any(|f| p.retained[*f].is_some())
        };
        self.peers.iter().filter(move |(_, p)| counts(p)).map(|(id, _)| *id)
    }

    /// The families of a peer that is up again, and whether it will say End-of-RIB at all.
    pub(super) fn await_routes(&mut self, id: PeerId, n: &Negotiated, now: Time) {
        let Some(deferral) = &mut self.deferral else { return };
        let Some(awaited) = deferral.awaited.get_mut(&id) else { return };
        *awaited = if n.restart.is_some() { n.families } else { PerFamily::NONE };
        if n.restart.is_some_and(|r| r.restarting) {
            deferral.restarting.insert(id, now + RESTARTING_PEER);
        } else {
            deferral.restarting.remove(&id);
        }
        self.end_deferral_if_complete();
    }

    pub(super) fn no_longer_awaited(&mut self, id: PeerId) {
        if let Some(deferral) = &mut self.deferral {
            deferral.awaited.remove(&id);
            self.end_deferral_if_complete();
        }
    }

    fn end_deferral_if_complete(&mut self) {
        if self.deferral.as_ref().is_some_and(|d| d.awaited.values().all(|f| !f.any())) {
            self.end_deferral();
        }
    }

    /// The wait of now is over: for selection, or for all.
    pub(super) fn deferral_timeout(&mut self, now: Time) {
        match &self.deferral {
            Some(d) if d.until() > now => {}
            Some(d) if d.until > now => self.select(),
            Some(_) => self.end_deferral(),
            None => {}
        }
    }

    fn select(&mut self) {
        let begins = self.deferral.as_mut().is_some_and(|d| !std::mem::replace(&mut d.selecting, true));
        if begins {
            for peer in self.peers.values_mut() {
                peer.session.set_restarting(false);
            }
            self.rib.end_deferral();
        }
    }

    fn end_deferral(&mut self) {
        self.select();
        self.deferral = None;
        self.outputs.push_back(Output::Converged);
    }

    /// End-of-RIB, or the end of an enhanced refresh.
    pub(super) fn told_all(&mut self, id: PeerId, family: Family) {
        self.rib.end_of_rib(id, family);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.retained[family] = None;
        }
        if let Some(awaited) = self.deferral.as_mut().and_then(|d| d.awaited.get_mut(&id)) {
            awaited[family] = false;
            self.end_deferral_if_complete();
        }
    }

    pub(super) fn down(&mut self, id: PeerId, down: Down, now: Time) {
        let Some((peer, neighbor)) = self.peers.get_mut(&id).zip(self.rib.neighbor(id)) else { return };
        let restart = peer.last.as_ref().and_then(|n| n.restart).filter(|_| down.retain);
        let families = neighbor.families;
        peer.retained = PerFamily::from_fn(|f| {
            let r = restart.filter(|r| families[f] && r.families[f].is_some())?;
            Some(Retention { until: now + r.time, long_lived: r.long_lived[f] })
        });
        let retain = PerFamily::from_fn(|f| peer.retained[f].is_some());
        self.rib.peer_down(id, retain);
        self.outputs.push_back(Output::Down(id, down));
    }

    /// The peer is back. What it did not keep forwarding for goes at once, the rest waits for End-of-RIB, but not
    /// longer than for the peer itself.
    pub(super) fn resume_retained(&mut self, id: PeerId, n: &Negotiated, now: Time) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        for family in Family::ALL {
            if peer.retained[family].is_none() {
                continue;
            }
            let kept = n.restart.filter(|r| n.families[family] && r.families[family] == Some(true));
            peer.retained[family] = kept.map(|r| Retention { until: now + r.time, long_lived: Time::ZERO });
            if kept.is_none() {
                self.rib.expire_stale(id, family, false);
            }
        }
    }

    pub(super) fn expire_retained(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        for family in Family::ALL {
            let Some(r) = peer.retained[family].filter(|r| r.until <= now) else { continue };
            let long = !r.long_lived.is_zero();
            let next = Retention { until: r.until + r.long_lived, long_lived: Time::ZERO };
            peer.retained[family] = long.then_some(next);
            self.rib.expire_stale(id, family, long);
        }
    }
}
