//! A whole BGP speaker: sessions and RIB joined, still without a socket.
//!
//! ```text
//!   sockets --Input--> Session --Update, Up, Down--> Rib --FibChange--> kernel
//!           <--Send---         <--messages--------------
//! ```
//! Driving it is driving a session: after every call that takes `now`, take all of [`Speaker::poll_output`] and
//! [`Speaker::poll_fib`], and ask [`Speaker::poll_timeout`]. Besides, call [`Speaker::pump`] for a peer
//! whenever its socket has room, until it answers false: what the peer has not read is not made.

mod restart;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod timer_tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::rib::{Explanation, FibChange, Neighbor, NeighborOptions, PeerId, Rib, RibOptions};
use crate::session::{self, ConnId, Down, Negotiated, Reason, Session, SessionConfig, State, Stop};
use crate::wire::{self, Attributes, Cease, Notification, Problem, RefreshKind, Update};
use crate::{Family, PerFamily, Prefix, Time};

use restart::{Deferral, Retention};

/// All that is configured of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    pub addr: IpAddr,
    pub session: SessionConfig,
    pub options: NeighborOptions,
}

/// What the owner has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// As [`session::Output::Connect`].
    Connect(PeerId),
    CancelConnect(PeerId),
    Send(PeerId, ConnId, Vec<u8>),
    Close(PeerId, ConnId),
    /// For the log: an attempt ended.
    Failed(PeerId, Reason),
    Up(PeerId, Arc<Negotiated>),
    Down(PeerId, Down),
    /// For the log: a malformed UPDATE that the session survived (RFC 7606).
    Malformed(PeerId, Problem),
    /// The wait after our restart is over: what the kernel has and [`Speaker::poll_fib`] does not say may go.
    Converged,
}

#[derive(Debug)]
struct Peer {
    config: PeerConfig,
    session: Session,
    /// What its last session settled: graceful restart goes on under it when the session is gone.
    last: Option<Arc<Negotiated>>,
    /// Routes kept from a session that is down, or up again and not yet complete.
    retained: PerFamily<Option<Retention>>,
    /// When [`Speaker::handle_timeout`] has to look at it, as in `Speaker::schedule`.
    due: Option<Time>,
}

/// Sessions and routes of one router.
#[derive(Debug)]
pub struct Speaker {
    rib: Rib,
    peers: BTreeMap<PeerId, Peer>,
    /// Peers by their next deadline, so that thousands of idle ones cost nothing.
    schedule: BTreeSet<(Time, PeerId)>,
    deferral: Option<Deferral>,
    outputs: VecDeque<Output>,
    seed: u64,
}

impl Speaker {
    /// A speaker without peers. `seed` spreads its timers and keys its hash table.
    pub fn new(options: RibOptions, seed: u64) -> Self {
        Speaker {
            rib: Rib::new(options, seed),
            peers: BTreeMap::new(),
            schedule: BTreeSet::new(),
            deferral: None,
            outputs: VecDeque::new(),
            seed,
        }
    }

    /// Adds a peer and starts its session, or changes one that is there: what concerns routes only takes effect
    /// without touching the session; other changes reset it (Cease, configuration change). An unchanged
    /// configuration changes nothing.
    pub fn set_peer(&mut self, id: PeerId, config: PeerConfig, now: Time) {
        match self.peers.get_mut(&id) {
            None => self.add_peer(id, config, now),
            Some(peer) if peer.config == config => {}
            Some(peer) => {
                let restart = (peer.config.addr, &peer.config.session) != (config.addr, &config.session);
                peer.config = config.clone();
                peer.session.set_config(config.session);
                self.rib.reconfigure(id, config.options);
                if restart {
                    self.restart_session(id, Cease::ConfigChange, now);
                }
            }
        }
    }

