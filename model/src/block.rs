//! The stored form of a block (Calico's etcd JSON; Calico 3.18 to 3.33).
//!
//! Members and their order are those of Calico's `AllocationBlock`. What newer releases added and
//! what this build does not know stays in `other` and is written back.

use crate::decode::{DecodeError, Problem, Stored, bad_value, json, null_default};
use crate::ip::{self, Family};
use crate::keys::{self, AffinityKind};
use ipnet::IpNet;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Shortest and longest block prefix of a family (reference 3.9).
pub fn block_sizes(family: Family) -> std::ops::RangeInclusive<u8> {
    match family {
        Family::V4 => 20..=32,
        Family::V6 => 116..=128,
    }
}

/// Block prefix where a pool names none.
pub fn default_block_size(family: Family) -> u8 {
    match family {
        Family::V4 => 26,
        Family::V6 => 122,
    }
}

/// A block of addresses: which are taken, by whom, and in which order the free ones are used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Block {
    #[serde(with = "net_text")]
    pub cidr: IpNet,
    /// `host:NAME` or `virtual:NAME`; `None` when nobody has a claim.
    #[serde(default)]
    pub affinity: Option<String>,
    /// When the affinity was claimed (RFC 3339; Calico 3.30 or later). Kept as it was read.
    #[serde(default, rename = "affinity_claim_time", skip_serializing_if = "Option::is_none")]
    pub affinity_claim_time: Option<String>,
    /// One slot for each ordinal: `None` is free, else an index into `attributes`.
    #[serde(deserialize_with = "null_default")]
    pub allocations: Vec<Option<u32>>,
    /// Queue of free ordinals: taken from the front, returned at the back.
    #[serde(deserialize_with = "null_default")]
    pub unallocated: Vec<u32>,
    #[serde(deserialize_with = "null_default")]
    pub attributes: Vec<Attribute>,
    /// Grows with every update (modern data model 1.3). Zero: written by a Calico that has none.
    #[serde(default, rename = "sequenceNumber", deserialize_with = "null_default")]
    pub sequence_number: u64,
    /// The sequence number under which each ordinal (as decimal text) was allocated.
    #[serde(default, rename = "sequenceNumberForAllocation", deserialize_with = "null_default")]
    pub sequence_for_allocation: BTreeMap<String, u64>,
    #[serde(default, deserialize_with = "null_default")]
    pub deleted: bool,
    /// Deprecated member of old etcd data; has no meaning any more.
    #[serde(default, rename = "hostAffinity", skip_serializing_if = "Option::is_none")]
    pub host_affinity: Option<String>,
    /// Members that this build does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Who holds an address and what is known about it. Several ordinals may share an entry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Attribute {
    #[serde(default)]
    pub handle_id: Option<String>,
    /// Shared, because a plan copies the block that it changes.
    #[serde(default, deserialize_with = "shared")]
    pub secondary: Option<Arc<BTreeMap<String, String>>>,
    /// Second owner and release time, in every spelling, and what this build does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn shared<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Arc<T>>, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.map(Arc::new))
}

/// Spellings of the second owner of a migrating virtual machine (Calico 3.32).
const ALTERNATES: [&str; 2] = ["alternate", "alternateOwnerAttrs"];

/// Spellings of the release time of a cooling address: releases write the first, others were seen in
/// development.
const RELEASED: [&str; 3] = ["releasedAt", "released_at", "ReleasedAt"];

