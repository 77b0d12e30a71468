//! BGP-4 and BFD as values and functions: no socket, no clock, no thread, no random source.

pub mod bfd;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod policy;
mod prefix;
mod prefix_map;
pub mod rib;
pub mod session;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
pub mod speaker;
pub mod wire;

pub use prefix::{Family, PerFamily, Prefix, PrefixError};
pub use prefix_map::PrefixMap;

/// A point in time: what passed since an epoch of the caller's choice, on a clock that never goes back.
pub type Time = std::time::Duration;
