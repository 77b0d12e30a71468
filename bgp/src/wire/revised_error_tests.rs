//! RFC 7606, one malformation at a time: what stays, what is withdrawn, what ends the session.

use crate::{Family, PerFamily};

use super::tests::{PARAMS, decode_update, p};
use super::*;

const EXTERNAL: DecodeParams = DecodeParams { internal: false, ..PARAMS };
const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 10, 0, 0, 1];
const NLRI: &[u8] = &[8, 10];

fn update(attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
    let field = attributes.concat();
    message(Kind::Update, |out| {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(field.len() as u16).to_be_bytes());
        out.extend_from_slice(&field);
        out.extend_from_slice(nlri);
    })
}

/// What a good UPDATE with one more attribute comes to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Kept,
    Discarded,
    Withdrawn,
    Reset(u8, u8),
}
use Outcome::*;

fn outcome(attributes: &[&[u8]], params: &DecodeParams) -> Outcome {
    match decode_update(&update(attributes, NLRI), params) {
        Err(n) => Reset(n.code.to_wire().0, n.code.to_wire().1),
        Ok(u) if u.reach.is_empty() => {
            assert_eq!(u.withdrawn, [p("10.0.0.0/8").into()]);
            assert!(u.problems.iter().any(|p| p.action == Action::Withdraw));
            Withdrawn
        }
        Ok(u) if u.problems.is_empty() => Kept,
        Ok(_) => Discarded,
    }
}

#[test]
fn each_attribute_by_the_table() {
    let internal: &[(&str, &[u8], Outcome)] = &[
        ("med of three octets", &[0x80, 4, 3, 0, 0, 1], Withdrawn),
        ("med as well-known", &[0x40, 4, 4, 0, 0, 0, 1], Withdrawn),
        ("local pref of no octets", &[0x40, 5, 0], Withdrawn),
        ("local pref", &[0x40, 5, 4, 0, 0, 0, 1], Kept),
        ("atomic aggregate with a value", &[0x40, 6, 1, 0], Discarded),
        ("aggregator of six octets", &[0xc0, 7, 6, 0, 1, 1, 1, 1, 1], Discarded),
        ("aggregator of as 0", &[0xc0, 7, 8, 0, 0, 0, 0, 1, 1, 1, 1], Discarded),
        ("communities of five octets", &[0xc0, 8, 5, 0, 0, 0, 0, 0], Withdrawn),
        ("no communities", &[0xc0, 8, 0], Withdrawn),
        ("originator of five octets", &[0x80, 9, 5, 1, 1, 1, 1, 1], Withdrawn),
        ("empty cluster list", &[0x80, 10, 0], Withdrawn),
        ("extended communities of seven octets", &[0xc0, 16, 7, 0, 0, 0, 0, 0, 0, 0], Withdrawn),
        ("large communities of four octets", &[0xc0, 32, 4, 0, 0, 0, 0], Withdrawn),
        ("as4 path from a new speaker", &[0xc0, 17, 6, 2, 1, 0, 0, 0, 1], Discarded),
        ("second origin", ORIGIN, Discarded),
        ("unknown transitive", &[0xc0, 99, 1, 7], Kept),
        ("unknown not transitive", &[0x80, 99, 1, 7], Kept),
        ("unknown well-known", &[0x40, 99, 1, 7], Reset(3, 2)),
        ("overrun of the field", &[0x80, 4, 9, 0], Withdrawn),
        ("half a header", &[0x80], Withdrawn),
        ("multiprotocol of an unknown family", &[0x80, 14, 5, 0, 25, 70, 0, 0], Discarded),
        ("multiprotocol without next hop length", &[0x80, 14, 3, 0, 2, 1], Reset(3, 9)),
        ("multiprotocol next hop of 5 octets", &[0x80, 14, 10, 0, 2, 1, 5, 1, 1, 1, 1, 1, 0], Reset(3, 9)),
        ("unreach with a prefix of 129 bits", &[0x80, 15, 4, 0, 2, 1, 129], Reset(3, 9)),
    ];
    for (name, octets, want) in internal {
        assert_eq!(outcome(&[ORIGIN, AS_PATH, NEXT_HOP, octets], &PARAMS), *want, "{name}");
    }
    for code in [5, 9, 10] {
        let flags = if code == 5 { 0x40 } else { 0x80 };
        let octets = [flags, code, 1, 1];
        assert_eq!(outcome(&[ORIGIN, AS_PATH, NEXT_HOP, &octets], &EXTERNAL), Discarded, "external {code}");
    }
}

