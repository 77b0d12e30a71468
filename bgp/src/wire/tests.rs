//! Every message there and back; framing; bounds.

use std::net::IpAddr;

use crate::{Family, PerFamily, Prefix};

use super::*;

pub(super) const PARAMS: DecodeParams = DecodeParams {
    as4: true,
    internal: true,
    families: PerFamily::BOTH,
    add_path: PerFamily::NONE,
    extended_next_hop: true,
};
pub(super) const ENCODE: EncodeParams =
    EncodeParams { as4: true, add_path: PerFamily::NONE, extended_message: false };

pub(super) fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// All messages in `octets`, decoded.
pub(super) fn decode_all(octets: &[u8], params: &DecodeParams) -> Result<Vec<Message>, Notification> {
    let mut framer = Framer::default();
    framer.push(octets);
    let mut out = Vec::new();
    while let Some(frame) = framer.next(true)? {
        out.push(Message::decode(&frame, params)?);
    }
    Ok(out)
}

pub(super) fn decode_update(octets: &[u8], params: &DecodeParams) -> Result<Update, Notification> {
    match decode_all(octets, params)?.remove(0) {
        Message::Update(update) => Ok(update),
        other => panic!("an update was sent, not {other:?}"),
    }
}

pub(super) fn full_attributes(next_hop: &str) -> Attributes {
    Attributes {
        origin: Origin::Egp,
        as_path: AsPath(vec![Segment::Sequence(vec![65001, 4_200_000_001]), Segment::Set(vec![7, 8])]),
        next_hop: ip(next_hop).into(),
        med: Some(5),
        local_pref: Some(200),
        atomic_aggregate: true,
        aggregator: Some(Aggregator { asn: 4_200_000_002, router_id: [10, 0, 0, 9].into() }),
        communities: vec![65001 << 16 | 1, well_known::NO_EXPORT],
        extended: vec![[0, 2, 0, 1, 0, 0, 0, 9]],
        large: vec![[1, 2, 3], [1, 2, 4]],
        originator_id: Some([10, 0, 0, 1].into()),
        cluster_list: vec![[1, 1, 1, 1].into(), [0, 0, 0, 2].into()],
        opaque: vec![Opaque { code: 99, value: vec![1, 2, 3] }],
    }
}

fn there_and_back(a: &Attributes, nlri: &[Nlri], encode: &EncodeParams, decode: &DecodeParams) -> Vec<Nlri> {
    let family = nlri[0].prefix.family();
    let mut found = Vec::new();
    for message in announce(a, family, nlri, encode).unwrap() {
        let mut update = decode_update(&message, decode).unwrap();
        assert_eq!(update.problems, []);
        assert_eq!(update.reach.len(), 1);
        assert_eq!(&update.reach[0].attributes, a);
        found.append(&mut update.reach[0].nlri);
    }
    found
}

#[test]
fn every_attribute_survives() {
    let v4 = [p("10.0.0.0/8").into(), p("0.0.0.0/0").into(), p("10.1.2.3/32").into()];
    assert_eq!(there_and_back(&full_attributes("10.0.0.1"), &v4, &ENCODE, &PARAMS), v4);
    let v6 = [p("fd00::/8").into(), p("::/0").into(), p("fd00::1/128").into()];
    assert_eq!(there_and_back(&full_attributes("fd00::1"), &v6, &ENCODE, &PARAMS), v6);
}

#[test]
fn ipv6_next_hops_of_both_families_survive_with_link_local() {
    let mut a = full_attributes("2001:db8::1");
    a.next_hop.link_local = Some("fe80::1".parse().unwrap());
    for prefix in ["10.0.0.0/8", "fd00::/64"] {
        let nlri = [p(prefix).into()];
        assert_eq!(there_and_back(&a, &nlri, &ENCODE, &PARAMS), nlri);
    }
}

#[test]
fn path_identifiers_survive() {
    let encode = EncodeParams { add_path: PerFamily::BOTH, ..ENCODE };
    let decode = DecodeParams { add_path: PerFamily::BOTH, ..PARAMS };
    let nlri =
        [Nlri { prefix: p("10.0.0.0/8"), path_id: 1 }, Nlri { prefix: p("10.0.0.0/8"), path_id: u32::MAX }];
    assert_eq!(there_and_back(&full_attributes("10.0.0.1"), &nlri, &encode, &decode), nlri);
    let sent = withdraw(Family::Ipv4, &nlri, &encode);
    assert_eq!(decode_update(&sent[0], &decode).unwrap().withdrawn, nlri);
}

