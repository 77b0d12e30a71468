//! The speaker on its sockets: one thread, one poller, no waiting anywhere else.
//!
//! ```text
//!   resources ─ watch ──Wish──┐
//!   BFD thread ────Up, Down───┤                 ┌─► connections (TCP)
//!   control socket ──Request──┴─► Engine ───────┼─► Fib (kernel's routes)
//!                                  │   ▲        └─► state file
//!                                Speaker  Topology (kernel's events)
//! ```

mod configure;
mod routing;
mod sessions;

use super::bfd::{BfdPeer, Wanted};
use super::conn::{Conn, Got, Phase, READ as READ_AT_ONCE};
use super::fib::Fib;
use super::peers::{Peer, Peers};
use super::poller::{Poller, Ready, Token, Waker};
use super::sockets::{self, Dial};
use super::state::StateFile;
use super::topology::Topology;
use bgp::rib::PeerId;
use bgp::session::{ConnId, Input, Stop};
use bgp::speaker::{Output, Speaker};
use bgp::wire::{Attributes, Cease};
use bgp::{Prefix, Time};
use peering::control::{Request, Response};
use peering::{PeerKey, Wish};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const STOP: Token = 0;
const WOKEN: Token = 1;
const ROUTES: Token = 2;
const LISTENERS: Token = 16;
const CONNECTIONS: Token = 1 << 32;
const READ: Ready = Ready { read: true, write: false };
/// Octets that may wait in a connection before more messages are made for it: the kernel's buffers are large enough.
const ROOM: usize = 16 * 1024;
/// Rounds of messages for one peer before others get their turn.
const ROUNDS: usize = 64;
/// What the kernel reports of routes and links gathers for so long: a pod makes dozens of reports, and links are
/// looked at again after any of them.
const GATHER: Duration = Duration::from_millis(20);
/// Selection waits that long for the peers that were up before a restart (decision 33).
const RESTART_WAIT: Duration = Duration::from_secs(30);

/// What other threads tell the engine.
pub(super) enum Message {
    Wish(Box<Wish>),
    /// The node has no BGP address (any more).
    Idle,
    Bfd(IpAddr, bgp::bfd::Output),
    Ask(Request, SyncSender<Response>),
}

struct Listener {
    socket: TcpListener,
    on: SocketAddr,
    passwords: BTreeMap<Prefix, String>,
}

pub(super) struct Engine {
    pub(super) node: String,
    pub(super) begun: Instant,
    pub(super) started: u64,
    pub(super) configured: u64,
    poller: Poller,
    inbox: Receiver<Message>,
    waker: Waker,
    bfd: (Sender<Wanted>, Waker),
    pub(super) bfd_up: BTreeSet<IpAddr>,
    bfd_wanted: Wanted,
    state: StateFile,
    pub(super) topology: Topology,
    pub(super) fib: Fib,
    /// The kernel has reported something, which is looked at then.
    reported: Option<Instant>,
    listeners: Vec<Listener>,
    conns: BTreeMap<ConnId, Conn>,
    /// What is read passes through it.
    buffer: Vec<u8>,
    next_conn: u32,
    pub(super) peers: Peers,
    pub(super) speaker: Option<Speaker>,
    pub(super) wish: Option<Wish>,
    originated: BTreeSet<Prefix>,
    /// Drain orders go to whoever makes the wish.
    pub(super) drain: Sender<bool>,
    pub(super) drained: bool,
    pub(super) restarting: bool,
    /// Since the state file was last looked at.
    sessions_changed: bool,
    /// Work is left although no descriptor is ready.
    busy: bool,
    pub(super) health: super::Health,
}

/// What an engine is made of.
pub(super) struct Parts {
    pub node: String,
    pub inbox: Receiver<Message>,
    pub waker: Waker,
    pub bfd: (Sender<Wanted>, Waker),
    pub drain: Sender<bool>,
    pub state: StateFile,
    pub topology: Topology,
    pub fib: Fib,
    pub health: super::Health,
}

pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Engine {
    pub fn new(parts: Parts, stop: &crate::shutdown::Shutdown) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(stop.fd(), STOP, READ)?;
        poller.add(parts.waker.fd(), WOKEN, READ)?;
        poller.add(parts.topology.fd(), ROUTES, READ)?;
        Ok(Engine {
            node: parts.node,
            begun: Instant::now(),
            started: unix_now(),
            configured: 0,
            poller,
            inbox: parts.inbox,
            waker: parts.waker,
            bfd: parts.bfd,
            bfd_up: BTreeSet::new(),
            bfd_wanted: Wanted::new(),
            state: parts.state,
            topology: parts.topology,
            fib: parts.fib,
            reported: None,
            listeners: Vec::new(),
            conns: BTreeMap::new(),
            buffer: vec![0; READ_AT_ONCE],
            next_conn: 0,
            peers: Peers::default(),
            speaker: None,
            wish: None,
            originated: BTreeSet::new(),
            drain: parts.drain,
            drained: false,
            restarting: false,
            sessions_changed: false,
            busy: false,
            health: parts.health,
        })
    }

    /// Until the daemon is to stop. Then connections end without a word and the kernel keeps its routes: peers
    /// that do graceful restart go on as if nothing happened (decision 33).
    pub fn run(mut self) -> io::Result<()> {
        loop {
            let ready = self.poller.wait(self.next_deadline())?;
            if ready.iter().any(|(token, _)| *token == STOP) {
                return Ok(());
            }
            for (token, what) in ready {
                self.ready(token, what);
            }
            self.work();
            self.health.beat();
        }
    }

    pub(super) fn now(&self) -> Time {
        self.begun.elapsed()
    }

    fn next_deadline(&self) -> Option<Duration> {
        if self.busy {
            return Some(Duration::ZERO);
        }
        let speaker = self.speaker.as_ref().and_then(Speaker::poll_timeout);
        let speaker = speaker.map(|at| at.saturating_sub(self.now()));
        let sockets = self.conns.values().filter_map(|c| c.deadline);
        let sockets = sockets.chain(self.reported).min();
        let sockets = sockets.map(|at| at.saturating_duration_since(Instant::now()));
        // A sign of life at least that often.
        speaker.into_iter().chain(sockets).chain([Duration::from_secs(5)]).min()
    }

    fn ready(&mut self, token: Token, what: Ready) {
        match token {
            WOKEN => self.messages(),
            ROUTES => self.kernel_reports(),
            token if token >= CONNECTIONS => {
                let id = ConnId((token - CONNECTIONS) as u32);
                if what.write {
                    self.writable(id);
                }
                if what.read {
                    self.readable(id);
                }
            }
            token => self.accept((token - LISTENERS) as usize),
        }
    }

    /// Everything that follows from what came in.
    fn work(&mut self) {
        self.close_overdue();
        if self.reported.is_some_and(|at| at <= Instant::now()) {
            self.kernel_changed();
        }
        let now = self.now();
        if let Some(speaker) = self.speaker.as_mut().filter(|s| s.poll_timeout().is_some_and(|at| at <= now))
        {
            speaker.handle_timeout(now);
            // Routes that were kept for a peer may have gone.
            self.sessions_changed = true;
        }
        self.obey();
        self.routes();
        self.pump();
        self.routes();
        self.note_expected();
        self.health.update(&self.peers, self.speaker.as_ref(), self.restarting, self.fib.installed());
    }

    fn messages(&mut self) {
        self.waker.clear();
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Wish(wish) => self.set_wish(*wish),
                Message::Idle => self.health.idle(),
                Message::Bfd(addr, event) => self.bfd_says(addr, event),
                Message::Ask(request, answer) => drop(answer.send(self.answer(request))),
            }
            self.obey();
        }
    }

    fn bfd_says(&mut self, addr: IpAddr, event: bgp::bfd::Output) {
        match event {
            bgp::bfd::Output::Up => {
                tracing::info!(peer = %addr, "BFD up");
                self.bfd_up.insert(addr);
            }
            bgp::bfd::Output::Down(down) => {
                tracing::info!(peer = %addr, diagnostic = ?down.diagnostic, "BFD down");
                self.bfd_up.remove(&addr);
                if !down.peer_admin_down {
                    let input = || Input::BfdDown { forwarding_independent: down.forwarding_independent };
                    self.peers.at(addr).into_iter().for_each(|id| self.tell(id, input()));
                }
            }
            bgp::bfd::Output::Send(_) => {}
        }
    }

    fn tell(&mut self, id: PeerId, input: Input) {
        let now = self.now();
        if let Some(speaker) = &mut self.speaker {
            speaker.handle(id, input, now);
        }
    }
}
