//! An address that a pod asks for by itself may still belong to its own former container on this node.

use super::call::Call;
use super::del::{self, Owner};
use super::{endpoint, links};
use cni_protocol::{Attachment, CniError};
use model::pod::Wishes;

/// Takes the former container down if it has an address that is asked for. As everywhere, one that is
/// busy is left alone.
///
/// # Errors
/// As DEL.
pub(crate) fn yield_addresses(call: &Call, wishes: &Wishes) -> Result<(), CniError> {
    if wishes.addresses.is_empty() {
        return Ok(());
    }
    let Some(before) = endpoint::stored(call)? else { return Ok(()) };
    let has_wished = before.addresses().iter().any(|ip| wishes.addresses.contains(ip));
    let is_another = !before.container_id.is_empty() && before.container_id != call.at().container_id;
    if !has_wished || !is_another {
        return Ok(());
    }
    let at = Attachment::new(&*call.at().network, &*before.container_id, &*call.at().ifname);
    let Some(lock) = call.try_lock(&at) else { return Ok(()) };
    call.note(&format!("took down the pod's former container {}", before.container_id));
    let owner = Owner { at, link: None, pod_link_name: links::pod_name(call), pod: None };
    del::take_down(call, &owner, false)?;
    let _ = lock.remove_and_release();
    Ok(())
}
