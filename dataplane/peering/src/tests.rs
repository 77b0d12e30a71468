//! From stored objects to the wish, as Calico's reference has it.

use crate::{Cluster, Encapsulation, Identity, PeerKey, PeerKind, Refusal, Secret, Way, Wish};
use bgp::Prefix;
use bgp::policy::{Origination, Policy, Route, Verdict};
use bgp::wire::Attributes;
use model::bgp::SecretKey;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

struct Bed(Cluster);

impl Bed {
    fn new() -> Self {
        let me = Identity { node: "node1".into(), kubernetes_node: "node1".into(), ..Identity::default() };
        let mut bed = Bed(Cluster::new(me));
        for n in 1..=3 {
            bed.node(n, json!({}), json!({}));
        }
        bed
    }

    fn put(&mut self, plural: &str, name: &str, mut metadata: Value, spec: Value) {
        metadata["name"] = name.into();
        let key = model::keys::resource(plural, name);
        self.0.put(&key, json!({"metadata": metadata, "spec": spec}).to_string().as_bytes());
    }

    fn node(&mut self, n: u8, labels: Value, bgp: Value) {
        let mut own =
            json!({"ipv4Address": format!("10.0.0.{n}/24"), "ipv6Address": format!("fd00::{n}/64")});
        for (name, value) in bgp.as_object().unwrap() {
            own[name] = value.clone();
        }
        self.put("nodes", &format!("node{n}"), json!({"labels": labels}), json!({"bgp": own}));
    }

    fn config(&mut self, spec: Value) {
        self.put("bgpconfigurations", "default", json!({}), spec);
    }

    fn peer(&mut self, name: &str, spec: Value) {
        self.put("bgppeers", name, json!({}), spec);
    }

    fn wish(&self) -> Wish {
        self.0.wish().unwrap()
    }

    fn peers(&self) -> Vec<String> {
        let name = |(key, p): (&PeerKey, &crate::PeerWish)| {
            format!("{key} {} {:?}", p.kind.as_str(), p.session.peer_as)
        };
        self.wish().peers.iter().map(name).collect()
    }
}

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn at(ip: &str) -> PeerKey {
    PeerKey::At(ip.parse().unwrap(), 179)
}

fn judge(policy: &Policy, net: &str, origination: Origination) -> (Verdict, Attributes) {
    let mut a = Attributes::local([192, 0, 2, 1].into());
    let judged = policy.judge(&Route { prefix: p(net), attributes: &a, origination });
    policy.apply(&judged, &mut a);
    (judged.verdict, a)
}

#[test]
fn the_mesh_joins_all_and_the_greater_address_connects() {
    let mut bed = Bed::new();
    bed.node(10, json!({}), json!({"asNumber": 65010}));
    let wish = bed.wish();
    assert_eq!(wish.peers.len(), 6);
    assert!(wish.peers.values().all(|p| p.kind == PeerKind::Mesh && p.session.local_as == 64512));
    // As text: "10.0.0.10" > "10.0.0.1".
    assert!(wish.peers[&at("10.0.0.10")].session.passive);
    assert_eq!(wish.peers[&at("10.0.0.10")].session.peer_as, Some(65010));
    assert_eq!(wish.peers[&at("10.0.0.2")].source, Some("10.0.0.1".parse().unwrap()));
    bed.config(json!({"nodeToNodeMeshEnabled": false}));
    assert_eq!(bed.peers(), Vec::<String>::new());
}

#[test]
fn a_reflector_leaves_the_mesh_on_both_sides() {
    let mut bed = Bed::new();
    bed.node(2, json!({"rr": "yes"}), json!({"routeReflectorClusterID": "1.0.0.1"}));
    assert_eq!(bed.peers(), ["10.0.0.3 NodeMesh Some(64512)", "fd00::3 NodeMesh Some(64512)"]);
    bed.config(json!({"nodeToNodeMeshEnabled": false}));
    bed.peer("to-reflectors", json!({"nodeSelector": "!has(rr)", "peerSelector": "has(rr)"}));
    assert_eq!(bed.peers(), ["10.0.0.2 NodePeer Some(64512)", "fd00::2 NodePeer Some(64512)"]);
    // The other side of the same resource.
    bed.node(1, json!({"rr": "yes"}), json!({"routeReflectorClusterID": "1.0.0.1"}));
    bed.node(2, json!({}), json!({}));
    let wish = bed.wish();
    assert_eq!(wish.peers.len(), 4);
    assert!(wish.peers.values().all(|p| p.options.client));
}

