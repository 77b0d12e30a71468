//! Keys with a meaning that this build cannot give them. What would change the container's network is
//! refused; what only waits or tunes is noted in the log. Nothing is ignored in silence.

use super::call::Call;
use cni_protocol::CniError;
use cni_protocol::netconf::{Dataplane, DeviceType};

/// # Errors
/// Code 2 naming the key.
pub(crate) fn check(call: &Call) -> Result<(), CniError> {
    let conf = call.conf;
    if conf.dataplane != Dataplane::Native {
        return Err(refused("dataplane_options.type", "this build wires containers itself; remove the key"));
    }
    if conf.device_type != DeviceType::Veth {
        return Err(refused("device_type", "this build makes veth pairs only; use veth"));
    }
    if (conf.features.ip_addrs_no_ipam || conf.features.floating_ips) && !call.is_cluster() {
        return Err(refused(
            "feature_control",
            "ip_addrs_no_ipam and floating_ips need a cluster's store, for they are asked for by pods",
        ));
    }
    note(call, "policy_setup_timeout_seconds", !conf.policy_setup_timeout.is_zero() && !call.is_cluster());
    Ok(())
}

fn refused(key: &str, why: &str) -> CniError {
    CniError::unsupported_field(format!("{key}: {why}"))
}

fn note(call: &Call, key: &str, is_set: bool) {
    if is_set {
        call.note(&format!("{key} has no effect in this build"));
    }
}
