//! A second codec, written by others, must read what we write and agree on what it means.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rustbgpd_wire as other;

use crate::{Family, Prefix};

use super::tests::{ENCODE, PARAMS, decode_all, decode_update};
use super::*;

fn prefix(family: Family) -> impl Strategy<Value = Prefix> {
    (any::<[u8; 16]>(), 0..=family.max_len())
        .prop_map(move |(bits, len)| Prefix::from_bits(family, bits, len).unwrap())
}

fn nlri() -> impl Strategy<Value = Vec<Nlri>> {
    let of = |family| vec(prefix(family).prop_map(Nlri::from), 1..20);
    prop_oneof![of(Family::Ipv4), of(Family::Ipv6)]
}

/// Sequences only: the other codec refuses sets (RFC 9774), which BIRD and we still take.
fn as_path() -> impl Strategy<Value = AsPath> {
    vec(vec(1_u32.., 1..6).prop_map(Segment::Sequence), 0..4).prop_map(AsPath)
}

fn next_hop() -> impl Strategy<Value = std::net::IpAddr> {
    prop_oneof![
        (1..127_u8).prop_map(|a| [a, 2, 3, 4].into()),
        (1..0xfe_u16).prop_map(|a| [a, 0, 0, 0, 0, 0, 0, 1].into())
    ]
}

fn sorted<T: Ord + std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    vec(item, 0..70).prop_map(|mut list| {
        list.sort();
        list.dedup();
        list
    })
}

prop_compose! {
    fn attributes()(
        as_path in as_path(),
        hop in next_hop(),
        med in option::of(any::<u32>()),
        local_pref in option::of(any::<u32>()),
        atomic_aggregate in any::<bool>(),
        aggregator in option::of((1_u32.., any::<[u8; 4]>())),
        communities in sorted(any::<u32>()),
        large in sorted(any::<[u32; 3]>()),
        originator in option::of(any::<[u8; 4]>()),
        clusters in vec(any::<[u8; 4]>(), 0..4),
        opaque in option::of(vec(any::<u8>(), 0..300)),
    ) -> Attributes {
        Attributes {
            origin: Origin::Igp, as_path, med, local_pref, atomic_aggregate, communities, large,
            aggregator: aggregator.map(|(asn, id)| Aggregator { asn, router_id: id.into() }),
            originator_id: originator.map(Into::into),
            cluster_list: clusters.into_iter().map(Into::into).collect(),
            opaque: opaque.into_iter().map(|value| Opaque { code: 200, value }).collect(),
            ..Attributes::empty(hop.into())
        }
    }
}

/// An IPv6 prefix cannot be announced with an IPv4 next hop.
fn route() -> impl Strategy<Value = (Attributes, Vec<Nlri>)> {
    (attributes(), nlri()).prop_filter("families must fit", |(a, n)| {
        n[0].prefix.family() == Family::Ipv4 || a.next_hop.addr.is_ipv6()
    })
}

fn parse(octets: &[u8]) -> Option<other::RevisedParsedUpdate> {
    let mut octets = Bytes::copy_from_slice(octets);
    match other::decode_message(&mut octets, 65535).ok()? {
        other::Message::Update(u) => u.parse_revised(true, true, false, &[]).ok(),
        _ => None,
    }
}

/// Prefixes announced and withdrawn, as text, in the other codec's eyes.
fn their_routes(u: &other::ParsedUpdate) -> (Vec<String>, Vec<String>) {
    let text = |p: &other::Prefix| format!("{}/{}", p.addr_string(), p.prefix_len());
    let body = |list: &[other::Ipv4NlriEntry]| {
        list.iter().map(|e| format!("{}/{}", e.prefix.addr, e.prefix.len)).collect::<Vec<_>>()
    };
    let (mut announced, mut withdrawn) = (body(&u.announced), body(&u.withdrawn));
    for attribute in &u.attributes {
        match attribute {
            other::PathAttribute::MpReachNlri(mp) => {
                announced.extend(mp.announced.iter().map(|e| text(&e.prefix)))
            }
            other::PathAttribute::MpUnreachNlri(mp) => {
                withdrawn.extend(mp.withdrawn.iter().map(|e| text(&e.prefix)))
            }
            _ => {}
        }
    }
    announced.sort();
    withdrawn.sort();
    (announced, withdrawn)
}

fn our_routes(u: &Update) -> (Vec<String>, Vec<String>) {
    let text = |list: &mut dyn Iterator<Item = &Nlri>| {
        let mut list: Vec<String> = list.map(|n| n.prefix.to_string()).collect();
        list.sort();
        list
    };
    (text(&mut u.reach.iter().flat_map(|r| &r.nlri)), text(&mut u.withdrawn.iter()))
}

