//! The objects of one commit in the making: what was read, decoded once, and what will be written.
//!
//! Operations of a batch work on one draft after the other; each sees what the earlier ones did,
//! and one that fails is taken back with [`Draft::rollback`].

use crate::cooling::Cooling;
use crate::error::IpamError;
use crate::request::Context;
use crate::sticky::Sticky;
use ipnet::IpNet;
use model::store::{Expect, Query, Revision, Stop, View};
use model::{Affinity, Block, Family, Handle, IpPool, Scope, Stored, keys};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The result of a step: what it gives, what it must know, or why it cannot.
pub(crate) type Step<T> = Result<T, Stop<IpamError>>;

/// An object as it was read and as it shall be.
#[derive(Clone, Debug)]
pub(crate) struct Slot<T> {
    pub revision: Option<Revision>,
    pub before: Option<Rc<T>>,
    pub now: Option<Rc<T>>,
}

impl<T> Slot<T> {
    pub fn changed(&self) -> bool {
        match (&self.before, &self.now) {
            (Some(before), Some(now)) => !Rc::ptr_eq(before, now),
            (before, now) => before.is_some() || now.is_some(),
        }
    }

    /// The condition under which the change applies.
    pub fn expect(&self) -> Expect {
        self.revision.map_or(Expect::Absent, Expect::At)
    }
}

/// The objects of one kind, by key.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: BTreeMap<String, Slot<T>>,
    undo: Vec<(String, Option<Rc<T>>)>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), undo: Vec::new() }
    }
}

impl<T: Stored> Table<T> {
    /// The object as it shall be.
    pub fn get(&mut self, view: &View, key: &str) -> Step<Option<Rc<T>>> {
        if let Some(slot) = self.slots.get(key) {
            return Ok(slot.now.clone());
        }
        let entry = view.get(key)?;
        let decode = |entry: &model::store::Entry| T::decode(&entry.key, &entry.value).map(Rc::new);
        let now = entry.map(decode).transpose().map_err(|e| Stop::Fail(IpamError::Damaged(e)))?;
        let slot = Slot { revision: entry.map(|e| e.revision), before: now.clone(), now: now.clone() };
        self.slots.insert(key.to_owned(), slot);
        Ok(now)
    }

    /// Records that a key does not exist, where a listing of keys has told so.
    pub fn know_absent(&mut self, key: &str) {
        let slot = Slot { revision: None, before: None, now: None };
        self.slots.entry(key.to_owned()).or_insert(slot);
    }

    /// Changes an object that was read with [`Table::get`]. It is written even if the value is
    /// equal, so that the commit holds only if nobody else changed the object.
    pub fn set(&mut self, key: &str, value: Option<T>) {
        let slot = self.slots.get_mut(key).expect("an object is read before it is changed");
        let before = std::mem::replace(&mut slot.now, value.map(Rc::new));
        self.undo.push((key.to_owned(), before));
    }

    /// Whether an object was changed.
    pub fn is_changed(&self, key: &str) -> bool {
        self.slots.get(key).is_some_and(Slot::changed)
    }

    /// Objects that were set to something, or to nothing where there was something, in key order.
    pub fn changes(&self) -> impl Iterator<Item = (&str, &Slot<T>)> {
        self.slots.iter().filter(|(_, slot)| slot.changed()).map(|(key, slot)| (key.as_str(), slot))
    }

    /// Applies what the draft created and deleted under `prefix` to the stored keys.
    pub fn overlay(&self, prefix: &str, stored: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let mut keys: BTreeSet<String> = stored.into_iter().collect();
        let drafted = self.slots.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        for (key, slot) in drafted {
            match slot.now {
                Some(_) => keys.insert(key.clone()),
                None => keys.remove(key),
            };
        }
        keys
    }

    fn rollback(&mut self) {
        for (key, value) in self.undo.drain(..).rev() {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.now = value;
            }
        }
    }
}

pub(crate) struct Draft<'a> {
    pub view: &'a View,
    pub scope: &'a Scope,
    /// The store is Kubernetes, and these are the cluster's objects: not every handle can have one.
    named: bool,
    pub blocks: Table<Block>,
    pub affinities: Table<Affinity>,
    pub handles: Table<Handle>,
    pub pools: Table<IpPool>,
    pub cooling: Table<Cooling>,
    pub sticky: Table<Sticky>,
    /// Keys of blocks that must not exist when the draft is written.
    pub absent: BTreeSet<String>,
}

impl<'a> Draft<'a> {
    pub fn new(view: &'a View, cx: &Context<'a>) -> Self {
        Self {
            view,
            scope: cx.scope,
            named: !cx.transactional && *cx.scope == Scope::Cluster,
            blocks: Table::default(),
            affinities: Table::default(),
            handles: Table::default(),
            pools: Table::default(),
            cooling: Table::default(),
            sticky: Table::default(),
            absent: BTreeSet::new(),
        }
    }

    /// Everything so far stays, whatever follows.
    pub fn keep(&mut self) {
        self.blocks.undo.clear();
        self.affinities.undo.clear();
        self.handles.undo.clear();
        self.pools.undo.clear();
        self.cooling.undo.clear();
        self.sticky.undo.clear();
    }

    /// Takes back everything since [`Draft::keep`].
    pub fn rollback(&mut self) {
        self.blocks.rollback();
        self.affinities.rollback();
        self.handles.rollback();
        self.pools.rollback();
        self.cooling.rollback();
        self.sticky.rollback();
    }

    pub fn block(&mut self, cidr: &IpNet) -> Step<Option<Rc<Block>>> {
        self.blocks.get(self.view, &keys::block(self.scope, cidr))
    }

