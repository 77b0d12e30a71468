//! STATUS (spec 1.1.0): could an ADD be served now? Reads only, and asks nobody else.

use super::addresses::{Own, Role};
use super::call::Call;
use super::{delegated, firewall, leases, ready};
use cni_protocol::{Attachment, CniError, Code, Verb};
use datastore::embedded::Mode;
use ipam::BatchItem;

/// # Errors
/// Code 50 with the reason; other codes where the configuration itself is wrong.
pub(crate) fn status(call: &Call) -> Result<(), CniError> {
    if call.role == Role::Main && !firewall::is_possible() {
        return Err(CniError::not_available("the program nft is missing; install nftables"));
    }
    if delegated::is_delegated(call.conf) {
        return delegated::run(call, Verb::Status).map(|_| ());
    }
    let own = Own::of(call)?;
    match call.store(Mode::Existing) {
        // The first ADD creates it.
        Err(e) if e.is_missing() => return Ok(()),
        Err(e) => return Err(unavailable(e.into_cni())),
        Ok(_) => {}
    }
    ready::for_status(call).map_err(unavailable)?;
    has_room(call, &own)
}

/// Plans an ADD of a container that does not exist, and drops the plan.
fn has_room(call: &Call, own: &Own) -> Result<(), CniError> {
    let store = call.store(Mode::Existing).map_err(|e| unavailable(e.into_cni()))?;
    let nobody = Attachment::new(&*call.conf.name, "status-probe", "eth0");
    let request = ipam::Assign {
        handle: nobody.handle(),
        attrs: nobody.attributes(),
        asks: own.asks.clone(),
        create_pools: own.create_pools.clone(),
        max_blocks: call.conf.ipam.max_blocks_per_host,
        ..ipam::Assign::default()
    };
    let change = leases::change(call, store, &own.scope, BatchItem::Assign(request));
    call.ledger.probe(change).map_err(unavailable)
}

fn unavailable(error: CniError) -> CniError {
    match error.code {
        Code::InvalidConfig => error,
        _ => CniError { code: Code::NotAvailable, ..error },
    }
}
