//! Which resource, and which name in it, a key stands for.

use crate::error::Failure;
use crate::name;
use model::Scope;
use model::endpoint::{self, parse_name};
use model::keys::{self, Key};

/// How an object's JSON corresponds to the value under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Block,
    Affinity,
    Handle,
    Config,
    /// `projectcalico.org/v3` on one side, `crd.projectcalico.org/v1` on the other.
    Resource,
    /// Of ours: key and value as they are.
    Record,
    /// A pod as Calico's workload endpoint; written through the pod's status.
    Endpoint,
    /// A Kubernetes node as Calico's node; its annotations are written.
    Node,
    /// Kubernetes' own, as it is; read only.
    Native,
}

impl Shape {
    /// Whether deletion is announced in the object first (reference 3.3).
    pub fn announces_deletion(self) -> bool {
        matches!(self, Shape::Block | Shape::Affinity | Shape::Handle)
    }

    /// Not worth remembering: a node changes with every sign of life.
    pub fn is_fleeting(self) -> bool {
        matches!(self, Shape::Node | Shape::Native)
    }
}

/// A resource of the API, and the keys that it holds.
#[derive(Debug)]
pub(crate) struct Kind {
    pub shape: Shape,
    pub kind: &'static str,
    pub plural: &'static str,
    /// Group and version.
    pub api: &'static str,
    /// Beginnings of the keys.
    roots: &'static [&'static str],
    namespaced: bool,
}

const CALICO: &str = "crd.projectcalico.org/v1";
const PODS: &str = "/kubernetes/pods/";
const NAMESPACES: &str = "/kubernetes/namespaces/";

const fn calico(
    shape: Shape,
    kind: &'static str,
    plural: &'static str,
    roots: &'static [&'static str],
) -> Kind {
    Kind { shape, kind, plural, api: CALICO, roots, namespaced: false }
}

const fn resources(kind: &'static str, plural: &'static str, roots: &'static [&'static str]) -> Kind {
    calico(Shape::Resource, kind, plural, roots)
}

const fn in_namespaces(kind: &'static str, plural: &'static str, roots: &'static [&'static str]) -> Kind {
    Kind { namespaced: true, ..resources(kind, plural, roots) }
}

const fn native(
    shape: Shape,
    kind: &'static str,
    plural: &'static str,
    roots: &'static [&'static str],
    namespaced: bool,
) -> Kind {
    Kind { shape, kind, plural, api: "v1", roots, namespaced }
}