    pub fn set_block(&mut self, block: Block) {
        self.blocks.set(&keys::block(self.scope, &block.cidr), Some(block));
    }

    pub fn delete_block(&mut self, cidr: &IpNet) {
        self.blocks.set(&keys::block(self.scope, cidr), None);
    }

    pub fn affinity(&mut self, host: &str, cidr: &IpNet) -> Step<Option<Rc<Affinity>>> {
        self.affinities.get(self.view, &keys::affinity(self.scope, host, cidr))
    }

    pub fn set_affinity(&mut self, host: &str, cidr: &IpNet, affinity: Option<Affinity>) {
        self.affinities.set(&keys::affinity(self.scope, host, cidr), affinity);
    }

    /// Whether a handle can have an object. One whose id Kubernetes takes for no name has none, as
    /// with Calico: its addresses are found in its host's blocks.
    pub fn has_object(&self, id: &str) -> bool {
        !self.named || model::affinity::is_object_name(id)
    }

    /// Gives up a claim to a block that does not exist, unless somebody makes it meanwhile.
    pub fn drop_claim(&mut self, host: &str, cidr: &IpNet) {
        self.absent.insert(keys::block(self.scope, cidr));
        self.set_affinity(host, cidr, None);
    }

    /// A handle; one marked as deleted is absent.
    pub fn handle(&mut self, id: &str) -> Step<Option<Rc<Handle>>> {
        if !self.has_object(id) {
            return Ok(None);
        }
        let handle = self.handles.get(self.view, &model::affinity::handle_key(self.scope, id))?;
        Ok(handle.filter(|handle| !handle.deleted))
    }

    /// Nothing for one that cannot have an object.
    pub fn set_handle(&mut self, id: &str, handle: Option<Handle>) {
        if !self.has_object(id) {
            return;
        }
        self.handles.set(&model::affinity::handle_key(self.scope, id), handle);
    }

    /// A block that no listing has: to be created.
    pub fn create_block(&mut self, block: Block) {
        let key = keys::block(self.scope, &block.cidr);
        self.blocks.know_absent(&key);
        self.blocks.set(&key, Some(block));
    }

    /// Blocks that the host claims, by its affinities, the newest first: that one has room most often.
    pub fn claimed(&mut self, host: &str, family: Family) -> Step<Vec<IpNet>> {
        let prefix = keys::affinities(self.scope, host, family);
        let stored: BTreeMap<&str, Revision> =
            self.view.list(&prefix)?.map(|entry| (entry.key.as_str(), entry.revision)).collect();
        let keys = self.affinities.overlay(&prefix, stored.keys().map(|key| (*key).to_owned()));
        let age = |key: &String| Reverse(stored.get(key.as_str()).copied().unwrap_or(Revision::MAX));
        let mut claimed: Vec<_> =
            keys.iter().filter_map(|key| Some((age(key), keys::parse_cidr(&key[prefix.len()..])?))).collect();
        claimed.sort();
        Ok(claimed.into_iter().map(|(_, cidr)| cidr).collect())
    }

    /// All blocks of a family, in ascending order of address.
    pub fn block_cidrs(&mut self, family: Family) -> Step<Vec<IpNet>> {
        let prefix = keys::blocks(self.scope, family);
        let stored: Vec<String> = self.view.keys(&prefix)?.into_iter().map(str::to_owned).collect();
        let keys = self.blocks.overlay(&prefix, stored);
        let mut cidrs: Vec<IpNet> =
            keys.iter().filter_map(|key| keys::parse_cidr(&key[prefix.len()..])).collect();
        cidrs.sort();
        Ok(cidrs)
    }

    /// Whether a block is surely full, without decoding it where it was not decoded yet.
    pub fn surely_full(&self, cidr: &IpNet) -> Step<bool> {
        let key = keys::block(self.scope, cidr);
        if let Some(slot) = self.blocks.slots.get(&key) {
            return Ok(slot.now.as_ref().is_some_and(|block| block.unallocated.is_empty()));
        }
        Ok(self.view.get(&key)?.is_some_and(|entry| model::block::surely_full(&key, &entry.value)))
    }

    /// Those of the blocks that may have room, without reading what was seen full and is unchanged.
    pub fn with_room(&self, cidrs: &[IpNet]) -> Step<Vec<IpNet>> {
        let key = |cidr: &IpNet| keys::block(self.scope, cidr);
        let unread = |cidr: &&IpNet| !self.blocks.slots.contains_key(&key(cidr));
        self.view.require(cidrs.iter().filter(unread).map(|cidr| Query::Room(key(cidr))))?;
        let mut open = Vec::new();
        for cidr in cidrs {
            if !unread(&cidr) || !self.view.is_full(&key(cidr))? {
                open.push(*cidr);
            }
        }
        Ok(open)
    }

    /// Asks for blocks, and for the release times of their addresses if those matter, all at once.
    pub fn require_blocks<'c>(&self, cidrs: impl IntoIterator<Item = &'c IpNet>, cooling: bool) -> Step<()> {
        let mut wanted = Vec::new();
        for cidr in cidrs {
            let key = keys::block(self.scope, cidr);
            if !self.blocks.slots.contains_key(&key) {
                wanted.push(Query::Get(key));
            }
            if cooling {
                wanted.push(Query::Get(keys::cooling(self.scope, cidr)));
            }
        }
        Ok(self.view.require(wanted)?)
    }

    /// Asks for the release times of blocks that do not exist any more, all at once.
    pub fn require_cooling(&self, cidrs: &[IpNet]) -> Step<()> {
        let keys = cidrs.iter().map(|cidr| keys::cooling(self.scope, cidr));
        Ok(self.view.require(keys.map(Query::Get))?)
    }
}
