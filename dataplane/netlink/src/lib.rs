//! The door to the Linux kernel: namespaces, links, addresses, routes, neighbours, sysctls,
//! conntrack and one nftables table. Blocking, without threads of its own between calls.
//!
//! See the crate's README for the kernel facts that this code stands on.

mod beside;
mod boot;
mod conntrack;
mod error;
mod firewall;
mod inspect;
mod link;
mod make;
mod netns;
mod nft;
mod pod;
mod pod_requests;
mod reply;
mod request;
mod retire;
mod route;
mod ruleset;
mod socket;
mod sysctl;

pub use boot::boot_id;
pub use conntrack::flush_conntrack;
pub use error::{Error, FirewallError, NetnsError, RouteError};
pub use firewall::{Firewall, ensure_firewall, remove_firewall};
pub use inspect::{HostState, Neighbour, PodAddress, PodRouteSeen, PodState, inspect_host, inspect_pod};
pub use link::{Link, Settings, SettingsV6, link, links};
pub use netns::{Netns, NetnsId};
pub use pod::{
    HOST_LL, HOST_MAC, PodPlan, PodRoute, UNFINISHED_GROUP, V4_GATEWAY, Wired, adopt_link, complete_pod,
    wire_pod,
};
pub use retire::{RETIRED_GROUP, delete_group, delete_link, retire};
pub use route::{
    Conflict, HostRoute, RouteKind, add_host_routes, conflicts, local_addresses, remove_host_routes,
    replace_host_route, routes_to,
};
pub use socket::Nl;
pub use sysctl::ensure_forwarding;