#[test]
fn malformed_mandatory_attributes_withdraw() {
    let paths: &[&[u8]] = &[
        &[0x40, 2, 3, 2, 1, 0],
        &[0x40, 2, 2, 2, 0],
        &[0x40, 2, 6, 3, 1, 0, 0, 0xfd, 0xe9],
        &[0x40, 2, 6, 9, 1, 0, 0, 0xfd, 0xe9],
        &[0x40, 2, 6, 2, 1, 0, 0, 0, 0],
        &[0x40, 2, 7, 2, 1, 0, 0, 0xfd, 0xe9, 2],
    ];
    for path in paths {
        assert_eq!(outcome(&[ORIGIN, path, NEXT_HOP], &PARAMS), Withdrawn, "{path:?}");
    }
    for origin in [&[0x40, 1, 1, 3][..], &[0x40, 1, 0], &[0x40, 1, 2, 0, 0], &[0xc0, 1, 1, 0]] {
        assert_eq!(outcome(&[origin, AS_PATH, NEXT_HOP], &PARAMS), Withdrawn, "{origin:?}");
    }
    for hop in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
        let octets = [&[0x40, 3, 4][..], &hop].concat();
        assert_eq!(outcome(&[ORIGIN, AS_PATH, &octets], &PARAMS), Withdrawn, "{hop:?}");
    }
}

#[test]
fn missing_mandatory_attributes_withdraw() {
    assert_eq!(outcome(&[AS_PATH, NEXT_HOP], &PARAMS), Withdrawn);
    assert_eq!(outcome(&[ORIGIN, NEXT_HOP], &PARAMS), Withdrawn);
    assert_eq!(outcome(&[ORIGIN, AS_PATH], &PARAMS), Withdrawn);
    assert_eq!(outcome(&[ORIGIN, AS_PATH, NEXT_HOP], &PARAMS), Kept);
}

#[test]
fn a_second_multiprotocol_attribute_ends_the_session() {
    let unreach: &[u8] = &[0x80, 15, 3, 0, 2, 1];
    assert_eq!(outcome(&[ORIGIN, AS_PATH, NEXT_HOP, unreach, unreach], &PARAMS), Reset(3, 1));
}

#[test]
fn nlri_that_cannot_be_read_ends_the_session() {
    for nlri in [&[33, 1, 1, 1, 1, 1][..], &[24, 10, 0], &[8, 10, 8]] {
        let error = decode_update(&update(&[ORIGIN, AS_PATH, NEXT_HOP], nlri), &PARAMS).unwrap_err();
        assert_eq!(error.code, Code::Update(UpdateError::NetworkField), "{nlri:?}");
    }
}

#[test]
fn field_lengths_that_do_not_add_up_end_the_session() {
    for body in [&[0, 9, 0, 0][..], &[0, 0, 0, 9], &[0, 0, 0, 1]] {
        let octets = message(Kind::Update, |out| out.extend_from_slice(body));
        let error = decode_update(&octets, &PARAMS).unwrap_err();
        assert_eq!(error.code, Code::Update(UpdateError::MalformedList), "{body:?}");
    }
}

#[test]
fn wrong_flags_on_mp_reach_withdraw_its_routes() {
    let hop = [0xfd; 16];
    let reach = [&[0xc0, 14, 23, 0, 2, 1, 16][..], &hop, &[0, 8, 0xfd]].concat();
    let found = decode_update(&update(&[ORIGIN, AS_PATH, &reach], &[]), &PARAMS).unwrap();
    assert_eq!(found.withdrawn, [p("fd00::/8").into()]);
    assert!(found.reach.is_empty());
}

#[test]
fn routes_of_a_family_that_was_not_agreed_on_are_ignored() {
    let v6_only = DecodeParams { families: PerFamily { v4: false, v6: true }, ..PARAMS };
    let found = decode_update(&update(&[ORIGIN, AS_PATH, NEXT_HOP], NLRI), &v6_only).unwrap();
    assert_eq!((found.reach.len(), found.withdrawn.len()), (0, 0));
    assert_eq!(found.end_of_rib, None);
}

#[test]
fn ipv6_next_hop_for_ipv4_needs_the_capability() {
    let mut a = Attributes::local("fd00::1".parse().unwrap());
    a.as_path = AsPath::sequence(&[1]);
    let encode = super::tests::ENCODE;
    let sent = announce(&a, Family::Ipv4, &[p("10.0.0.0/8").into()], &encode).unwrap().remove(0);
    assert_eq!(decode_update(&sent, &PARAMS).unwrap().reach.len(), 1);
    let without = DecodeParams { extended_next_hop: false, ..PARAMS };
    assert_eq!(
        decode_update(&sent, &without).unwrap_err().code,
        Code::Update(UpdateError::OptionalAttribute)
    );
}