    fn add_peer(&mut self, id: PeerId, config: PeerConfig, now: Time) {
        let session = Session::new(config.session.clone(), self.seed ^ u64::from(id.0) << 32);
        let retained = PerFamily { v4: None, v6: None };
        self.peers.insert(id, Peer { config, session, last: None, retained, due: None });
        if self.deferral.as_ref().is_some_and(|d| !d.is_selecting()) {
            self.with_session(id, |s| s.set_restarting(true));
        }
        self.handle(id, session::Input::Start, now);
    }

    fn restart_session(&mut self, id: PeerId, code: Cease, now: Time) {
        let communication = String::new();
        self.handle(id, session::Input::Stop(Stop::Cease { code, communication }), now);
        self.handle(id, session::Input::Start, now);
    }

    /// Ends a peer's session for good; nothing of it is kept.
    pub fn remove_peer(&mut self, id: PeerId, now: Time) {
        let stop = Stop::Cease { code: Cease::PeerDeconfigured, communication: String::new() };
        self.handle(id, session::Input::Stop(stop), now);
        self.rib.peer_down(id, PerFamily::NONE);
        if let Some(due) = self.peers.remove(&id).and_then(|p| p.due) {
            self.schedule.remove(&(due, id));
        }
        self.no_longer_awaited(id);
    }

    /// Tells a peer's session what happened. An unknown peer is ignored.
    pub fn handle(&mut self, id: PeerId, input: session::Input, now: Time) {
        self.with_session(id, |s| s.handle(input, now));
        self.collect(id, now);
    }

    fn with_session(&mut self, id: PeerId, f: impl FnOnce(&mut Session)) {
        if let Some(peer) = self.peers.get_mut(&id) {
            f(&mut peer.session);
        }
    }

