//! Import and export filters as data: no code of a filter's own, so that it can be shown, compared and stored.

use crate::wire::Attributes;
use crate::{Family, Prefix};

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origination {
    /// It starts here.
    Local,
    /// From a peer in our AS.
    Internal,
    /// From a peer in another AS.
    External,
}

/// A condition on a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// In `within`, with a length from `min` to `max`. `min = max = within's length` is that prefix alone.
    Prefix {
        within: Prefix,
        min: u8,
        max: u8,
    },
    Family(Family),
    Origination(Origination),
    Community(u32),
    LargeCommunity([u32; 3]),
    /// The AS path begins with these numbers.
    PathStart(Vec<u32>),
    PathContains(u32),
    Not(Box<Match>),
    /// True if one of them is; an empty list never is.
    Any(Vec<Match>),
}

impl Match {
    /// That prefix and no other.
    pub fn exact(prefix: Prefix) -> Match {
        let len = prefix.prefix_len();
        Match::Prefix { within: prefix, min: len, max: len }
    }

    /// That prefix and all inside it.
    pub fn within(prefix: Prefix) -> Match {
        Match::Prefix { within: prefix, min: prefix.prefix_len(), max: prefix.family().max_len() }
    }

    fn holds(&self, route: &Route<'_>) -> bool {
        let path = || route.attributes.as_path.0.iter().flat_map(|s| s.asns()).copied();
        match self {
            Match::Prefix { within, min, max } => {
                within.covers(&route.prefix) && (*min..=*max).contains(&route.prefix.prefix_len())
            }
            Match::Family(family) => route.prefix.family() == *family,
            Match::Origination(o) => route.origination == *o,
            Match::Community(c) => route.attributes.has_community(*c),
            Match::LargeCommunity(c) => route.attributes.large.binary_search(c).is_ok(),
            Match::PathStart(asns) => path().take(asns.len()).eq(asns.iter().copied()),
            Match::PathContains(asn) => route.attributes.as_path.contains(*asn),
            Match::Not(inner) => !inner.holds(route),
            Match::Any(list) => list.iter().any(|m| m.holds(route)),
        }
    }
}

/// A change to a route that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    SetLocalPref(u32),
    /// `None` removes it.
    SetMed(Option<u32>),
    AddCommunity(u32),
    RemoveCommunity(u32),
    AddLargeCommunity([u32; 3]),
    /// Puts an AS number in front that many times.
    Prepend {
        asn: u32,
        times: u8,
    },
}

impl Action {
    fn apply(&self, a: &mut Attributes) {
        match self {
            Action::SetLocalPref(v) => a.local_pref = Some(*v),
            Action::SetMed(v) => a.med = *v,
            Action::AddCommunity(c) => a.add_community(*c),
            Action::RemoveCommunity(c) => a.communities.retain(|have| have != c),
            Action::AddLargeCommunity(c) => a.add_large(*c),
            Action::Prepend { asn, times } => a.as_path.prepend(*asn, *times),
        }
    }
}

/// The end of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Reject,
}

/// If all matches hold: the actions, then the verdict; without one the next rule is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub actions: Vec<Action>,
    pub verdict: Option<Verdict>,
}

/// Rules in order, and what becomes of a route that no rule judged. Matches see the route as it came in,
/// not as earlier rules changed it, so that the rules that apply are known from the route alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub rules: Vec<Rule>,
    pub otherwise: Verdict,
}

impl Policy {
    pub const ACCEPT: Policy = Policy { rules: Vec::new(), otherwise: Verdict::Accept };
    pub const REJECT: Policy = Policy { rules: Vec::new(), otherwise: Verdict::Reject };

    /// What is to be done with a route.
    pub fn judge(&self, route: &Route<'_>) -> Judgement {
        let mut applied = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            if !rule.matches.iter().all(|m| m.holds(route)) {
                continue;
            }
            if !rule.actions.is_empty() {
                applied.push(index);
            }
            if let Some(verdict) = rule.verdict {
                return Judgement { verdict, applied, by: Some(index) };
            }
        }
        Judgement { verdict: self.otherwise, applied, by: None }
    }

    /// Makes the changes that a judgement of this policy named.
    pub fn apply(&self, judgement: &Judgement, a: &mut Attributes) {
        let rules = judgement.applied.iter().filter_map(|i| self.rules.get(*i));
        rules.flat_map(|r| &r.actions).for_each(|action| action.apply(a));
    }
}

/// What a policy looks at.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    pub prefix: Prefix,
    pub attributes: &'a Attributes,
    pub origination: Origination,
}

