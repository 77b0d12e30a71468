//! The CNI plugin's library: the engine that serves a request, and what its hosts share.
//!
//! The two programs of this crate host it with a process per call; the host's daemon hosts the same
//! [`engine::Engine`], and they ask it first ([`daemon`]).

pub mod arena;
pub mod bytes;
pub mod daemon;
pub mod delegate;
pub mod engine;
mod hand_over;
pub mod hostlocal;
pub mod log;
pub mod plugin;
pub mod start;
pub mod watchdog;