    /// When to call [`Speaker::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Time> {
        let first = self.schedule.first().map(|(at, _)| *at);
        first.into_iter().chain(self.deferral.as_ref().map(Deferral::until)).min()
    }

    /// Does what has fallen due by `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((_, id)) = self.schedule.first().copied().filter(|(at, _)| *at <= now) {
            self.expire_retained(id, now);
            self.with_session(id, |s| s.handle_timeout(now));
            self.collect(id, now);
        }
        self.deferral_timeout(now);
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next change for the kernel, until `None`.
    pub fn poll_fib(&mut self) -> Option<FibChange> {
        self.rib.poll_fib()
    }

    /// As [`Rib::poll_changed`].
    pub fn poll_changed(&mut self) -> Option<Prefix> {
        self.rib.poll_changed()
    }

    /// Makes the next messages for a peer whose socket has room. False: it has been told everything.
    pub fn pump(&mut self, id: PeerId, now: Time) -> bool {
        let Some(messages) = self.rib.poll_updates(id) else { return false };
        self.with_session(id, |s| {
            for message in messages {
                s.send(message, now);
            }
        });
        self.collect(id, now);
        true
    }

    /// A route that starts here, or its new attributes.
    pub fn originate(&mut self, prefix: Prefix, attributes: Attributes) {
        self.rib.originate(prefix, attributes);
    }

    pub fn retract(&mut self, prefix: Prefix) {
        self.rib.retract(prefix);
    }

    /// As [`Rib::set_next_hop`].
    pub fn set_next_hop(&mut self, addr: IpAddr, cost: Option<u32>) {
        self.rib.set_next_hop(addr, cost);
    }

    /// Asks a peer for its routes again (RFC 2918); false if it cannot do that or is not up.
    pub fn request_refresh(&mut self, id: PeerId, family: Family, now: Time) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let can = peer.session.negotiated().is_some_and(|n| n.refresh && n.families[family]);
        let request = wire::Refresh { kind: RefreshKind::Request, family: family.into() };
        let sent = can && peer.session.send(wire::encode_refresh(&request), now);
        self.collect(id, now);
        sent
    }

    /// Why a prefix goes where it goes.
    pub fn explain(&mut self, prefix: Prefix) -> Option<Explanation> {
        self.rib.explain(prefix)
    }

    /// State of a peer's session.
    pub fn state(&self, id: PeerId) -> Option<State> {
        self.peers.get(&id).map(|p| p.session.state())
    }

    /// What was settled with a peer that is up.
    pub fn negotiated(&self, id: PeerId) -> Option<&Arc<Negotiated>> {
        self.peers.get(&id)?.session.negotiated()
    }

    pub fn rib(&self) -> &Rib {
        &self.rib
    }

    /// For [`Rib::advertised`], which makes attributes on the way.
    pub fn rib_mut(&mut self) -> &mut Rib {
        &mut self.rib
    }

    /// Takes what a session has to say, and plans when to look at it again.
    fn collect(&mut self, id: PeerId, now: Time) {
        while let Some(output) = self.peers.get_mut(&id).and_then(|p| p.session.poll_output()) {
            self.session_says(id, output, now);
        }
        self.reschedule(id);
    }

    fn session_says(&mut self, id: PeerId, output: session::Output, now: Time) {
        use session::Output as S;
        match output {
            S::Connect => self.outputs.push_back(Output::Connect(id)),
            S::CancelConnect => self.outputs.push_back(Output::CancelConnect(id)),
            S::Send(conn, octets) => self.outputs.push_back(Output::Send(id, conn, octets)),
            S::Close(conn) => self.outputs.push_back(Output::Close(id, conn)),
            S::Failed(reason) => self.outputs.push_back(Output::Failed(id, reason)),
            S::Up(negotiated) => self.up(id, negotiated, now),
            S::Down(down) => self.down(id, down, now),
            S::Update(update) => self.update(id, update, now),
            S::Refresh(refresh) => self.refresh(id, refresh),
        }
    }

    fn up(&mut self, id: PeerId, n: Arc<Negotiated>, now: Time) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.last = Some(n.clone());
        let neighbor = Neighbor {
            addr: peer.config.addr,
            router_id: n.peer_id,
            peer_as: n.peer_as,
            local_as: peer.config.session.local_as,
            internal: n.internal,
            families: n.families,
            encode: n.encode,
            enhanced_refresh: n.enhanced_refresh,
            extended_next_hop: n.decode.extended_next_hop,
            long_lived: PerFamily::from_fn(|f| n.restart.is_some_and(|r| !r.long_lived[f].is_zero())),
            options: peer.config.options.clone(),
        };
        self.rib.peer_up(id, neighbor);
        self.resume_retained(id, &n, now);
        self.await_routes(id, &n, now);
        self.outputs.push_back(Output::Up(id, n));
    }

    fn update(&mut self, id: PeerId, update: Update, now: Time) {
        self.outputs.extend(update.problems.iter().map(|p| Output::Malformed(id, *p)));
        let end = update.end_of_rib;
        if self.rib.update(id, update).is_err() {
            self.with_session(id, |s| s.reset(Notification::new(Cease::MaxPrefixes), now));
        }
        if let Some(family) = end {
            self.told_all(id, family);
        }
    }

    fn refresh(&mut self, id: PeerId, refresh: wire::Refresh) {
        match (refresh.kind, refresh.family.known()) {
            (RefreshKind::Request, Some(family)) => self.rib.refresh(id, family),
            (RefreshKind::Begin, Some(family)) => self.rib.begin_refresh(id, family),
            (RefreshKind::End, Some(family)) => self.told_all(id, family),
            (RefreshKind::Request | RefreshKind::Begin | RefreshKind::End, None) => {}
        }
    }

    fn reschedule(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let retained = Family::ALL.into_iter().filter_map(|f| peer.retained[f].map(|r| r.until));
        let due = peer.session.poll_timeout().into_iter().chain(retained).min();
        if due != peer.due {
            if let Some(old) = std::mem::replace(&mut peer.due, due) {
                self.schedule.remove(&(old, id));
            }
            self.schedule.extend(due.map(|at| (at, id)));
        }
    }
}