static KINDS: [Kind; 27] = [
    calico(Shape::Block, "IPAMBlock", "ipamblocks", &["/calico/ipam/v2/assignment/"]),
    calico(
        Shape::Affinity,
        "BlockAffinity",
        "blockaffinities",
        &["/calico/ipam/v2/host/", "/calico/ipam/v2/virtual/"],
    ),
    calico(Shape::Handle, "IPAMHandle", "ipamhandles", &["/calico/ipam/v2/handle/"]),
    calico(Shape::Config, "IPAMConfig", "ipamconfigs", &["/calico/ipam/v2/config"]),
    calico(Shape::Resource, "IPPool", "ippools", &["/calico/resources/v3/projectcalico.org/ippools/"]),
    calico(
        Shape::Resource,
        "IPReservation",
        "ipreservations",
        &["/calico/resources/v3/projectcalico.org/ipreservations/"],
    ),
    calico(
        Shape::Resource,
        "ClusterInformation",
        "clusterinformations",
        &["/calico/resources/v3/projectcalico.org/clusterinformations/"],
    ),
    resources(
        "BGPConfiguration",
        "bgpconfigurations",
        &["/calico/resources/v3/projectcalico.org/bgpconfigurations/"],
    ),
    resources("BGPPeer", "bgppeers", &["/calico/resources/v3/projectcalico.org/bgppeers/"]),
    resources("BGPFilter", "bgpfilters", &["/calico/resources/v3/projectcalico.org/bgpfilters/"]),
    resources(
        "CalicoNodeStatus",
        "caliconodestatuses",
        &["/calico/resources/v3/projectcalico.org/caliconodestatuses/"],
    ),
    resources(
        "FelixConfiguration",
        "felixconfigurations",
        &["/calico/resources/v3/projectcalico.org/felixconfigurations/"],
    ),
    resources(
        "KubeControllersConfiguration",
        "kubecontrollersconfigurations",
        &["/calico/resources/v3/projectcalico.org/kubecontrollersconfigurations/"],
    ),
    resources("HostEndpoint", "hostendpoints", &["/calico/resources/v3/projectcalico.org/hostendpoints/"]),
    resources(
        "GlobalNetworkSet",
        "globalnetworksets",
        &["/calico/resources/v3/projectcalico.org/globalnetworksets/"],
    ),
    resources(
        "GlobalNetworkPolicy",
        "globalnetworkpolicies",
        &["/calico/resources/v3/projectcalico.org/globalnetworkpolicies/"],
    ),
    in_namespaces("NetworkSet", "networksets", &["/calico/resources/v3/projectcalico.org/networksets/"]),
    in_namespaces(
        "NetworkPolicy",
        "networkpolicies",
        &["/calico/resources/v3/projectcalico.org/networkpolicies/"],
    ),
    Kind {
        shape: Shape::Record,
        kind: "PercaleRecord",
        plural: "percalerecords",
        api: "percale.io/v1",
        roots: &["/percale/"],
        namespaced: false,
    },
    native(Shape::Node, "Node", "nodes", &["/calico/resources/v3/projectcalico.org/nodes/"], false),
    native(
        Shape::Endpoint,
        "Pod",
        "pods",
        &["/calico/resources/v3/projectcalico.org/workloadendpoints/"],
        true,
    ),
    native(Shape::Native, "Namespace", "namespaces", &[NAMESPACES], false),
    native(Shape::Native, "Pod", "pods", &[PODS], true),
    native(Shape::Native, "Service", "services", &["/kubernetes/services/"], true),
    native(Shape::Native, "ServiceAccount", "serviceaccounts", &["/kubernetes/serviceaccounts/"], true),
    native(Shape::Native, "Secret", "secrets", &["/kubernetes/secrets/"], true),
    Kind {
        shape: Shape::Native,
        kind: "EndpointSlice",
        plural: "endpointslices",
        api: "discovery.k8s.io/v1",
        roots: &["/kubernetes/endpointslices/"],
        namespaced: true,
    },
];

/// An object by its place in the API.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub kind: &'static Kind,
    pub key: String,
    pub name: String,
    pub namespace: Option<String>,
    /// False: Kubernetes takes no such name, so no such object exists.
    pub legal: bool,
}

impl Place {
    pub fn path(&self) -> String {
        format!("{}/{}", self.kind.collection(self.namespace.as_deref()), self.name)
    }
}

impl Kind {
    /// The path of all objects, or of those in a namespace.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.api.contains('/') { "apis" } else { "api" };
        match namespace {
            Some(namespace) => format!("/{root}/{}/namespaces/{namespace}/{}", self.api, self.plural),
            None => format!("/{root}/{}/{}", self.api, self.plural),
        }
    }

    /// Whether a cluster may do without: reservations came with Calico 3.22, records are ours.
    pub fn is_optional(&self) -> bool {
        matches!(self.kind, "IPReservation" | "PercaleRecord")
    }

    fn of(key: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|kind| kind.roots.iter().any(|root| key.starts_with(root)))
    }

    /// The key of a resource or of something of Kubernetes' own.
    pub fn key_of_name(&self, namespace: Option<&str>, name: &str) -> String {
        match namespace {
            Some(namespace) => format!("{}{namespace}/{name}", self.roots[0]),
            None => format!("{}{name}", self.roots[0]),
        }
    }

    /// Whether a prefix asks for some of its keys.
    fn meets(&self, prefix: &str) -> bool {
        self.roots.iter().any(|root| root.starts_with(prefix) || prefix.starts_with(root))
    }
}

/// Where a key's object is.
///
/// # Errors
/// `Invalid`: this store has no place for such a key.
pub(crate) fn place(key: &str) -> Result<Place, Failure> {
    let nowhere = || Failure::invalid(format!("the key {key:?} has no place in Kubernetes"));
    let kind = Kind::of(key).ok_or_else(nowhere)?;
    let (namespace, name) = names(kind, key).ok_or_else(nowhere)?;
    let legal = name::is_legal(&name) && namespace.as_deref().is_none_or(name::is_legal);
    Ok(Place { kind, key: key.to_owned(), name, namespace, legal })
}

