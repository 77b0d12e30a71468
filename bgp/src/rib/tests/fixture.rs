//! Peers and routes for the tests of this module.

use crate::wire::{
    AsPath, Attributes, DecodeParams, EncodeParams, Framer, Message, NextHop, Nlri, Reach, Refresh, Update,
};
use crate::{PerFamily, Prefix};

use crate::rib::*;

pub(in crate::rib) const US: u32 = 65000;

pub(in crate::rib) fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(in crate::rib) fn rib() -> Rib {
    let router_id = [10, 0, 0, 100].into();
    Rib::new(RibOptions { local_as: US, router_id, cluster_id: None, max_paths: 8 }, 1)
}

fn addr(n: u32) -> IpAddr {
    IpAddr::V4(([10, 0, 0, 0].into_iter().fold(0_u32, |a, b| a << 8 | b) + n).into())
}

/// Peer `n` is 10.0.0.n with that router id; external ones are in AS 65000 + n.
pub(in crate::rib) fn neighbor(n: u32, internal: bool) -> Neighbor {
    let own: NextHop = IpAddr::from([10, 0, 0, 100]).into();
    let own6: NextHop = IpAddr::V6("fd00::100".parse().unwrap()).into();
    Neighbor {
        addr: addr(n),
        router_id: match addr(n) {
            IpAddr::V4(a) => a,
            IpAddr::V6(_) => unreachable!("made from four octets"),
        },
        peer_as: if internal { US } else { US + n },
        local_as: US,
        internal,
        families: PerFamily::BOTH,
        encode: EncodeParams { as4: true, add_path: PerFamily::NONE, extended_message: false },
        enhanced_refresh: true,
        extended_next_hop: false,
        long_lived: PerFamily::NONE,
        options: NeighborOptions::new(PerFamily { v4: Some(own), v6: Some(own6) }),
    }
}

/// A RIB with these peers up and told of nothing: `(number, internal)`.
pub(in crate::rib) fn with_peers(peers: &[(u32, bool)]) -> Rib {
    let mut rib = rib();
    for (n, internal) in peers {
        rib.peer_up(PeerId(*n), neighbor(*n, *internal));
    }
    for (n, _) in peers {
        drain(&mut rib, *n);
    }
    rib
}

/// A route of peer `n` with itself as next hop and, if external, in its path.
pub(in crate::rib) fn route(rib: &Rib, n: u32) -> Attributes {
    let mut a = Attributes::local(addr(n));
    match rib.neighbor(PeerId(n)) {
        Some(n) if n.internal => a.local_pref = Some(100),
        _ => a.as_path = AsPath::sequence(&[US + n]),
    }
    a
}

pub(in crate::rib) fn announce_with(rib: &mut Rib, n: u32, nlri: Nlri, edit: impl FnOnce(&mut Attributes)) {
    let mut attributes = route(rib, n);
    edit(&mut attributes);
    let update = Update { reach: vec![Reach { attributes, nlri: vec![nlri] }], ..Update::default() };
    rib.update(PeerId(n), update).unwrap();
}

pub(in crate::rib) fn announce(rib: &mut Rib, n: u32, prefix: &str) {
    announce_with(rib, n, p(prefix).into(), |_| {});
}

pub(in crate::rib) fn withdraw(rib: &mut Rib, n: u32, prefix: &str) {
    let update = Update { withdrawn: vec![p(prefix).into()], ..Update::default() };
    rib.update(PeerId(n), update).unwrap();
}

/// What a peer hears.
#[derive(Debug, Default, PartialEq)]
pub(in crate::rib) struct Heard {
    pub announced: Vec<(Nlri, Attributes)>,
    pub withdrawn: Vec<Nlri>,
    pub end_of_rib: Vec<Family>,
    pub refreshes: Vec<Refresh>,
    pub messages: usize,
}

impl Heard {
    pub fn prefixes(&self) -> Vec<String> {
        self.announced.iter().map(|(n, _)| n.prefix.to_string()).collect()
    }

    pub fn gone(&self) -> Vec<String> {
        self.withdrawn.iter().map(|n| n.prefix.to_string()).collect()
    }
}

/// All that peer `n` has to be told now, read back from its octets.
pub(in crate::rib) fn drain(rib: &mut Rib, n: u32) -> Heard {
    let mut octets = Vec::new();
    let mut heard = Heard::default();
    while let Some(messages) = rib.poll_updates(PeerId(n)) {
        heard.messages += messages.len();
        octets.extend(messages.concat());
    }
    let Some(neighbor) = rib.neighbor(PeerId(n)) else { return heard };
    let params = DecodeParams {
        as4: true,
        internal: neighbor.internal,
        families: PerFamily::BOTH,
        add_path: neighbor.encode.add_path,
        extended_next_hop: neighbor.extended_next_hop,
    };
    let mut framer = Framer::default();
    framer.push(&octets);
    while let Some(frame) = framer.next(false).unwrap() {
        match Message::decode(&frame, &params).unwrap() {
            Message::Update(u) => hear(&mut heard, u),
            Message::Refresh(r) => heard.refreshes.push(r),
            other => panic!("not for a RIB to say: {other:?}"),
        }
    }
    heard
}

fn hear(heard: &mut Heard, update: Update) {
    assert_eq!(update.problems, []);
    heard.withdrawn.extend(update.withdrawn);
    heard.end_of_rib.extend(update.end_of_rib);
    for reach in update.reach {
        heard.announced.extend(reach.nlri.into_iter().map(|n| (n, reach.attributes.clone())));
    }
}

/// The fates of a prefix's paths by peer.
pub(in crate::rib) fn fates(rib: &mut Rib, prefix: &str) -> Vec<(u32, Fate)> {
    let found = rib.explain(p(prefix)).expect("the prefix is known");
    found.paths.iter().map(|r| (r.peer.0, r.fate)).collect()
}

/// Next hops of every change for the kernel, in order.
pub(in crate::rib) fn fib(rib: &mut Rib) -> Vec<(String, Vec<String>)> {
    let mut out = Vec::new();
    while let Some(change) = rib.poll_fib() {
        let hops = change.next_hops.iter().map(|h| h.addr.to_string()).collect();
        out.push((change.prefix.to_string(), hops));
    }
    out
}
