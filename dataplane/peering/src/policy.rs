//! What peers are told (reference 4.5). Which blocks and services are the node's own is not part of it: that is
//! decided where routes originate, so that a new block changes no policy.

use crate::cluster::{Cluster, network};
use crate::prefix;
use crate::services::Ranges;
use bgp::Prefix;
use bgp::policy::{Action, Match, Origination, Policy, Rule, Verdict};
use model::bgp::{BgpConfigurationSpec, PrefixAdvertisement};

/// A community of either size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Community {
    Standard(u32),
    Large([u32; 3]),
}

impl Community {
    /// `65000:100`, or three numbers (RFC 1997, RFC 8092).
    pub fn parse(text: &str) -> Option<Community> {
        let parts: Vec<u32> = text.split(':').map(|p| p.trim().parse().ok()).collect::<Option<_>>()?;
        match parts[..] {
            [high, low] if high <= 0xffff && low <= 0xffff => Some(Community::Standard(high << 16 | low)),
            [a, b, c] => Some(Community::Large([a, b, c])),
            _ => None,
        }
    }

    /// A value, or the name of one in the configuration.
    pub fn named(cluster: &Cluster, text: &str) -> Option<Community> {
        let by_name = || {
            let own = cluster.node_config(&cluster.me.node).into_iter().chain(cluster.config());
            let found = own.flat_map(|c| &c.communities).find(|c| c.name == text)?;
            Community::parse(&found.value)
        };
        Community::parse(text).or_else(by_name)
    }

    pub fn add(self) -> Action {
        match self {
            Community::Standard(c) => Action::AddCommunity(c),
            Community::Large(c) => Action::AddLargeCommunity(c),
        }
    }

    pub fn is_there(self) -> Match {
        match self {
            Community::Standard(c) => Match::Community(c),
            Community::Large(c) => Match::LargeCommunity(c),
        }
    }
}

/// The rules that are the same for all peers.
pub(crate) struct Export {
    common: Vec<Rule>,
    drained: bool,
}

impl Export {
    pub fn new(cluster: &Cluster, ranges: &Ranges, drained: bool) -> Export {
        let mut common = communities(cluster);
        let pools = || cluster.pools.values().filter_map(|p| Some((p, prefix(&p.net()?))));
        let silent = |p: &model::resource::IpPoolSpec| {
            p.other.get("disableBGPExport").is_some_and(|v| v.as_bool() == Some(true))
        };
        let withheld = pools().filter(|(p, _)| silent(p)).map(|(_, net)| net);
        common.extend(withheld.map(|net| decide(vec![Match::within(net)], Verdict::Reject)));
        // Routes start here on purpose only.
        common.push(decide(vec![Match::Origination(Origination::Local)], Verdict::Accept));
        let passed_on: Vec<Match> =
            ranges.all().chain(pools().map(|(_, net)| net)).map(Match::within).collect();
        common.push(decide(vec![Match::Any(passed_on)], Verdict::Accept));
        Export { common, drained }
    }

    /// All rules for a peer: its filters' first.
    pub fn for_peer(&self, filters: Vec<Rule>) -> Policy {
        if self.drained {
            return Policy::REJECT;
        }
        let rules = filters.into_iter().chain(self.common.iter().cloned()).collect();
        Policy { rules, otherwise: Verdict::Reject }
    }
}

pub(crate) fn decide(matches: Vec<Match>, verdict: Verdict) -> Rule {
    Rule { matches, actions: Vec::new(), verdict: Some(verdict) }
}

/// The node's list replaces the global one when present.
fn communities(cluster: &Cluster) -> Vec<Rule> {
    let of = |c: &BgpConfigurationSpec| Some(c.prefix_advertisements.clone()).filter(|l| !l.is_empty());
    let own = cluster.node_config(&cluster.me.node).and_then(of);
    let list = own.or_else(|| cluster.config().and_then(of)).unwrap_or_default();
    list.iter().filter_map(|a| mark(cluster, a)).collect()
}

/// Unknown names are dropped, and named among the problems.
fn mark(cluster: &Cluster, advertisement: &PrefixAdvertisement) -> Option<Rule> {
    let within: Prefix = network(&advertisement.cidr)?;
    let values = advertisement.communities.iter().filter_map(|name| Community::named(cluster, name));
    let actions: Vec<Action> = values.map(Community::add).collect();
    (!actions.is_empty()).then(|| Rule { matches: vec![Match::within(within)], actions, verdict: None })
}
