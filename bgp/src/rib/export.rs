//! How a route is told to a peer, if it is: RFC 4271 sections 5.1 and 9.2, RFC 4456, RFC 1997, RFC 9494.

use std::net::IpAddr;
use std::sync::Arc;

use crate::policy::{Judgement, Origination, Route, Verdict};
use crate::wire::{Attributes, NextHop, well_known};
use crate::{Family, Prefix};

use super::RibOptions;
use super::intern::Interner;
use super::neighbor::{Neighbor, Neighbors};
use super::path::{Freshness, Path, PeerId};

/// Why a peer is not told of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// It came from there.
    SamePeer,
    /// The session does not carry the family.
    Family,
    /// Community NO_ADVERTISE.
    NoAdvertise,
    /// Community NO_EXPORT or NO_EXPORT_SUBCONFED towards another AS.
    NoExport,
    /// From one internal peer to another, neither a client of ours.
    InternalToInternal,
    /// The peer would not know that it is stale.
    LongLivedStale,
    /// Import policy, or no next hop: there is nothing to tell.
    NotUsable,
    /// We have no address of that family on the session to be the next hop.
    NoNextHop,
    /// Export policy: the rule by number, or none matched.
    Policy { rule: Option<usize> },
}

pub(crate) struct Exporter<'a> {
    pub neighbors: &'a Neighbors,
    pub options: &'a RibOptions,
}

/// The last answer for a peer: routes of one UPDATE come in a row and are changed alike.
#[derive(Debug, Default)]
pub(crate) struct Cache(Option<Cached>);

#[derive(Debug)]
struct Cached {
    family: Family,
    from: Arc<Attributes>,
    source: PeerId,
    applied: Vec<usize>,
    made: Arc<Attributes>,
}

impl Exporter<'_> {
    /// The attributes that the peer is told, or why it is not.
    pub fn export(
        &self,
        (id, target): (PeerId, &Neighbor),
        prefix: Prefix,
        path: &Path,
        cache: &mut Cache,
        interner: &mut Interner,
    ) -> Result<Arc<Attributes>, Withheld> {
        let accepted = path.accepted.as_ref().ok_or(Withheld::NotUsable)?;
        self.allowed(id, target, prefix, path, accepted)?;
        let judgement = self.policy(target, prefix, path, accepted)?;
        let family = prefix.family();
        if let Some(c) = cache.0.as_ref().filter(|c| c.fits(family, accepted, path.peer, &judgement)) {
            return Ok(c.made.clone());
        }
        let attributes = self.rewrite(target, family, path, accepted, &judgement)?;
        let made = interner.intern(attributes);
        let (from, source, applied) = (accepted.clone(), path.peer, judgement.applied);
        cache.0 = Some(Cached { family, from, source, applied, made: made.clone() });
        Ok(made)
    }

    fn allowed(
        &self,
        id: PeerId,
        target: &Neighbor,
        prefix: Prefix,
        path: &Path,
        a: &Attributes,
    ) -> Result<(), Withheld> {
        if path.peer == id {
            return Err(Withheld::SamePeer);
        }
        if !target.families[prefix.family()] {
            return Err(Withheld::Family);
        }
        if a.has_community(well_known::NO_ADVERTISE) {
            return Err(Withheld::NoAdvertise);
        }
        let no_export = [well_known::NO_EXPORT, well_known::NO_EXPORT_SUBCONFED];
        if !target.internal && no_export.iter().any(|c| a.has_community(*c)) {
            return Err(Withheld::NoExport);
        }
        if path.freshness == Freshness::LongLived && !target.long_lived[prefix.family()] {
            return Err(Withheld::LongLivedStale);
        }
        if target.internal && !self.may_reflect(path.peer, target) {
            return Err(Withheld::InternalToInternal);
        }
        Ok(())
    }

    /// RFC 4456 section 6: from a client to all, from others to clients. Routes not from internal peers pass anyway.
    fn may_reflect(&self, source: PeerId, target: &Neighbor) -> bool {
        match self.neighbors.get(source) {
            Some(from) if from.internal => from.options.client || target.options.client,
            _ => true,
        }
    }

    fn origination(&self, source: PeerId) -> Origination {
        self.neighbors.get(source).map_or(Origination::Local, Neighbor::origination)
    }

    fn policy(
        &self,
        target: &Neighbor,
        prefix: Prefix,
        path: &Path,
        a: &Attributes,
    ) -> Result<Judgement, Withheld> {
        let origination = self.origination(path.peer);
        let judgement = target.options.export.judge(&Route { prefix, attributes: a, origination });
        match judgement.verdict {
            Verdict::Accept => Ok(judgement),
            Verdict::Reject => Err(Withheld::Policy { rule: judgement.by }),
        }
    }

    fn rewrite(
        &self,
        target: &Neighbor,
        family: Family,
        path: &Path,
        a: &Attributes,
        judgement: &Judgement,
    ) -> Result<Attributes, Withheld> {
        let origination = self.origination(path.peer);
        let next_hop = next_hop(target, family, origination, a)?;
        let mut a = Attributes { next_hop, ..a.clone() };
        if target.internal {
            a.local_pref.get_or_insert(100);
            if origination == Origination::Internal {
                self.reflect(path.peer, &mut a);
            }
        } else {
            make_external(&mut a, origination);
        }
        target.options.export.apply(judgement, &mut a);
        if !target.internal {
            // After policy, so that a prepended number stands behind ours.
            a.as_path.prepend(target.local_as, 1);
            a.local_pref = None;
        }
        Ok(a)
    }

    /// RFC 4456 section 8.
    fn reflect(&self, source: PeerId, a: &mut Attributes) {
        if a.originator_id.is_none() {
            a.originator_id = self.neighbors.get(source).map(|n| n.router_id);
        }
        a.cluster_list.insert(0, self.options.cluster_id.unwrap_or(self.options.router_id));
    }
}

/// What stays within an AS: RFC 4271 sections 5.1.4 and 5.1.5, RFC 4456 section 8.
fn make_external(a: &mut Attributes, origination: Origination) {
    if origination != Origination::Local {
        a.med = None;
    }
    a.originator_id = None;
    a.cluster_list.clear();
}

/// RFC 4271 section 5.1.3.
fn next_hop(
    n: &Neighbor,
    family: Family,
    origination: Origination,
    a: &Attributes,
) -> Result<NextHop, Withheld> {
    let keep = match origination {
        Origination::Local => false,
        Origination::Internal | Origination::External if n.internal => !n.options.next_hop_self,
        Origination::Internal | Origination::External => n.options.keep_next_hop,
    };
    let hop = if keep { Some(a.next_hop) } else { n.options.next_hop[family] };
    hop.filter(|h| can_carry(n, family, h.addr)).ok_or(Withheld::NoNextHop)
}

/// An IPv6 route has an IPv6 next hop; an IPv4 route may have one where that was agreed on (RFC 8950).
fn can_carry(n: &Neighbor, family: Family, hop: IpAddr) -> bool {
    match (family, hop) {
        (Family::Ipv4, IpAddr::V4(_)) | (Family::Ipv6, IpAddr::V6(_)) => true,
        (Family::Ipv4, IpAddr::V6(_)) => n.extended_next_hop,
        (Family::Ipv6, IpAddr::V4(_)) => false,
    }
}

impl Cached {
    fn fits(&self, family: Family, from: &Arc<Attributes>, source: PeerId, judgement: &Judgement) -> bool {
        self.family == family
            && Arc::ptr_eq(&self.from, from)
            && self.source == source
            && self.applied == judgement.applied
    }
}