#[test]
fn the_first_peering_with_an_address_counts_and_global_ones_are_first() {
    let mut bed = Bed::new();
    bed.config(json!({"nodeToNodeMeshEnabled": false, "listenPort": 1790}));
    bed.peer("z-global", json!({"peerIP": "192.0.2.1", "asNumber": 65001, "keepOriginalNextHop": true}));
    bed.peer("a-own", json!({"node": "node1", "peerIP": "192.0.2.1", "asNumber": 65002}));
    bed.peer("b-other", json!({"node": "node2", "peerIP": "192.0.2.9", "asNumber": 65002}));
    bed.peer("port", json!({"node": "node1", "peerIP": "192.0.2.1:1179", "asNumber": 65003}));
    // A node's address takes that node's port; this node itself is never a peer.
    bed.peer("node", json!({"peerIP": "10.0.0.3", "asNumber": 64512}));
    bed.peer("self", json!({"peerIP": "10.0.0.1", "asNumber": 64512}));
    bed.peer("self-too", json!({"peerIP": "10.0.0.1:1179", "asNumber": 65009}));
    let wish = bed.wish();
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    assert_eq!(wish.port, 1790);
    assert_eq!(wish.peers[&at("192.0.2.1")].session.peer_as, Some(65001));
    assert!(wish.peers[&at("192.0.2.1")].options.keep_next_hop);
    assert_eq!(wish.peers[&PeerKey::At(ip("192.0.2.1"), 1179)].session.peer_as, Some(65003));
    assert!(wish.peers.contains_key(&PeerKey::At(ip("10.0.0.3"), 1790)));
    assert!(
        !wish
            .peers
            .keys()
            .any(|k| matches!(k, PeerKey::At(a, _) if *a == ip("192.0.2.9") || *a == ip("10.0.0.1")))
    );
}

#[test]
fn sessions_carry_what_the_peer_says() {
    let mut bed = Bed::new();
    bed.config(json!({"nodeToNodeMeshEnabled": false}));
    bed.put(
        "bgppeers",
        "tor",
        json!({"annotations": {"percale.io/bfd": "interval=50ms,multiplier=5,hops=2"}}),
        json!({"peerIP": "192.0.2.1", "asNumber": 65001, "localASNumber": 65099, "maxRestartTime": "2m30s", "ttlSecurity": 1,
               "sourceAddress": "None", "reachableBy": "10.0.0.254", "numAllowedLocalASNumbers": 2, "nextHopMode": "Keep",
               "password": {"secretKeyRef": {"name": "bgp", "key": "tor"}}}),
    );
    let key = SecretKey { name: "bgp".into(), key: "tor".into() };
    assert_eq!(bed.0.secrets_wanted(), BTreeSet::from([key.clone()]));
    assert!(bed.wish().problems["bgppeers/tor"].contains("password"));
    bed.0.set_secret(key, Ok(Secret("s3cret".into())));
    let wish = bed.wish();
    let tor = &wish.peers[&at("192.0.2.1")];
    assert_eq!((tor.session.local_as, tor.session.restart.unwrap().time), (65099, 150));
    assert_eq!((tor.ttl_security, tor.source, tor.options.allowed_own_as), (Some(1), None, 2));
    assert_eq!(tor.reachable_by, Some("10.0.0.254".parse().unwrap()));
    let bfd = tor.bfd.unwrap();
    assert_eq!((bfd.interval, bfd.multiplier, bfd.hops), (Duration::from_millis(50), 5, Some(2)));
    assert!(tor.options.keep_next_hop && tor.password == Some(Secret("s3cret".into())));
    assert!(!format!("{wish:?}").contains("s3cret"), "passwords are never shown");
    assert!(wish.problems.is_empty(), "{:?}", wish.problems);
}

