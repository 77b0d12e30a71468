//! When addresses were released, so that they are not given again too soon (decision 21).
//!
//! Kept in a key of ours beside each block, because blocks as every Calico reads them have no
//! room for it. Entries of addresses in use, or older than the delay, mean nothing.

use crate::request::{Context, Now};
use model::{DecodeError, Stored};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Release times of a block's addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cooling {
    /// By ordinal.
    released: BTreeMap<u32, Moment>,
}

/// A moment, told by every clock there is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Moment {
    host: String,
    boot: String,
    /// Milliseconds since that boot.
    up_ms: u64,
    /// Nanoseconds since 1970.
    wall_ns: u64,
}

impl Cooling {
    /// How long ago an address was released, or `None` if that is unknown or does not count.
    pub fn age(&self, ordinal: u32, cx: &Context) -> Option<Duration> {
        self.released.get(&ordinal).map(|moment| moment.age(cx))
    }

    /// Records releases, and drops what is older than `delay`.
    pub fn record(&mut self, ordinals: &[u32], cx: &Context, delay: Duration) {
        self.released.retain(|_, moment| moment.age(cx) < delay);
        for &ordinal in ordinals {
            self.released.insert(ordinal, Moment::of(cx.host, &cx.now));
        }
    }
}

impl Moment {
    fn of(host: &str, now: &Now) -> Self {
        let (host, boot) = (host.to_owned(), now.boot_id.to_owned());
        Self { host, boot, up_ms: now.boottime_ms, wall_ns: now.wall_ns }
    }

    /// Time since then. Within one boot the boot clock tells; else the wall clock, except that a
    /// clock behind the recorded time proves nothing and counts as long ago, and that this host
    /// has been up for some time since it was booted after the release.
    fn age(&self, cx: &Context) -> Duration {
        let now = &cx.now;
        if self.host == cx.host && self.boot == now.boot_id {
            return Duration::from_millis(now.boottime_ms.saturating_sub(self.up_ms));
        }
        let Some(wall) = now.wall_ns.checked_sub(self.wall_ns) else { return Duration::MAX };
        let up = if self.host == cx.host { now.boottime_ms } else { 0 };
        Duration::from_nanos(wall).max(Duration::from_millis(up))
    }
}

impl Stored for Cooling {
    fn decode(key: &str, value: &[u8]) -> Result<Self, DecodeError> {
        crate::sticky::decode_side("release times", key, value)
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("release times have only plain keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Scope;

    fn cx<'a>(host: &'a str, boot: &'a str, up_s: u64, wall_s: u64) -> Context<'a> {
        let now = Now { wall_ns: wall_s * 1_000_000_000, boot_id: boot, boottime_ms: up_s * 1000 };
        Context { scope: &Scope::Cluster, host, now, chance: 0, transactional: true }
    }

    const DELAY: Duration = Duration::from_secs(60);

    impl Cooling {
        fn is_cooling(&self, ordinal: u32, cx: &Context, delay: Duration) -> bool {
            self.age(ordinal, cx).is_some_and(|age| age < delay)
        }
    }

    fn released_at(then: &Context) -> Cooling {
        let mut cooling = Cooling::default();
        cooling.record(&[3], then, DELAY);
        cooling
    }

    // REQ: A-13
    #[test]
    fn an_address_cools_for_the_delay_and_no_longer() {
        let cooling = released_at(&cx("h", "b", 100, 1000));
        assert!(cooling.is_cooling(3, &cx("h", "b", 159, 1059), DELAY));
        assert!(!cooling.is_cooling(3, &cx("h", "b", 160, 1060), DELAY));
        assert!(!cooling.is_cooling(4, &cx("h", "b", 100, 1000), DELAY));
    }

    #[test]
    fn a_clock_set_back_never_lengthens_it() {
        let cooling = released_at(&cx("h", "b", 100, 1000));
        assert!(!cooling.is_cooling(3, &cx("h", "b", 160, 1), DELAY), "same boot");
        assert!(!cooling.is_cooling(3, &cx("h", "b2", 5, 1), DELAY), "after a reboot");
        assert!(!cooling.is_cooling(3, &cx("h", "b2", 60, 1001), DELAY), "up for longer than the delay");
        assert!(!cooling.is_cooling(3, &cx("other", "b3", 5, 999), DELAY), "seen by another host");
    }

    #[test]
    fn old_entries_go_when_new_ones_come() {
        let mut cooling = released_at(&cx("h", "b", 100, 1000));
        cooling.record(&[4], &cx("h", "b", 200, 1100), DELAY);
        assert_eq!(cooling.released.keys().copied().collect::<Vec<_>>(), [4]);
    }
}
