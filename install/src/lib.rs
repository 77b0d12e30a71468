//! `percale-install`: puts Percale on a node, keeps it right, takes over from Calico, gives back.
//!
//! ```text
//!   settings ──► wish ─┐
//!                      ├─► plan ──► execute ──► state
//!   disk ──► observe ──┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`options`], [`settings`] | command line, Calico's environment variables |
//! | [`set`] | the files that make up an installation; what the state directory records of them |
//! | [`plan`] | pure: what is there and what is wished -> steps |
//! | [`template`], [`kubeconfig`] | pure: the network configuration, the kubeconfig |
//! | [`wish`] | gathers what is to be installed |
//! | [`observe`], [`place`], [`execute`], [`state`] | the disk: read, one file replaced, all steps, the record |
//! | [`verify`] | executes a plugin once |
//! | [`runtimes`] | where containerd and CRI-O really look |
//! | [`run`] | install, uninstall, roll back, take over, give back |
//! | [`handover`], [`placement`] | stage 2: calico-node leaves the node, and comes back |
//! | [`cluster`], [`token`] | the API server: tokens, policies, the node's label |
//! | [`watch`] | stays: tokens, certificates, repairs |
//! | [`show`] | the plan, printed |

pub mod cluster;
pub mod error;
pub mod execute;
pub mod handover;
pub mod kubeconfig;
pub mod observe;
pub mod options;
pub mod place;
pub mod placement;
pub mod plan;
pub mod run;
pub mod runtimes;
pub mod set;
pub mod settings;
pub mod show;
pub mod state;
pub mod template;
pub mod token;
pub mod verify;
pub mod watch;
pub mod wish;
