//! The `ipam` object: Calico's keys, Percale's pools, host-local's ranges.

use super::is_own;
use super::ranges::{RangeSet, Source, read_range, read_sources, sets_overlap};
use super::runtime::Runtime;
use crate::fields::{At, Fields};
use crate::result::{Route, read_route};
use ipnet::IpNet;
use std::path::PathBuf;
use std::time::Duration;

/// Longest reuse delay: thirty days.
const MAX_REUSE_DELAY: u64 = 30 * 24 * 3600;

/// Which addresses a network gives, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipam {
    /// `type`: file name of the IPAM plugin; empty where there is none. For one that is neither
    /// ours nor host-local only this and `routes` are read.
    pub plugin: String,
    /// Asked for in so many words; see [`Ipam::families`].
    pub assign_ipv4: Option<bool>,
    pub assign_ipv6: Option<bool>,
    /// Existing pools to take from, in order; empty means all.
    pub ipv4_pools: Vec<PoolRef>,
    pub ipv6_pools: Vec<PoolRef>,
    /// Pools that the configuration brings along (embedded store only).
    pub pools: Vec<PoolSpec>,
    /// host-local's ranges, those of the runtime first. Each set gives one address.
    pub ranges: Vec<RangeSet>,
    /// A subnet is `usePodCidr` or `usePodCidrIPv6`: it must be replaced in the raw configuration, and that read anew.
    pub use_pod_cidr: bool,
    pub routes: Vec<Route>,
    /// resolv.conf to take the result's `dns` from.
    pub resolv_conf: Option<PathBuf>,
    /// host-local's directory to import from.
    pub data_dir: Option<PathBuf>,
    /// Least time before a released address is given again, unless nothing else is free.
    pub reuse_delay: Duration,
    /// Give a name the address it had before, if it is free.
    pub sticky: bool,
    /// Blocks of one family that this host may have, beside the stored limit.
    pub max_blocks_per_host: Option<u32>,
    /// The object has `pools`, `ranges` or `subnet`, usable or not: the embedded store is meant.
    pub brings_addresses: bool,
}

/// Families to assign an address of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

/// An existing pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolRef {
    Cidr(IpNet),
    Name(String),
}

/// A pool to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// The key `name`, else made of the CIDR: `10-91-0-0-16`.
    pub name: String,
    /// Host bits are cleared.
    pub cidr: IpNet,
    /// 20 to 32 or 116 to 128, not shorter than the CIDR's prefix.
    pub block_size: u8,
    pub nat_outgoing: bool,
}

impl Ipam {
    /// Reads `ipam` and joins the runtime's ranges to it.
    pub(super) fn read(top: &Fields<'_>, runtime: &Runtime) -> Self {
        let Some(at) = top.at("ipam") else { return Self::default() };
        let Some(fields) = at.fields() else { return Self::default() };
        let plugin = fields.text("type");
        if !is_own(&plugin) && plugin != "host-local" {
            return Self { plugin, routes: fields.list("routes", read_route), ..Self::default() };
        }
        let ipam = Self { plugin, ..Self::read_own(&fields, runtime) };
        fields.finish();
        ipam
    }

    fn read_own(fields: &Fields<'_>, runtime: &Runtime) -> Self {
        fields.skip(&["name"]);
        let keys = ["pools", "ranges", "subnet"];
        let brings_addresses = keys.iter().any(|key| fields.at(key).is_some());
        let (ranges, use_pod_cidr) = read_ranges(fields, runtime);
        let ipam = Self {
            plugin: String::new(),
            assign_ipv4: fields.get("assign_ipv4", read_switch),
            assign_ipv6: fields.get("assign_ipv6", read_switch),
            ipv4_pools: fields.list("ipv4_pools", |at| PoolRef::read(at, true)),
            ipv6_pools: fields.list("ipv6_pools", |at| PoolRef::read(at, false)),
            pools: read_pools(fields),
            ranges,
            use_pod_cidr,
            routes: fields.list("routes", read_route),
            resolv_conf: fields.file("resolvConf"),
            data_dir: fields.file("dataDir"),
            reuse_delay: read_reuse_delay(fields),
            sticky: fields.flag("sticky"),
            max_blocks_per_host: fields.get("max_blocks_per_host", |at| at.number_u32(0..=1 << 20)),
            brings_addresses,
        };
        if !ipam.pools.is_empty() && !ipam.ranges.is_empty() {
            fields.problem("pools", "pools, or host-local's ranges and subnet", "both");
        }
        ipam
    }

    /// The families to assign: what is asked for in so many words, else those of the listed pools
    /// or ranges, else Calico's default, IPv4 alone.
    pub fn families(&self) -> Families {
        let pools = self.pools.iter().map(|pool| pool.cidr);
        let ranges = self.ranges.iter().flatten().map(|range| range.subnet);
        let listed: Vec<bool> = pools.chain(ranges).map(|net| net.addr().is_ipv4()).collect();
        let implied = |v4: bool| if listed.is_empty() { v4 } else { listed.contains(&v4) };
        Families {
            v4: self.assign_ipv4.unwrap_or_else(|| implied(true)),
            v6: self.assign_ipv6.unwrap_or_else(|| implied(false)),
        }
    }

    /// True if our own IPAM is meant, which is called as a library.
    pub fn is_own(&self) -> bool {
        matches!(self.plugin.as_str(), "percale-ipam" | "calico-ipam")
    }
}

