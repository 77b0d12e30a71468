//! Errors as they are printed.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use cni_protocol::{CniError, Code, Version};
use serde_json::json;

#[test]
fn codes_are_the_specifications_and_ours_start_at_100() {
    let numbers: Vec<u32> = Code::ALL.iter().map(|code| code.number()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 11, 50, 51, 100, 101, 102, 103, 104, 105, 106, 107]);
    let readme = include_str!("../README.md");
    for own in numbers.into_iter().filter(|number| *number >= 100) {
        assert!(readme.contains(&format!("| {own} |")), "{own} has no line in README.md");
    }
}

#[test]
fn each_constructor_has_its_code() {
    type Make = fn(&'static str) -> CniError;
    let cases: [(Make, u32); 11] = [
        (CniError::incompatible_version, 1),
        (CniError::unsupported_field, 2),
        (CniError::unknown_container, 3),
        (CniError::environment, 4),
        (CniError::io, 5),
        (CniError::decode, 6),
        (CniError::config, 7),
        (CniError::try_again, 11),
        (CniError::not_available, 50),
        (CniError::limited_connectivity, 51),
        (CniError::internal, 100),
    ];
    for (make, number) in cases {
        let json = make("do this").to_json(Version::V0_4_0);
        assert_eq!(json, json!({"cniVersion": "0.4.0", "code": number, "msg": "do this"}));
    }
}

#[test]
fn a_message_is_one_line_of_bounded_length() {
    let error = CniError::io(format!("line one\nline two\r\n\u{1b}[31m{}", "é".repeat(5000)));
    assert!(!error.msg.contains(char::is_control));
    assert!(error.msg.len() <= 1030, "{}", error.msg.len());
    let error = error.with_details("x".repeat(100_000));
    assert!(error.details.unwrap().len() < 9000);
}

#[test]
fn details_hold_the_chain_of_causes() {
    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("reading /x")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let cause = Outer("x".parse::<i32>().unwrap_err());
    let json = CniError::io("cannot read /x; check its mode").caused_by(&cause).to_json(Version::NEWEST);
    assert_eq!(json["details"], "reading /x: invalid digit found in string");
}

#[test]
fn the_error_of_a_delegate_is_passed_on() {
    let printed =
        json!({"cniVersion": "1.0.0", "code": 999, "msg": "no IP ranges specified", "details": "d"});
    let error = CniError::from_json(&printed).unwrap();
    assert_eq!(error.code, Code::Other(999));
    assert_eq!(error.to_json(Version::V1_0_0), printed);
    let busy = CniError::from_json(&json!({"code": 11, "msg": "later"})).unwrap();
    assert_eq!((busy.code, busy.details), (Code::TryAgain, None));
    let theirs = CniError::from_json(&json!({"code": 101, "msg": "theirs"})).unwrap();
    assert_eq!(theirs.code, Code::Other(101), "their 101 is not ours");
    for not_one in [json!({}), json!([]), json!({"code": "x"}), json!({"ips": []})] {
        assert_eq!(CniError::from_json(&not_one), None);
    }
}
