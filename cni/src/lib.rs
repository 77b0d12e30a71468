//! The CNI plugin's library: the engine that serves a request, and what its hosts share.
//!
//! The two programs of this crate are its hosts so far, a process per call. A daemon hosts the same
//! [`engine::Engine`].

pub mod arena;
pub mod delegate;
pub mod engine;
mod hand_over;
pub mod hostlocal;
pub mod log;
pub mod plugin;
pub mod start;
pub mod watchdog;