#[test]
fn a_range_lets_anybody_in() {
    let mut bed = Bed::new();
    bed.config(json!({"nodeToNodeMeshEnabled": false}));
    bed.put("bgppeers", "any", json!({"annotations": {"percale.io/peer-range": "192.0.2.0/24"}}), json!({}));
    let wish = bed.wish();
    let peer = &wish.peers[&PeerKey::Range(p("192.0.2.0/24"))];
    assert!(peer.session.passive && peer.session.peer_as.is_none());
}

#[test]
fn blocks_are_told_whole_and_small_ones_too() {
    let mut bed = Bed::new();
    bed.put("ippools", "p", json!({}), json!({"cidr": "10.91.0.0/16", "ipipMode": "CrossSubnet"}));
    bed.put(
        "ippools",
        "quiet",
        json!({}),
        json!({"cidr": "10.92.0.0/16", "disableBGPExport": true, "vxlanMode": "Always"}),
    );
    for (cidr, state) in
        [("10.91.1.0-26", "confirmed"), ("10.91.2.0-26", "pending"), ("10.91.3.7-32", "confirmed")]
    {
        bed.0.put(
            &format!("/calico/ipam/v2/host/node1/ipv4/block/{cidr}"),
            json!({"state": state}).to_string().as_bytes(),
        );
    }
    let wish = bed.wish();
    assert_eq!(wish.originate, [p("10.91.1.0/26"), p("10.91.2.0/26"), p("10.91.3.7/32")].into());
    let admits = |net: &str| wish.host_routes.admits(&p(net));
    assert!(admits("10.91.9.1/32"), "borrowed");
    assert!(admits("10.91.2.1/32"), "its block is not confirmed");
    assert!(!admits("10.91.1.5/32"), "its block stands for it");
    assert!(!admits("192.0.2.1/32"), "of no pool");
    let export = &wish.peers[&at("10.0.0.2")].options.export;
    let verdict = |net: &str, from| judge(export, net, from).0;
    assert_eq!(verdict("10.91.1.0/26", Origination::Local), Verdict::Accept);
    assert_eq!(verdict("10.91.77.0/26", Origination::Internal), Verdict::Accept);
    assert_eq!(verdict("10.92.1.0/26", Origination::Local), Verdict::Reject);
    assert_eq!(verdict("0.0.0.0/0", Origination::External), Verdict::Reject);
    // What peers tell of these pools.
    let way = |net: &str, hop: &str| wish.kernel.way(&p(net), hop.parse().unwrap());
    assert_eq!(way("10.91.77.0/26", "10.0.0.7"), Way::Plain);
    assert_eq!(way("10.91.77.0/26", "10.0.1.7"), Way::Tunnel);
    assert_eq!(way("10.92.77.0/26", "10.0.0.7"), Way::Refuse(Refusal::Vxlan));
    assert_eq!(way("0.0.0.0/0", "10.0.0.7"), Way::Plain);
    assert!(wish.kernel.pools.contains(&(p("10.92.0.0/16"), Encapsulation::Vxlan)));
}

fn service(bed: &mut Bed, policy: &str, ready: bool) {
    let object = json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.9"], "externalIPs": ["192.0.2.9", "198.51.100.9"],
        "externalTrafficPolicy": policy}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}, {"hostname": "x"}]}}});
    bed.0.put("/kubernetes/services/ns/s", object.to_string().as_bytes());
    let slice = json!({"metadata": {"namespace": "ns", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
        "endpoints": [{"nodeName": "node2"}, {"nodeName": "node1", "conditions": {"ready": ready}}]});
    bed.0.put("/kubernetes/endpointslices/ns/s-1", slice.to_string().as_bytes());
}

