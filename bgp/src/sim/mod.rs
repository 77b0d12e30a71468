//! Whole topologies in virtual time: speakers, links that delay, lose and break, and a kernel per node.
//!
//! A session's bytes go over a connection that behaves as TCP does: in order, cut into segments anywhere, a lost
//! segment late by a retransmission, so that messages of different connections overtake each other. All chance
//! comes from one seed: a run that failed can be repeated.

mod topology;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::rib::{PeerId, RibOptions};
use crate::session::{ConnId, Down, Input, State, Stop};
use crate::speaker::{Output, PeerConfig, Speaker};
use crate::wire::{NextHop, Problem};
use crate::{Prefix, Time};

pub use topology::{LinkOptions, NodeOptions};

/// A repeatable source of chance (SplitMix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Chance(seed)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound
    }
}

/// What happens to octets on a link.
#[derive(Clone, Copy, Debug)]
struct Link {
    latency: Duration,
    /// Segments in a thousand that come a retransmission late.
    loss: u64,
    up: bool,
}

/// How much later a segment comes that was lost once.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// How long an attempt to connect over a broken link takes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

struct Node {
    options: RibOptions,
    speaker: Speaker,
    /// The routes in the kernel; they outlive the speaker.
    kernel: BTreeMap<Prefix, Vec<NextHop>>,
    /// Changes of the kernel's routes so far.
    changes: usize,
    peers: BTreeMap<PeerId, PeerConfig>,
    originated: Vec<Prefix>,
    downs: Vec<Down>,
    malformed: Vec<Problem>,
}

/// A connection between two nodes; each side may have closed it.
struct Conn {
    ends: [usize; 2],
    open: [bool; 2],
    /// When the last octet so far reaches each end: later ones do not overtake it.
    arrival: [Time; 2],
}

enum Event {
    Accept(ConnId),
    Connected(ConnId),
    ConnectFailed { node: usize, peer: PeerId },
    Data { conn: ConnId, to: usize, octets: Vec<u8> },
    Closed { conn: ConnId, to: usize },
}

/// A network of speakers. Node `i` is [`address`]`(i)`, and its peer towards node `j` is `PeerId(j)`.
pub struct Net {
    now: Time,
    chance: Chance,
    nodes: Vec<Node>,
    links: BTreeMap<(usize, usize), Link>,
    conns: BTreeMap<ConnId, Conn>,
    events: BTreeMap<(Time, u64), Event>,
    order: u64,
    next_conn: u32,
}

/// The address and router id of a node.
pub fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0001 + node as u32)
}

fn peer(node: usize) -> PeerId {
    PeerId(node as u32)
}

impl Net {
    pub fn now(&self) -> Time {
        self.now
    }

    pub fn speaker(&mut self, node: usize) -> &mut Speaker {
        &mut self.nodes[node].speaker
    }

    /// The routes that a node's kernel has from BGP.
    pub fn kernel(&self, node: usize) -> &BTreeMap<Prefix, Vec<NextHop>> {
        &self.nodes[node].kernel
    }

    /// How often a node's kernel was told of a change.
    pub fn kernel_changes(&self, node: usize) -> usize {
        self.nodes[node].changes
    }

    /// Sessions of a node that ended.
    pub fn downs(&self, node: usize) -> &[Down] {
        &self.nodes[node].downs
    }

    /// Malformed attributes that a node's sessions survived.
    pub fn malformed(&self, node: usize) -> &[Problem] {
        &self.nodes[node].malformed
    }