/// As Calico writes it: both members, `null` where there is none; but in an entry with more members, which only
/// releases write that leave out what is absent, neither that is absent.
impl Serialize for Attribute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let newer = !self.other.is_empty();
        if !newer || self.handle_id.is_some() {
            map.serialize_entry("handle_id", &self.handle_id)?;
        }
        if !newer || self.secondary.is_some() {
            map.serialize_entry("secondary", &self.secondary.as_deref())?;
        }
        for (key, value) in &self.other {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl Attribute {
    /// An entry with an owner and nothing else.
    pub fn new(handle: Option<&str>, secondary: BTreeMap<String, String>) -> Self {
        let secondary = Some(Arc::new(secondary));
        Self { handle_id: handle.map(str::to_owned), secondary, other: Map::new() }
    }

    /// The handle without what an old migration appended after a carriage return.
    pub fn handle(&self) -> Option<&str> {
        self.handle_id.as_deref().map(clean_handle)
    }

    /// A secondary attribute.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.secondary.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether the address was released and waits for its reuse (Calico's own cooldown).
    pub fn released(&self) -> bool {
        RELEASED.iter().any(|key| self.other.get(*key).is_some_and(|v| !v.is_null()))
    }

    /// Whether the entry says nothing beyond handle and secondary attributes.
    pub fn plain(&self) -> bool {
        self.other.values().all(Value::is_null)
    }

    fn unknown(&self) -> Option<&str> {
        let known = |key: &str| ALTERNATES.contains(&key) || RELEASED.contains(&key);
        self.other.keys().map(String::as_str).find(|key| !known(key))
    }
}

/// A handle up to its first carriage return: an old host-local migration stored
/// `ID\r\nINTERFACE` (reference 3.4).
pub fn clean_handle(handle: &str) -> &str {
    handle.split('\r').next().unwrap_or(handle)
}

impl Block {
    /// A block with every address free, its queue in ascending order.
    pub fn new(cidr: IpNet, affinity: Option<String>) -> Self {
        let size = size_of(&cidr) as u32;
        Self {
            cidr,
            affinity,
            affinity_claim_time: None,
            allocations: vec![None; size as usize],
            unallocated: (0..size).collect(),
            attributes: Vec::new(),
            sequence_number: 0,
            sequence_for_allocation: BTreeMap::new(),
            deleted: false,
            host_affinity: None,
            other: Map::new(),
        }
    }

    pub fn family(&self) -> Family {
        Family::of_net(&self.cidr)
    }

    /// How many addresses it has.
    pub fn size(&self) -> usize {
        self.allocations.len()
    }

    /// Place of an address in the block.
    pub fn ordinal(&self, ip: IpAddr) -> Option<u32> {
        ip::offset(&self.cidr, ip).map(|offset| offset as u32)
    }

    /// Address of an ordinal.
    pub fn ip(&self, ordinal: u32) -> IpAddr {
        ip::from_u128(self.family(), ip::to_u128(self.cidr.network()) + u128::from(ordinal))
    }

    /// Who it is affine to. Text of another form is nobody we know, which is not nobody.
    pub fn owner(&self) -> Owner<'_> {
        match self.affinity.as_deref() {
            None | Some("") => Owner::Nobody,
            Some(text) => match text.split_once(':') {
                Some(("host", name)) => Owner::Of(AffinityKind::Host, name),
                Some(("virtual", name)) => Owner::Of(AffinityKind::Virtual, name),
                _ => Owner::Unknown,
            },
        }
    }

    /// Whether it is affine to this host.
    pub fn is_of_host(&self, host: &str) -> bool {
        self.owner() == Owner::Of(AffinityKind::Host, host)
    }

    /// The attributes of an allocated ordinal.
    pub fn attribute(&self, ordinal: u32) -> Option<&Attribute> {
        let index = (*self.allocations.get(ordinal as usize)?)?;
        self.attributes.get(index as usize)
    }

    /// Every allocated ordinal with its attributes, in ascending order.
    pub fn allocated(&self) -> impl Iterator<Item = (u32, &Attribute)> {
        self.allocations.iter().zip(0..).filter_map(|(slot, ordinal)| {
            let index = (*slot)?;
            Some((ordinal, self.attributes.get(index as usize)?))
        })
    }

    /// Whether no address is taken.
    pub fn is_empty(&self) -> bool {
        self.allocations.iter().all(Option::is_none)
    }

    /// The sequence number under which an ordinal was allocated.
    pub fn sequence_of(&self, ordinal: u32) -> Option<u64> {
        self.sequence_for_allocation.get(&ordinal.to_string()).copied()
    }

    /// A member that this build does not know and that may be state of the allocations; such a
    /// block must not be written (decision 22). Lone scalars cannot say anything about single
    /// addresses and are kept; lists, objects and unknown members of attributes might.
    pub fn unknown_state(&self) -> Option<&str> {
        let compound = |v: &Value| v.is_array() || v.is_object();
        let own = self.other.iter().find(|(_, v)| compound(v)).map(|(k, _)| k.as_str());
        own.or_else(|| self.attributes.iter().find_map(Attribute::unknown))
    }

    fn check(&self, key: &str) -> Result<(), Problem> {
        self.check_cidr(key)?;
        self.check_allocations()?;
        self.check_queue()?;
        self.check_sequences()
    }

    fn check_cidr(&self, key: &str) -> Result<(), Problem> {
        let Some(keys::Key::Block { cidr, .. }) = keys::parse(key) else { return Err(Problem::BadKey) };
        if cidr != self.cidr {
            let (found, wanted) = (self.cidr.to_string(), cidr.to_string());
            return Err(Problem::Mismatch { field: "cidr", found, wanted });
        }
        if !block_sizes(self.family()).contains(&cidr.prefix_len()) {
            return Err(bad_value("cidr", cidr));
        }
        Ok(())
    }

    fn check_allocations(&self) -> Result<(), Problem> {
        let (found, wanted) = (self.allocations.len(), size_of(&self.cidr));
        if found != wanted {
            return Err(Problem::Length { field: "allocations", found, wanted });
        }
        let limit = self.attributes.len() as u64;
        let slots = self.allocations.iter().enumerate();
        for (at, found) in slots.filter_map(|(at, slot)| slot.map(|index| (at, u64::from(index)))) {
            if found >= limit {
                return Err(Problem::OutOfRange { field: "allocations", at, found, limit });
            }
        }
        Ok(())
    }

    fn check_queue(&self) -> Result<(), Problem> {
        let field = "unallocated";
        let mut seen = vec![false; self.size()];
        for (at, &ordinal) in self.unallocated.iter().enumerate() {
            let value = u64::from(ordinal);
            let Some(seen) = seen.get_mut(ordinal as usize) else {
                return Err(Problem::OutOfRange { field, at, found: value, limit: self.size() as u64 });
            };
            if std::mem::replace(seen, true) {
                return Err(Problem::Repeated { field, value });
            }
            if self.allocations[ordinal as usize].is_some() {
                return Err(Problem::Contradiction { field, ordinal: value });
            }
        }
        Ok(())
    }

    fn check_sequences(&self) -> Result<(), Problem> {
        let bad = |key: &&String| key.parse::<u32>().map_or(true, |ordinal| ordinal as usize >= self.size());
        match self.sequence_for_allocation.keys().find(bad) {
            Some(key) => Err(bad_value("sequenceNumberForAllocation", key)),
            None => Ok(()),
        }
    }
}

