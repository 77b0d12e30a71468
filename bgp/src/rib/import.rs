//! What becomes of a route that comes in: loops (RFC 4271 section 9, RFC 4456 section 8) and import policy.

use std::sync::Arc;

use crate::Prefix;
use crate::policy::{Judgement, Route, Verdict};
use crate::wire::Attributes;

use super::RibOptions;
use super::intern::Interner;
use super::neighbor::Neighbor;

/// Why a route is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Our AS is in its path already.
    AsLoop,
    /// We are its ORIGINATOR_ID.
    OwnOriginator,
    /// Our cluster is in its CLUSTER_LIST.
    OwnCluster,
    /// It would send packets to ourselves.
    OwnNextHop,
    /// Import policy: the rule by number, or none matched.
    Policy { rule: Option<usize> },
}

pub(crate) fn judge(
    n: &Neighbor,
    options: &RibOptions,
    prefix: Prefix,
    attributes: &Attributes,
) -> Result<Judgement, Refusal> {
    let own = attributes.as_path.count(&[options.local_as, n.local_as]);
    if own > usize::from(n.options.allowed_own_as) {
        return Err(Refusal::AsLoop);
    }
    if attributes.originator_id == Some(options.router_id) {
        return Err(Refusal::OwnOriginator);
    }
    if options.cluster_id.is_some_and(|id| attributes.cluster_list.contains(&id)) {
        return Err(Refusal::OwnCluster);
    }
    if n.is_own_address(attributes.next_hop.addr) {
        return Err(Refusal::OwnNextHop);
    }
    let judgement = n.options.import.judge(&Route { prefix, attributes, origination: n.origination() });
    match judgement.verdict {
        Verdict::Accept => Ok(judgement),
        Verdict::Reject => Err(Refusal::Policy { rule: judgement.by }),
    }
}

/// Judges the prefixes of one UPDATE; attributes that policy changed alike are made and stored once.
pub(crate) struct Importer<'a> {
    pub neighbor: &'a Neighbor,
    pub options: &'a RibOptions,
    pub received: Arc<Attributes>,
    last: Option<(Vec<usize>, Arc<Attributes>)>,
}

impl<'a> Importer<'a> {
    pub fn new(neighbor: &'a Neighbor, options: &'a RibOptions, received: Arc<Attributes>) -> Self {
        Importer { neighbor, options, received, last: None }
    }

    /// The attributes with which the route may be used, if it may.
    pub fn import(&mut self, prefix: Prefix, interner: &mut Interner) -> Option<Arc<Attributes>> {
        let judgement = judge(self.neighbor, self.options, prefix, &self.received).ok()?;
        if judgement.applied.is_empty() {
            return Some(self.received.clone());
        }
        if let Some((_, made)) = self.last.as_ref().filter(|(applied, _)| *applied == judgement.applied) {
            return Some(made.clone());
        }
        let mut attributes = (*self.received).clone();
        self.neighbor.options.import.apply(&judgement, &mut attributes);
        let made = interner.intern(attributes);
        self.last = Some((judgement.applied, made.clone()));
        Some(made)
    }
}
