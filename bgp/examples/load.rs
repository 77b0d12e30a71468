//! Peers for a speaker under load: feeds that announce prefixes, and one more peer that only listens. Says how long the
//! speaker took until each had heard all others, and how long one change takes then.
//!
//! `cargo run --release -p bgp --example load SPEAKER FEEDS PREFIXES_EACH`
//!
//! The speaker is in AS 65000 and takes external peers: the listener 10.0.250.1 in AS 64999, and feed number N, from 0, at
//! [`feed_address`] in AS 65001 + N. These addresses must be on the host. Prints one line of JSON, times in ms.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use bgp::wire::{AsPath, Attributes, EncodeParams, Nlri, announce};
use bgp::{Family, PerFamily, Prefix};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

const LISTENER: Ipv4Addr = Ipv4Addr::new(10, 0, 250, 1);
const LISTENER_AS: u32 = 64999;
const FIRST_AS: u32 = 65001;
const PORT: u16 = 179;
/// Prefixes with the same attributes, as in the tables of the Internet.
const SHARED: usize = 5;
/// The first /24: behind the addresses of the sessions.
const BASE: u32 = 0x2000_0000;
const ENCODE: EncodeParams = EncodeParams { as4: true, add_path: PerFamily::NONE, extended_message: false };
const PATIENCE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(120);
const HEADER: usize = 19;
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;
const CHANGES: usize = 50;

/// Where feed `n` is.
fn feed_address(n: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0100 + (n / 250 * 256 + n % 250 + 1) as u32)
}

enum Heard {
    /// A peer, by number, has all prefixes of the others.
    All(usize, Instant),
    /// The listener was told of prefix 0 again.
    Change(Instant),
}

struct Plan {
    speaker: Ipv4Addr,
    feeds: usize,
    each: usize,
    /// All sessions are up.
    up: Barrier,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [speaker, feeds, each] = &args[..] else {
        eprintln!("load SPEAKER FEEDS PREFIXES_EACH");
        std::process::exit(64);
    };
    let (speaker, feeds) = (speaker.parse().expect("an IPv4 address"), feeds.parse().expect("a number"));
    let each = each.parse().expect("a number");
    let plan = Arc::new(Plan { speaker, feeds, each, up: Barrier::new(feeds + 2) });
    let (tell, heard) = channel();
    let changes: Vec<Sender<u32>> = (0..=feeds).map(|n| start(&plan, n, &tell)).collect();
    plan.up.wait();
    let begun = Instant::now();
    let (listener, all) = wait_for_all(&plan, &heard, begun);
    let change = one_change(&changes[0], &heard);
    println!("{{\"listener_ms\":{listener:.1},\"all_ms\":{all:.1},\"change_ms\":{change:.3}}}");
    std::process::exit(0);
}

/// Starts peer `n`; the number after the last feed is the listener. What it is sent later are changes of prefix 0.
fn start(plan: &Arc<Plan>, n: usize, tell: &Sender<Heard>) -> Sender<u32> {
    let (changes, wanted) = channel();
    let (plan, tell) = (plan.clone(), tell.clone());
    let small = thread::Builder::new().stack_size(256 << 10);
    small.spawn(move || peer(&plan, n, &tell, &wanted)).expect("a thread can be started");
    changes
}

fn peer(plan: &Plan, n: usize, tell: &Sender<Heard>, changes: &Receiver<u32>) {
    let is_listener = n == plan.feeds;
    let (local, asn) =
        if is_listener { (LISTENER, LISTENER_AS) } else { (feed_address(n), FIRST_AS + n as u32) };
    let octets = if is_listener { Vec::new() } else { feed(n, plan.each) };
    let mut stream = establish(plan.speaker, local, asn);
    let reader = stream.try_clone().expect("a socket can be shared");
    let own = if is_listener { 0..0 } else { n * plan.each..(n + 1) * plan.each };
    let seen = Seen::new(plan.feeds * plan.each, own);
    let tell = tell.clone();
    let small = thread::Builder::new().stack_size(256 << 10);
    small.spawn(move || listen(reader, n, is_listener, seen, &tell)).expect("a thread can be started");
    plan.up.wait();
    stream.write_all(&octets).expect("the speaker takes the feed");
    loop {
        match changes.recv_timeout(Duration::from_secs(10)) {
            Ok(value) => stream.write_all(&update(n, n * plan.each, 0, 1, value)).expect("the session is up"),
            Err(_) => stream.write_all(&message(KEEPALIVE, &[])).expect("the session is up"),
        }
    }
}

