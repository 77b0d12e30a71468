//! See the crate's README.

pub mod delegate;
pub mod hostlocal;
pub mod log;
pub mod watchdog;