    /// Does what a node wants done, after a call to its speaker.
    pub fn poke(&mut self, node: usize) {
        self.collect(node);
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.next_event().filter(|t| *t <= end) {
            self.now = self.now.max(next);
            while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= self.now) {
                let event = entry.remove();
                self.happen(event);
            }
            for node in 0..self.nodes.len() {
                if self.nodes[node].speaker.poll_timeout().is_some_and(|t| t <= self.now) {
                    let now = self.now;
                    self.nodes[node].speaker.handle_timeout(now);
                    self.collect(node);
                }
            }
        }
        self.now = end;
    }

    fn next_event(&self) -> Option<Time> {
        let timers = self.nodes.iter().filter_map(|n| n.speaker.poll_timeout());
        timers.chain(self.events.keys().next().map(|k| k.0)).min()
    }

    fn post(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ConnectFailed { node, peer } => self.tell(node, peer, Input::ConnectFailed),
            Event::Accept(id) => self.tell_end(id, 1, Input::Accepted(id)),
            Event::Connected(id) => self.tell_end(id, 0, Input::Connected(id)),
            Event::Data { conn, to, octets } => self.tell_end(conn, to, Input::Received(conn, octets)),
            Event::Closed { conn, to } => {
                self.tell_end(conn, to, Input::Closed(conn));
                self.close_end(conn, to);
            }
        }
    }

    /// Tells an end of a connection, unless that has closed it or the link is broken.
    fn tell_end(&mut self, id: ConnId, end: usize, input: Input) {
        let Some(conn) = self.conns.get(&id).filter(|c| c.open[end]) else { return };
        let (node, other) = (conn.ends[end], conn.ends[1 - end]);
        if self.link(node, other).is_some_and(|l| l.up) {
            self.tell(node, peer(other), input);
        }
    }

    fn close_end(&mut self, id: ConnId, end: usize) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.open[end] = false;
            if conn.open == [false; 2] {
                self.conns.remove(&id);
            }
        }
    }

    fn tell(&mut self, node: usize, peer: PeerId, input: Input) {
        let now = self.now;
        self.nodes[node].speaker.handle(peer, input, now);
        self.collect(node);
    }

    /// Does what a node wants done, until it is content.
    fn collect(&mut self, node: usize) {
        loop {
            while let Some(output) = self.nodes[node].speaker.poll_output() {
                self.obey(node, output);
            }
            let Node { speaker, kernel, changes, .. } = &mut self.nodes[node];
            while let Some(change) = speaker.poll_fib() {
                *changes += usize::from(set_route(kernel, change.prefix, change.next_hops));
            }
            let peers: Vec<PeerId> = speaker.rib().peers().collect();
            let now = self.now;
            let busy = peers.into_iter().filter(|id| speaker.pump(*id, now)).count();
            if busy == 0 {
                break;
            }
        }
    }

    fn obey(&mut self, node: usize, output: Output) {
        match output {
            Output::Connect(PeerId(to)) => self.connect(node, to as usize),
            Output::Send(_, conn, octets) => self.send(node, conn, octets),
            Output::Close(_, conn) => self.close(node, conn),
            Output::Converged => self.remove_stale_routes(node),
            Output::Down(_, down) => self.nodes[node].downs.push(down),
            Output::Malformed(_, problem) => self.nodes[node].malformed.push(problem),
            Output::CancelConnect(_) | Output::Failed(..) | Output::Up(..) => {}
        }
    }

    fn connect(&mut self, node: usize, to: usize) {
        let Some(link) = self.link(node, to).filter(|l| l.up) else {
            return self.post(self.now + CONNECT_TIMEOUT, Event::ConnectFailed { node, peer: peer(to) });
        };
        self.next_conn += 1;
        let id = ConnId(self.next_conn);
        self.conns.insert(id, Conn { ends: [node, to], open: [true; 2], arrival: [self.now; 2] });
        self.post(self.now + link.latency, Event::Accept(id));
        self.post(self.now + 2 * link.latency, Event::Connected(id));
    }

    fn send(&mut self, node: usize, id: ConnId, octets: Vec<u8>) {
        let mut rest = octets.as_slice();
        while !rest.is_empty() {
            let cut = 1 + self.chance.below(1400) as usize;
            let (segment, tail) = rest.split_at(cut.min(rest.len()));
            rest = tail;
            let Some((at, to)) = self.arrival(node, id) else { return };
            self.post(at, Event::Data { conn: id, to, octets: segment.to_vec() });
        }
    }

    /// When and at which end the next segment arrives.
    fn arrival(&mut self, node: usize, id: ConnId) -> Option<(Time, usize)> {
        let ends = self.conns.get(&id)?.ends;
        let from = usize::from(ends[1] == node);
        let link = self.link(ends[0], ends[1])?;
        let jitter = self.chance.below(1 + link.latency.as_micros() as u64);
        let lost = self.chance.below(1000) < link.loss;
        let delay =
            link.latency + Duration::from_micros(jitter) + if lost { RETRANSMISSION } else { Duration::ZERO };
        let arrival = &mut self.conns.get_mut(&id)?.arrival[1 - from];
        *arrival = (*arrival).max(self.now + delay);
        Some((*arrival, 1 - from))
    }

    fn close(&mut self, node: usize, id: ConnId) {
        if let Some((at, to)) = self.arrival(node, id) {
            self.post(at, Event::Closed { conn: id, to });
            self.close_end(id, 1 - to);
        }
    }

    /// After a restart: what the speaker did not confirm goes.
    fn remove_stale_routes(&mut self, node: usize) {
        let Node { speaker, kernel, changes, .. } = &mut self.nodes[node];
        let stale: Vec<Prefix> =
            kernel.keys().copied().filter(|p| speaker.rib().next_hops(*p).is_empty()).collect();
        for prefix in stale {
            *changes += usize::from(set_route(kernel, prefix, Vec::new()));
        }
    }

    fn link(&self, a: usize, b: usize) -> Option<Link> {
        self.links.get(&(a.min(b), a.max(b))).copied()
    }

    /// Cuts or mends a link. Nothing passes while it is cut, and nobody is told.
    pub fn set_link(&mut self, a: usize, b: usize, up: bool) {
        if let Some(link) = self.links.get_mut(&(a.min(b), a.max(b))) {
            link.up = up;
        }
    }

    /// Announces a prefix from a node.
    pub fn originate(&mut self, node: usize, prefix: Prefix) {
        self.nodes[node].originated.push(prefix);
        let attributes = crate::wire::Attributes::local(IpAddr::V4(address(node)));
        self.nodes[node].speaker.originate(prefix, attributes);
        self.collect(node);
    }

    /// Takes it back.
    pub fn retract(&mut self, node: usize, prefix: Prefix) {
        self.nodes[node].originated.retain(|p| *p != prefix);
        self.nodes[node].speaker.retract(prefix);
        self.collect(node);
    }

    /// The daemon of a node ends: by SIGKILL its connections break, by SIGTERM it closes them without a word.
    /// To the peers both look the same. Then a new one starts and is told who was up.
    pub fn restart(&mut self, node: usize, away: Duration) {
        let expected: Vec<PeerId> = self.nodes[node].speaker.expected().collect();
        for id in self.nodes[node].peers.keys().copied().collect::<Vec<_>>() {
            self.tell(node, id, Input::Stop(Stop::Silent));
        }
        // While it is away nothing is accepted: its stopped sessions refuse.
        self.run(away);
        let seed = self.chance.below(u64::MAX);
        let now = self.now;
        let n = &mut self.nodes[node];
        n.speaker = Speaker::new(n.options, seed);
        n.speaker.restarted(&expected, Duration::from_secs(30), now);
        for prefix in n.originated.clone() {
            n.speaker.originate(prefix, crate::wire::Attributes::local(IpAddr::V4(address(node))));
        }
        for (id, config) in n.peers.clone() {
            n.speaker.set_peer(id, config, now);
        }
        self.collect(node);
    }

    fn is_up(&self, node: usize, id: PeerId) -> bool {
        self.nodes[node].speaker.state(id) == Some(State::Established)
    }

    /// True if every session of every node whose link is whole is up.
    pub fn all_up(&self) -> bool {
        let whole = self.links.iter().filter(|(_, l)| l.up).map(|(ends, _)| *ends);
        whole.into_iter().all(|(a, b)| self.is_up(a, peer(b)) && self.is_up(b, peer(a)))
    }
}

/// True if that changed anything.
fn set_route(kernel: &mut BTreeMap<Prefix, Vec<NextHop>>, prefix: Prefix, hops: Vec<NextHop>) -> bool {
    if hops.is_empty() {
        return kernel.remove(&prefix).is_some();
    }
    kernel.insert(prefix, hops.clone()) != Some(hops)
}