#[test]
fn a_speaker_of_two_octets_keeps_four_octet_numbers() {
    let encode = EncodeParams { as4: false, ..ENCODE };
    let decode = DecodeParams { as4: false, ..PARAMS };
    let nlri = [p("10.0.0.0/8").into()];
    assert_eq!(there_and_back(&full_attributes("10.0.0.1"), &nlri, &encode, &decode), nlri);
}

#[test]
fn an_old_speakers_prepend_stays_in_front_of_as4_path() {
    let mut a = full_attributes("10.0.0.1");
    a.aggregator = None;
    a.as_path = AsPath::sequence(&[4_200_000_001, 65001]);
    let encode = EncodeParams { as4: false, ..ENCODE };
    let sent = announce(&a, Family::Ipv4, &[p("10.0.0.0/8").into()], &encode).unwrap().remove(0);
    // The old speaker puts 65009 in front of AS_PATH and leaves AS4_PATH alone.
    let at = sent.windows(4).position(|w| w == [0x40, 2, 6, 2]).unwrap();
    let mut octets = sent.clone();
    octets.splice(at..at + 5, [0x40, 2, 8, 2, 3, 0xfd, 0xf1]);
    octets[17] += 2;
    octets[22] += 2;
    let update = decode_update(&octets, &DecodeParams { as4: false, ..PARAMS }).unwrap();
    assert_eq!(update.reach[0].attributes.as_path, AsPath::sequence(&[65009, 4_200_000_001, 65001]));
}

#[test]
fn many_prefixes_fill_messages_to_the_limit() {
    let nlri: Vec<Nlri> = (0..5000_u32).map(|i| Prefix::host(IpAddr::V4(i.into())).into()).collect();
    let a = full_attributes("10.0.0.1");
    for (extended_message, limit, count) in [(false, MAX_MESSAGE, 7), (true, MAX_EXTENDED, 1)] {
        let encode = EncodeParams { extended_message, ..ENCODE };
        let messages = announce(&a, Family::Ipv4, &nlri, &encode).unwrap();
        assert_eq!(messages.len(), count);
        assert!(messages.iter().all(|m| m.len() <= limit));
        assert_eq!(there_and_back(&a, &nlri, &encode, &PARAMS), nlri);
        let gone = withdraw(Family::Ipv4, &nlri, &encode);
        let back: Vec<Nlri> =
            gone.iter().flat_map(|m| decode_update(m, &PARAMS).unwrap().withdrawn).collect();
        assert_eq!(back, nlri);
    }
}

#[test]
fn attributes_that_leave_no_room_are_refused() {
    let mut a = full_attributes("10.0.0.1");
    a.communities = (0..1100).collect();
    assert_eq!(announce(&a, Family::Ipv4, &[p("10.0.0.0/8").into()], &ENCODE), Err(TooLong));
    a.as_path = AsPath::sequence(&vec![1; 40_000]);
    let encode = EncodeParams { extended_message: true, ..ENCODE };
    assert_eq!(announce(&a, Family::Ipv4, &[p("10.0.0.0/8").into()], &encode), Err(TooLong));
}

#[test]
fn end_of_rib_of_both_families() {
    for family in Family::ALL {
        let update = decode_update(&end_of_rib_marker(family), &PARAMS).unwrap();
        assert_eq!(update, Update { end_of_rib: Some(family), ..Update::default() });
    }
    let not_one = withdraw(Family::Ipv6, &[p("fd00::/8").into()], &ENCODE).remove(0);
    assert_eq!(decode_update(&not_one, &PARAMS).unwrap().end_of_rib, None);
}

fn open_with(capabilities: Vec<Capability>) -> Open {
    Open { asn: 4_200_000_000, hold_time: 90, router_id: [1, 2, 3, 4].into(), capabilities }
}

fn every_capability() -> Vec<Capability> {
    let v4 = WireFamily::from(Family::Ipv4);
    let v6 = WireFamily::from(Family::Ipv6);
    vec![
        Capability::MultiProtocol(v4),
        Capability::MultiProtocol(WireFamily { afi: 25, safi: 70 }),
        Capability::RouteRefresh,
        Capability::ExtendedNextHop(vec![NextHopFamily { afi: 1, safi: 1, next_hop_afi: 2 }]),
        Capability::ExtendedMessage,
        Capability::GracefulRestart {
            restarting: true,
            notification: true,
            time: 4095,
            families: vec![
                RestartFamily { family: v4, forwarding: true },
                RestartFamily { family: v6, forwarding: false },
            ],
        },
        Capability::FourOctetAs(4_200_000_000),
        Capability::AddPath(vec![AddPathFamily { family: v6, receive: true, send: false }]),
        Capability::EnhancedRefresh,
        Capability::LongLived(vec![LongLivedFamily { family: v4, forwarding: true, stale_time: 0xff_ffff }]),
        Capability::Unknown { code: 73, value: vec![3, b'f', b'o', b'o', 0] },
    ]
}