fn establish(speaker: Ipv4Addr, local: Ipv4Addr, asn: u32) -> TcpStream {
    let begun = Instant::now();
    loop {
        match try_to_establish(speaker, local, asn) {
            Ok(stream) => return stream,
            Err(error) if begun.elapsed() > PATIENCE => panic!("{local}: no session: {error}"),
            Err(_) => thread::sleep(Duration::from_millis(300)),
        }
    }
}

fn try_to_establish(speaker: Ipv4Addr, local: Ipv4Addr, asn: u32) -> std::io::Result<TcpStream> {
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&fd, &SocketAddr::new(local.into(), 0))?;
    connect(&fd, &SocketAddr::new(speaker.into(), PORT))?;
    let mut stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&open(local, asn))?;
    for wanted in [OPEN, KEEPALIVE] {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header)?;
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - HEADER];
        stream.read_exact(&mut body)?;
        if header[18] != wanted {
            return Err(std::io::Error::other(format!("message {} {body:?}", header[18])));
        }
        stream.write_all(&message(KEEPALIVE, &[]))?;
    }
    stream.set_read_timeout(None)?;
    Ok(stream)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend(((HEADER + body.len()) as u16).to_be_bytes());
    out.push(kind);
    out.extend_from_slice(body);
    out
}

/// With IPv4 unicast and four-octet AS numbers; RFC 4271 section 4.2, RFC 4760, RFC 6793.
fn open(local: Ipv4Addr, asn: u32) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4];
    capabilities.extend(asn.to_be_bytes());
    let mut body = vec![4];
    body.extend((asn as u16).to_be_bytes());
    body.extend(240_u16.to_be_bytes());
    body.extend(local.octets());
    body.extend([capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
    body.extend(capabilities);
    message(OPEN, &body)
}

fn feed(n: usize, each: usize) -> Vec<u8> {
    let groups = (0..each).step_by(SHARED);
    groups.flat_map(|at| update(n, n * each, at, SHARED.min(each - at), 0)).collect()
}

/// The UPDATE of a feed's prefixes from `at` on, its first being number `first`; `value` makes it another than before.
fn update(n: usize, first: usize, at: usize, count: usize, value: u32) -> Vec<u8> {
    let hash = ((n << 20 | at) as u32).wrapping_mul(2_654_435_761);
    let mut attributes = Attributes::local(IpAddr::V4(feed_address(n)));
    let far = |bits: u32| bits & 0x7fff | 1;
    attributes.as_path = AsPath::sequence(&[FIRST_AS + n as u32, far(hash >> 16), far(hash), far(hash >> 8)]);
    attributes.add_community(hash);
    attributes.med = (value > 0).then_some(value);
    if value > 0 {
        attributes.add_community(value);
    }
    let nlri: Vec<Nlri> = (at..at + count).map(|i| prefix(first + i)).collect();
    announce(&attributes, Family::Ipv4, &nlri, &ENCODE).expect("short attributes").concat()
}

fn prefix(number: usize) -> Nlri {
    let addr = IpAddr::V4(Ipv4Addr::from(BASE + number as u32 * 256));
    Prefix::new(addr, 24).expect("24 is a length of IPv4").into()
}

/// Which prefixes a peer was told.
struct Seen {
    bits: Vec<u64>,
    missing: usize,
    own: std::ops::Range<usize>,
}

impl Seen {
    fn new(total: usize, own: std::ops::Range<usize>) -> Seen {
        Seen { bits: vec![0; total.div_ceil(64)], missing: total - own.len(), own }
    }

    fn add(&mut self, number: usize) {
        let Some(word) = self.bits.get_mut(number / 64) else { return };
        let bit = 1 << (number % 64);
        if *word & bit == 0 && !self.own.contains(&number) {
            *word |= bit;
            self.missing -= 1;
        }
    }
}

fn listen(mut stream: TcpStream, n: usize, is_listener: bool, mut seen: Seen, tell: &Sender<Heard>) {
    let (mut buffer, mut held) = (vec![0; 256 << 10], 0);
    let mut done = false;
    loop {
        let got = stream.read(&mut buffer[held..]).unwrap_or(0);
        if got == 0 {
            panic!("peer {n}: the speaker closed the session");
        }
        let now = Instant::now();
        held += got;
        let used = take_messages(&buffer[..held], |number| {
            seen.add(number);
            if done && is_listener && number == 0 {
                let _ = tell.send(Heard::Change(now));
            }
        });
        buffer.copy_within(used..held, 0);
        held -= used;
        if seen.missing == 0 && !done {
            done = true;
            let _ = tell.send(Heard::All(n, now));
        }
    }
}

/// Calls `each` with the number of every prefix announced in whole messages; answers how many octets these have.
fn take_messages(octets: &[u8], mut each: impl FnMut(usize)) -> usize {
    let mut at = 0;
    while let Some(header) = octets.get(at..at + HEADER) {
        let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let Some(body) = octets.get(at + HEADER..at + len) else { break };
        match header[18] {
            UPDATE => take_update(body, &mut each),
            NOTIFICATION => panic!("the speaker says {body:?}"),
            _ => {}
        }
        at += len;
    }
    at
}

fn take_update(body: &[u8], each: &mut impl FnMut(usize)) {
    let block = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]])) + at + 2;
    let mut nlri = &body[block(block(0))..];
    while let [24, a, b, c, rest @ ..] = nlri {
        let addr = u32::from_be_bytes([*a, *b, *c, 0]);
        each((addr.wrapping_sub(BASE) >> 8) as usize);
        nlri = rest;
    }
}

