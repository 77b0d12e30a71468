//! The peers of the engine: their names, what is configured, how they are.

use super::bfd::BfdPeer;
use super::engine::unix_now;
use bgp::rib::PeerId;
use bgp::session::{Down, Negotiated, Reason};
use bgp::speaker::PeerConfig;
use bgp::wire::{Action, Problem};
use bgp::{Family, Prefix};
use peering::{PeerKey, PeerWish, Wish};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Peers that ranges may let in: each costs memory, and anybody in the range can ask.
const MOST_DYNAMIC: usize = 4096;

#[derive(Debug)]
pub(super) struct Peer {
    pub addr: IpAddr,
    pub port: u16,
    /// The range that let it in.
    pub range: Option<Prefix>,
    pub wish: PeerWish,
    /// Our side of the connection, where no source is configured.
    local: Option<IpAddr>,
    pub established: bool,
    /// Seconds since the Unix epoch of the last change between up and down.
    pub since: u64,
    pub last_error: Option<String>,
    pub peer_as: Option<u32>,
    pub restarts_gracefully: bool,
}

impl Peer {
    pub fn new(addr: IpAddr, port: u16, range: Option<Prefix>, wish: PeerWish) -> Self {
        let peer_as = wish.session.peer_as;
        Peer {
            addr,
            port,
            range,
            wish,
            local: None,
            established: false,
            since: unix_now(),
            last_error: None,
            peer_as,
            restarts_gracefully: false,
        }
    }

    pub fn config(&self) -> PeerConfig {
        let mut options = self.wish.options.clone();
        if let Some(local) = self.local {
            options.next_hop[Family::of(local)] = Some(local.into());
        }
        PeerConfig { addr: self.addr, session: self.wish.session.clone(), options }
    }

    /// True if that changes what the peer is told.
    pub fn set_local(&mut self, local: IpAddr) -> bool {
        if self.wish.source.is_some() || self.local == Some(local) {
            return false;
        }
        self.local = Some(local);
        true
    }

    pub fn bfd(&self) -> Option<(IpAddr, BfdPeer)> {
        let own = || self.wish.options.next_hop[Family::of(self.addr)].map(|hop| hop.addr);
        let local = self.local.or(self.wish.source).or_else(own)?;
        Some((self.addr, BfdPeer { wish: self.wish.bfd?, local }))
    }
}

#[derive(Debug, Default)]
pub(super) struct Peers {
    ids: BTreeMap<PeerKey, PeerId>,
    peers: BTreeMap<PeerId, Peer>,
    next: u32,
}

impl Peers {
    /// The peer's number for as long as the daemon runs.
    pub fn id_of(&mut self, key: PeerKey) -> PeerId {
        let next = &mut self.next;
        *self.ids.entry(key).or_insert_with(|| {
            *next += 1;
            PeerId(*next)
        })
    }

    /// Adds or changes a peer. True if its connection has to be made anew for reasons that the session does not
    /// know of.
    pub fn set(&mut self, id: PeerId, new: Peer) -> bool {
        let Some(old) = self.peers.get_mut(&id) else {
            self.peers.insert(id, new);
            return false;
        };
        let socket = |p: &Peer| (p.wish.password.clone(), p.wish.source, p.wish.ttl_security);
        let reset = socket(old) != socket(&new);
        old.wish = new.wish;
        reset
    }

    pub fn remove(&mut self, id: PeerId) {
        self.peers.remove(&id);
    }

    pub fn get(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    pub fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(&id)
    }

    pub fn ids(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.peers.keys().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.peers.iter().map(|(id, peer)| (*id, peer))
    }

    pub fn at(&self, addr: IpAddr) -> Vec<PeerId> {
        self.peers.iter().filter(|(_, p)| p.addr == addr).map(|(id, _)| *id).collect()
    }

    /// Peers that are no longer wanted.
    pub fn not_in(&self, wish: &Wish) -> Vec<PeerId> {
        let wanted = |p: &Peer| match p.range {
            Some(range) => wish.peers.contains_key(&PeerKey::Range(range)),
            None => wish.peers.contains_key(&PeerKey::At(p.addr, p.port)),
        };
        self.peers.iter().filter(|(_, p)| !wanted(p)).map(|(id, _)| *id).collect()
    }

    /// Peers that ranges let in.
    pub fn dynamic(&self) -> Vec<(PeerId, IpAddr, Prefix)> {
        self.peers.iter().filter_map(|(id, p)| Some((*id, p.addr, p.range?))).collect()
    }

    pub fn has_room(&self) -> bool {
        self.peers.values().filter(|p| p.range.is_some()).count() < MOST_DYNAMIC
    }

    pub fn established(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.peers.iter().filter(|(_, p)| p.established).map(|(id, _)| *id)
    }

    pub fn is_established(&self, id: PeerId) -> bool {
        self.peers.get(&id).is_some_and(|p| p.established)
    }

    pub fn len(&self) -> usize {
        self.peers.len()
    }

    pub fn up(&mut self, id: PeerId, n: &Negotiated) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        tracing::info!(peer = %peer.addr, peer_as = n.peer_as, "BGP session up");
        (peer.established, peer.since) = (true, unix_now());
        (peer.peer_as, peer.restarts_gracefully) =
            (Some(n.peer_as), n.restart.is_some_and(|r| !r.time.is_zero()));
        peer.last_error = None;
    }

    pub fn down(&mut self, id: PeerId, down: &Down) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let why = describe(&down.reason);
        tracing::info!(peer = %peer.addr, why, routes_kept = down.retain, "BGP session down");
        (peer.established, peer.since) = (false, unix_now());
        peer.last_error = Some(why);
    }

    pub fn failed(&mut self, id: PeerId, reason: &Reason) {
        let why = describe(reason);
        self.note(id, why);
    }

    pub fn not_connected(&mut self, id: PeerId, error: &std::io::Error) {
        self.note(id, format!("connecting: {error}"));
    }

    pub fn malformed(&mut self, id: PeerId, problem: &Problem) {
        let Some(peer) = self.peers.get(&id) else { return };
        let done = match problem.action {
            Action::Withdraw => "its routes are taken for withdrawn",
            Action::Discard => "the attribute is ignored",
        };
        tracing::warn!(peer = %peer.addr, attribute = problem.attribute, done, "malformed BGP UPDATE");
    }

    /// What repeats is logged once.
    fn note(&mut self, id: PeerId, why: String) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.last_error.as_ref() != Some(&why) {
            tracing::info!(peer = %peer.addr, why, "no BGP session");
            peer.last_error = Some(why);
        }
    }
}

fn describe(reason: &Reason) -> String {
    match reason {
        Reason::Sent(n) => format!("sent {n}"),
        Reason::Received(n) => match n.communication() {
            Some(words) => format!("received {n}: {words:?}"),
            None => format!("received {n}"),
        },
        Reason::ConnectionLost => "connection lost".into(),
        Reason::StoppedSilently => "stopped".into(),
        Reason::PeerReconnected => "the peer connected again".into(),
        Reason::BfdDown => "BFD down".into(),
    }
}