#[test]
fn services_are_told_whole_and_local_ones_where_they_are_ready() {
    let mut bed = Bed::new();
    bed.config(json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}], "serviceExternalIPs": [{"cidr": "192.0.2.0/24"}],
        "serviceLoadBalancerIPs": [{"cidr": "203.0.113.0/24"}]}));
    let whole = BTreeSet::from([p("10.96.0.0/12"), p("192.0.2.0/24"), p("203.0.113.0/24")]);
    service(&mut bed, "Cluster", true);
    assert_eq!(bed.wish().originate, whole);
    service(&mut bed, "Local", false);
    assert_eq!(bed.wish().originate, whole, "not ready");
    service(&mut bed, "Local", true);
    let hosts = [p("10.96.0.9/32"), p("192.0.2.9/32"), p("203.0.113.9/32")];
    assert_eq!(bed.wish().originate, whole.iter().copied().chain(hosts).collect());
    assert_eq!(
        bed.wish().kernel.way(&p("10.96.0.9/32"), "10.0.0.2".parse().unwrap()),
        Way::Refuse(Refusal::Service)
    );
    bed.node(1, json!({"node.kubernetes.io/exclude-from-external-load-balancers": "true"}), json!({}));
    assert_eq!(bed.wish().originate, BTreeSet::new());
    assert!(matches!(bed.wish().kernel.way(&p("10.96.0.9/32"), "10.0.0.2".parse().unwrap()), Way::Refuse(_)));
    bed.node(1, json!({}), json!({}));
    bed.0.delete("/kubernetes/endpointslices/ns/s-1");
    assert_eq!(bed.wish().originate, whole);
}

#[test]
fn communities_and_filters_mark_and_refuse() {
    let mut bed = Bed::new();
    bed.config(json!({"nodeToNodeMeshEnabled": false, "communities": [{"name": "blue", "value": "65000:7"}],
        "prefixAdvertisements": [{"cidr": "10.91.0.0/16", "communities": ["blue", "1:2:3", "unknown"]}]}));
    bed.put("ippools", "p", json!({}), json!({"cidr": "10.91.0.0/16"}));
    bed.put("bgpfilters", "f", json!({}), json!({
        "exportV4": [{"cidr": "10.91.5.0/24", "matchOperator": "In", "prefixLength": {"min": 26, "max": 26}, "action": "Reject"},
                     {"cidr": "10.91.6.0/24", "matchOperator": "Equal", "peerType": "iBGP", "action": "Reject"}],
        "importV4": [{"cidr": "0.0.0.0/0", "matchOperator": "Equal", "action": "Accept",
                      "operations": [{"addCommunity": {"value": "65000:9"}}, {"prependASPath": {"prefix": [65001, 65002]}}]},
                     {"action": "Reject"}]}));
    bed.peer("tor", json!({"peerIP": "192.0.2.1", "asNumber": 65001, "filters": ["f"]}));
    let wish = bed.wish();
    let options = &wish.peers[&at("192.0.2.1")].options;
    let export = |net: &str| judge(&options.export, net, Origination::Local);
    let (verdict, a) = export("10.91.1.0/26");
    assert_eq!((verdict, a.communities, a.large), (Verdict::Accept, vec![65000 << 16 | 7], vec![[1, 2, 3]]));
    assert_eq!(export("10.91.5.64/26").0, Verdict::Reject);
    assert_eq!(export("10.91.5.64/32").0, Verdict::Accept);
    assert_eq!(export("10.91.6.0/24").0, Verdict::Accept, "the rule is for internal peers");
    let (verdict, a) = judge(&options.import, "0.0.0.0/0", Origination::External);
    assert_eq!(
        (verdict, a.communities, a.as_path.to_string()),
        (Verdict::Accept, vec![65000 << 16 | 9], "65001 65002".into())
    );
    assert_eq!(judge(&options.import, "198.51.100.0/24", Origination::External).0, Verdict::Reject);
    // A filter that cannot be carried out lets nothing through, and says so.
    bed.peer("tor", json!({"peerIP": "192.0.2.1", "asNumber": 65001, "filters": ["f", "missing"]}));
    let wish = bed.wish();
    assert!(wish.problems["bgppeers/tor"].contains("missing"));
    assert_eq!(
        judge(&wish.peers[&at("192.0.2.1")].options.export, "10.91.1.0/26", Origination::Local).0,
        Verdict::Reject
    );
}

#[test]
fn a_drained_node_tells_nothing_and_hears_all() {
    let mut bed = Bed::new();
    bed.0.set_drained(true);
    let wish = bed.wish();
    let options = &wish.peers[&at("10.0.0.2")].options;
    assert_eq!(judge(&options.export, "10.91.1.0/26", Origination::Local).0, Verdict::Reject);
    assert_eq!(judge(&options.import, "10.91.1.0/26", Origination::Internal).0, Verdict::Accept);
}