#[test]
fn open_survives_with_every_capability() {
    let open = open_with(every_capability());
    assert_eq!(decode_all(&encode_open(&open), &PARAMS).unwrap(), [Message::Open(open)]);
}

#[test]
fn open_with_more_than_255_octets_of_capabilities_uses_the_long_form() {
    let mut capabilities = every_capability();
    capabilities.extend((128..250).map(|code| Capability::Unknown { code, value: vec![code; 9] }));
    let open = open_with(capabilities);
    assert_eq!(decode_all(&encode_open(&open), &PARAMS).unwrap(), [Message::Open(open)]);
}

#[test]
fn open_is_refused_for_each_bad_field() {
    let good = encode_open(&open_with(vec![]));
    let cases: [(usize, &[u8], (u8, u8)); 6] = [
        (19, &[3], (2, 1)),
        (20, &[0, 0], (2, 2)),
        (22, &[0, 2], (2, 6)),
        (24, &[0, 0, 0, 0], (2, 3)),
        (28, &[9], (2, 0)),
        (18, &[6], (1, 3)),
    ];
    for (at, octets, want) in cases {
        let mut bad = good.clone();
        bad[at..at + octets.len()].copy_from_slice(octets);
        assert_eq!(decode_all(&bad, &PARAMS).unwrap_err().code.to_wire(), want, "octet {at}");
    }
}

#[test]
fn notification_and_refresh_survive() {
    let n = Notification::with_communication(Cease::Shutdown, "maintenance until 6");
    assert_eq!(decode_all(&encode_notification(&n), &PARAMS).unwrap(), [Message::Notification(n)]);
    for kind in [RefreshKind::Request, RefreshKind::Begin, RefreshKind::End] {
        let r = Refresh { kind, family: Family::Ipv6.into() };
        assert_eq!(decode_all(&encode_refresh(&r), &PARAMS).unwrap(), [Message::Refresh(r)]);
    }
    let mut odd = encode_refresh(&Refresh { kind: RefreshKind::End, family: Family::Ipv6.into() });
    odd[21] = 9;
    assert_eq!(decode_all(&odd, &PARAMS).unwrap(), [Message::Ignored]);
    odd.push(0);
    odd[17] += 1;
    assert_eq!(decode_all(&odd, &PARAMS).unwrap_err().code, Code::RefreshLength);
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let mut stream = encode_open(&open_with(every_capability()));
    stream.extend(encode_keepalive());
    stream.extend(
        announce(&full_attributes("10.0.0.1"), Family::Ipv4, &[p("10.0.0.0/8").into()], &ENCODE)
            .unwrap()
            .concat(),
    );
    let whole = decode_all(&stream, &PARAMS).unwrap();
    let mut framer = Framer::default();
    let mut got = Vec::new();
    for octet in stream {
        framer.push(&[octet]);
        while let Some(frame) = framer.next(false).unwrap() {
            got.push(Message::decode(&frame, &PARAMS).unwrap());
        }
    }
    assert_eq!(got, whole);
}

#[test]
fn header_errors_carry_what_was_wrong() {
    let with = |at: usize, octets: &[u8]| {
        let mut m = encode_keepalive();
        m[at..at + octets.len()].copy_from_slice(octets);
        decode_all(&m, &PARAMS).unwrap_err()
    };
    assert_eq!(with(3, &[0]).code, Code::Header(HeaderError::NotSynchronized));
    assert_eq!(with(16, &[0, 18]), Notification::with_data(HeaderError::BadLength, &[0, 18]));
    assert_eq!(with(16, &[0, 20]), Notification::with_data(HeaderError::BadLength, &[0, 20]));
    assert_eq!(with(18, &[0]), Notification::with_data(HeaderError::BadType, &[0]));
}

#[test]
fn a_long_message_needs_the_capability() {
    let mut framer = Framer::default();
    let long = message(Kind::Update, |out| out.resize(5000, 0));
    framer.push(&long);
    assert_eq!(framer.next(false).unwrap_err().code, Code::Header(HeaderError::BadLength));
    assert!(framer.next(true).unwrap().is_some());
    framer.push(&message(Kind::Open, |out| out.resize(5000, 0)));
    assert_eq!(framer.next(true).unwrap_err().code, Code::Header(HeaderError::BadLength));
}