/// A stored block whose queue of free addresses, or whose sequence numbers, contradict its
/// allocations: the allocations are kept as they are, and the rest made to agree with them. `None` if
/// anything else is wrong with it, for then nobody can tell who holds what.
pub fn mend(key: &str, value: &[u8]) -> Option<Block> {
    let mut block: Block = json(value).ok()?;
    block.check_cidr(key).and_then(|()| block.check_allocations()).ok()?;
    let mut queued: Vec<bool> = block.allocations.iter().map(Option::is_some).collect();
    let free = |ordinal: &u32| queued.get_mut(*ordinal as usize).is_some_and(|q| !std::mem::replace(q, true));
    block.unallocated.retain(free);
    block.unallocated.extend((0..).zip(&queued).filter(|(_, queued)| !**queued).map(|(ordinal, _)| ordinal));
    let size = block.size();
    block.sequence_for_allocation.retain(|key, _| key.parse::<u32>().is_ok_and(|o| (o as usize) < size));
    block.check(key).is_ok().then_some(block)
}

/// Whether the stored JSON of a block shows at a glance that nothing is free. False only means that
/// it must be decoded. (Within a JSON string the quotes would be escaped.)
pub fn surely_full(key: &str, json: &[u8]) -> bool {
    let Some(prefix) = key.rsplit_once('-').and_then(|(_, prefix)| prefix.parse::<u8>().ok()) else {
        return false;
    };
    let bits = if key.contains("/ipv4/") { 32 } else { 128_u8 };
    let size = 1_usize << bits.saturating_sub(prefix).min(16);
    // The queue follows `cidr`, `affinity`, the claim time and one index for each address.
    has_no_queue(&json[..json.len().min(640 + 6 * size)])
}

/// As [`surely_full`], wherever in the JSON it says so: an API server sorts the members.
pub fn has_no_queue(json: &[u8]) -> bool {
    const EMPTY: &[u8] = b"\"unallocated\":[]";
    json.windows(EMPTY.len()).any(|window| window == EMPTY)
}

/// Who a block is affine to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    Nobody,
    Of(AffinityKind, &'a str),
    /// A form of affinity that this build does not know.
    Unknown,
}

/// Number of addresses of a network, for networks as small as blocks.
fn size_of(cidr: &IpNet) -> usize {
    let host_bits = cidr.max_prefix_len() - cidr.prefix_len();
    1usize.checked_shl(u32::from(host_bits)).unwrap_or(usize::MAX)
}

impl Stored for Block {
    fn decode(key: &str, value: &[u8]) -> Result<Self, DecodeError> {
        let fail = |problem| DecodeError { kind: "block", subject: key.to_owned(), problem };
        let block: Block = json(value).map_err(fail)?;
        block.check(key).map_err(fail)?;
        Ok(block)
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a block has only string keys")
    }
}

/// A network as text, host bits refused by the comparison with the key.
mod net_text {
    use super::*;

    pub fn serialize<S: Serializer>(net: &IpNet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(net)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        ip::parse_net(&text).map_err(|e| serde::de::Error::custom(format_args!("cidr: {e}")))
    }
}