#[test]
fn what_cannot_be_read_counts_as_absent_and_is_named() {
    let mut bed = Bed::new();
    bed.peer("bad", json!({"peerIP": "nowhere"}));
    bed.peer("selector", json!({"nodeSelector": "((", "peerIP": "192.0.2.1"}));
    let wish = bed.wish();
    assert!(wish.problems["bgppeers/bad"].contains("spec.peerIP"), "{:?}", wish.problems);
    assert!(wish.problems["bgppeers/selector"].contains("selector"));
    bed.peer("bad", json!({"peerIP": "192.0.2.7", "asNumber": 1}));
    assert!(!bed.wish().problems.contains_key("bgppeers/bad"));
    assert!(bed.wish().peers.contains_key(&at("192.0.2.7")));
}

#[test]
fn what_has_no_effect_is_named() {
    let mut bed = Bed::new();
    bed.config(json!({"programClusterRoutes": "Disabled", "ignoredInterfaces": ["eth7"], "localWorkloadPeeringIPV4": "",
        "prefixAdvertisements": [{"cidr": "10.91.0.0/16", "communities": ["unknown"]}]}));
    bed.put(
        "bgpconfigurations",
        "node.node1",
        json!({}),
        json!({"bindMode": "NodeIP", "logSeverityScreen": "Debug"}),
    );
    bed.put("bgpconfigurations", "node.node2", json!({}), json!({"asNumber": 1}));
    bed.put("bgpconfigurations", "other", json!({}), json!({}));
    bed.peer("tor", json!({"peerIP": "192.0.2.1", "asNumber": 1, "phase": "full"}));
    let wish = bed.wish();
    let named: Vec<&str> = wish.problems.values().map(String::as_str).collect();
    assert_eq!(wish.problems.len(), 4, "{named:?}");
    for (object, word) in [
        ("bgpconfigurations/default", "spec.programClusterRoutes has"),
        ("bgpconfigurations/node.node1", "spec.bindMode counts in"),
        ("bgpconfigurations/other", "neither"),
        ("bgppeers/tor", "spec.phase has"),
    ] {
        assert!(wish.problems[object].contains(word), "{named:?}");
    }
    assert_eq!(wish.log_level.as_deref(), Some("Debug"));
    assert!(wish.listen_on.is_empty() && wish.peers.contains_key(&at("192.0.2.1")));
    bed.config(json!({"prefixAdvertisements": [{"cidr": "10.91.0.0/16", "communities": ["unknown"]}]}));
    assert!(bed.wish().problems["bgpconfigurations/default"].contains("unknown"));
}

#[test]
fn a_list_told_anew_removes_what_it_does_not_name() {
    let mut bed = Bed::new();
    bed.peer("a", json!({"peerIP": "192.0.2.1"}));
    bed.peer("b", json!({"peerIP": "192.0.2.2"}));
    let named = BTreeSet::from([model::keys::resource("bgppeers", "b")]);
    bed.0.forget(&model::keys::resources("bgppeers"), &named);
    let wish = bed.wish();
    assert!(!wish.peers.contains_key(&at("192.0.2.1")) && wish.peers.contains_key(&at("192.0.2.2")));
    assert!(wish.peers.contains_key(&at("10.0.0.2")), "other kinds are not concerned");
}

#[test]
fn the_router_id_is_the_nodes_address_or_its_hash() {
    let me = |rule: &str| Identity { node: "node1".into(), router_id: rule.into(), ..Identity::default() };
    let id = |rule: &str, bgp: Value| {
        let mut bed = Bed(Cluster::new(me(rule)));
        bed.put("nodes", "node1", json!({}), json!({"bgp": bgp}));
        bed.wish().rib.router_id.to_string()
    };
    assert_eq!(id("", json!({"ipv4Address": "10.0.0.1/24"})), "10.0.0.1");
    assert_eq!(id("1.2.3.4", json!({"ipv4Address": "10.0.0.1/24"})), "1.2.3.4");
    let hashed = id("hash", json!({"ipv4Address": "10.0.0.1/24"}));
    assert_eq!(hashed, id("", json!({"ipv6Address": "fd00::1/64"})));
    assert_ne!(hashed, "10.0.0.1");
}
