//! Annotations of a BGPPeer: what Calico's resource has no field for.

use crate::wish::BfdWish;
use model::bgp::go_duration;
use std::time::Duration;

/// An annotation's name, what its value looks like, and how it is read.
pub(crate) struct Annotation<T> {
    pub name: &'static str,
    pub form: &'static str,
    pub parse: fn(&str) -> Option<T>,
}

/// A peering with anybody from a network.
pub(crate) const RANGE: &str = "percale.io/peer-range";

pub(crate) const BFD: Annotation<BfdWish> =
    Annotation { name: "percale.io/bfd", form: "interval=50ms,multiplier=3[,hops=N[,ttl=N]]", parse: bfd };

/// More prefixes than that end the session.
pub(crate) const MAX_PREFIXES: Annotation<u32> = Annotation {
    name: "percale.io/max-prefixes",
    form: "a number of prefixes",
    parse: |text| text.parse().ok().filter(|n| *n > 0),
};

/// Seconds for which routes are kept beyond the restart time (RFC 9494).
pub(crate) const LONG_LIVED: Annotation<u32> = Annotation {
    name: "percale.io/long-lived-restart",
    form: "a time such as 1h, from 1s to 4660h",
    parse: long_lived,
};

/// 24 bits of seconds (RFC 9494 section 3.1).
fn long_lived(text: &str) -> Option<u32> {
    let seconds = u32::try_from(go_duration(text)?.as_secs()).ok()?;
    (1..1 << 24).contains(&seconds).then_some(seconds)
}

fn bfd(text: &str) -> Option<BfdWish> {
    let mut wish = BfdWish { interval: Duration::from_millis(300), multiplier: 3, hops: None, ttl: 255 };
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=')? {
            ("interval", value) => wish.interval = go_duration(value)?,
            ("multiplier", value) => wish.multiplier = value.parse().ok().filter(|n| *n > 0)?,
            ("hops", value) => wish.hops = Some(value.parse().ok().filter(|n| *n > 0)?),
            ("ttl", value) => wish.ttl = value.parse().ok().filter(|n| *n > 0)?,
            _ => return None,
        }
    }
    // RFC 5880 section 4.1: microseconds in 32 bits.
    let range = Duration::from_millis(10)..=Duration::from_secs(4000);
    range.contains(&wish.interval).then_some(wish)
}
