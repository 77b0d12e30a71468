//! What holds for every request of a plan: readiness, configuration, reservations, node labels.

use crate::draft::Step;
use crate::error::IpamError;
use crate::request::{Context, Note};
use ipnet::IpNet;
use model::store::{Entry, Query, Stop, View};
use model::{ClusterInformation, IpReservation, IpamConfig, Node, Stored, keys};
use std::collections::BTreeMap;

pub(crate) struct Env<'a> {
    pub cx: &'a Context<'a>,
    pub config: IpamConfig,
    /// Labels of this host's node; empty where it has no object yet.
    pub labels: BTreeMap<String, String>,
    /// Networks that are never given out unasked.
    pub reserved: Vec<IpNet>,
    pub notes: Vec<Note>,
}

impl<'a> Env<'a> {
    /// What [`Env::load`] reads.
    pub fn queries(cx: &Context) -> Vec<Query> {
        vec![
            Query::Get(keys::cluster_information()),
            Query::Get(keys::ipam_config(cx.scope)),
            Query::Get(keys::node(cx.host)),
            Query::List(keys::ip_reservations()),
        ]
    }

    pub fn load(view: &View, cx: &'a Context<'a>) -> Step<Self> {
        view.require(Self::queries(cx))?;
        let config = decode(view.get(&keys::ipam_config(cx.scope))?)?.unwrap_or_default();
        let mut notes = Vec::new();
        let node: Option<Node> = lenient(view.get(&keys::node(cx.host))?, &mut notes);
        let labels = node.map(|node| node.metadata.labels).unwrap_or_default();
        let mut reserved = Vec::new();
        for entry in view.list(&keys::ip_reservations())? {
            let reservation: Option<IpReservation> = lenient(Some(entry), &mut notes);
            reserved.extend(reservation.iter().flat_map(|r| r.spec.nets()));
        }
        Ok(Self { cx, config, labels, reserved, notes })
    }

    pub fn is_reserved(&self, ip: std::net::IpAddr) -> bool {
        self.reserved.iter().any(|net| net.contains(&ip))
    }
}

/// Refuses to plan writes while the store is locked. A missing object means ready (decision 29).
pub(crate) fn ready(view: &View) -> Step<()> {
    let info: Option<ClusterInformation> = decode(view.get(&keys::cluster_information())?)?;
    match info {
        Some(info) if info.spec.datastore_ready != Some(true) => Err(Stop::Fail(IpamError::NotReady)),
        _ => Ok(()),
    }
}

fn decode<T: Stored>(entry: Option<&Entry>) -> Step<Option<T>> {
    let decoded = entry.map(|entry| T::decode(&entry.key, &entry.value)).transpose();
    decoded.map_err(|e| Stop::Fail(IpamError::Damaged(e)))
}

/// Decodes what a request can do without; a damaged object is noted and passed over.
pub(crate) fn lenient<T: Stored>(entry: Option<&Entry>, notes: &mut Vec<Note>) -> Option<T> {
    let entry = entry?;
    match T::decode(&entry.key, &entry.value) {
        Ok(value) => Some(value),
        Err(error) => {
            notes.push(Note::Unreadable { key: entry.key.clone(), problem: error.problem.to_string() });
            None
        }
    }
}
