//! The way to a next hop: over the host's other routes, or over one learnt route that these lead to.
//!
//! A table of our own instead of questions to the kernel: its answer would come from the very routes that depend
//! on it.

use bgp::Prefix;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One way of a route of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// None: on the link.
    pub gateway: Option<IpAddr>,
    pub ifindex: u32,
    /// The gateway is taken to be on the link.
    pub onlink: bool,
}

/// A route that somebody else made. Without hops it leads nowhere (a blackhole, or to the host itself).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    pub metric: u32,
    pub hops: Vec<Hop>,
}

/// The host's other routes, by network and metric.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    routes: BTreeMap<Prefix, BTreeMap<u32, Vec<Hop>>>,
}

impl Resolver {
    pub fn insert(&mut self, prefix: Prefix, route: Foreign) {
        self.routes.entry(prefix).or_default().insert(route.metric, route.hops);
    }

    pub fn remove(&mut self, prefix: &Prefix, metric: u32) {
        if let Some(metrics) = self.routes.get_mut(prefix) {
            metrics.remove(&metric);
            if metrics.is_empty() {
                self.routes.remove(prefix);
            }
        }
    }

    pub fn clear(&mut self) {
        self.routes.clear();
    }

    /// True if somebody has a route of just this name.
    pub fn has(&self, prefix: &Prefix, metric: u32) -> bool {
        self.routes.get(prefix).is_some_and(|metrics| metrics.contains_key(&metric))
    }

    /// The most specific route to an address and its hops, as the kernel would choose.
    fn lookup(&self, addr: IpAddr) -> Option<(Prefix, &[Hop])> {
        let host = Prefix::host(addr);
        (0..=host.prefix_len()).rev().find_map(|len| {
            let prefix = host.truncate(len)?;
            let (_, hops) = self.routes.get(&prefix)?.first_key_value()?;
            Some((prefix, hops.as_slice()))
        })
    }

    /// The way to an address: its own link, or the gateways before it. `learnt` answers with the most specific
    /// learnt route to an address and its next hops; it is used where it is more specific than all others, and
    /// if the host's other routes lead to its next hops. Empty: there is none.
    pub fn way(&self, addr: IpAddr, learnt: impl Fn(IpAddr) -> Option<(Prefix, Vec<IpAddr>)>) -> Vec<Hop> {
        let foreign = self.lookup(addr);
        let better = learnt(addr).filter(|(prefix, hops)| {
            let length = foreign.map_or(-1, |(p, _)| i16::from(p.prefix_len()));
            i16::from(prefix.prefix_len()) > length && !hops.contains(&addr)
        });
        let mut ways = match better {
            Some((_, hops)) => hops.into_iter().flat_map(|hop| self.direct(hop)).collect(),
            None => self.direct(addr),
        };
        ways.sort_unstable();
        ways.dedup();
        ways
    }

    fn direct(&self, addr: IpAddr) -> Vec<Hop> {
        let Some((_, hops)) = self.lookup(addr) else { return Vec::new() };
        hops.iter().map(|hop| Hop { gateway: hop.gateway.or(Some(addr)), ..*hop }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn hop(gateway: Option<&str>, ifindex: u32) -> Hop {
        Hop { gateway: gateway.map(ip), ifindex, onlink: false }
    }

    fn resolver() -> Resolver {
        let mut r = Resolver::default();
        r.insert(p("10.0.0.0/24"), Foreign { metric: 0, hops: vec![hop(None, 2)] });
        r.insert(p("0.0.0.0/0"), Foreign { metric: 100, hops: vec![hop(Some("10.0.0.254"), 2)] });
        r.insert(p("10.0.9.0/24"), Foreign { metric: 0, hops: vec![] });
        r
    }

    fn nothing(_: IpAddr) -> Option<(Prefix, Vec<IpAddr>)> {
        None
    }

    #[test]
    fn a_neighbour_a_gateway_and_a_dead_end() {
        let r = resolver();
        assert_eq!(r.way(ip("10.0.0.7"), nothing), [hop(Some("10.0.0.7"), 2)]);
        assert_eq!(r.way(ip("192.0.2.1"), nothing), [hop(Some("10.0.0.254"), 2)]);
        assert_eq!(r.way(ip("10.0.9.1"), nothing), []);
        assert_eq!(r.way(ip("fd00::1"), nothing), []);
    }

    #[test]
    fn the_lower_metric_counts_until_it_goes() {
        let mut r = resolver();
        r.insert(p("0.0.0.0/0"), Foreign { metric: 50, hops: vec![hop(Some("10.0.0.253"), 2)] });
        assert_eq!(r.way(ip("192.0.2.1"), nothing), [hop(Some("10.0.0.253"), 2)]);
        r.remove(&p("0.0.0.0/0"), 50);
        assert_eq!(r.way(ip("192.0.2.1"), nothing), [hop(Some("10.0.0.254"), 2)]);
        r.remove(&p("0.0.0.0/0"), 100);
        assert_eq!(r.way(ip("192.0.2.1"), nothing), []);
    }

    /// The other rack's nodes are reached by what the switch told.
    #[test]
    fn a_learnt_route_leads_on_but_never_to_itself() {
        let r = resolver();
        let learnt = |_| Some((p("10.7.0.0/16"), vec![ip("10.0.0.1")]));
        assert_eq!(r.way(ip("10.7.0.9"), learnt), [hop(Some("10.0.0.1"), 2)]);
        let itself = |_| Some((p("10.0.0.7/32"), vec![ip("10.0.0.7")]));
        assert_eq!(r.way(ip("10.0.0.7"), itself), [hop(Some("10.0.0.7"), 2)]);
        let shorter = |_| Some((p("10.0.0.0/8"), vec![ip("192.0.2.1")]));
        assert_eq!(r.way(ip("10.0.0.7"), shorter), [hop(Some("10.0.0.7"), 2)]);
    }
}
