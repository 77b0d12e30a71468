//! Asking the host's daemon to serve a request, over its unix socket.
//!
//! ```text
//!   plugin  ── connect, one message: length, JSON, the namespace's descriptor (SCM_RIGHTS) ──►  percaled
//!           ◄──────────────────────── one message: length, JSON ────────────────────────────
//! ```
//! [`message`] is what is said, pure and fuzzed; [`channel`] how it is carried; [`client`] when the
//! plugin asks, asks again, or serves the request itself (decision 10).

pub(crate) mod asking;
pub mod channel;
mod client;
pub mod message;

pub use client::{Outcome, ask};
