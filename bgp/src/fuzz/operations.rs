//! Any sequence of operations on a RIB, against models of the peers and of the kernel that only hear the differences.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::policy::{Action, Match, Policy, Rule, Verdict};
use crate::rib::{Fate, Neighbor, NeighborOptions, PeerId, Rib, RibOptions};
use crate::wire::{
    AsPath, Attributes, DecodeParams, EncodeParams, Framer, Message, NextHop, Nlri, Reach, Update,
};
use crate::{Family, PerFamily, Prefix};

use super::{Source, prefix};

const PEERS: u8 = 7;

/// Runs the operations that `data` stands for. At the end every peer that is up must have heard exactly its
/// Adj-RIB-Out, and the kernel exactly the selected next hops.
pub fn rib_operations(data: &[u8]) {
    let mut source = Source(data);
    let mut world = World::new();
    while !source.is_empty() {
        world.step(&mut source);
    }
    world.check();
}

#[derive(Default)]
struct Heard(BTreeMap<Nlri, Attributes>);

struct World {
    rib: Rib,
    /// Peers that are up and what they know.
    up: BTreeMap<u8, Heard>,
    kernel: BTreeMap<Prefix, Vec<NextHop>>,
}

fn id(n: u8) -> PeerId {
    PeerId(n.into())
}

fn address(n: u8, v6: bool) -> IpAddr {
    if v6 { [0xfd00, 0, 0, 0, 0, 0, 0, n.into()].into() } else { [10, 9, 9, n].into() }
}

/// 0, 4 and 5: external; 1 and 6: internal; 2: internal with add-path; 3: external that knows long-lived routes.
/// Those of a kind are told together.
fn neighbor(n: u8) -> Neighbor {
    let internal = matches!(n, 1 | 2 | 6);
    let own = |v6| Some(address(100, v6).into());
    Neighbor {
        addr: address(n, false),
        router_id: [9, 9, 9, n].into(),
        peer_as: if internal { 65000 } else { 65000 + u32::from(n) + 1 },
        local_as: 65000,
        internal,
        families: PerFamily::BOTH,
        encode: EncodeParams {
            as4: true,
            add_path: if n == 2 { PerFamily::BOTH } else { PerFamily::NONE },
            extended_message: false,
        },
        enhanced_refresh: n != 0,
        extended_next_hop: false,
        long_lived: if n == 3 { PerFamily::BOTH } else { PerFamily::NONE },
        options: NeighborOptions::new(PerFamily { v4: own(false), v6: own(true) }),
    }
}

impl World {
    fn new() -> World {
        let options =
            RibOptions { local_as: 65000, router_id: [9, 9, 9, 100].into(), cluster_id: None, max_paths: 4 };
        World { rib: Rib::new(options, 1), up: BTreeMap::new(), kernel: BTreeMap::new() }
    }

    fn step(&mut self, source: &mut Source<'_>) {
        let n = source.below(PEERS);
        match source.below(16) {
            0..=4 => self.announce(n, source),
            5 | 6 => self.withdraw(n, source),
            7 => self.toggle(n, source.flag()),
            8 => self.drain(n, source.below(16)),
            9 => self.reconfigure(n, source),
            10 => self.rib.set_next_hop(
                address(n, source.flag()),
                [None, Some(0), Some(5)][usize::from(source.below(3))],
            ),
            11 => self.rib.originate(prefix(source.byte()), Attributes::local(address(100, false))),
            12 => self.rib.retract(prefix(source.byte())),
            13 => self.mark(n, source),
            14 => self.rib.refresh(id(n), family(source)),
            _ => self.defer(source.flag()),
        }
    }

    fn announce(&mut self, n: u8, source: &mut Source<'_>) {
        let prefix = prefix(source.byte());
        let v6 = prefix.family() == Family::Ipv6;
        let mut attributes = Attributes::local(address(n, v6));
        let bits = source.byte();
        attributes.med = (bits & 1 == 1).then_some(u32::from(bits >> 6));
        attributes.as_path = AsPath::sequence(&[65001, 7, 8][..usize::from(bits >> 1 & 3)]);
        if bits & 8 == 8 {
            attributes.add_community(crate::wire::well_known::NO_EXPORT + u32::from(bits >> 4 & 1));
        }
        let path_id = if n == 2 { u32::from(bits >> 5 & 1) } else { 0 };
        let reach = vec![Reach { attributes, nlri: vec![Nlri { prefix, path_id }] }];
        if self.up.contains_key(&n) {
            self.rib.update(id(n), Update { reach, ..Update::default() }).expect("there is no limit");
        }
    }

    fn withdraw(&mut self, n: u8, source: &mut Source<'_>) {
        let nlri = Nlri { prefix: prefix(source.byte()), path_id: u32::from(n == 2 && source.flag()) };
        if self.up.contains_key(&n) {
            let update = Update { withdrawn: vec![nlri], ..Update::default() };
            self.rib.update(id(n), update).expect("there is no limit");
        }
    }

