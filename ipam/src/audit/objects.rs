//! Everything stored under a scope, decoded as far as it can be.

use super::broken::{Broken, odd_handle};
use super::witness::Owners;
use super::{HostFacts, Seen};
use crate::block::is_windows_reserved;
use crate::draft::Step;
use crate::request::Context;
use ipnet::IpNet;
use model::keys::{self, AffinityKind, Key};
use model::store::{Entry, Query, Revision, View};
use model::{Affinity, Attribute, Block, Family, Handle, Stored};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

/// Why an object that Calico announced to delete is reported.
const MARKED: &str = "it is marked as deleted, but exists";

/// Addresses by handle and block.
type Counts = BTreeMap<String, BTreeMap<IpNet, u32>>;

/// An object and where it was found.
pub(super) struct Found<T> {
    pub key: String,
    pub revision: Revision,
    pub value: T,
}

impl<T> Found<T> {
    pub fn seen(&self) -> Seen {
        Seen::Key(self.key.clone(), self.revision)
    }
}

/// A host's claim to a block.
pub(super) struct Claim {
    pub host: String,
    pub cidr: IpNet,
}

pub(super) struct Objects {
    pub blocks: BTreeMap<IpNet, Found<Block>>,
    /// Blocks that exist and cannot be read: nothing that refers to them is judged.
    pub unreadable: BTreeSet<IpNet>,
    pub claims: Vec<Found<Claim>>,
    pub handles: BTreeMap<String, Found<Handle>>,
    pub nodes: BTreeSet<String>,
    pub broken: Vec<Broken>,
    pub owners: Owners,
    counts: OnceCell<Counts>,
    /// Keys that handles would have, for those that do not exist.
    pub scope: model::Scope,
    /// Handles have objects only under ids that Kubernetes takes for names.
    pub named: bool,
}

impl Objects {
    pub fn load(view: &View, cx: &Context, facts: &HostFacts) -> Step<Self> {
        let lists = [
            keys::blocks(cx.scope, Family::V4),
            keys::blocks(cx.scope, Family::V6),
            keys::all_affinities(cx.scope),
            keys::handles(cx.scope),
        ];
        let nodes = Query::Keys(keys::nodes());
        let owners = Owners::query(facts.witness);
        view.require(lists.iter().cloned().map(Query::List).chain([nodes]).chain(owners))?;
        let mut objects = Self {
            blocks: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            claims: Vec::new(),
            handles: BTreeMap::new(),
            nodes: known_nodes(view, cx, facts)?,
            broken: Vec::new(),
            counts: OnceCell::new(),
            owners: Owners::load(view, facts.witness)?,
            scope: cx.scope.clone(),
            named: !cx.transactional && *cx.scope == model::Scope::Cluster,
        };
        for prefix in &lists {
            view.list(prefix)?.for_each(|entry| objects.add(entry));
        }
        Ok(objects)
    }

    fn add(&mut self, entry: &Entry) {
        match keys::parse(&entry.key) {
            Some(Key::Block { cidr, .. }) => self.add_block(cidr, entry),
            Some(Key::Affinity { kind: AffinityKind::Host, name, cidr, .. }) => {
                match self.decode::<Affinity>(entry) {
                    Some(affinity) if affinity.deleted => self.broken(entry, MARKED),
                    Some(_) => self.claims.push(found(entry, Claim { host: name, cidr })),
                    None => {}
                }
            }
            Some(Key::Handle { id, .. }) => match self.decode::<Handle>(entry) {
                Some(handle) if handle.deleted => self.broken(entry, MARKED),
                Some(handle) => self.add_handle(id, entry, handle),
                None => {}
            },
            _ => {}
        }
    }

    fn add_block(&mut self, cidr: IpNet, entry: &Entry) {
        match self.decode::<Block>(entry) {
            Some(block) if block.deleted => {
                self.unreadable.insert(cidr);
                self.broken(entry, MARKED);
            }
            Some(block) => {
                self.blocks.insert(cidr, found(entry, block));
            }
            None => {
                self.unreadable.insert(cidr);
            }
        }
    }

    fn decode<T: Stored>(&mut self, entry: &Entry) -> Option<T> {
        match T::decode(&entry.key, &entry.value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.broken.push(Broken { entry: entry.clone(), why: error.to_string() });
                None
            }
        }
    }

    fn broken(&mut self, entry: &Entry, why: &str) {
        let why = format!("{}: {why}", entry.key);
        self.broken.push(Broken { entry: entry.clone(), why });
    }

    fn add_handle(&mut self, id: String, entry: &Entry, handle: Handle) {
        match odd_handle(&self.scope, entry, &id) {
            Some(why) => self.broken.push(Broken { entry: entry.clone(), why }),
            None => drop(self.handles.insert(id, found(entry, handle))),
        }
    }

    /// Whether there is an object under this key that cannot be used.
    pub fn is_broken(&self, key: &str) -> bool {
        self.broken.iter().any(|broken| broken.entry.key == key)
    }

    /// Every allocated address.
    pub fn allocated(&self) -> impl Iterator<Item = (&Block, u32, &Attribute)> {
        let blocks = self.blocks.values().map(|found| &found.value);
        blocks.flat_map(|block| block.allocated().map(move |(ordinal, entry)| (block, ordinal, entry)))
    }

    /// What each handle really holds, by block.
    pub fn actual(&self) -> &Counts {
        self.counts.get_or_init(|| self.count())
    }

    fn count(&self) -> Counts {
        let mut actual = Counts::new();
        for (block, _, entry) in self.allocated() {
            if let Some(handle) = entry.handle().filter(|handle| !is_windows_reserved(handle)) {
                *actual.entry(handle.to_owned()).or_default().entry(block.cidr).or_default() += 1;
            }
        }
        actual
    }
}

fn found<T>(entry: &Entry, value: T) -> Found<T> {
    Found { key: entry.key.clone(), revision: entry.revision, value }
}

fn known_nodes(view: &View, cx: &Context, facts: &HostFacts) -> Step<BTreeSet<String>> {
    let prefix = keys::nodes();
    let stored = view.keys(&prefix)?.into_iter().map(|key| key[prefix.len()..].to_owned());
    Ok(stored.chain([cx.host.to_owned(), facts.host.clone()]).collect())
}
