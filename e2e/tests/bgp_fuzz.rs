//! A peer that sends nonsense on live sessions: what RFC 7606 forgives costs a route, what it does not costs the
//! session, and nothing costs the daemon. `PERCALE_SEED=N` for other nonsense, ten times as much with `PERCALE_FULL=1`.

#![allow(clippy::unwrap_used)]

use e2e::bgp::scripted::{
    Heard, KEEPALIVE, NOTIFICATION, REFRESH, Scripted, UPDATE, attribute, good_attributes, message, update,
};
use e2e::bgp::{Bird, Fabric, Node, soon};
use e2e::random::{Random, seed};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;

const ASN: u32 = 65020;
const NODE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// What must become of the route of an UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The attribute is ignored, or was nothing bad.
    Taken,
    /// RFC 7606: treat-as-withdraw.
    Withdrawn,
}
use Fate::{Taken, Withdrawn};

struct Bed {
    fabric: Fabric,
    node: Node,
    bird: Bird,
    /// Of the session with BIRD, which is nobody's business.
    since: Value,
    pid: u32,
}

/// A node with a sane peer, and a range of addresses from which anybody may connect.
fn bed(tag: &str) -> Bed {
    let fabric = Fabric::new(tag);
    fabric.put("bgpconfigurations", "default", json!({"nodeToNodeMeshEnabled": false}));
    fabric.put("ippools", "v4", json!({"cidr": "10.91.0.0/16"}));
    fabric.put_block(1, "10.91.1.0/26");
    fabric.put("bgppeers", "tor", json!({"peerIP": "10.99.0.101", "asNumber": 65010}));
    let range = json!({"annotations": {"percale.io/peer-range": "10.99.0.128/25"}});
    fabric.put_with("bgppeers", "anybody", range, json!({"asNumber": ASN}));
    let node = Node::start(&fabric, 1);
    let bird = Bird::start(&fabric, 101, BIRD);
    node.await_up("10.99.0.101");
    let (since, pid) = (node.since("10.99.0.101"), node.pid());
    Bed { fabric, node, bird, since, pid }
}

const BIRD: &str = "router id 10.99.0.101;
protocol device {}
protocol static s4 { ipv4; route 192.0.2.0/24 unreachable; }
protocol bgp p4 { local as 65010; neighbor 10.99.0.1 as 64512; connect delay time 1; connect retry time 1;
  error wait time 1, 2; ipv4 { import all; export all; next hop self; }; }
";

impl Bed {
    fn connect(&self, ns: &e2e::Netns, n: u8) -> Scripted {
        Scripted::connect(ns, Ipv4Addr::new(10, 99, 0, n), ASN, NODE).unwrap()
    }

    /// Networks within 198.18.0.0/15 that the node has from anybody, in order.
    fn routes(&self) -> Vec<String> {
        let answer = self.node.ask(&["bgp", "routes", "198.18.0.0/15"]);
        let list = answer["routes"].as_array().cloned().unwrap_or_default();
        list.iter().map(|r| r["prefix"].as_str().unwrap().to_owned()).collect()
    }

    fn is_unharmed(&self) {
        assert_eq!(self.node.pid(), self.pid);
        assert!(std::fs::exists(format!("/proc/{}", self.pid)).unwrap(), "the daemon lives");
        assert_eq!(self.node.since("10.99.0.101"), self.since, "the other session");
        assert!(self.bird.has("10.91.1.0/26"));
    }
}

fn net(n: u16) -> [u8; 4] {
    [24, 198, 18 + (n >> 8) as u8, n as u8]
}

fn text(n: u16) -> String {
    format!("198.{}.{}.0/24", 18 + (n >> 8), n as u8)
}

/// The good attributes, one of them by `code` replaced.
fn with(code: u8, other: &[u8]) -> Vec<u8> {
    let good = [
        (1, attribute(0x40, 1, &[0])),
        (2, attribute(0x40, 2, &[&[2, 1], &ASN.to_be_bytes()[..]].concat())),
        (3, attribute(0x40, 3, &[10, 99, 0, 130])),
    ];
    let mut all: Vec<u8> = good
        .iter()
        .flat_map(|(c, octets)| if *c == code { other.to_vec() } else { octets.clone() })
        .collect();
    if code > 3 {
        all.extend_from_slice(other);
    }
    all
}

fn octets(chance: &mut Random, len: u64) -> Vec<u8> {
    (0..len).map(|_| chance.number() as u8).collect()
}

