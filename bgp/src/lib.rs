//! BGP-4 and BFD as values and functions: no socket, no clock, no thread, no random source.

mod prefix;
pub mod wire;

pub use prefix::{Family, PerFamily, Prefix, PrefixError};
