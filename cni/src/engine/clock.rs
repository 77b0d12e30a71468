//! The time of a call: the wall clock, and the boot clock that nobody can set.

use std::time::{SystemTime, UNIX_EPOCH};

/// One moment, by all clocks that leases record.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    pub wall_ns: u64,
    /// Identifies this boot of the kernel; empty where procfs does not tell.
    pub boot_id: String,
    pub boottime_ms: u64,
}

impl Clock {
    /// In debug builds `PERCALE_TEST_CLOCK_OFFSET` (seconds, signed) shifts the wall clock, so that
    /// a test can set it back without touching the machine's.
    pub fn read() -> Self {
        Self {
            wall_ns: wall_ns(),
            boot_id: netlink::boot_id().unwrap_or_default(),
            boottime_ms: boottime_ms(),
        }
    }

    pub fn now(&self) -> ipam::Now<'_> {
        ipam::Now { wall_ns: self.wall_ns, boot_id: &self.boot_id, boottime_ms: self.boottime_ms }
    }
}

fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).saturating_add_signed(test_offset_ns())
}

#[cfg(debug_assertions)]
fn test_offset_ns() -> i64 {
    let offset = std::env::var("PERCALE_TEST_CLOCK_OFFSET").ok();
    offset.and_then(|s| s.parse::<i64>().ok()).unwrap_or(0).saturating_mul(1_000_000_000)
}

#[cfg(not(debug_assertions))]
fn test_offset_ns() -> i64 {
    0
}

fn boottime_ms() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    t.tv_sec.unsigned_abs() * 1000 + t.tv_nsec.unsigned_abs() / 1_000_000
}
