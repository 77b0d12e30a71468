//! The CNI plugin's library: the engine that serves a request, and what its hosts share.
//!
//! `main.rs` is the one host so far, a process per call. A daemon hosts the same [`engine::Engine`].

pub mod delegate;
pub mod engine;
pub mod hostlocal;
pub mod log;
pub mod plugin;
pub mod watchdog;
