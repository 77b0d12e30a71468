//! Kubernetes services that are told to peers (reference 4.8).

use bgp::{Family, PerFamily, Prefix};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What advertisement needs of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    pub load_balancer_ips: Vec<IpAddr>,
    /// External traffic goes to endpoints of the node it came to only.
    pub local: bool,
}

/// What advertisement needs of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// `NAMESPACE/NAME`.
    pub service: String,
    /// It has a ready endpoint on this node, by family.
    pub ready_here: PerFamily<bool>,
}

impl Service {
    /// Of a Service's JSON. `None` if it is of a type that is never told, or headless.
    pub fn parse(object: &Value) -> Option<Service> {
        let spec = &object["spec"];
        let kind = spec["type"].as_str().unwrap_or("ClusterIP");
        if !["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind) {
            return None;
        }
        let mut cluster_ips = addresses(&spec["clusterIPs"]);
        if cluster_ips.is_empty() {
            cluster_ips = spec["clusterIP"].as_str().and_then(|t| t.parse().ok()).into_iter().collect();
        }
        if cluster_ips.is_empty() {
            return None;
        }
        let ingress = object["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
        Some(Service {
            cluster_ips,
            external_ips: addresses(&spec["externalIPs"]),
            load_balancer_ips: ingress.filter_map(|i| i["ip"].as_str()?.parse().ok()).collect(),
            local: spec["externalTrafficPolicy"] == "Local",
        })
    }
}

fn addresses(list: &Value) -> Vec<IpAddr> {
    let texts = list.as_array().into_iter().flatten();
    texts.filter_map(|text| text.as_str()?.parse().ok()).collect()
}

impl Slice {
    /// Of an EndpointSlice's JSON; `None` if it belongs to no service.
    pub fn parse(object: &Value, node: &str) -> Option<Slice> {
        let metadata = &object["metadata"];
        let name = metadata["labels"]["kubernetes.io/service-name"].as_str()?;
        let service = format!("{}/{name}", metadata["namespace"].as_str()?);
        let mut endpoints = object["endpoints"].as_array().into_iter().flatten();
        // Absent counts as ready (Kubernetes' EndpointConditions).
        let here =
            endpoints.any(|e| e["nodeName"] == node && e["conditions"]["ready"].as_bool().unwrap_or(true));
        let family = object["addressType"].as_str();
        let ready_here = PerFamily { v4: here && family == Some("IPv4"), v6: here && family == Some("IPv6") };
        Some(Slice { service, ready_here })
    }
}

/// The configured ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    pub cluster: Vec<Prefix>,
    pub external: Vec<Prefix>,
    pub load_balancer: Vec<Prefix>,
    /// Load-balancer ranges are told as a whole.
    pub aggregate: bool,
}

impl Ranges {
    pub fn all(&self) -> impl Iterator<Item = Prefix> + '_ {
        [&self.cluster, &self.external, &self.load_balancer].into_iter().flatten().copied()
    }

    /// What every node tells.
    pub fn whole(&self) -> impl Iterator<Item = Prefix> + '_ {
        let balancer = if self.aggregate { &self.load_balancer[..] } else { &[] };
        self.cluster.iter().chain(&self.external).chain(balancer).copied()
    }
}

/// Services and their endpoints, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    pub services: BTreeMap<String, Service>,
    pub slices: BTreeMap<String, Slice>,
}

impl Services {
    /// Addresses that this node tells one by one.
    pub fn hosts(&self, ranges: &Ranges) -> Vec<Prefix> {
        let ready = self.ready();
        let here = |name: &String| ready.get(name.as_str()).copied().unwrap_or(PerFamily::NONE);
        self.services.iter().flat_map(|(name, s)| s.hosts(ranges, here(name))).collect()
    }

    /// One service may have several slices.
    fn ready(&self) -> BTreeMap<&str, PerFamily<bool>> {
        let mut ready: BTreeMap<&str, PerFamily<bool>> = BTreeMap::new();
        for slice in self.slices.values() {
            let has = ready.entry(&slice.service).or_insert(PerFamily::NONE);
            *has = PerFamily::from_fn(|f| has[f] || slice.ready_here[f]);
        }
        ready
    }
}

impl Service {
    fn hosts(&self, ranges: &Ranges, ready: PerFamily<bool>) -> Vec<Prefix> {
        let mut hosts = Vec::new();
        if self.local {
            let has_range = |f: Family| ranges.cluster.iter().any(|range| range.family() == f);
            hosts.extend(self.cluster_ips.iter().filter(|ip| has_range(Family::of(**ip))));
            hosts.extend(self.external_ips.iter().filter(|ip| within(&ranges.external, **ip)));
        }
        if self.local || !ranges.aggregate {
            hosts.extend(self.load_balancer_ips.iter().filter(|ip| within(&ranges.load_balancer, **ip)));
        }
        let told = |ip: &&IpAddr| !self.local || ready[Family::of(**ip)];
        hosts.iter().filter(told).map(|ip| Prefix::host(*ip)).collect()
    }
}

fn within(ranges: &[Prefix], ip: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(ip))
}
