//! Our OPEN, and what both OPENs together settle.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::wire::{
    AddPathFamily, Capability, DecodeParams, EncodeParams, LongLivedFamily, NextHopFamily, Notification,
    Open, OpenError, RestartFamily,
};
use crate::{Family, PerFamily};

use super::config::SessionConfig;

/// The peer's part in graceful restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRestart {
    /// The peer says that it has just restarted (bit R).
    pub restarting: bool,
    /// Both sides keep routes over a NOTIFICATION too (RFC 8538).
    pub notification: bool,
    /// How long its routes may be kept while it is away.
    pub time: Duration,
    /// By family: `None` if not listed, else whether forwarding state was kept (bit F).
    pub families: PerFamily<Option<bool>>,
    /// By family: how long routes may be kept beyond `time` (RFC 9494); zero for not at all.
    pub long_lived: PerFamily<Duration>,
}

/// Proof that two OPENs agreed, and on what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub peer_as: u32,
    pub peer_id: Ipv4Addr,
    /// Both sides are in one AS.
    pub internal: bool,
    /// Zero: no keepalives, no expiry.
    pub hold_time: Duration,
    pub families: PerFamily<bool>,
    pub decode: DecodeParams,
    pub encode: EncodeParams,
    pub refresh: bool,
    pub enhanced_refresh: bool,
    pub restart: Option<PeerRestart>,
}

/// The OPEN that we send. `restarting` is bit R of graceful restart.
pub(crate) fn our_open(c: &SessionConfig, restarting: bool) -> Open {
    let mut capabilities: Vec<Capability> =
        c.families.iter().map(|f| Capability::MultiProtocol(f.into())).collect();
    capabilities.extend([
        Capability::RouteRefresh,
        Capability::EnhancedRefresh,
        Capability::FourOctetAs(c.local_as),
    ]);
    if c.extended_message {
        capabilities.push(Capability::ExtendedMessage);
    }
    if c.extended_next_hop && c.families.v4 {
        capabilities.push(Capability::ExtendedNextHop(vec![V6_FOR_V4]));
    }
    capabilities.extend(restart_capabilities(c, restarting));
    capabilities.extend(add_path_capability(c));
    Open { asn: c.local_as, hold_time: c.hold_time, router_id: c.router_id, capabilities }
}

const V6_FOR_V4: NextHopFamily = NextHopFamily { afi: 1, safi: 1, next_hop_afi: 2 };

/// Without `restart` of our own the capability is still sent, empty: we help peers that restart, as RFC 4724
/// section 3 provides.
fn restart_capabilities(c: &SessionConfig, restarting: bool) -> Vec<Capability> {
    let Some(r) = c.restart else {
        let families = Vec::new();
        return vec![Capability::GracefulRestart {
            restarting: false,
            notification: true,
            time: 0,
            families,
        }];
    };
    let families = c.families.iter().map(|f| RestartFamily { family: f.into(), forwarding: r.forwarding[f] });
    let families = families.collect();
    let mut out =
        vec![Capability::GracefulRestart { restarting, notification: true, time: r.time, families }];
    let long = c.families.iter().filter(|f| r.long_lived[*f] > 0);
    let long: Vec<LongLivedFamily> = long
        .map(|f| LongLivedFamily {
            family: f.into(),
            forwarding: r.forwarding[f],
            stale_time: r.long_lived[f],
        })
        .collect();
    if !long.is_empty() {
        out.push(Capability::LongLived(long));
    }
    out
}

fn add_path_capability(c: &SessionConfig) -> Option<Capability> {
    let wanted = c.families.iter().filter(|f| c.add_path[*f].send || c.add_path[*f].receive);
    let list: Vec<AddPathFamily> = wanted
        .map(|f| AddPathFamily { family: f.into(), receive: c.add_path[f].receive, send: c.add_path[f].send })
        .collect();
    (!list.is_empty()).then_some(Capability::AddPath(list))
}

