//! Answering a planner's queries where a back end has no better way: what can be got at once, then each list.

use crate::{Deadline, Error, Store};
use model::store::{Query, View};

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

/// A few blocks at a time, of which little is kept: there may be many thousands. What was seen
/// before an error stays known.
fn look_for_room<S: Store + ?Sized>(
    store: &S,
    view: &mut View,
    queries: &[Query],
    deadline: Deadline,
) -> Result<(), Error> {
    let rooms =
        queries.iter().filter_map(|q| if let Query::Room(key) = q { Some(key.as_str()) } else { None });
    for keys in rooms.collect::<Vec<_>>().chunks(ROOMS_AT_ONCE) {
        for (key, entry) in keys.iter().zip(store.get(keys, deadline)?) {
            view.put_room(key, entry);
        }
    }
    Ok(())
}