fn check_attribute(ours: &Attributes, theirs: &other::PathAttribute) {
    use other::PathAttribute as P;
    match theirs {
        P::Origin(o) => assert_eq!(*o, other::Origin::Igp),
        P::AsPath(path) => {
            assert_eq!(path.segments, ours.as_path.0.iter().map(their_segment).collect::<Vec<_>>())
        }
        P::NextHop(hop) => assert_eq!(std::net::IpAddr::V4(*hop), ours.next_hop.addr),
        P::Med(v) => assert_eq!(Some(*v), ours.med),
        P::LocalPref(v) => assert_eq!(Some(*v), ours.local_pref),
        P::AtomicAggregate => assert!(ours.atomic_aggregate),
        P::Aggregator(g) => {
            assert_eq!(Some(Aggregator { asn: g.asn, router_id: g.router_id }), ours.aggregator)
        }
        P::Communities(list) => assert_eq!(*list, ours.communities),
        P::LargeCommunities(list) => {
            let list: Vec<_> = list.iter().map(|c| [c.global_admin, c.local_data1, c.local_data2]).collect();
            assert_eq!(list, ours.large);
        }
        P::OriginatorId(id) => assert_eq!(Some(*id), ours.originator_id),
        P::ClusterList(list) => assert_eq!(*list, ours.cluster_list),
        P::MpReachNlri(mp) => assert_eq!(mp.next_hop, ours.next_hop.addr),
        P::Unknown(raw) => assert_eq!(raw.data, ours.opaque[0].value),
        unexpected => panic!("we did not send {unexpected:?}"),
    }
}

fn their_segment(s: &Segment) -> other::AsPathSegment {
    match s {
        Segment::Sequence(asns) => other::AsPathSegment::AsSequence(asns.clone()),
        Segment::Set(asns) => other::AsPathSegment::AsSet(asns.clone()),
    }
}

fn cases() -> ProptestConfig {
    let cases = if std::env::var_os("PERCALE_FULL").is_some() { 20_000 } else { 300 };
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_other_codec_reads_our_updates((a, nlri) in route()) {
        let family = nlri[0].prefix.family();
        for message in announce(&a, family, &nlri, &ENCODE).unwrap() {
            let theirs = parse(&message).expect("a good message");
            prop_assert_eq!(&theirs.malformed, &vec![]);
            theirs.update.attributes.iter().for_each(|t| check_attribute(&a, t));
            prop_assert_eq!(their_routes(&theirs.update), our_routes(&decode_update(&message, &PARAMS).unwrap()));
        }
    }

    #[test]
    fn both_agree_on_garbled_updates(
        (a, nlri) in route(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut octets = announce(&a, nlri[0].prefix.family(), &nlri, &ENCODE).unwrap().remove(0);
        for (at, value) in changes {
            let at = HEADER + at.index(octets.len() - HEADER);
            octets[at] = value;
        }
        // The two may draw the line of what is malformed differently; what both find good must be the same.
        if let (Some(theirs), Ok(ours)) = (parse(&octets), decode_update(&octets, &PARAMS))
            && theirs.malformed.is_empty() && ours.problems.is_empty()
        {
            prop_assert_eq!(their_routes(&theirs.update), our_routes(&ours));
        }
    }

    #[test]
    fn any_octets_are_decoded_or_refused(kind in 1..=5_u8, body in vec(any::<u8>(), 0..400)) {
        let mut octets = message(Kind::Update, |out| out.extend_from_slice(&body));
        octets[18] = kind;
        if let Ok(messages) = decode_all(&octets, &PARAMS) {
            prop_assert!(messages.len() <= 1);
        }
    }
}

#[test]
fn the_other_codec_writes_our_open_back() {
    let open = Open {
        asn: 4_200_000_000,
        hold_time: 90,
        router_id: [1, 2, 3, 4].into(),
        capabilities: vec![
            Capability::MultiProtocol(Family::Ipv4.into()),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(vec![NextHopFamily { afi: 1, safi: 1, next_hop_afi: 2 }]),
            Capability::ExtendedMessage,
            Capability::GracefulRestart {
                restarting: true,
                notification: true,
                time: 120,
                families: vec![RestartFamily { family: Family::Ipv6.into(), forwarding: true }],
            },
            Capability::FourOctetAs(4_200_000_000),
            Capability::AddPath(vec![AddPathFamily {
                family: Family::Ipv4.into(),
                receive: true,
                send: true,
            }]),
            Capability::EnhancedRefresh,
            Capability::LongLived(vec![LongLivedFamily {
                family: Family::Ipv4.into(),
                forwarding: true,
                stale_time: 3600,
            }]),
        ],
    };
    let theirs = other::decode_message(&mut Bytes::from(encode_open(&open)), 4096).unwrap();
    let back = other::encode_message(&theirs).unwrap();
    assert_eq!(decode_all(&back, &PARAMS).unwrap(), [Message::Open(open)]);
}