fn names(kind: &Kind, key: &str) -> Option<(Option<String>, String)> {
    if kind.namespaced {
        let (namespace, name) = key.strip_prefix(kind.roots[0])?.split_once('/')?;
        if kind.shape == Shape::Endpoint {
            let [_, orchestrator, pod, _] = parse_name(name)?;
            return (orchestrator == endpoint::KUBERNETES).then(|| (Some(namespace.to_owned()), pod));
        }
        return Some((Some(namespace.to_owned()), name.to_owned()));
    }
    let name = match (kind.shape, keys::parse(key)) {
        (Shape::Record, _) => name::record(key),
        (Shape::Native, _) => key.strip_prefix(kind.roots[0])?.to_owned(),
        (_, Some(Key::Block { scope: Scope::Cluster, cidr })) => keys::cidr_name(&cidr),
        (_, Some(Key::Affinity { scope: Scope::Cluster, name, cidr, .. })) => name::affinity(&name, &cidr),
        (_, Some(Key::Handle { scope: Scope::Cluster, id })) => id.to_lowercase(),
        (_, Some(Key::IpamConfig { scope: Scope::Cluster })) => "default".to_owned(),
        (_, Some(Key::Resource { name, .. })) => name,
        _ => return None,
    };
    Some((None, name))
}

/// What must be listed to find the keys of a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub kind: &'static Kind,
    pub namespace: Option<String>,
    /// A label selector that leaves out what cannot have the prefix.
    pub selector: Option<String>,
    /// The only object that is wanted.
    pub name: Option<String>,
}

impl Source {
    pub fn path(&self) -> String {
        self.kind.collection(self.namespace.as_deref())
    }

    /// What follows in the query of a list or watch.
    pub fn selectors(&self) -> String {
        let label = self.selector.as_ref().map(|s| format!("&labelSelector={}", keys::escape(s)));
        let name = self
            .name
            .as_ref()
            .map(|n| format!("&fieldSelector={}", keys::escape(&format!("metadata.name={n}"))));
        [label, name].into_iter().flatten().collect()
    }
}

/// The one object of a key.
///
/// # Errors
/// As [`place`].
pub(crate) fn source_of_key(key: &str) -> Result<Source, Failure> {
    let place = place(key)?;
    Ok(Source { kind: place.kind, namespace: place.namespace, selector: None, name: Some(place.name) })
}

/// # Errors
/// `Invalid`: no key of this store has the prefix.
pub(crate) fn sources(prefix: &str) -> Result<Vec<Source>, Failure> {
    let kinds = KINDS.iter().filter(|kind| kind.meets(prefix));
    let sources: Vec<Source> = kinds.map(|kind| source(kind, prefix)).collect();
    match sources.is_empty() {
        true => Err(Failure::invalid(format!("keys under {prefix:?} have no place in Kubernetes"))),
        false => Ok(sources),
    }
}

/// As [`sources`], for one look. The affinities of a host are found by its label, and first those
/// of older releases, which have none: one that gets its label in between is seen twice.
pub(crate) fn sources_once(prefix: &str) -> Result<Vec<Source>, Failure> {
    let mut sources = sources(prefix)?;
    if let (Some(host), [source]) = (host_of(prefix), sources.as_slice()) {
        let label = format!("{HOST_LABEL}={}", name::host_hash(host));
        let select = |selector| Source { selector: Some(selector), ..source.clone() };
        sources = vec![select(format!("!{HOST_LABEL}")), select(label)];
    }
    Ok(sources)
}

/// The host whose affinities a prefix is for.
fn host_of(prefix: &str) -> Option<&str> {
    let roots = ["/calico/ipam/v2/host/", "/calico/ipam/v2/virtual/"];
    let rest = roots.iter().find_map(|root| prefix.strip_prefix(root))?;
    rest.split_once('/').map(|(host, _)| host)
}

/// By this Calico 3.31 and newer find the affinities of a host (modern data model 2.1).
pub(crate) const HOST_LABEL: &str = "projectcalico.org/hostname-hash";

fn source(kind: &'static Kind, prefix: &str) -> Source {
    let rest = prefix.strip_prefix(kind.roots[0]).filter(|_| kind.namespaced);
    let namespace = rest.and_then(|rest| rest.split_once('/')).map(|(namespace, _)| namespace.to_owned());
    let namespace = namespace.filter(|namespace| name::is_legal(namespace));
    let network = network_label(prefix).filter(|_| kind.shape == Shape::Record);
    let selector = network.map(|label| format!("{NETWORK_LABEL}={label}"));
    Source { kind, namespace, selector, name: None }
}

