//! What a session is told about its peer.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::PerFamily;

/// Our part in graceful restart (RFC 4724), with notifications (RFC 8538) always offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartConfig {
    /// Seconds that the peer shall keep our routes while we restart; at most 4095.
    pub time: u16,
    /// Families whose forwarding state lives on while the daemon does not.
    pub forwarding: PerFamily<bool>,
    /// Seconds for long-lived graceful restart (RFC 9494) by family; 0 does not offer it.
    pub long_lived: PerFamily<u32>,
}

/// Which way path identifiers may go (RFC 7911).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddPath {
    pub send: bool,
    pub receive: bool,
}

/// One session's parameters. All of it takes effect with the next connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    pub local_as: u32,
    pub router_id: Ipv4Addr,
    /// `None` takes any AS, for peers that are known by a range of addresses only.
    pub peer_as: Option<u32>,
    pub families: PerFamily<bool>,
    /// Never connect, only accept.
    pub passive: bool,
    /// Seconds: 0 for no keepalives, else at least 3. The peer's lower value wins.
    pub hold_time: u16,
    /// Wait before the first connection attempt and after a lost connection.
    pub connect_delay: Duration,
    /// Wait after a failed attempt.
    pub connect_retry: Duration,
    /// Wait after a protocol error; doubles from the first to the second.
    pub idle_hold: (Duration, Duration),
    pub restart: Option<RestartConfig>,
    pub add_path: PerFamily<AddPath>,
    /// Offer IPv4 routes with IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Offer messages of 65,535 octets (RFC 8654).
    pub extended_message: bool,
}

impl SessionConfig {
    /// Times as BIRD's under Calico: connect delay 2 s, retry 5 s, error wait 5 to 30 s, hold time 240 s,
    /// graceful restart of 120 s for the families of the session.
    pub fn new(local_as: u32, router_id: Ipv4Addr, peer_as: u32) -> Self {
        SessionConfig {
            local_as,
            router_id,
            peer_as: Some(peer_as),
            families: PerFamily::BOTH,
            passive: false,
            hold_time: 240,
            connect_delay: Duration::from_secs(2),
            connect_retry: Duration::from_secs(5),
            idle_hold: (Duration::from_secs(5), Duration::from_secs(30)),
            restart: Some(RestartConfig {
                time: 120,
                forwarding: PerFamily::BOTH,
                long_lived: PerFamily::default(),
            }),
            add_path: PerFamily::default(),
            extended_next_hop: false,
            extended_message: true,
        }
    }
}