/// Any length but those that are right.
fn wrong_length(chance: &mut Random, right: impl Fn(u64) -> bool) -> u64 {
    (0..).map(|_| chance.below(40)).find(|len| !right(*len)).unwrap()
}

/// An attribute field that is wrong in one way of RFC 7606 section 7, or in none, and what that must cost.
fn one_fault(chance: &mut Random) -> (&'static str, Vec<u8>, Fate) {
    let kind = chance.below(16);
    let mut bad = |code: u8, flags: u8, right: fn(u64) -> bool| {
        let len = wrong_length(chance, right);
        with(code, &attribute(flags, code, &octets(chance, len)))
    };
    match kind {
        0 => ("ORIGIN of a wrong length", bad(1, 0x40, |n| n == 1), Withdrawn),
        1 => ("NEXT_HOP of a wrong length", bad(3, 0x40, |n| n == 4), Withdrawn),
        2 => ("MED of a wrong length", bad(4, 0x80, |n| n == 4), Withdrawn),
        3 => ("communities of a wrong length", bad(8, 0xc0, |n| n > 0 && n % 4 == 0), Withdrawn),
        4 => ("extended communities of a wrong length", bad(16, 0xc0, |n| n > 0 && n % 8 == 0), Withdrawn),
        5 => ("large communities of a wrong length", bad(32, 0xc0, |n| n > 0 && n % 12 == 0), Withdrawn),
        6 => ("AGGREGATOR of a wrong length", bad(7, 0xc0, |n| n == 8), Taken),
        7 => ("ATOMIC_AGGREGATE of a wrong length", bad(6, 0x40, |n| n == 0), Taken),
        8 => ("LOCAL_PREF from an external peer", bad(5, 0x40, |_| false), Taken),
        9 => ("ORIGINATOR_ID from an external peer", bad(9, 0x80, |_| false), Taken),
        10 => ("CLUSTER_LIST from an external peer", bad(10, 0x80, |_| false), Taken),
        11 => ("an unknown optional attribute", bad(100 + (kind as u8), 0xc0, |_| false), Taken),
        12 => (
            "ORIGIN of an unknown value",
            with(1, &attribute(0x40, 1, &[3 + chance.below(200) as u8])),
            Withdrawn,
        ),
        13 => (
            "ORIGIN with flags of others",
            with(1, &attribute(0x80 | (chance.below(2) as u8) << 6, 1, &[0])),
            Withdrawn,
        ),
        14 => (
            "a path of an unknown segment",
            with(2, &attribute(0x40, 2, &[5 + chance.below(250) as u8, 1, 0, 0, 0, 9])),
            Withdrawn,
        ),
        _ => (
            "an attribute longer than the field",
            [good_attributes(ASN, [10, 99, 0, 130].into()), vec![0xc0, 8, 40 + chance.below(200) as u8, 1]]
                .concat(),
            Withdrawn,
        ),
    }
}

/// Thousands of UPDATEs, each wrong in one way: the session stays, and exactly the routes are there that must be.
// REQ: B-07
#[test]
fn forgivable_faults_cost_their_routes_and_no_more() {
    let bed = bed("fuzz");
    let ns = bed.fabric.host(130);
    let mut peer = bed.connect(&ns, 130);
    let rounds = if std::env::var_os("PERCALE_FULL").is_some() { 20 } else { 2 };
    let mut chance = Random::new(seed());
    for round in 0..rounds {
        let mut wanted = Vec::new();
        for n in 0..500 {
            // Known as good before: a route that is treated as withdrawn must go.
            let good = update(&good_attributes(ASN, [10, 99, 0, 130].into()), &net(n));
            peer.send(UPDATE, &good).unwrap();
            let (what, attributes, fate) = one_fault(&mut chance);
            peer.send(UPDATE, &update(&attributes, &net(n))).unwrap_or_else(|e| panic!("before {what}: {e}"));
            wanted.extend((fate == Taken).then(|| text(n)));
        }
        // One that comes last, so that all before it were looked at.
        let last = update(&good_attributes(ASN, [10, 99, 0, 130].into()), &net(511));
        peer.send(UPDATE, &last).unwrap();
        wanted.push(text(511));
        soon(&format!("round {round}: the right routes are there"), || {
            let seen = bed.routes();
            let differ =
                |a: &[String], b: &[String]| a.iter().filter(|x| !b.contains(x)).cloned().collect::<Vec<_>>();
            (
                seen == wanted,
                format!("missing {:?}, too many {:?}", differ(&wanted, &seen), differ(&seen, &wanted)),
            )
        });
        assert!(bed.node.is_up("10.99.0.130"), "{}", bed.node.last_error("10.99.0.130"));
        // Take all back, for the next round.
        (0..512).for_each(|n| peer.send(UPDATE, &[&[0, 4][..], &net(n), &[0, 0]].concat()).unwrap());
        soon("all are withdrawn", || (bed.routes().is_empty(), format!("{:?}", bed.routes())));
    }
    bed.is_unharmed();
}