    fn toggle(&mut self, n: u8, retain: bool) {
        if self.up.remove(&n).is_some() {
            self.rib.peer_down(id(n), if retain { PerFamily::BOTH } else { PerFamily::NONE });
        } else {
            self.rib.peer_up(id(n), neighbor(n));
            self.up.insert(n, Heard::default());
        }
    }

    fn reconfigure(&mut self, n: u8, source: &mut Source<'_>) {
        let bits = source.byte();
        let mut options = neighbor(n).options;
        options.client = bits & 1 == 1;
        options.next_hop_self = bits & 2 == 2;
        options.keep_next_hop = bits & 4 == 4;
        let rule = |verdict| Rule {
            matches: vec![Match::within(prefix(bits >> 5))],
            actions: vec![Action::AddCommunity(77)],
            verdict,
        };
        options.export =
            Policy { rules: vec![rule((bits & 8 == 8).then_some(Verdict::Reject))], ..Policy::ACCEPT };
        options.import =
            Policy { rules: vec![rule((bits & 16 == 16).then_some(Verdict::Reject))], ..Policy::ACCEPT };
        self.rib.reconfigure(id(n), options);
    }

    fn mark(&mut self, n: u8, source: &mut Source<'_>) {
        let family = family(source);
        match source.below(4) {
            0 => self.rib.begin_refresh(id(n), family),
            1 => self.rib.end_of_rib(id(n), family),
            long => self.rib.expire_stale(id(n), family, long == 2),
        }
    }

    fn defer(&mut self, on: bool) {
        // Only a speaker without peers and routes has just started.
        if on && self.up.is_empty() && self.rib.is_empty() && self.kernel.is_empty() {
            while self.rib.poll_fib().is_some() {}
            self.rib.defer();
        } else {
            self.rib.end_deferral();
        }
    }

    /// Some helpings of messages; many take a peer to its likes.
    fn drain(&mut self, n: u8, most: u8) {
        let _ = (0..most).take_while(|_| self.drain_once(n)).count();
    }

    /// One helping of messages for a peer, taken to heart. False if there is none.
    fn drain_once(&mut self, n: u8) -> bool {
        let Some(messages) = self.rib.poll_updates(id(n)) else { return false };
        let Some(heard) = self.up.get_mut(&n) else { return true };
        let mut framer = Framer::default();
        framer.push(&messages.concat());
        let add_path = neighbor(n).encode.add_path;
        let params = DecodeParams {
            as4: true,
            internal: neighbor(n).internal,
            families: PerFamily::BOTH,
            add_path,
            extended_next_hop: false,
        };
        while let Some(frame) = framer.next(false).expect("own messages are framed well") {
            if let Message::Update(update) = Message::decode(&frame, &params).expect("own messages are good")
            {
                heard.update(update);
            }
        }
        true
    }

    fn check(&mut self) {
        self.rib.end_deferral();
        while let Some(change) = self.rib.poll_fib() {
            self.kernel.insert(change.prefix, change.next_hops);
        }
        self.kernel.retain(|_, hops| !hops.is_empty());
        for index in 0..8 {
            let hops = self.rib.next_hops(prefix(index));
            assert_eq!(
                self.kernel.get(&prefix(index)).cloned().unwrap_or_default(),
                hops,
                "{}",
                prefix(index)
            );
            self.check_explanation(prefix(index));
        }
        for n in self.up.keys().copied().collect::<Vec<_>>() {
            while self.drain_once(n) {}
            let told: BTreeMap<Nlri, Attributes> =
                self.rib.advertised(id(n)).into_iter().map(entry).collect();
            assert_eq!(self.up[&n].0, told, "peer {n}");
        }
    }

    /// The first path is the best one, and it is the only best one.
    fn check_explanation(&mut self, prefix: Prefix) {
        let Some(found) = self.rib.explain(prefix) else { return };
        let best = found.paths.iter().filter(|r| r.fate == Fate::Best).count();
        let usable = found.paths.iter().any(|r| !matches!(r.fate, Fate::Refused(_) | Fate::Unreachable));
        assert_eq!(best, usize::from(usable), "{found:?}");
        assert!(best == 0 || found.paths[0].fate == Fate::Best, "{found:?}");
    }
}

impl Heard {
    fn update(&mut self, update: Update) {
        for nlri in update.withdrawn {
            assert!(self.0.remove(&nlri).is_some(), "{nlri:?} was withdrawn and never told");
        }
        for reach in update.reach {
            self.0.extend(reach.nlri.into_iter().map(|n| (n, reach.attributes.clone())));
        }
    }
}

fn family(source: &mut Source<'_>) -> Family {
    if source.flag() { Family::Ipv4 } else { Family::Ipv6 }
}

fn entry((prefix, path_id, a): (Prefix, u32, Arc<Attributes>)) -> (Nlri, Attributes) {
    (Nlri { prefix, path_id }, (*a).clone())
}
