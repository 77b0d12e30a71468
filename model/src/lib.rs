//! Ids, resources and stored formats. Pure: no I/O, no clock, no chance.
//!
//! | module | what |
//! |---|---|
//! | [`ip`] | address arithmetic, parsing |
//! | [`keys`] | key texts from typed ids, and back |
//! | [`block`], [`affinity`], [`resource`], [`felix`] | stored forms, Calico's JSON |
//! | [`endpoint`], [`profile`] | workload endpoints and profiles |
//! | [`pod`] | pods and namespaces of Kubernetes, and what their annotations ask for |
//! | [`node`] | what a node object says about its network |
//! | [`change`] | a stored object's change, typed |
//! | [`bgp`] | BGP resources |
//! | [`selector`] | Calico's selector language |
//! | [`store`] | views, plans and writes |
//! | [`veth`], [`time`] | names of host interfaces, texts of times |

pub mod affinity;
pub mod bgp;
pub mod block;
pub mod change;
pub mod decode;
pub mod endpoint;
pub mod felix;
pub mod ip;
pub mod keys;
pub mod netns;
pub mod node;
pub mod pod;
pub mod profile;
pub mod resource;
pub mod selector;
pub mod store;
pub mod time;
pub mod veth;

pub use affinity::{Affinity, AffinityState, Handle, IpamConfig};
pub use block::{Attribute, Block};
pub use change::Change;
pub use decode::{DecodeError, Problem, Stored};
pub use endpoint::{WorkloadEndpoint, WorkloadEndpointSpec};
pub use ip::Family;
pub use keys::Scope;
pub use pod::{Namespace, Pod};
pub use profile::Profile;
pub use resource::{ClusterInformation, IpPool, IpReservation, Node, Resource};
pub use veth::{HostNameOf, host_name};