/// Tells records of one network from others.
pub(crate) const NETWORK_LABEL: &str = "percale.io/network";

/// The label's value for a record of a network, or for a prefix within one.
pub(crate) fn network_label(key: &str) -> Option<String> {
    let (network, _) = key.strip_prefix(keys::networks())?.split_once('/')?;
    Some(name::short_hash(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_places() {
        let cases = [
            (
                "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26",
                "/apis/crd.projectcalico.org/v1/ipamblocks/10-0-0-0-26",
            ),
            (
                "/calico/ipam/v2/host/node1/ipv6/block/fd00::-122",
                "/apis/crd.projectcalico.org/v1/blockaffinities/node1-fd00---122",
            ),
            ("/calico/ipam/v2/handle/net.ABC", "/apis/crd.projectcalico.org/v1/ipamhandles/net.abc"),
            ("/calico/ipam/v2/config", "/apis/crd.projectcalico.org/v1/ipamconfigs/default"),
            ("/calico/resources/v3/projectcalico.org/ippools/p", "/apis/crd.projectcalico.org/v1/ippools/p"),
            ("/calico/resources/v3/projectcalico.org/nodes/n", "/api/v1/nodes/n"),
            ("/kubernetes/pods/default/web-0", "/api/v1/namespaces/default/pods/web-0"),
            (
                "/calico/resources/v3/projectcalico.org/workloadendpoints/default/node--1-k8s-web--0-eth0",
                "/api/v1/namespaces/default/pods/web-0",
            ),
        ];
        for (key, path) in cases {
            let place = place(key).unwrap();
            assert_eq!((place.path().as_str(), place.legal), (path, true));
        }
        let record = place("/percale/ipam/sticky/a").unwrap();
        assert!(record.path().starts_with("/apis/percale.io/v1/percalerecords/r-") && record.legal);
    }

    #[test]
    fn names_that_kubernetes_refuses_are_known_before() {
        for key in
            ["/calico/ipam/v2/handle/a_b", "/calico/ipam/v2/handle/a\r\neth0", "/kubernetes/pods/a/../b"]
        {
            assert!(!place(key).unwrap().legal, "{key:?}");
        }
    }

    #[test]
    fn other_keys_have_none() {
        for key in [
            "",
            "/",
            "/calico",
            "/calico/ipam/v2/assignment/ipv4/block/10.0.0.1-26",
            "/calico/v1/x",
            "/kubernetes/pods/a",
            "/calico/resources/v3/projectcalico.org/workloadendpoints/default/node-cni-c1-eth0",
        ] {
            assert_eq!(place(key).unwrap_err().kind, datastore::ErrorKind::Invalid, "{key:?}");
        }
    }

    #[test]
    fn prefixes_name_what_is_listed() {
        let plurals =
            |prefix: &str| sources(prefix).unwrap().iter().map(|s| s.kind.plural).collect::<Vec<_>>();
        assert_eq!(plurals("/calico/ipam/v2/assignment/ipv4/block/"), ["ipamblocks"]);
        assert_eq!(plurals("/calico/ipam/v2/h"), ["blockaffinities", "ipamhandles"]);
        assert_eq!(plurals("").len(), KINDS.len());
        assert!(sources("/nowhere/").is_err());
        assert_eq!(sources("/kubernetes/pods/ns/a").unwrap()[0].path(), "/api/v1/namespaces/ns/pods");
        let network = sources("/percale/networks/n/ipam/").unwrap().remove(0);
        assert_eq!(network.selector, Some(format!("{NETWORK_LABEL}={}", name::short_hash("n"))));
        assert_eq!(sources("/percale/networks/n").unwrap()[0].selector, None);
        let selectors = |prefix: &str| -> Vec<Option<String>> {
            sources_once(prefix).unwrap().into_iter().map(|source| source.selector).collect()
        };
        let label = format!("{HOST_LABEL}={}", name::host_hash("n"));
        let node = source_of_key("/calico/resources/v3/projectcalico.org/nodes/n1").unwrap();
        assert_eq!(
            (node.path().as_str(), node.selectors().as_str()),
            ("/api/v1/nodes", "&fieldSelector=metadata.name%3Dn1")
        );
        let both = [Some(format!("!{HOST_LABEL}")), Some(label)];
        assert_eq!(selectors("/calico/ipam/v2/host/n/ipv4/block/"), both);
        assert_eq!(selectors("/calico/ipam/v2/host/n"), [None]);
    }
}
