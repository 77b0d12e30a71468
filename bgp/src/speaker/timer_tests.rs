//! Thousands of peers on one speaker: every timer at its time, and no work for those that have none due.

use std::time::Duration;

use super::*;
use crate::rib::NeighborOptions;
use crate::wire::{Capability, Code, Open, encode_keepalive, encode_open};

const PEERS: u32 = 4000;
const SECOND: Duration = Duration::from_secs(1);
/// What the peers offer; ours is longer.
const HOLD: Duration = Duration::from_secs(90);

/// A speaker whose passive peers all have a connection, numbered as they are.
struct Crowd {
    speaker: Speaker,
    now: Time,
    keepalives: BTreeMap<PeerId, Vec<Time>>,
    downs: BTreeMap<PeerId, (Time, Code)>,
    closed: usize,
}

fn connected() -> Crowd {
    let options =
        RibOptions { local_as: 65000, router_id: [10, 0, 0, 1].into(), cluster_id: None, max_paths: 1 };
    let mut speaker = Speaker::new(options, 1);
    for n in 1..=PEERS {
        let mut session = SessionConfig::new(65000, [10, 0, 0, 1].into(), 65000 + n);
        session.passive = true;
        let options = NeighborOptions::new(PerFamily::default());
        let config = PeerConfig { addr: IpAddr::from(address(n)), session, options };
        speaker.set_peer(PeerId(n), config, Time::ZERO);
        speaker.handle(PeerId(n), session::Input::Accepted(ConnId(n)), Time::ZERO);
    }
    Crowd { speaker, now: Time::ZERO, keepalives: BTreeMap::new(), downs: BTreeMap::new(), closed: 0 }
}

fn address(n: u32) -> [u8; 4] {
    (0x0a01_0000 + n).to_be_bytes()
}

fn open(n: u32) -> Vec<u8> {
    let capabilities =
        vec![Capability::FourOctetAs(65000 + n), Capability::MultiProtocol(Family::Ipv4.into())];
    let hold_time = HOLD.as_secs() as u16;
    encode_open(&Open { asn: 65000 + n, hold_time, router_id: address(n).into(), capabilities })
}

impl Crowd {
    fn hear(&mut self, n: u32, octets: Vec<u8>) {
        self.speaker.handle(PeerId(n), session::Input::Received(ConnId(n), octets), self.now);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            match output {
                Output::Send(id, _, octets) if octets == encode_keepalive() => {
                    self.keepalives.entry(id).or_default().push(self.now);
                }
                Output::Down(id, Down { reason: Reason::Sent(n), .. }) => {
                    assert!(self.downs.insert(id, (self.now, n.code)).is_none(), "down once");
                }
                Output::Close(..) => self.closed += 1,
                _ => {}
            }
        }
    }

    /// To a point in time, as a driver does it: sleeping from deadline to deadline. How often it woke.
    fn sleep_until(&mut self, end: Time) -> usize {
        let mut wakes = 0;
        while let Some(due) = self.speaker.poll_timeout().filter(|due| *due <= end) {
            assert!(due >= self.now, "a deadline was left behind");
            self.now = due;
            self.speaker.handle_timeout(due);
            self.collect();
            wakes += 1;
        }
        self.now = end;
        wakes
    }
}

#[test]
fn four_thousand_that_say_nothing_are_given_up_in_time() {
    let mut crowd = connected();
    crowd.sleep_until(239 * SECOND);
    assert_eq!(crowd.closed, 0);
    // The large hold time of RFC 4271 section 8.2.2, and then damping.
    crowd.sleep_until(241 * SECOND);
    assert_eq!(crowd.closed, PEERS as usize);
    assert!(crowd.speaker.poll_timeout().is_some_and(|t| t > 243 * SECOND && t < 246 * SECOND));
}

#[test]
fn four_thousand_sessions_keep_their_timers() {
    let mut crowd = connected();
    for n in 1..=PEERS {
        crowd.hear(n, open(n));
        crowd.hear(n, encode_keepalive());
    }
    assert!((1..=PEERS).all(|n| crowd.speaker.state(PeerId(n)) == Some(State::Established)));
    crowd.keepalives.clear();
    // Every tenth falls silent at once, all others speak every 30 s.
    let is_silent = |n: u32| n.is_multiple_of(10);
    let mut wakes = 0;
    for round in 1..=20 {
        wakes += crowd.sleep_until(round * 30 * SECOND);
        (1..=PEERS).filter(|n| !is_silent(*n)).for_each(|n| crowd.hear(n, encode_keepalive()));
    }
    assert_eq!(crowd.downs.len(), PEERS as usize / 10);
    for (id, (at, code)) in &crowd.downs {
        assert!(is_silent(id.0), "{id:?}");
        assert_eq!((*at, *code), (HOLD, Code::HoldTimerExpired), "{id:?}");
    }
    for n in (1..=PEERS).filter(|n| !is_silent(*n)) {
        let times = &crowd.keepalives[&PeerId(n)];
        let gaps = times.windows(2).map(|w| w[1] - w[0]);
        // A third of the hold time, with the jitter of RFC 4271 section 10.
        gaps.for_each(|gap| assert!(gap > 22 * SECOND && gap <= 30 * SECOND, "{n}: {gap:?}"));
        assert!((20..=27).contains(&times.len()), "{n}: {}", times.len());
    }
    let sent: usize = crowd.keepalives.values().map(Vec::len).sum();
    assert!(wakes <= sent + crowd.downs.len() * 3, "{wakes} wakes for {sent} keepalives");
}
