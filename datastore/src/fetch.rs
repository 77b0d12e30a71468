//! Answering a planner's queries where a back end has no better way: what can be got at once, then each list.

use crate::{Deadline, Error, Store};
use model::store::{Entry, Query, View};
use std::collections::BTreeSet;

/// Blocks that are read at a time where only their room matters: 4 MB with the usual ones.
const ROOMS_AT_ONCE: usize = 256;

pub(crate) fn one_by_one<S: Store + ?Sized>(
    store: &S,
    queries: &[Query],
    view: &mut View,
    deadline: Deadline,
) -> Result<(), Error> {
    let gets: Vec<&str> =
        queries.iter().filter_map(|q| if let Query::Get(k) = q { Some(k.as_str()) } else { None }).collect();
    if !gets.is_empty() {
        for (key, entry) in gets.iter().zip(store.get(&gets, deadline)?) {
            view.put(key, entry);
        }
    }
    for query in queries {
        match query {
            Query::Get(_) | Query::Room(_) => {}
            Query::List(prefix) => view.put_list(prefix, store.list(prefix, deadline)?),
            Query::Keys(prefix) => view.put_keys(prefix, store.revisions(prefix, deadline)?),
        }
    }
    look_for_room(store, view, queries, deadline)
}

/// What was seen before an error stays known. Of blocks that nobody asked for only those are kept that are full:
/// there may be many thousands.
fn look_for_room<S: Store + ?Sized>(
    store: &S,
    view: &mut View,
    queries: &[Query],
    deadline: Deadline,
) -> Result<(), Error> {
    let rooms =
        queries.iter().filter_map(|q| if let Query::Room(key) = q { Some(key.as_str()) } else { None });
    let asked: BTreeSet<&str> = rooms.collect();
    if asked.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = asked.iter().copied().collect();
    store.rooms(&keys, deadline, &mut |key, entry| {
        let is_full = |entry: &Entry| model::block::has_no_queue(&entry.value);
        if asked.contains(key) || entry.as_ref().is_some_and(is_full) {
            view.put_room(key, entry);
        }
    })
}

/// A few blocks at a time.
pub(crate) fn rooms<S: Store + ?Sized>(
    store: &S,
    keys: &[&str],
    deadline: Deadline,
    tell: &mut dyn FnMut(&str, Option<Entry>),
) -> Result<(), Error> {
    for keys in keys.chunks(ROOMS_AT_ONCE) {
        for (key, entry) in keys.iter().zip(store.get(keys, deadline)?) {
            tell(key, entry);
        }
    }
    Ok(())
}
