//! BGPFilter resources as policy rules (modern data model 5.3).

use crate::cluster::network;
use crate::policy::Community;
use bgp::policy::{Action, Match, Origination, Rule, Verdict};
use bgp::{Family, Prefix};
use model::bgp::{BgpFilter, BgpFilterOperation, BgpFilterRule};

/// Which way, for which session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    pub export: bool,
    pub family: Family,
    pub internal: bool,
}

/// The rules of one filter. An error names what this build cannot do; then nothing of the filter may be used.
pub(crate) fn rules(filter: &BgpFilter, side: Side) -> Result<Vec<Rule>, String> {
    let spec = &filter.spec;
    let list = match (side.export, side.family) {
        (true, Family::Ipv4) => &spec.export_v4,
        (true, Family::Ipv6) => &spec.export_v6,
        (false, Family::Ipv4) => &spec.import_v4,
        (false, Family::Ipv6) => &spec.import_v6,
    };
    let applies = |r: &&BgpFilterRule| match r.peer_type.as_str() {
        "eBGP" => !side.internal,
        "iBGP" => side.internal,
        _ => true,
    };
    list.iter().filter(applies).map(|r| rule(r, side)).collect()
}

fn rule(r: &BgpFilterRule, side: Side) -> Result<Rule, String> {
    for (name, is_used) in [("interface", !r.interface.is_empty()), ("priority", r.priority.is_some())] {
        if is_used {
            return Err(format!("a rule with {name} is not supported"));
        }
    }
    // A condition that is not looked at would let the rule hold for more than it should.
    if let Some(name) = r.other.keys().next() {
        return Err(format!("a rule with {name} is not supported"));
    }
    let mut matches: Vec<Match> = cidr(r, side.family)?.into_iter().collect();
    if r.source == "RemotePeers" {
        matches.push(Match::Not(Box::new(Match::Origination(Origination::Local))));
    }
    for value in r.communities.iter().flat_map(|c| &c.values) {
        let community =
            Community::parse(value).ok_or_else(|| format!("community {value:?} cannot be read"))?;
        matches.push(community.is_there());
    }
    if !r.as_path_prefix.is_empty() {
        matches.push(Match::PathStart(r.as_path_prefix.iter().map(|asn| asn.0).collect()));
    }
    let actions = r.operations.iter().map(operation).collect::<Result<Vec<_>, _>>()?;
    let verdict = Some(if r.action == "Accept" { Verdict::Accept } else { Verdict::Reject });
    Ok(Rule { matches, actions: actions.concat(), verdict })
}

/// The condition on the network, if there is one.
fn cidr(r: &BgpFilterRule, family: Family) -> Result<Option<Match>, String> {
    if r.cidr.is_empty() {
        return Ok(None);
    }
    let within: Prefix = network(&r.cidr)
        .filter(|net| net.family() == family)
        .ok_or_else(|| format!("cidr {:?} is not of the rule's family", r.cidr))?;
    let length = r.prefix_length.unwrap_or_default();
    let min = length.min.unwrap_or(within.prefix_len()).max(within.prefix_len());
    let max = length.max.unwrap_or(family.max_len());
    let inside = Match::Prefix { within, min, max };
    Ok(Some(match r.match_operator.as_str() {
        "Equal" => Match::exact(within),
        "NotEqual" => Match::Not(Box::new(Match::exact(within))),
        "In" => inside,
        _ => Match::Not(Box::new(inside)),
    }))
}

fn operation(o: &BgpFilterOperation) -> Result<Vec<Action>, String> {
    if let Some(add) = &o.add_community {
        let bad = || format!("community {:?} cannot be read", add.value);
        return Ok(vec![Community::parse(&add.value).ok_or_else(bad)?.add()]);
    }
    if let Some(prepend) = &o.prepend_as_path {
        // The first number of the list shall stand first.
        let asns = prepend.prefix.iter().rev();
        return Ok(asns.map(|asn| Action::Prepend { asn: asn.0, times: 1 }).collect());
    }
    Err("an operation other than addCommunity and prependASPath is not supported".into())
}
