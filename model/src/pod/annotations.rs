//! What pods and namespaces ask for in annotations (reference 1.10; modern data model 4.2).

use super::{Namespace, Pod};
use crate::ip::{self, Family};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

const POOLS: [(Family, &str); 2] =
    [(Family::V4, "cni.projectcalico.org/ipv4pools"), (Family::V6, "cni.projectcalico.org/ipv6pools")];
const ADDRESSES: &str = "cni.projectcalico.org/ipAddrs";
const ADDRESSES_NO_IPAM: &str = "cni.projectcalico.org/ipAddrsNoIpam";
const FLOATING: &str = "cni.projectcalico.org/floatingIPs";
const FAMILIES: &str = "cni.projectcalico.org/ipFamilies";
const MAC: &str = "cni.projectcalico.org/hwAddr";
const SOURCE_PREFIXES: &str = "cni.projectcalico.org/allowedSourcePrefixes";

/// Most items of one annotation.
const MAX_ITEMS: usize = 1000;

/// What a pod asks for; empty or `None` where it does not ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Pools by CIDR or name, in order.
    pub ipv4_pools: Vec<String>,
    pub ipv6_pools: Vec<String>,
    /// Exactly these, from their pools: at most one of a family.
    pub addresses: Vec<IpAddr>,
    /// Exactly these, whoever else has them: at most one of a family.
    pub addresses_no_ipam: Vec<IpAddr>,
    pub floating: Vec<IpAddr>,
    /// Families to assign, in place of the configuration's (Calico 3.30).
    pub families: Vec<Family>,
    /// The interface's Ethernet address, as it was written.
    pub mac: Option<String>,
    /// Networks that the pod may send from beside its addresses.
    pub source_prefixes: Vec<IpNet>,
}

impl Wishes {
    pub fn pools(&self, family: Family) -> &[String] {
        match family {
            Family::V4 => &self.ipv4_pools,
            Family::V6 => &self.ipv6_pools,
        }
    }
}

/// An annotation that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation} of {subject}: {fault}")]
pub struct AnnotationError {
    pub annotation: &'static str,
    /// `pod default/web` or `namespace default`.
    pub subject: String,
    pub fault: Fault,
}

/// What is wrong with an annotation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("is no JSON list of strings: {0}")]
    NotAList(String),
    #[error("is specified but empty")]
    Empty,
    #[error("has more than {MAX_ITEMS} items")]
    TooMany,
    #[error("has more than one {0} address")]
    Several(Family),
    #[error("has {0:?}, which is no IP address")]
    Address(String),
    #[error("has {0:?}, which is no network")]
    Network(String),
    #[error("has {0:?}; use IPv4 and IPv6")]
    Family(String),
    #[error("cannot be used together with {0}")]
    Together(&'static str),
}

/// Reads what a pod and its namespace ask for. A pod's pools and families replace its namespace's.
///
/// # Errors
/// The first annotation that cannot be followed.
pub fn wishes(pod: &Pod, namespace: Option<&Namespace>) -> Result<Wishes, AnnotationError> {
    let of_pod = Source { subject: format!("pod {}/{}", pod.namespace, pod.name), table: &pod.annotations };
    let of_namespace =
        namespace.map(|ns| Source { subject: format!("namespace {}", ns.name), table: &ns.annotations });
    let first = |annotation| match (of_pod.list(annotation)?, &of_namespace) {
        (Some(items), _) => Ok(items),
        (None, Some(source)) => source.list(annotation).map(Option::unwrap_or_default),
        (None, None) => Ok(Vec::new()),
    };
    let wishes = Wishes {
        ipv4_pools: first(POOLS[0].1)?,
        ipv6_pools: first(POOLS[1].1)?,
        addresses: of_pod.one_of_each(ADDRESSES)?,
        addresses_no_ipam: of_pod.one_of_each(ADDRESSES_NO_IPAM)?,
        floating: of_pod.addresses(FLOATING)?,
        families: of_pod.families(first(FAMILIES)?)?,
        mac: of_pod.text(MAC),
        source_prefixes: of_pod.networks(SOURCE_PREFIXES)?,
    };
    if !wishes.addresses.is_empty() && !wishes.addresses_no_ipam.is_empty() {
        return Err(of_pod.error(ADDRESSES, Fault::Together(ADDRESSES_NO_IPAM)));
    }
    Ok(wishes)
}

/// As [`wishes`], for a reader who shows what is there: what cannot be followed counts as absent.
pub fn wishes_leniently(pod: &Pod) -> Wishes {
    let of_pod = Source { subject: String::new(), table: &pod.annotations };
    Wishes {
        floating: of_pod.addresses(FLOATING).unwrap_or_default(),
        source_prefixes: of_pod.networks(SOURCE_PREFIXES).unwrap_or_default(),
        ..Wishes::default()
    }
}

struct Source<'a> {
    subject: String,
    table: &'a BTreeMap<String, String>,
}

impl Source<'_> {
    fn error(&self, annotation: &'static str, fault: Fault) -> AnnotationError {
        AnnotationError { annotation, subject: self.subject.clone(), fault }
    }

    fn text(&self, annotation: &str) -> Option<String> {
        self.table.get(annotation).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// A JSON list of strings; an annotation without text counts as absent.
    fn list(&self, annotation: &'static str) -> Result<Option<Vec<String>>, AnnotationError> {
        let Some(text) = self.text(annotation) else { return Ok(None) };
        let items: Vec<String> = serde_json::from_str(&text)
            .map_err(|e| self.error(annotation, Fault::NotAList(clip(&e.to_string()))))?;
        match items.len() {
            0 => Err(self.error(annotation, Fault::Empty)),
            n if n > MAX_ITEMS => Err(self.error(annotation, Fault::TooMany)),
            _ => Ok(Some(items)),
        }
    }

    fn addresses(&self, annotation: &'static str) -> Result<Vec<IpAddr>, AnnotationError> {
        let parse = |text: String| {
            ip::parse_ip(&text).map_err(|_| self.error(annotation, Fault::Address(clip(&text))))
        };
        self.list(annotation)?.unwrap_or_default().into_iter().map(parse).collect()
    }

    fn one_of_each(&self, annotation: &'static str) -> Result<Vec<IpAddr>, AnnotationError> {
        let ips = self.addresses(annotation)?;
        let several = |family: &Family| ips.iter().filter(|ip| Family::of(**ip) == *family).count() > 1;
        match Family::BOTH.into_iter().find(several) {
            Some(family) => Err(self.error(annotation, Fault::Several(family))),
            None => Ok(ips),
        }
    }

    fn networks(&self, annotation: &'static str) -> Result<Vec<IpNet>, AnnotationError> {
        let parse = |text: String| {
            ip::parse_net_or_ip(&text).map_err(|_| self.error(annotation, Fault::Network(clip(&text))))
        };
        self.list(annotation)?.unwrap_or_default().into_iter().map(parse).collect()
    }

    fn families(&self, items: Vec<String>) -> Result<Vec<Family>, AnnotationError> {
        let mut families = Vec::new();
        for item in items {
            let family = Family::BOTH.into_iter().find(|family| family.to_string() == item);
            let family = family.ok_or_else(|| self.error(FAMILIES, Fault::Family(clip(&item))))?;
            if !families.contains(&family) {
                families.push(family);
            }
        }
        Ok(families)
    }
}

fn clip(text: &str) -> String {
    text.chars().take(100).collect()
}