/// What a policy said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// Rules whose actions apply, in order.
    pub applied: Vec<usize>,
    /// The rule that decided; `None` if none did.
    pub by: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn rule(matches: Vec<Match>, actions: Vec<Action>, verdict: Option<Verdict>) -> Rule {
        Rule { matches, actions, verdict }
    }

    fn verdict(policy: &Policy, prefix: &str, attributes: &Attributes) -> Verdict {
        policy.judge(&Route { prefix: p(prefix), attributes, origination: Origination::Local }).verdict
    }

    /// The shape of Calico's export to peers: own block yes, inside it no, other addresses of the pool yes, else no.
    #[test]
    fn own_block_aggregates() {
        let yes = |m| rule(vec![m], vec![], Some(Verdict::Accept));
        let no = |m| rule(vec![m], vec![], Some(Verdict::Reject));
        let policy = Policy {
            rules: vec![
                yes(Match::exact(p("10.0.0.64/26"))),
                no(Match::within(p("10.0.0.64/26"))),
                yes(Match::within(p("10.0.0.0/16"))),
            ],
            otherwise: Verdict::Reject,
        };
        let a = Attributes::local([1, 1, 1, 1].into());
        let of = |prefix| verdict(&policy, prefix, &a);
        assert_eq!(of("10.0.0.64/26"), Verdict::Accept);
        assert_eq!(of("10.0.0.65/32"), Verdict::Reject);
        assert_eq!(of("10.0.9.1/32"), Verdict::Accept);
        assert_eq!(of("192.168.0.0/24"), Verdict::Reject);
        assert_eq!(of("fd00::/64"), Verdict::Reject);
    }

    #[test]
    fn rules_without_a_verdict_add_up() {
        let policy = Policy {
            rules: vec![
                rule(vec![Match::within(p("10.0.0.0/8"))], vec![Action::AddCommunity(7)], None),
                rule(vec![Match::within(p("10.1.0.0/16"))], vec![Action::AddLargeCommunity([1, 2, 3])], None),
                rule(vec![Match::Community(7)], vec![], Some(Verdict::Reject)),
                rule(
                    vec![],
                    vec![Action::Prepend { asn: 5, times: 2 }, Action::SetLocalPref(9)],
                    Some(Verdict::Accept),
                ),
            ],
            otherwise: Verdict::Reject,
        };
        let mut a = Attributes::local([1, 1, 1, 1].into());
        let judged = policy.judge(&Route {
            prefix: p("10.1.2.0/24"),
            attributes: &a,
            origination: Origination::Local,
        });
        assert_eq!(judged, Judgement { verdict: Verdict::Accept, applied: vec![0, 1, 3], by: Some(3) });
        policy.apply(&judged, &mut a);
        assert_eq!((&a.communities[..], &a.large[..], a.local_pref), (&[7][..], &[[1, 2, 3]][..], Some(9)));
        assert_eq!(a.as_path.to_string(), "5 5");
        assert_eq!(verdict(&policy, "10.0.0.0/8", &a), Verdict::Reject, "it carries 7 now");
    }

    #[test]
    fn each_match_and_its_opposite() {
        let mut a = Attributes::local([1, 1, 1, 1].into());
        a.as_path = crate::wire::AsPath::sequence(&[1, 2, 3]);
        a.add_community(9);
        a.add_large([1, 1, 1]);
        let yes = [
            Match::PathStart(vec![1, 2]),
            Match::PathStart(vec![]),
            Match::PathContains(3),
            Match::Community(9),
            Match::LargeCommunity([1, 1, 1]),
            Match::Family(Family::Ipv4),
            Match::Origination(Origination::External),
            Match::Prefix { within: p("10.0.0.0/8"), min: 24, max: 28 },
            Match::Any(vec![Match::PathContains(4), Match::PathContains(2)]),
        ];
        let no = [
            Match::PathStart(vec![2]),
            Match::PathStart(vec![1, 2, 3, 4]),
            Match::PathContains(4),
            Match::Community(8),
            Match::Family(Family::Ipv6),
            Match::Origination(Origination::Local),
            Match::Prefix { within: p("10.0.0.0/8"), min: 25, max: 32 },
            Match::Any(vec![]),
        ];
        let route = Route { prefix: p("10.1.1.0/24"), attributes: &a, origination: Origination::External };
        for (list, want) in [(&yes[..], true), (&no[..], false)] {
            for m in list {
                assert_eq!(m.holds(&route), want, "{m:?}");
                assert_eq!(Match::Not(Box::new(m.clone())).holds(&route), !want, "not {m:?}");
            }
        }
    }
}
