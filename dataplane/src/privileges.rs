//! What the daemon may do: the capabilities that it needs and no others, for itself and for the programs that it runs.

use crate::stage::Stage;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
};

/// The capabilities of capabilities(7) that are kept, and who needs each.
const KEPT: [(CapabilitySet, &str); 5] = [
    (
        CapabilitySet::NET_ADMIN,
        "links, routes, rules, nftables, conntrack, sysctls of networking, MD5 of BGP",
    ),
    (CapabilitySet::SYS_ADMIN, "entering pods' namespaces"),
    (CapabilitySet::NET_BIND_SERVICE, "BGP's port 179"),
    (CapabilitySet::SYS_PTRACE, "namespaces that a runtime names as /proc/PID/ns/net"),
    (CapabilitySet::DAC_OVERRIDE, "credentials, configurations and state of users other than root"),
];
/// On a node whose routes and rules were Calico's, or are again.
const OF_FELIX: (CapabilitySet, &str) = (CapabilitySet::NET_RAW, "Felix's chains in iptables-legacy");

/// Gives everything else up, for good. To be called while the process has one thread.
///
/// What the process lacks from the start is told in the log; it goes on, since not every part needs everything.
pub fn drop_all_others(stage: Stage) {
    let mut kept = KEPT.to_vec();
    kept.extend(stage.sees_felix().then_some(OF_FELIX));
    if let Err(error) = restrict(&kept) {
        tracing::warn!("giving up capabilities: {error}");
    }
}

fn restrict(kept: &[(CapabilitySet, &str)]) -> rustix::io::Result<()> {
    let had = capabilities(None)?.permitted;
    for (missing, why) in kept.iter().filter(|(one, _)| !had.contains(*one)) {
        tracing::warn!("capability {missing:?} is missing; it is for {why}");
    }
    let kept = kept.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
    if had.contains(CapabilitySet::SETPCAP) {
        // What a program that we run as root gets back.
        let others = (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
        for other in others.filter(|other| !kept.contains(*other)) {
            // The kernel knows fewer than there are bits.
            let _ = remove_capability_from_bounding_set(other);
        }
    }
    let kept = kept & had;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )
}