fn ms(from: Instant, to: Instant) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}

/// When the listener, and when the last of all, had heard everything.
fn wait_for_all(plan: &Plan, heard: &Receiver<Heard>, begun: Instant) -> (f64, f64) {
    // A single feed has nothing to hear.
    let counts = |n: usize| n == plan.feeds || plan.feeds > 1;
    let mut waiting = (0..=plan.feeds).filter(|n| counts(*n)).count();
    let (mut listener, mut all) = (0.0, 0.0);
    while waiting > 0 {
        match heard.recv_timeout(LONGEST.saturating_sub(begun.elapsed())) {
            Ok(Heard::All(n, at)) if counts(n) => {
                all = f64::max(all, ms(begun, at));
                listener = if n == plan.feeds { ms(begun, at) } else { listener };
                waiting -= 1;
            }
            Ok(Heard::All(..) | Heard::Change(_)) => {}
            Err(_) => too_slow(),
        }
    }
    (listener, all)
}

/// What is said of a speaker that does not come to an end.
fn too_slow() -> ! {
    let longest = LONGEST.as_millis();
    println!("{{\"listener_ms\":{longest},\"all_ms\":{longest},\"change_ms\":{longest},\"cut_off\":true}}");
    std::process::exit(0);
}

/// The median time from one changed prefix to its arrival at the listener.
fn one_change(feed: &Sender<u32>, heard: &Receiver<Heard>) -> f64 {
    thread::sleep(Duration::from_secs(2));
    while heard.try_recv().is_ok() {}
    let once = |value: u32| {
        let begun = Instant::now();
        feed.send(value).expect("the feed waits for changes");
        let at = match heard.recv_timeout(LONGEST).expect("the speaker tells of the change") {
            Heard::Change(at) | Heard::All(_, at) => at,
        };
        thread::sleep(Duration::from_millis(50));
        ms(begun, at)
    };
    let mut times: Vec<f64> = (1..=CHANGES as u32).map(once).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
