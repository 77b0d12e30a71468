//! The rules of owed releases (decision 17), the same for the plugin, the daemon and `percalectl`:
//! whose an entry is, what it frees, and how it is carried out once.

use super::failure;
use super::ledger::{Change, Ledger};
use super::stores::after_identity;
use cni_protocol::{Attachment, CniError};
use datastore::journal::{Held as Owed, Id, Journal, Release as Entry};
use datastore::lock::AttachmentLock;
use ipam::{BatchItem, Held, Release};
use ipnet::IpNet;
use model::Scope;
use std::path::Path;

/// Whose release an entry is.
pub fn attachment(entry: &Entry) -> Attachment {
    Attachment::new(&*entry.network, &*entry.container, &*entry.ifname)
}

/// Whether an entry is owed to the store of this identity, and in which scope: an entry names the
/// identity, followed by ` network` for a lease in its network's scope.
pub fn scope_of(identity: &str, entry: &Entry) -> Option<Scope> {
    match after_identity(&entry.store, identity)? {
        "" => Some(Scope::Cluster),
        " network" => Some(Scope::Network(entry.network.clone())),
        _ => None,
    }
}

/// What was seen is freed only as it was seen; what was not, by the attachment's identity.
pub fn requests(entry: &Entry) -> Vec<Release> {
    let at = attachment(entry);
    let base = Release { handle: at.handle(), matches: at.attributes(), ..Release::default() };
    let (seen, unseen): (Vec<_>, Vec<_>) = entry.addresses.iter().partition(|a| a.attrs != base.matches);
    let only: Vec<Held> = seen.into_iter().map(held).collect();
    let by_sight = (!only.is_empty()).then(|| Release { only: Some(only), ..base.clone() });
    let by_name = (!unseen.is_empty() || entry.addresses.is_empty()).then_some(base);
    by_sight.into_iter().chain(by_name).collect()
}

fn held(owed: &Owed) -> Held {
    Held {
        ip: owed.ip,
        handle: Some(owed.handle.clone()),
        attrs: owed.attrs.clone(),
        sequence: (owed.sequence != 0).then_some(owed.sequence),
        block: IpNet::from(owed.ip),
    }
}

/// Carries out one entry and forgets it, if it is owed to the store of `change`, which says where and for
/// whom; its scope and item are the entry's. `first` is done before, under the attachment's lock. Whether it did: whoever works on the attachment right now
/// finishes or cancels the entry itself.
///
/// # Errors
/// The entry stays.
pub fn finish(
    ledger: &dyn Ledger,
    change: &Change,
    attachment_dir: &Path,
    journal: &Journal,
    (id, entry): (Id, &Entry),
    first: &dyn Fn(&Scope, &Attachment) -> Result<(), CniError>,
) -> Result<bool, CniError> {
    let Some(scope) = scope_of(&change.store.identity(), entry) else { return Ok(false) };
    let lock = AttachmentLock::try_acquire(attachment_dir, &attachment(entry).file_name());
    let Some(lock) = lock.map_err(|e| failure::store(&e))? else { return Ok(false) };
    // Since it was read, an ADD may have taken the addresses into use again.
    let pending = journal.pending().map_err(|e| failure::store(&e))?;
    if pending.iter().any(|(pending, _)| *pending == id) {
        first(&scope, &attachment(entry))?;
        for request in requests(entry) {
            let item = BatchItem::Release(request);
            ledger.change(Change { scope: scope.clone(), item, ..change.clone() })?;
        }
        change.store.settle(change.deadline).map_err(|e| failure::store(&e))?;
        journal.done(id).map_err(|e| failure::store(&e))?;
    }
    let _ = lock.remove_and_release();
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(addresses: Vec<Owed>) -> Entry {
        Entry {
            store: "embedded:/s".into(),
            network: "net".into(),
            container: "c1".into(),
            ifname: "eth0".into(),
            addresses,
        }
    }

    fn seen(attrs: &[(&str, &str)]) -> Owed {
        Owed {
            ip: "10.0.0.1".parse().unwrap(),
            handle: "net.c1".into(),
            attrs: attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            sequence: 7,
        }
    }

    #[test]
    fn an_entry_belongs_to_one_store_and_scope() {
        let mut e = entry(vec![]);
        assert_eq!(scope_of("embedded:/s", &e), Some(Scope::Cluster));
        assert_eq!(scope_of("embedded:/other", &e), None);
        assert_eq!(scope_of("embedded:/", &e), None);
        e.store.push_str(" network");
        assert_eq!(scope_of("embedded:/s", &e), Some(Scope::Network("net".into())));
    }

    #[test]
    fn what_was_seen_is_freed_by_sight_and_the_rest_by_identity() {
        let by_sight = requests(&entry(vec![seen(&[("network", "net"), ("ifname", "eth0"), ("pod", "p")])]));
        assert_eq!(by_sight.len(), 1);
        assert_eq!(by_sight[0].only.as_ref().unwrap()[0].sequence, Some(7));
        let by_identity = requests(&entry(vec![seen(&[("network", "net"), ("ifname", "eth0")])]));
        assert!(by_identity.len() == 1 && by_identity[0].only.is_none());
        assert!(requests(&entry(vec![]))[0].only.is_none());
    }
}
