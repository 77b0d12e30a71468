//! Deadlines instead of timers: one array, one minimum.

use crate::Time;

/// What may fall due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// The damping of RFC 4271 section 8.1.1 (DampPeerOscillations) ends.
    IdleHold,
    /// RFC 4271 section 8.2.2: try the outgoing connection again.
    ConnectRetry,
    /// RFC 4271 section 6.5: the peer was silent too long.
    Hold,
    /// RFC 4271 section 4.4: our turn to say that we live.
    Keepalive,
}

const COUNT: usize = 4;

/// At most one deadline per timer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers([Option<Time>; COUNT]);

impl Timers {
    pub fn set(&mut self, timer: Timer, at: Time) {
        self.0[timer as usize] = Some(at);
    }

    pub fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Time> {
        self.0.iter().flatten().min().copied()
    }

    /// Stops the timer and answers true if it is due.
    pub fn fire(&mut self, timer: Timer, now: Time) -> bool {
        let due = self.0[timer as usize].is_some_and(|at| at <= now);
        if due {
            self.stop(timer);
        }
        due
    }
}

/// Spreads a time over 75 to 100 % of itself (RFC 4271 section 10), from a seed so that a run can be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub fn new(seed: u64) -> Self {
        Jitter(seed)
    }

    /// SplitMix64: all that jitter needs, and no dependency.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn spread(&mut self, time: Time) -> Time {
        let thousandth = 750 + (self.next() % 251) as u32;
        time / 1000 * thousandth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_stays_in_its_range_and_uses_it() {
        let (mut jitter, full) = (Jitter::new(7), Time::from_secs(100));
        let all: Vec<Time> = (0..1000).map(|_| jitter.spread(full)).collect();
        assert!(all.iter().all(|t| (Time::from_secs(75)..=full).contains(t)));
        assert!(all.iter().any(|t| *t < Time::from_secs(80)) && all.iter().any(|t| *t > Time::from_secs(95)));
    }

    #[test]
    fn fire_happens_once_and_not_early() {
        let mut timers = Timers::default();
        timers.set(Timer::Hold, Time::from_secs(3));
        assert!(!timers.fire(Timer::Hold, Time::from_secs(2)));
        assert_eq!(timers.next(), Some(Time::from_secs(3)));
        assert!(timers.fire(Timer::Hold, Time::from_secs(3)));
        assert!(!timers.fire(Timer::Hold, Time::from_secs(9)));
        assert_eq!(timers.next(), None);
    }
}
