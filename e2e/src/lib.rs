//! Test beds: what is needed to run the shipped binaries under real runtimes, on a real kernel.
//!
//! Everything happens in a [`Bed`]: a temporary directory, a network namespace that plays the
//! host, and a plugin directory. A bed leaves nothing behind, after a panic either.
//!
//! | module | what |
//! |---|---|
//! | [`bed`] | the guard: directory, namespaces, processes, plugin directory |
//! | [`netns`] | a network namespace; what its kernel knows (links, routes) |
//! | [`conf`] | configurations of our plugin and of its peers |
//! | [`cnirun`] | a runtime in small: chains, cached results, every verb |
//! | [`probe`] | TCP and UDP between two namespaces, up to the full MTU |
//! | [`cluster`], [`bridge`] | a real API server and etcd, and a node's way to them |
//! | [`daemon`] | the host daemon |
//! | [`clean`] | what must hold once every pod is gone |
//! | [`containerd`], [`podman`], [`cnitool`] | the real clients |
//! | [`genuine`] | genuine Calico programs beside ours, where the environment names them |
//! | [`installer`] | `percale-install` in a bed |
//! | [`kubelet`] | a node of a cluster: containerd and a genuine kubelet |
//! | [`leases`] | `percale-ipam` alone, as another plugin calls it |
//! | [`nodes`] | several nodes, each with its daemon, and one etcd |
//! | [`strace`] | SIGKILL at the nth call of a system call |
//! | [`bgp`] | a bridge, nodes that run `percaled`, BIRD, FRR, GoBGP |
//! | [`bench`] | the benchmarks of `scripts/bench` |
//! | [`random`] | seeded chance for the tests that need it |

pub mod bed;
pub mod bench;
pub mod bench_ipam;
pub mod bgp;
pub mod bins;
pub mod bridge;
pub mod clean;
pub mod cluster;
pub mod cnirun;
pub mod cnitool;
pub mod conf;
pub mod containerd;
pub mod daemon;
pub mod genuine;
pub mod image;
pub mod installer;
pub mod kubelet;
pub mod leases;
pub mod netns;
pub mod nodes;
pub mod podman;
pub mod probe;
pub mod random;
pub mod strace;

pub use bed::Bed;
pub use bins::Bins;
pub use cnirun::{Attachment, Failure, Network};
pub use netns::Netns;
