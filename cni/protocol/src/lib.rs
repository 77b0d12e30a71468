//! What crosses the border between a container runtime and the plugin, as plain data: requests
//! (environment and network configuration), results and errors, for every version of the CNI
//! specification from 0.1.0 to 1.1.0. Pure: no environment, file, socket or clock is touched here.
//!
//! ```text
//!  environment ──► request::Env ──┐
//!  stdin ────────► netconf ───────┴► request::Request ──► (engine) ──► result::CniResult ──► stdout
//!                                                            └──────► error::CniError ───► stdout
//! ```

pub mod addr;
pub mod daemon;
pub mod error;
mod fields;
pub mod netconf;
mod report;
pub mod request;
pub mod result;
pub mod version;

pub use addr::Mac;
pub use error::{CniError, Code};
pub use netconf::{Defaults, Ipam, NetConf, Parsed, Paths, PoolSpec, RangeSpec};
pub use report::{Problem, Warning};
pub use request::{Attachment, CniArgs, Env, Request, Verb};
pub use result::{CniResult, Dns, Interface, IpConfig, Route};
pub use version::Version;
