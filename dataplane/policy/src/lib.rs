//! What is known about the cluster -> what this node must do. Pure: no I/O, no clock, no chance.
//!
//! | module | what |
//! |---|---|
//! | [`graph`] | changes in, the wish and what of it changed out |
//! | [`wish`] | the wish: routes, tunnels, rules, workloads |
//! | [`config`] | FelixConfiguration, environment and file, with Calico's precedence |
//! | [`mtu`] | how large pods' packets may be |
//! | [`autodetect`] | which of the host's addresses is the node's |
//! | [`felix`] | Felix's rules in the words of `iptables-save`, and what removes them |
//! | [`pools`] | the pools of a first start |

pub mod autodetect;
pub mod config;
pub mod felix;
pub mod graph;
pub mod mtu;
pub mod pools;
mod routes;
pub mod wish;

pub use config::Config;
pub use graph::{Delta, Graph};
pub use wish::{Via, Wish};