/// An UPDATE with some octets changed, cut out or put in, often with the length in its header to match.
fn mutated(chance: &mut Random) -> Vec<u8> {
    let (_, attributes, _) = one_fault(chance);
    let nlri: Vec<u8> = (0..chance.below(6)).flat_map(|_| net(chance.below(512) as u16)).collect();
    let mut body = update(&attributes, &nlri);
    for _ in 0..=chance.below(4) {
        let at = chance.below(body.len() as u64) as usize;
        match chance.below(3) {
            0 => body[at] = chance.number() as u8,
            1 => drop(body.remove(at)),
            _ => body.insert(at, chance.number() as u8),
        }
    }
    let kind = if chance.below(20) == 0 { chance.number() as u8 } else { UPDATE };
    let mut octets = message(kind, &body);
    if chance.below(30) == 0 {
        let at = chance.below(octets.len() as u64) as usize;
        octets[at] ^= 1 << chance.below(8);
    }
    octets
}

/// How a session ends that hears nonsense: it answers as ever, or it says why it ends.
fn what_became_of(peer: &mut Scripted) -> Option<u8> {
    // Whatever length a broken header claimed is filled up, and then something is asked for.
    let filler = message(KEEPALIVE, &[]).repeat(300);
    let asked = peer.send_raw(&filler).and_then(|()| peer.send(REFRESH, &[0, 1, 0, 1]));
    let mut ended = None;
    loop {
        match peer.hear(Duration::from_secs(20)) {
            Heard::Message(NOTIFICATION, body) => ended = Some(body[0]),
            // The node's own block, told again.
            Heard::Message(UPDATE, body) if body.ends_with(&[26, 10, 91, 1, 0]) && asked.is_ok() => {
                return None;
            }
            Heard::Message(..) => {}
            Heard::End => return Some(ended.unwrap_or(0)),
            Heard::Silence => panic!("neither an answer nor an end"),
        }
    }
}

/// Sessions from a range, each with octets changed anywhere.
// REQ: B-07, B-08
#[test]
fn whatever_a_peer_sends_the_daemon_answers_and_lives() {
    let bed = bed("chaos");
    let ns = bed.fabric.host(130);
    let sessions = if std::env::var_os("PERCALE_FULL").is_some() { 110 } else { 40 };
    let mut chance = Random::new(seed());
    let (mut lived, mut ended) = (0, 0);
    // From a new address each time: one that was at fault has to wait before it is heard again.
    for n in (131..254).take(sessions) {
        e2e::bgp::ip(&ns, &format!("addr add 10.99.0.{n}/24 dev eth0"));
        let mut peer = bed.connect(&ns, n);
        // The first telling, so that a later one is an answer.
        loop {
            match peer.hear(Duration::from_secs(20)) {
                Heard::Message(UPDATE, body) if body.is_empty() || body == [0; 4] => break,
                Heard::Message(UPDATE, body) if body.ends_with(&[26, 10, 91, 1, 0]) => break,
                Heard::Message(..) => {}
                other => panic!("{other:?}"),
            }
        }
        for _ in 0..=chance.below(5) {
            if peer.send_raw(&mutated(&mut chance)).is_err() {
                break;
            }
        }
        match what_became_of(&mut peer) {
            None => lived += 1,
            Some(code) => {
                assert!((1..=7).contains(&code), "session {n} ended with NOTIFICATION {code}");
                ended += 1;
            }
        }
    }
    assert!(lived > 0 && ended > 0, "{lived} lived, {ended} ended: the nonsense is too tame or too wild");
    bed.is_unharmed();
    soon("nothing of them is left", || {
        drop(e2e::bgp::gateways(&bed.node.ns, "198.18.0.0/24"));
        (bed.routes().is_empty(), format!("{:?}", bed.routes()))
    });
}
