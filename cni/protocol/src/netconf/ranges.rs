//! host-local's ranges, with host-local's meaning: one address is given from each set of ranges.

use crate::fields::{At, Fields};
use ipnet::IpNet;
use std::net::IpAddr;

/// Ranges of one family, tried in order. Never empty.
pub type RangeSet = Vec<RangeSpec>;

/// A range of addresses in a subnet, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSpec {
    /// No host bits are set; at least four addresses.
    pub subnet: IpNet,
    /// First address that may be given; in the subnet.
    pub start: IpAddr,
    /// Last address that may be given; in the subnet, not before `start`.
    pub end: IpAddr,
    /// Never given out, part of the result. May lie outside the subnet.
    pub gateway: IpAddr,
}

impl RangeSpec {
    /// True if `ip` may be given from this range, were it free.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.start.is_ipv4() == ip.is_ipv4() && (self.start..=self.end).contains(&ip) && ip != self.gateway
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start.is_ipv4() == other.start.is_ipv4() && self.start <= other.end && other.start <= self.end
    }
}

/// What stands where a range may stand.
pub(super) enum Source {
    Range(RangeSpec),
    /// `"subnet": "usePodCidr"` or `"usePodCidrIPv6"`, to be replaced by the node's pod CIDR.
    PodCidr,
}

/// A set whose ranges are of one family and do not overlap.
pub(super) fn read_range_set(at: &At<'_>) -> Option<RangeSet> {
    read_sources(at).map(|(set, _)| set).filter(|set| !set.is_empty())
}

/// A set, and whether one of its subnets is the node's pod CIDR.
pub(super) fn read_sources(at: &At<'_>) -> Option<(RangeSet, bool)> {
    let items = at.items()?;
    if items.is_empty() {
        return at.wrong_because("at least one range", "an empty list");
    }
    let mut set: RangeSet = Vec::new();
    let mut pod_cidr = false;
    for item in &items {
        match item.object(read_range).flatten() {
            Some(Source::Range(range)) => set.extend(admit(item, &set, range)),
            Some(Source::PodCidr) => pod_cidr = true,
            None => {}
        }
    }
    Some((set, pod_cidr))
}

fn admit(at: &At<'_>, set: &RangeSet, range: RangeSpec) -> Option<RangeSpec> {
    if set.first().is_some_and(|first| first.subnet.addr().is_ipv4() != range.subnet.addr().is_ipv4()) {
        return at.wrong_because("a range of the same family as the set's first", &range.subnet.to_string());
    }
    if set.iter().any(|other| other.overlaps(&range)) {
        return at.wrong_because("a range that overlaps no other of its set", &range.subnet.to_string());
    }
    Some(range)
}

/// True if a range of one set overlaps a range of the other.
pub(super) fn sets_overlap(one: &RangeSet, other: &RangeSet) -> bool {
    one.iter().any(|a| other.iter().any(|b| a.overlaps(b)))
}

/// The range that `subnet`, `rangeStart`, `rangeEnd` and `gateway` of an object describe; `None`
/// after a problem.
pub(super) fn read_range(fields: &Fields<'_>) -> Option<Source> {
    let start = fields.get("rangeStart", At::address);
    let end = fields.get("rangeEnd", At::address);
    let gateway = fields.get("gateway", At::address);
    let Some(at) = fields.at("subnet") else {
        fields.problem("subnet", "an IP network such as 10.0.0.0/16 or fd00::/64", "nothing");
        return None;
    };
    if at.value.as_str().is_some_and(is_pod_cidr) {
        return Some(Source::PodCidr);
    }
    let subnet = read_subnet(&at)?;
    let (first, last) = usable(&subnet);
    let range = RangeSpec {
        subnet,
        start: start.unwrap_or(first),
        end: end.unwrap_or(last),
        gateway: gateway.unwrap_or(first),
    };
    is_sound(fields, &range).then_some(Source::Range(range))
}

fn is_pod_cidr(text: &str) -> bool {
    ["usePodCidr", "usePodCidrIPv6"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// host-local refuses host bits, and networks without room for a host besides the gateway.
fn read_subnet(at: &At<'_>) -> Option<IpNet> {
    let subnet = at.network()?;
    if subnet.prefix_len() > subnet.max_prefix_len() - 2 {
        return at.wrong("a network of at least four addresses");
    }
    if subnet != subnet.trunc() {
        return at.wrong(&format!("a network address without host bits such as {}", subnet.trunc()));
    }
    Some(subnet)
}

fn is_sound(fields: &Fields<'_>, range: &RangeSpec) -> bool {
    let RangeSpec { subnet, start, end, gateway } = range;
    for (key, ip) in [("rangeStart", start), ("rangeEnd", end)] {
        if !subnet.contains(ip) {
            fields.problem(key, &format!("an address in {subnet}"), &ip.to_string());
            return false;
        }
    }
    if start > end {
        fields.problem("rangeEnd", &format!("an address not before rangeStart {start}"), &end.to_string());
        return false;
    }
    if gateway.is_ipv4() != start.is_ipv4() {
        fields.problem("gateway", &format!("an address of the family of {subnet}"), &gateway.to_string());
        return false;
    }
    if !subnet.contains(gateway) {
        // host-local takes it since 0.9, and some routed networks need it.
        fields.doubtful("gateway", "the gateway is not in the subnet");
    }
    true
}

/// First and last address that host-local gives from a whole subnet: IPv4 has a broadcast address.
fn usable(subnet: &IpNet) -> (IpAddr, IpAddr) {
    match subnet {
        IpNet::V4(net) => {
            let (network, broadcast) = (u32::from(net.network()), u32::from(net.broadcast()));
            (IpAddr::V4((network + 1).into()), IpAddr::V4((broadcast - 1).into()))
        }
        IpNet::V6(net) => {
            let (network, last) = (u128::from(net.network()), net.broadcast());
            (IpAddr::V6((network + 1).into()), IpAddr::V6(last))
        }
    }
}