fn read_reuse_delay(fields: &Fields<'_>) -> Duration {
    let delay = fields.get("reuse_delay", |at| at.number(0..=MAX_REUSE_DELAY));
    Duration::from_secs(delay.unwrap_or_default())
}

/// Calico has texts here; booleans are taken too.
fn read_switch(at: &At<'_>) -> Option<bool> {
    match at.value.as_str() {
        Some("") => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => at.value.as_bool().or_else(|| at.wrong("\"true\" or \"false\"")),
    }
}

/// host-local's order: the runtime's ranges, the plain keys, `ranges`.
fn read_ranges(fields: &Fields<'_>, runtime: &Runtime) -> (Vec<RangeSet>, bool) {
    let mut sets = runtime.ip_ranges.clone();
    let (plain, mut pod_cidr) = read_plain_range(fields);
    sets.extend(plain);
    for (set, has_pod_cidr) in fields.list("ranges", read_sources) {
        pod_cidr |= has_pod_cidr;
        sets.extend((!set.is_empty()).then_some(set));
    }
    for (i, set) in sets.iter().enumerate() {
        if sets[..i].iter().any(|earlier| sets_overlap(earlier, set)) {
            fields.problem("ranges", "sets of ranges that do not overlap", &set[0].subnet.to_string());
        }
    }
    (sets, pod_cidr)
}

/// The range that `subnet` and its companions describe right in `ipam`.
fn read_plain_range(fields: &Fields<'_>) -> (Option<RangeSet>, bool) {
    if fields.at("subnet").is_none_or(|at| at.value.as_str() == Some("")) {
        // Without a subnet host-local takes no notice of the other three.
        fields.skip(&["rangeStart", "rangeEnd", "gateway"]);
        return (None, false);
    }
    match read_range(fields) {
        Some(Source::Range(range)) => (Some(vec![range]), false),
        Some(Source::PodCidr) => (None, true),
        None => (None, false),
    }
}

fn read_pools(fields: &Fields<'_>) -> Vec<PoolSpec> {
    let items = fields.get("pools", At::items).unwrap_or_default();
    let mut pools: Vec<PoolSpec> = Vec::new();
    for at in &items {
        let Some(pool) = at.object(PoolSpec::read).flatten() else { continue };
        match pools.iter().find(|other| other.conflicts(&pool)) {
            Some(other) => {
                let found = format!("{} {}", pool.name, pool.cidr);
                let _none: Option<()> =
                    at.wrong_because(&format!("a pool apart from {} {}", other.name, other.cidr), &found);
            }
            None => pools.push(pool),
        }
    }
    pools
}

impl PoolSpec {
    fn read(fields: &Fields<'_>) -> Option<Self> {
        let Some(at) = fields.at("cidr") else {
            fields.problem("cidr", "an IP network such as 10.0.0.0/16 or fd00::/64", "nothing");
            return None;
        };
        let name = fields.get("name", read_pool_name);
        let nat_outgoing = fields.flag("natOutgoing");
        let block_size = fields.get("blockSize", |at| at.number(0..=255));
        let written = at.network()?;
        let cidr = written.trunc();
        if cidr != written {
            at.doubtful("host bits of the pool are cleared");
        }
        let block_size = Self::check_block_size(fields, &cidr, block_size)?;
        let name = name.unwrap_or_else(|| pool_name(&cidr));
        Some(Self { name, cidr, block_size, nat_outgoing })
    }

    /// Calico's limits and defaults, for a pool that has room for a block.
    fn check_block_size(fields: &Fields<'_>, cidr: &IpNet, asked: Option<u64>) -> Option<u8> {
        let (least, most, default) = if cidr.addr().is_ipv4() { (20, 32, 26) } else { (116, 128, 122) };
        let least = least.max(cidr.prefix_len());
        let size = asked.map_or(default, |size| u8::try_from(size).unwrap_or(u8::MAX));
        if (least..=most).contains(&size) {
            return Some(size);
        }
        let found = if asked.is_some() { size.to_string() } else { format!("nothing, which means {size}") };
        fields.problem("blockSize", &format!("a prefix length from {least} to {most} for {cidr}"), &found);
        None
    }

    fn conflicts(&self, other: &Self) -> bool {
        let overlap = self.cidr.contains(&other.cidr) || other.cidr.contains(&self.cidr);
        overlap || self.name == other.name
    }
}

/// A CIDR as the name of a resource.
fn pool_name(cidr: &IpNet) -> String {
    let name = cidr.to_string().replace(['.', ':', '/'], "-");
    // Names start with a letter or digit: ::/0 would not.
    if name.starts_with('-') { format!("0{name}") } else { name }
}

/// RFC 1123 subdomain: the form of resource names.
fn is_resource_name(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    text.len() <= 253 && edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inner)
}

fn read_pool_name(at: &At<'_>) -> Option<String> {
    let name = |text: &str| is_resource_name(text).then(|| text.to_owned());
    at.str_that("a resource name of lower-case letters, digits, '-' and '.'", name)
}

impl PoolRef {
    fn read(at: &At<'_>, v4: bool) -> Option<Self> {
        let family = if v4 { "IPv4" } else { "IPv6" };
        let expected = format!("an {family} network or the name of a pool");
        at.str_that(&expected, |text| match crate::addr::parse_net(text) {
            Ok(net) if net.addr().is_ipv4() == v4 => Some(Self::Cidr(net.trunc())),
            Ok(_) => None,
            Err(_) if is_resource_name(text) => Some(Self::Name(text.to_owned())),
            Err(_) => None,
        })
    }
}
