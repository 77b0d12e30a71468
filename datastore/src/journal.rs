//! Releases that could not be written to their store yet (decision 17).

use crate::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

/// One address that an attachment held, with what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub ip: IpAddr,
    pub handle: String,
    pub attrs: BTreeMap<String, String>,
    pub sequence: u64,
}

/// A release that is owed to a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// `Store::identity` of the store that the addresses belong to.
    pub store: String,
    pub network: String,
    pub container: String,
    pub ifname: String,
    pub addresses: Vec<Held>,
}

/// Names a pending entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

/// The host's journal of releases.
pub struct Journal {}

impl Journal {
    /// Opens `state_dir/journal`, creating it with room allocated in advance.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        Err(Error::new("open journal", state_dir, ErrorKind::Io, "not built yet"))
    }

    /// Writes an entry durably. An equal entry that is pending is not written twice.
    pub fn append(&self, _release: &Release) -> Result<Id, Error> {
        Err(Error::new("append to journal", "", ErrorKind::Io, "not built yet"))
    }

    /// The entries that are owed, oldest first.
    pub fn pending(&self) -> Result<Vec<(Id, Release)>, Error> {
        Err(Error::new("read journal", "", ErrorKind::Io, "not built yet"))
    }

    /// Forgets an entry that was carried out; one that is gone already is no error.
    pub fn done(&self, _id: Id) -> Result<(), Error> {
        Err(Error::new("update journal", "", ErrorKind::Io, "not built yet"))
    }
}
