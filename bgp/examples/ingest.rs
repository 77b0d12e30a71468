//! Takes in a table and tells it to the other peers: processor time and memory, without sockets.
//!
//! `cargo run --release -p bgp --example ingest [PEERS PREFIXES_EACH]`; without arguments the three cases of the
//! benchmark. The feed is made piece by piece and its making is not counted. Five prefixes share attributes, as
//! in the tables of the Internet.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bgp::rib::{Neighbor, NeighborOptions, PeerId, Rib, RibOptions};
use bgp::wire::{AsPath, Attributes, DecodeParams, EncodeParams, Framer, Message, Nlri, announce};
use bgp::{Family, PerFamily, Prefix};

const LOCAL_AS: u32 = 65000;
const SHARED: usize = 5;
const V4: PerFamily<bool> = PerFamily { v4: true, v6: false };
const ENCODE: EncodeParams = EncodeParams { as4: true, add_path: PerFamily::NONE, extended_message: false };
const DECODE: DecodeParams = DecodeParams {
    as4: true,
    internal: false,
    families: V4,
    add_path: PerFamily::NONE,
    extended_next_hop: false,
};

fn main() {
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    println!("peers  prefixes  take in ms  tell ms    pieces  table  attribute sets  MiB");
    match args[..] {
        [peers, each] => run(peers, each),
        // One case a process, so that memory is the case's own.
        _ => [(1, 1_000_000), (10, 100_000), (500, 100)].iter().for_each(|(p, n)| again(*p, *n)),
    }
}

fn again(peers: usize, each: usize) {
    let program = std::env::current_exe().expect("a running program has a path");
    let output = std::process::Command::new(program).args([peers.to_string(), each.to_string()]).output();
    let text = String::from_utf8_lossy(&output.expect("it can be run again").stdout).into_owned();
    print!("{}", text.lines().skip(1).map(|l| format!("{l}\n")).collect::<String>());
}

fn run(peers: usize, each: usize) {
    let start = resident();
    let mut rib = Rib::new(
        RibOptions { local_as: LOCAL_AS, router_id: [10, 0, 0, 1].into(), cluster_id: None, max_paths: 1 },
        1,
    );
    // One more peer than feeds, so that somebody is told everything.
    (0..=peers).for_each(|n| rib.peer_up(PeerId(n as u32), neighbor(n)));
    let (mut take_in, mut tell, mut messages) = (Duration::ZERO, Duration::ZERO, 0);
    for block in 0..each.div_ceil(1000) {
        for peer in 0..peers {
            let size = (each - block * 1000).min(1000);
            let octets = feed(peer, peer * each + block * 1000, size);
            let from = processor();
            receive(&mut rib, peer, &octets);
            take_in += processor() - from;
        }
        let from = processor();
        messages += (0..=peers).map(|n| drain(&mut rib, n)).sum::<usize>();
        tell += processor() - from;
    }
    let (table, sets, mib) = (rib.len(), rib.attribute_sets(), (resident() - start) / 1024);
    let ms = |d: Duration| d.as_millis();
    println!(
        "{peers:5}  {each:8}  {:10}  {:7}  {messages:8}  {table:5}  {sets:14}  {mib:3}",
        ms(take_in),
        ms(tell)
    );
}

fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x0a01_0000 + n as u32)
}

fn neighbor(n: usize) -> Neighbor {
    let own = Some(IpAddr::from([10, 0, 0, 1]).into());
    Neighbor {
        addr: IpAddr::V4(address(n)),
        router_id: address(n),
        peer_as: LOCAL_AS + 1 + n as u32,
        local_as: LOCAL_AS,
        internal: false,
        families: V4,
        encode: ENCODE,
        enhanced_refresh: true,
        extended_next_hop: false,
        long_lived: PerFamily::NONE,
        options: NeighborOptions::new(PerFamily { v4: own, v6: None }),
    }
}

/// UPDATEs for `count` /24s from number `first` on.
fn feed(peer: usize, first: usize, count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for group in (first..first + count).step_by(SHARED) {
        let hash = (group as u32).wrapping_mul(2_654_435_761);
        let mut attributes = Attributes::local(IpAddr::V4(address(peer)));
        attributes.as_path =
            AsPath::sequence(&[LOCAL_AS + 1 + peer as u32, hash >> 16 | 1, hash & 0xffff | 1, hash >> 8 | 1]);
        attributes.add_community(hash);
        let nlri: Vec<Nlri> = (group..(group + SHARED).min(first + count)).map(prefix).collect();
        out.extend(announce(&attributes, Family::Ipv4, &nlri, &ENCODE).expect("short attributes").concat());
    }
    out
}

fn prefix(n: usize) -> Nlri {
    let addr = IpAddr::V4(Ipv4Addr::from(0x0100_0000 + (n as u32) * 256));
    Prefix::new(addr, 24).expect("24 is a length of IPv4").into()
}

fn receive(rib: &mut Rib, peer: usize, octets: &[u8]) {
    let mut framer = Framer::default();
    framer.push(octets);
    while let Some(frame) = framer.next(false).expect("a good feed") {
        if let Message::Update(update) = Message::decode(&frame, &DECODE).expect("a good feed") {
            rib.update(PeerId(peer as u32), update).expect("no limit");
        }
    }
    while rib.poll_fib().is_some() {}
}

fn drain(rib: &mut Rib, peer: usize) -> usize {
    let mut messages = 0;
    while let Some(more) = rib.poll_updates(PeerId(peer as u32)) {
        messages += more.len();
    }
    messages
}

/// Time that this thread has spent on a processor: what others do on the machine does not count.
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// The most resident memory so far, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0)
}
