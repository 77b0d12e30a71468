//! Asking the host's daemon to serve a request, over its unix socket.
//!
//! ```text
//!   plugin  ── connect, one message: length, JSON, the namespace's descriptor (SCM_RIGHTS) ──►  percaled
//!           ◄──────────────────────── one message: length, JSON ────────────────────────────
//! ```
//! [`message`] is what is said; [`channel`] how it is carried; [`client`] when the
//! plugin asks, asks again, or serves the request itself (decision 10).

pub(crate) mod asking;
pub mod channel;
mod client;

pub use client::{Outcome, ask};

pub use cni_protocol::daemon as message;

use crate::log;
use message::LogPart;
use std::time::Duration;

/// What the daemon's engine gathered for the log line of the plugin.
pub fn log_part(record: &log::Call) -> LogPart {
    let micros = |took: &Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    LogPart {
        addresses: record.addresses.clone(),
        phases: record.phases.iter().map(|(name, took)| (name.to_string(), micros(took))).collect(),
        note: record.note.clone(),
    }
}

pub(crate) fn add_to(record: &mut log::Call, part: LogPart) {
    record.addresses = part.addresses;
    let phases = part.phases.into_iter().map(|(name, us)| (name.into(), Duration::from_micros(us)));
    record.phases = phases.collect();
    record.note = part.note;
}
