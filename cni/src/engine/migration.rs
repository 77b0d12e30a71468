//! A cluster's store locked for everybody while the leases of this node's host-local are taken over
//! (C-10): nobody may be given an address that a running pod has and that is not imported yet.
//!
//! `datastoreReady` is false meanwhile, and an annotation of the same object says which node did it
//! and when, so that an interrupted migration is told from somebody else's lock: the node's next ADD
//! goes on with it, and when the node does not come back another node's ADD ends it.

use super::call::Call;
use super::failure;
use cni_protocol::CniError;
use datastore::embedded::Mode;
use datastore::{Deadline, drive};
use ipam::IpamError;
use model::decode::Stored;
use model::store::{Expect, Plan, Stop, View, Write};
use model::{ClusterInformation, keys};
use std::time::Duration;

const ANNOTATION: &str = "percale.io/migration";
/// A migration ends with its ADD. One that is older was killed, and its node has not come back.
const ABANDONED: Duration = Duration::from_secs(600);
/// Time for the unlocking alone, whatever the call's own deadline.
const UNLOCK_WAIT: Duration = Duration::from_secs(20);
const UNLOCK_PAUSE: Duration = Duration::from_millis(500);

/// Whose lock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    Open,
    /// This node's, of an ADD that was killed; or of a node that has not come back.
    Resumable,
    /// Another migration's or upgrade's.
    Foreign,
}

/// Locks the store for this node.
///
/// # Errors
/// Code 11 while another migration or an upgrade has it.
pub(crate) fn lock(call: &Call) -> Result<(), CniError> {
    let locked = change(call, call.deadline, |info| match state(call, info) {
        Lock::Foreign => Err(Stop::Fail(IpamError::NotReady)),
        Lock::Open | Lock::Resumable => {
            info.spec.datastore_ready = Some(false);
            let mark = format!("{} {}", call.clock.wall_ns, call.node);
            info.metadata.annotations.insert(ANNOTATION.to_owned(), mark);
            Ok(true)
        }
    });
    if locked.is_err() {
        // Perhaps only the answer was lost, and nobody else would open it. What is not ours is left alone.
        let _ = unlock(call);
    }
    locked
}

/// Opens it again, in as many tries as there is time for.
pub(crate) fn unlock(call: &Call) -> Result<(), CniError> {
    let deadline = Deadline::after(UNLOCK_WAIT);
    loop {
        match unlock_once(call, deadline) {
            Err(_) if deadline.left() > UNLOCK_PAUSE => std::thread::sleep(UNLOCK_PAUSE),
            answer => return answer,
        }
    }
}

fn unlock_once(call: &Call, deadline: Deadline) -> Result<(), CniError> {
    change(call, deadline, |info| {
        let ours = state(call, info) == Lock::Resumable;
        if ours {
            info.spec.datastore_ready = Some(true);
            info.metadata.annotations.remove(ANNOTATION);
        }
        Ok(ours)
    })
}

/// Whether the store is locked by a migration that this node may go on with, or end.
pub(crate) fn is_resumable(call: &Call) -> bool {
    let mut found = Lock::Open;
    let looked = change(call, call.deadline, |info| {
        found = state(call, info);
        Ok(false)
    });
    looked.is_ok() && found == Lock::Resumable
}

fn state(call: &Call, info: &ClusterInformation) -> Lock {
    if info.spec.datastore_ready == Some(true) {
        return Lock::Open;
    }
    let mark = info.metadata.annotations.get(ANNOTATION).and_then(|mark| mark.split_once(' '));
    match mark {
        Some((_, node)) if node == call.node => Lock::Resumable,
        Some((since, _)) if is_old(since, call.clock.wall_ns) => Lock::Resumable,
        _ => Lock::Foreign,
    }
}

fn is_old(since: &str, now: u64) -> bool {
    let since: u64 = since.parse().unwrap_or(0);
    u128::from(now.saturating_sub(since)) > ABANDONED.as_nanos()
}

/// Reads the object, and writes it where `edit` says that it changed it. Without one nothing is locked.
fn change(
    call: &Call,
    deadline: Deadline,
    mut edit: impl FnMut(&mut ClusterInformation) -> Result<bool, Stop<IpamError>>,
) -> Result<(), CniError> {
    let store = call.store(Mode::Existing).map_err(|e| e.into_cni())?;
    let key = keys::cluster_information();
    let plan = |view: &View| {
        let Some(entry) = view.get(&key)? else { return Err(Stop::Fail(IpamError::NotReady)) };
        let info = ClusterInformation::decode(&key, &entry.value);
        let mut info = info.map_err(|e| Stop::Fail(IpamError::Damaged(e)))?;
        if !edit(&mut info)? {
            return Ok(Plan::Done(()));
        }
        let (expect, value) = (Expect::At(entry.revision), Some(info.encode()));
        Ok(Plan::Commit(vec![Write { key: key.clone(), expect, value }], ()))
    };
    let changed = drive(store.as_ref(), &mut View::new(), deadline, plan);
    changed.map(|_| ()).map_err(failure::drive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_is_abandoned_after_ten_minutes_and_not_before() {
        let (minute, now) = (60_000_000_000, 1_800_000_000_000_000_000_u64);
        for (ago, old) in [(0, false), (9, false), (11, true)] {
            assert_eq!(is_old(&(now - ago * minute).to_string(), now), old, "{ago} minutes");
        }
        assert!(!is_old(&(now + minute).to_string(), now), "another host's clock");
        assert!(is_old("garbage", now));
    }
}