/// Checks the peer's OPEN against the configuration (RFC 4271 section 6.2) and settles the session.
pub(crate) fn negotiate(c: &SessionConfig, peer: &Open) -> Result<Negotiated, Notification> {
    if c.peer_as.is_some_and(|want| want != peer.asn) {
        return Err(Notification::new(OpenError::PeerAs));
    }
    let internal = peer.asn == c.local_as;
    // RFC 6286 section 2.2: identifiers need to differ only within an AS.
    if internal && peer.router_id == c.router_id {
        return Err(Notification::new(OpenError::RouterId));
    }
    let families = common_families(c, peer);
    if !families.any() {
        return Err(Notification::new(OpenError::Capability));
    }
    let as4 = peer.has_four_octet_as();
    let add_path = add_path(c, peer);
    Ok(Negotiated {
        peer_as: peer.asn,
        peer_id: peer.router_id,
        internal,
        hold_time: Duration::from_secs(c.hold_time.min(peer.hold_time).into()),
        families,
        decode: DecodeParams {
            as4,
            internal,
            families,
            add_path: PerFamily::from_fn(|f| add_path[f].receive),
            extended_next_hop: c.extended_next_hop && has_extended_next_hop(peer),
        },
        encode: EncodeParams {
            as4,
            add_path: PerFamily::from_fn(|f| add_path[f].send),
            extended_message: c.extended_message && has(peer, &Capability::ExtendedMessage),
        },
        refresh: has(peer, &Capability::RouteRefresh),
        enhanced_refresh: has(peer, &Capability::EnhancedRefresh),
        restart: peer_restart(peer),
    })
}

fn has(open: &Open, capability: &Capability) -> bool {
    open.capabilities.contains(capability)
}

/// A peer without the multiprotocol capability speaks IPv4 (RFC 4760 section 8).
fn common_families(c: &SessionConfig, peer: &Open) -> PerFamily<bool> {
    let any = peer.capabilities.iter().any(|c| matches!(c, Capability::MultiProtocol(_)));
    let theirs =
        |f: Family| if any { has(peer, &Capability::MultiProtocol(f.into())) } else { f == Family::Ipv4 };
    PerFamily::from_fn(|f| c.families[f] && theirs(f))
}

fn has_extended_next_hop(peer: &Open) -> bool {
    peer.capabilities
        .iter()
        .any(|c| matches!(c, Capability::ExtendedNextHop(list) if list.contains(&V6_FOR_V4)))
}

/// What we send is what they receive, and the other way round.
fn add_path(c: &SessionConfig, peer: &Open) -> PerFamily<super::config::AddPath> {
    let theirs = |family: Family| {
        let lists = peer.capabilities.iter().filter_map(|c| match c {
            Capability::AddPath(list) => Some(list),
            _ => None,
        });
        lists.flatten().rfind(|f| f.family == family.into()).copied()
    };
    PerFamily::from_fn(|f| match theirs(f) {
        Some(t) => super::config::AddPath {
            send: c.add_path[f].send && t.receive,
            receive: c.add_path[f].receive && t.send,
        },
        None => Default::default(),
    })
}

fn peer_restart(peer: &Open) -> Option<PeerRestart> {
    peer.capabilities.iter().rev().find_map(|c| match c {
        Capability::GracefulRestart { restarting, notification, time, families } => Some(PeerRestart {
            restarting: *restarting,
            notification: *notification,
            time: Duration::from_secs((*time).into()),
            families: PerFamily::from_fn(|f| {
                families.iter().find(|r| r.family == f.into()).map(|r| r.forwarding)
            }),
            long_lived: long_lived(peer),
        }),
        _ => None,
    })
}

fn long_lived(peer: &Open) -> PerFamily<Duration> {
    let list = peer.capabilities.iter().rev().find_map(|c| match c {
        Capability::LongLived(list) => Some(list.as_slice()),
        _ => None,
    });
    let list = list.unwrap_or_default();
    let seconds = |f: Family| list.iter().find(|l| l.family == f.into()).map_or(0, |l| l.stale_time);
    PerFamily::from_fn(|f| Duration::from_secs(seconds(f).into()))
}
