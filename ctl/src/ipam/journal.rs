//! Releases that a DEL could not write to the store (decision 17).

use crate::host::{self, Host};
use crate::session::{Places, Session};
use anyhow::Result;
use cni_protocol::Attachment;
use datastore::ErrorKind;
use datastore::journal::{Held as Seen, Id, Journal, Release as Entry};
use ipam::{Held, Release};
use ipnet::IpNet;
use model::Scope;
use std::net::IpAddr;

/// The entries that are owed, oldest first; none where there is no journal.
pub fn pending(places: &Places) -> Result<Vec<(Id, Entry)>> {
    match Journal::open_existing(&places.state_dir).and_then(|journal| journal.pending()) {
        Err(error) if error.kind == ErrorKind::Missing => Ok(Vec::new()),
        other => Ok(other?),
    }
}

/// Carries out what is owed to this store. The answer is what was freed.
/// An entry of an attachment that a plugin works on is left to that plugin.
pub fn replay(session: &Session, host: &Host) -> Result<Vec<IpAddr>> {
    let mut freed = Vec::new();
    for (id, entry) in pending(&session.places)? {
        let Some(scope) = scope_of(&session.store.identity(), &entry) else { continue };
        let at = attachment(&entry);
        let Some(_lock) = host::try_lock(&session.places, &at)? else { continue };
        for request in requests(&at, &entry) {
            let cx = host.context(&scope);
            let released = session.commit(|view| ipam::plan_release(view, &cx, &request))?;
            freed.extend(released.freed);
        }
        Journal::open_existing(&session.places.state_dir)?.done(id)?;
    }
    Ok(freed)
}

pub fn attachment(entry: &Entry) -> Attachment {
    Attachment::new(&*entry.network, &*entry.container, &*entry.ifname)
}

/// Whether an entry is owed to the store of this identity, and in which scope: the engine writes
/// the identity, followed by ` network` for a lease in its network's scope.
pub fn scope_of(identity: &str, entry: &Entry) -> Option<Scope> {
    match entry.store.strip_prefix(identity)? {
        "" => Some(Scope::Cluster),
        " network" => Some(Scope::Network(entry.network.clone())),
        _ => None,
    }
}

/// What was seen is freed only as it was seen. Where the store could not even be read, the
/// attachment's identity stands for what it held.
fn requests(at: &Attachment, entry: &Entry) -> Vec<Release> {
    let base = Release { handle: at.handle(), matches: at.attributes(), ..Release::default() };
    let (seen, unseen): (Vec<_>, Vec<_>) = entry.addresses.iter().partition(|a| a.attrs != base.matches);
    let only: Vec<Held> = seen.into_iter().map(held).collect();
    let mut requests = Vec::new();
    if !unseen.is_empty() || entry.addresses.is_empty() {
        requests.push(base.clone());
    }
    if !only.is_empty() {
        requests.push(Release { only: Some(only), ..base });
    }
    requests
}

fn held(seen: &Seen) -> Held {
    Held {
        ip: seen.ip,
        handle: Some(seen.handle.clone()),
        attrs: seen.attrs.clone(),
        sequence: (seen.sequence != 0).then_some(seen.sequence),
        block: IpNet::from(seen.ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(addresses: Vec<Seen>) -> Entry {
        Entry {
            store: "embedded:/s".into(),
            network: "net".into(),
            container: "c1".into(),
            ifname: "eth0".into(),
            addresses,
        }
    }

    fn seen(attrs: &[(&str, &str)]) -> Seen {
        Seen {
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
        let at = attachment(&entry(vec![]));
        let by_sight =
            requests(&at, &entry(vec![seen(&[("network", "net"), ("ifname", "eth0"), ("pod", "p")])]));
        assert_eq!(by_sight.len(), 1);
        assert_eq!(by_sight[0].only.as_ref().unwrap()[0].sequence, Some(7));
        let by_identity = requests(&at, &entry(vec![seen(&[("network", "net"), ("ifname", "eth0")])]));
        assert!(by_identity.len() == 1 && by_identity[0].only.is_none());
        assert!(requests(&at, &entry(vec![]))[0].only.is_none());
    }
}
