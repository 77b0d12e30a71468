//! The door to the Linux kernel: namespaces, links, addresses, routes, neighbours, sysctls,
//! conntrack and one nftables table. Blocking, without threads of its own between calls.
//!
//! See the crate's README for the kernel facts that this code stands on.

mod beside;
mod boot;
mod conntrack;
mod error;
mod fdb;
mod fib;
mod fib_events;
mod fib_rule;
mod firewall;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod host_ends;
mod inspect;
mod link;
mod make;
mod monitor;
mod netns;
mod nft;
mod pod;
mod pod_requests;
mod reply;
mod request;
mod retire;
mod route;
mod rule;
mod ruleset;
mod socket;
mod sysctl;
mod table;
mod table_content;
mod tunnel;
mod wireguard;
pub mod xtables;

pub use boot::boot_id;
pub use conntrack::flush_conntrack;
pub use error::{Error, FirewallError, NetnsError, RouteError};
pub use fdb::{VtepEntry, sync_vteps};
pub use fib::{FibHop, FibRoute, fib_routes, put_fib_routes, remove_fib_routes};
pub use fib_events::{FibEvent, FibMonitor};
pub use fib_rule::set_forward_rule;
pub use firewall::{Firewall, TableKeeper, ensure_firewall, remove_firewall};
pub use host_ends::keep_host_ends;
pub use inspect::{HostState, Neighbour, PodAddress, PodRouteSeen, PodState, inspect_host, inspect_pod};
pub use link::{Link, Settings, SettingsV6, link, links};
pub use monitor::{Monitor, Seen};
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
pub use rule::{MarkRule, sync_rule};
pub use socket::Nl;
pub use sysctl::ensure_forwarding;
pub use table::{
    MAIN_TABLE, NODE_METRIC, NODE_PROTOCOL, NodeRoute, Synced, Table, change_routes, sync_routes,
};
pub use tunnel::{
    Ensured, VxlanLink, addresses, ensure_ipip, ensure_mtu, ensure_vxlan, ensure_wireguard, remove_tunnel,
};
pub use wireguard::{WireguardKey, WireguardPeer, WireguardState, sync_wireguard, wireguard_state};
